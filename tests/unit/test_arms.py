"""Donors: always another document, every memory used once a draw, drawn alike every time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.arms import check, donors, others, shuffled
from harness.episodes import Episode, History, Message, Question
from harness.errors import HarnessError


def episode(n, root=None, answer=None):
    asked = (Question(f"q{n}", "?", (answer or f"a{n}",)),)
    return Episode(f"e{n}", History((Message("x"),)), asked, root or f"r{n}", "generated")


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 12), draws=st.integers(1, 3), seed=st.integers(0, 5))
def test_each_draw_is_a_derangement_over_roots(n, draws, seed):
    episodes = [episode(k, root=f"r{k // 2}" if n > 3 else None) for k in range(n)]
    roots = {e.id: e.root for e in episodes}
    found = donors(episodes, draws, seed)
    assert len(found) == draws
    for draw in found:
        assert draw.keys() == roots.keys()
        assert all(roots[taker] != roots[giver] for taker, giver in draw.items())
        if n % 2 == 0 and (n > 4 or n == 2):
            assert sorted(draw.values()) == sorted(draw)
    assert found == donors(episodes, draws, seed)


def test_draws_differ_while_there_are_others():
    found = donors([episode(n) for n in range(8)], 3, 0)
    assert all(len({draw[f"e{n}"] for draw in found}) == 3 for n in range(8))
    assert donors([episode(n) for n in range(8)], 3, 1) != found


def test_a_donor_has_another_answer_where_that_is_possible():
    answers = ["red", "RED", "blue", "blue", "green", "green"]
    episodes = [episode(n, answer=a) for n, a in enumerate(answers)]
    for draw in donors(episodes, 2, 0):
        for taker, giver in draw.items():
            assert answers[int(taker[1:])].casefold() != answers[int(giver[1:])].casefold()


def test_a_root_with_most_of_the_episodes_still_gets_other_memories():
    episodes = [episode(n, root="big" if n < 4 else "small") for n in range(5)]
    (draw,) = donors(episodes, 1, 0)
    assert all(draw[f"e{n}"] == "e4" for n in range(4))
    assert draw["e4"] in {f"e{n}" for n in range(4)}


def test_one_root_is_refused():
    with pytest.raises(HarnessError, match="all 3 come from 'same'"):
        donors([episode(n, root="same") for n in range(3)], 1, 0)


@pytest.mark.parametrize(
    ("arm", "said"), [("donor", "two root documents"), ("mean", "two root documents"), ("shuffled", "several messages")]
)
def test_episodes_that_cannot_serve_an_arm_are_refused(arm, said):
    with pytest.raises(HarnessError, match=said):
        check(arm, [episode(n, root="same") for n in range(3)])
    check("own", [episode(0)])


def test_a_mean_leaves_out_the_own_root_document():
    episodes = [episode(n, root=f"r{n // 2}") for n in range(6)]
    assert [e.id for e in others(episodes, episodes[2])] == ["e0", "e1", "e4", "e5"]


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_a_shuffled_history_has_the_same_messages_in_another_order(count):
    told = tuple(Message(str(n)) for n in range(count))
    found = shuffled(Episode("e", History(told, "system"), (), "r", "generated"), 0)
    assert sorted(m.content for m in found.messages) == sorted(m.content for m in told)
    assert (found.messages != told) == (count > 1)
    assert found.system == "system"


def test_a_donor_has_gone_on_as_far_where_that_is_possible():
    episodes = [episode(10 * n + depth, root=f"r{n}", answer=f"a{depth * n}") for n in range(4) for depth in range(3)]
    depths = {e.id: k % 3 for k, e in enumerate(episodes)}
    roots = {e.id: e.root for e in episodes}
    for draw in donors(episodes, 3, 0, depths):
        assert all(roots[taker] != roots[giver] and depths[taker] == depths[giver] for taker, giver in draw.items())
    uneven = episodes[:-1]  # one fewer of a depth, and still a permutation of unlike roots within each
    for draw in donors(uneven, 2, 0, depths):
        assert all(depths[taker] == depths[giver] for taker, giver in draw.items())
    assert donors(episodes, 2, 0) == donors(episodes, 2, 0, dict.fromkeys(depths, 5))

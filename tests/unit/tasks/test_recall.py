"""Associative recall: distinct keys, a pair a message, as many as were asked for."""

import pytest

from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.tasks import task


def load(split="test", count=40, seed=0, **settings):
    return task("recall").load(DataSpec(seed=seed), split, settings, count).episodes


@pytest.mark.parametrize("pairs", [1, 2, 32, 64])
def test_an_episode_tells_pairs_and_asks_their_keys(pairs):
    for episode in load(pairs=pairs, count=5):
        told = dict(reversed(m.content.split()) for m in episode.history.messages)
        assert len(told) == pairs == len(episode.history.messages)
        assert len(episode.questions) == min(pairs, 8)
        assert all(q.answers == (told[q.text],) and int(q.category) == pairs for q in episode.questions)
        assert all(
            episode.history.messages[int(q.evidence[0])].content.endswith(f" {q.text}") for q in episode.questions
        )


def test_numbers_of_pairs_may_be_mixed():
    episodes = load(mixed=(1, 4), asked=2)
    assert {len(e.history.messages) for e in episodes} == {1, 4}
    assert {len(e.questions) for e in episodes} == {1, 2}


def test_splits_and_seeds_share_no_episode():
    texts = [{tuple(m.content for m in e.history.messages) for e in load(pairs=4, **other)}
             for other in ({}, {"split": "train"}, {"seed": 1})]  # fmt: skip
    assert not texts[0] & (texts[1] | texts[2])
    assert load(pairs=4) == load(pairs=4)


@pytest.mark.parametrize(("answer", "right"), [("red", 1.0), ("red cup", 1.0), ("Reddish", 0.0), ("", 0.0)])
def test_the_first_word_counts(answer, right):
    question = next(q for e in load(pairs=8, count=200) for q in e.questions if q.answers == ("red",))
    assert task("recall").score(answer, question) == {"acc": right}


@pytest.mark.parametrize("settings", [{"pairs": 65}, {"mixed": (0,)}, {"mixed": (2, 65)}])
def test_an_impossible_number_of_pairs_is_refused(settings):
    with pytest.raises(HarnessError, match="recall"):
        load(**settings)

"""Disturbed facts: what is done to a history, and what stays the same at every dose."""

from __future__ import annotations

import random
import re

import pytest

from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.tasks import task
from harness.tasks.granularity import MARKS, RULES, Doses, clean, dose

TASK = task("granularity")
KINDS = ({"noise": 5}, {"between": 2}, {"repeats": 4}, {"overwrites": 3})


def load(split="test", count=30, seed=0, **settings):
    return TASK.load(DataSpec(seed=seed), split, {"facts": 3, **settings}, count).episodes


def texts(episode):
    return [m.content for m in episode.history.messages]


def target(episode):
    return next(q for q in episode.questions if q.category == "target")


def ordered(part, whole):
    """Whether ``part`` stands in ``whole`` in its order."""
    rest = iter(whole)
    return all(any(text == other for other in rest) for text in part)


@pytest.mark.parametrize("doses", KINDS, ids=lambda doses: next(iter(doses)))
def test_a_dose_changes_the_history_and_nothing_else(doses):
    for plain, dosed in zip(load(), load(**doses), strict=True):
        assert (plain.id, len(texts(plain))) == (dosed.id, 3)
        assert [(q.id, q.text, q.answers, q.category) for q in plain.questions] == [
            (q.id, q.text, q.answers, q.category) for q in dosed.questions
        ]
        assert [q.category for q in plain.questions].count("target") == 1
        assert texts(plain) != texts(dosed)
    assert [texts(e) for e in load(**doses)] == [texts(e) for e in load(**doses)]


def test_noise_is_marks_among_the_words():
    for plain, dosed in zip(load(), load(noise=5), strict=True):
        for told, strewn in zip(texts(plain), texts(dosed), strict=True):
            assert [w for w in strewn.split() if w not in MARKS] == told.split()
            assert len(strewn.split()) == len(told.split()) + 5


def test_between_facts_stand_messages_that_say_nothing():
    for plain, dosed in zip(load(), load(between=2), strict=True):
        assert texts(dosed)[::3] == texts(plain)
        assert set(texts(dosed)) - set(texts(plain)) <= set(RULES)


def test_the_target_is_told_again_before_its_last_telling():
    places = set()
    for plain, dosed in zip(load(), load(repeats=4), strict=True):
        told = texts(plain)[int(target(plain).evidence[0])]
        assert texts(dosed).count(told) == 4
        assert len(texts(dosed)) == 6
        assert ordered(texts(plain), texts(dosed))
        last = max(n for n, text in enumerate(texts(dosed)) if text == told)
        assert target(dosed).evidence == (str(last),)
        assert texts(dosed)[last:] == texts(plain)[int(target(plain).evidence[0]) :]
        places |= {n for n, text in enumerate(texts(dosed)) if text == told}
    assert places == set(range(6))


def test_older_values_of_the_target_are_told_before_the_one_that_holds():
    for plain, dosed in zip(load(), load(overwrites=3), strict=True):
        asked = target(dosed)
        last = int(asked.evidence[0])
        said = re.compile(rf"\b({'|'.join(asked.old)})\b")
        assert len(set(asked.old)) == 3
        assert not set(asked.old) & {a for q in dosed.questions for a in q.answers}
        assert [bool(said.search(text)) for text in texts(dosed)].count(True) == 3
        assert not any(said.search(text) for text in texts(dosed)[last:])
        assert ordered(texts(plain), texts(dosed))
        assert all(q.old == () for q in dosed.questions if q is not asked)


def test_an_old_value_scores_apart():
    asked = target(load(overwrites=2)[0])
    assert TASK.score(asked.answers[0].upper(), asked) == {"acc": 1, "old": 0}
    assert TASK.score(f"{asked.old[0]}.", asked) == {"acc": 0, "old": 1}
    assert TASK.score("", asked) == {"acc": 0, "old": 0}


def test_pairs_are_disturbed_alike():
    of_pairs = lambda **doses: task("granularity_pairs").load(DataSpec(), "test", {"facts": 3, **doses}, 5).episodes  # noqa: E731
    for plain, dosed in zip(of_pairs(), of_pairs(overwrites=2), strict=True):
        assert texts(plain) == [f"{q.answers[0]} {q.text}" for q in plain.questions]
        assert plain.history.system == ""
        assert [f"{value} {target(dosed).text}" in texts(dosed) for value in target(dosed).old] == [True, True]


def test_mixed_doses_are_drawn_an_episode_from_none_to_all():
    sizes = [len(texts(e)) for e in load("train", 200, repeats=3, overwrites=2, mixed=True)]
    assert set(sizes) == set(range(3, 8))
    assert Doses(mixed=True).drawn(random.Random(0)) == Doses(mixed=True)


def test_one_thing_is_dosed_or_none():
    assert dose(Doses()) == ("clean", 0)
    assert dose(Doses(repeats=4)) == ("repeats", 4)
    assert dose(Doses(repeats=4, noise=1)) == ("several", 0)
    assert clean(Doses(facts=3, noise=2, mixed=True)) == Doses(facts=3)


def test_a_longer_draw_starts_with_the_shorter_and_seeds_differ():
    assert load(count=5, noise=2) == load(count=9, noise=2)[:5]
    assert load(seed=1) != load()
    names = [
        {re.search(r"is (\w+)'s", q.text)[1] for e in load(s, 300) for q in e.questions} for s in ("train", "test")
    ]
    assert not names[0] & names[1]


@pytest.mark.parametrize("settings", [{"noise": -1}, {"repeats": 0}, {"values": 5, "overwrites": 3}, {"doses": 1}])
def test_doses_that_cannot_be_are_refused(settings):
    with pytest.raises(HarnessError, match="task 'granularity' has a wrong setting"):
        load(**settings)

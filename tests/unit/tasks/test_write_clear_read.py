"""The generated task: facts that only a memory knows."""

from __future__ import annotations

import re

import pytest

from harness.data.names import NAMES
from harness.episodes import Question
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.tasks import task
from harness.tasks.write_clear_read import COLOURS

TASK = task("write_clear_read")


def load(split="test", count=50, seed=0, **settings):
    return TASK.load(DataSpec(seed=seed), split, settings, count)


def people(data) -> set[str]:
    return {re.search(r"is (\w+)'s", q.text)[1] for e in data.episodes for q in e.questions}


def test_every_fact_is_asked_for_and_answered_in_its_message_only():
    for episode in load(facts=3).episodes:
        told = {m.id: m.content for m in episode.history.messages}
        assert len(told) == len(episode.questions) == 3
        assert len({q.answers for q in episode.questions}) == 3
        assert episode.root == episode.id
        for q in episode.questions:
            assert [n for n, text in told.items() if re.search(rf"\b{q.answers[0]}\b", text)] == list(q.evidence)
            name, thing = re.match(r"What colour is (\w+)'s (\w+)\?", q.text).groups()
            assert name in told[q.evidence[0]]
            assert thing in told[q.evidence[0]]


def test_no_name_is_in_both_splits_and_there_are_many():
    train, test = people(load("train", 1000)), people(load("test", 1000))
    assert not train & test
    assert min(len(train), len(test)) >= 100
    assert len(NAMES) == len(set(NAMES)) >= 200


def test_a_seed_makes_the_episodes_and_a_longer_draw_starts_with_the_shorter():
    assert load().hash == load().hash
    assert len({load().hash, load(seed=1).hash, load("train").hash, load(values=5).hash}) == 4
    assert load(count=10).episodes == load(count=20).episodes[:10]


def test_answers_are_the_first_values_and_all_of_them_come_up():
    found = {q.answers[0] for e in load(count=200, values=4).episodes for q in e.questions}
    assert found == set(COLOURS[:4])
    assert {q.answers[0] for e in load(count=400).episodes for q in e.questions} == set(COLOURS[:10])


@pytest.mark.parametrize(
    ("text", "acc", "named"),
    [
        ("green", 1, 1),
        (" Green.", 1, 1),
        ("**Green**, I think", 1, 1),
        ("It is green", 0, 1),
        ("Ada's boat is not red but green", 0, 0),
        ("greenish", 0, 0),
        ("", 0, 0),
        ("...", 0, 0),
    ],
)
def test_the_first_word_counts_and_the_first_colour(text, acc, named):
    assert TASK.score(TASK.answer(text), Question("q", "?", ("green",))) == {"acc": acc, "named": named}


@pytest.mark.parametrize("settings", [{"facts": 0}, {"values": 1}, {"values": 99}, {"facts": 5, "values": 4}])
def test_sizes_that_cannot_be_are_refused(settings):
    with pytest.raises(HarnessError, match="task 'write_clear_read' has a wrong setting"):
        load(**settings)

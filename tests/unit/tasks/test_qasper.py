"""QASPER as a task: training episodes only."""

from __future__ import annotations

import pytest

from harness.episodes import Question
from harness.experiment import DataSpec
from harness.tasks import task

TASK = task("qasper")


def test_it_trains_on_one_question_an_episode_shortest_first():
    data = TASK.load(DataSpec(source="generated"), "train", {}, 12)
    assert [len(e.questions) for e in data.episodes] == [1] * 12
    lengths = [
        sum(len(m.content) for m in e.history.messages) + len(e.questions[0].text) + len(e.questions[0].answers[0])
        for e in data.episodes
    ]
    assert lengths == sorted(lengths)


def test_the_best_annotator_counts():
    q = Question("q", "?", ("a large corpus", "news"))
    assert TASK.score("the news", q) == {"f1": 1.0}
    assert TASK.score("large", q) == {"f1": pytest.approx(2 / 3)}

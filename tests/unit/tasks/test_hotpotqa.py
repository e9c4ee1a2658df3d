"""HotpotQA as a task: two rules side by side."""

from __future__ import annotations

import pytest

from harness.episodes import Question
from harness.tasks import task

TASK = task("hotpotqa")


def test_both_rules_score_every_answer_under_their_own_names():
    assert {m.name: m.rule for m in TASK.metrics} == {
        "em": "official",
        "f1": "official",
        "em_release": "release",
        "f1_release": "release",
    }
    assert TASK.score("the U.S.", Question("q", "?", ("US",))) == {"em": 1, "f1": 1, "em_release": 0, "f1_release": 0}
    closed = TASK.score("yes, they were", Question("q", "?", ("yes",)))
    assert closed == {"em": 0, "f1": 0, "em_release": 0, "f1_release": pytest.approx(0.5)}


def test_the_best_of_several_gold_answers_counts():
    assert TASK.score("Oslo", Question("q", "?", ("Bergen", "Oslo")))["em"] == 1.0

"""LoCoMo as a task: how it asks, cleans and scores."""

from __future__ import annotations

import pytest

from harness.episodes import Question
from harness.tasks import Prompts, task

TASK = task("locomo")


def test_only_a_temporal_question_says_how_to_date_the_answer():
    hint = Prompts().render("locomo", "temporal")
    temporal = Question("q", "When?", ("7 May 2023",), "temporal")
    assert TASK.question(temporal).endswith(hint)
    assert TASK.question(temporal, removed=True).endswith(hint)
    assert hint not in TASK.question(Question("q", "Who?", ("Ann",), "single_hop"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\n\n 7 May 2023 \nBecause", "7 May 2023"),
        ("Answer: pottery", "pottery"),
        ("(a) pottery", "pottery"),
        ("b) pottery", "pottery"),
        ("Barbara) pottery", "Barbara) pottery"),
        ("  \n", ""),
    ],
)
def test_labels_before_an_answer_go(text, answer):
    assert TASK.answer(text) == answer


def test_the_rule_is_that_of_the_category():
    listed = Question("q", "?", ("pottery, swimming",), "multi_hop")
    assert TASK.score("swimming", listed) == {"f1": 0.5}
    explained = Question("q", "?", ("yes; she said so",), "open_domain")
    assert TASK.score("Yes", explained) == {"f1": 1.0}

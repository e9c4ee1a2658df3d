"""HotpotQA as a task: two rules side by side."""

from __future__ import annotations

import pytest

from harness.data.files import Raw
from harness.data.hotpotqa import read
from harness.episodes import Question, turns
from harness.experiment import DataSpec
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


def test_the_release_asks_in_one_message_of_numbered_passages():
    release, generated = task("hotpotqa@release"), DataSpec(source="generated")
    plain = TASK.load(generated, "test", {}, 1).episodes[0]
    asked = release.load(generated, "test", {}, 1).episodes[0]
    assert asked.history.system == ""
    assert asked.questions == plain.questions
    assert [m.id for m in asked.history.messages] == [m.id for m in plain.history.messages]
    (turn,) = turns(asked.history.messages)
    for n, message in enumerate(plain.history.messages, 1):
        title, text = message.content.split(": ", 1)
        assert f"\n\nPassage {n} - {title}:\n{text}" in turn.content
    assert release.question(asked.questions[0]) == f"Question: {plain.questions[0].text}\nAnswer:"
    assert (release.metrics, release.max_new_tokens) == (TASK.metrics, 32)


def test_an_empty_passage_is_left_out_and_counted():
    row = {
        "id": "q",
        "question": "?",
        "answer": "a",
        "type": "bridge",
        "supporting_facts": {"title": ["T"], "sent_id": [0]},
        "context": {"title": ["None", "T"], "sentences": [[" "], ["Said.", " Again."]]},
    }
    (message,) = read(Raw([row], "official", "f", "h"), task("hotpotqa@release").form()).episodes[0].history.messages
    assert message.content == "Passage 2 - T:\nSaid. Again."

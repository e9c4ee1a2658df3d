"""LoCoMo as a task: how it asks, cleans and scores."""

from __future__ import annotations

import pytest

from harness.episodes import Question, turns
from harness.experiment import DataSpec, TaskSpec
from harness.tasks import Prompts, select, task

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
    assert TASK.score("swimming", listed) == {"f1": 0.5, "f1_release": 0.5}
    explained = Question("q", "?", ("yes; she said so",), "open_domain")
    assert TASK.score("Yes", explained) == {"f1": 1.0, "f1_release": 1.0}


def test_the_release_rounds_each_score_and_does_not_mind_how_an_accent_is_coded():
    seventh = TASK.score("one", Question("q", "?", ("one two three four five six",), "single_hop"))
    assert seventh["f1"] == 2 / 7
    assert seventh["f1_release"] == 0.2857
    composed = Question("q", "?", ("caf\u00e9",), "single_hop")
    assert TASK.score("cafe\u0301", composed) == {"f1": 0.0, "f1_release": 1.0}


RELEASE = task("locomo@release")
GENERATED = DataSpec(source="generated")


@pytest.fixture
def released():
    return RELEASE.load(GENERATED, "test", {}, 2)


def test_the_release_tells_the_newest_session_first_in_one_message(released):
    plain = TASK.load(GENERATED, "test", {}, 2).episodes[0].history.messages
    told = released.episodes[0].history.messages
    assert [m.id for m in told] == [f"D{session}:{turn}" for session in (2, 1) for turn in (1, 2, 3, 4)]
    assert {m.id: m.time for m in told} == {m.id: m.time for m in plain}
    (turn,) = turns(told)
    opening = turn.content.split("\n\n")[0]
    assert all(name in opening for name in {m.content.split(":")[0] for m in plain})
    dates = [f"DATE: {m.time}\nCONVERSATION:\n" for m in (told[0], told[4])]
    assert [turn.content.count(date) for date in dates] == [1, 1]
    assert turn.content.index(dates[0]) < turn.content.index(dates[1])
    speaker, text = plain[0].content.split(": ", 1)
    assert f'{speaker} said, "{text}"' in turn.content


def test_a_picture_is_told_by_its_caption():
    form = RELEASE.form()
    told = form.turn("Ann", "Look!", "a red boat")
    assert told.startswith(form.turn("Ann", "Look!", ""))
    assert "a red boat" in told


def test_the_release_samples_each_question_from_a_seed_of_its_own(released):
    for episode in released.episodes:
        decodings = [q.decoding for q in episode.questions]
        assert [d.seed for d in decodings] == [42, 43, 44, 45, 46]
        assert {(d.temperature, d.top_p, d.top_k) for d in decodings} == {(0.4, 0.9, 10)}
    assert RELEASE.max_new_tokens == 50
    plain = TASK.load(GENERATED, "test", {}, 2).episodes
    assert not any(q.decoding for e in plain for q in e.questions)


def test_a_drawn_question_keeps_its_seed(released):
    drawn = select(released, TaskSpec(task="x", limit=3), 0)
    seeds = {q.id: q.decoding.seed for e in released.episodes for q in e.questions}
    assert {q.id: q.decoding.seed for e in drawn for q in e.questions}.items() <= seeds.items()

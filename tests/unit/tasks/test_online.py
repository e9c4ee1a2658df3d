"""Preferences that change between sessions: what is told, what is asked, and what three readers score."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import pytest

from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.tasks import task
from harness.tasks.write_clear_read import COLOURS, THINGS

TASK = task("online")


def load(split="test", count=30, seed=0, **settings):
    return TASK.load(DataSpec(seed=seed), split, settings, count).episodes


def told(episode):
    """The colours that were said of each thing, in the order of the history: a reader of the visible text."""
    found = defaultdict(list)
    for message in episode.history.messages:
        (thing,) = [t for t in THINGS if re.search(rf"\b{t}\b", message.content)]
        (colour,) = [c for c in COLOURS if re.search(rf"\b{c}\b", message.content)]
        found[thing].append(colour)
    return found


def thing_of(question):
    return re.search(r"favourite (\w+)\?", question.text)[1]


def mean(episodes, answer):
    """Scores by category, over all questions, of an answering machine (episode, question) -> text."""
    rows = defaultdict(list)
    for episode in episodes:
        for question in episode.questions:
            scores = TASK.score(TASK.answer(answer(episode, question)), question)
            for category in (question.category, question.category.split("/")[0], ""):
                rows[category].append(scores)
    return {c: {m: sum(r[m] for r in rs) / len(rs) for m in rs[0]} for c, rs in rows.items()}


def test_a_reader_that_keeps_the_last_word_is_always_right():
    for scores in mean(load(), lambda e, q: told(e)[thing_of(q)][-1]).values():
        assert scores == {"acc": 1, "named": 1, "old": 0}


def test_a_memory_that_never_overwrites_gives_old_answers_where_something_changed():
    found = mean(load(), lambda e, q: told(e)[thing_of(q)][0])
    assert found["updated"] == {"acc": 0, "named": 0, "old": 1}
    assert found["current"] == {"acc": 1, "named": 1, "old": 0}


def test_a_memory_of_the_last_session_is_right_of_what_it_told():
    def recent(episode, question):
        before = next((e for e in episodes if e.id == episode.continues), None)
        said = told(episode)[thing_of(question)]
        return said[-1] if before is None or len(said) > len(told(before)[thing_of(question)]) else "none"

    episodes = load()
    found = mean(episodes, recent)
    assert {c: s["acc"] for c, s in found.items() if "age" in c} == {
        c: float(c.endswith("age0")) for c in found if "age" in c
    }


def test_a_guess_is_right_once_in_the_number_of_values():
    for colour in COLOURS[:5]:
        found = mean(load(count=150, values=5), lambda e, q, colour=colour: colour)
        assert found[""]["acc"] == pytest.approx(1 / 5, abs=0.04)


def test_a_sentence_names_a_colour():
    question = next(q for e in load() for q in e.questions if q.old)
    assert TASK.score(f"It is {question.answers[0]}", question) == {"acc": 0, "named": 1, "old": 0}
    assert TASK.score(f"It is {question.old[0]} now", question) == {"acc": 0, "named": 0, "old": 1}


def test_histories_go_on_from_each_other():
    episodes = load(count=2, sessions=3, facts=2, updates=1)
    assert [e.id for e in episodes] == [f"test-0000{n}-s{s}" for n in range(2) for s in range(3)]
    known = {e.id: e for e in episodes}
    for episode in episodes:
        session = int(episode.id[-1])
        assert episode.root == episode.id[: -len("-s0")]
        assert len(episode.questions) == 2 * (session + 1)
        assert len(episode.history.messages) == 2 * (session + 1) + session
        if session:
            before = known[episode.continues].history.messages
            assert episode.history.messages[: len(before)] == before
        else:
            assert episode.continues is None
        for question in episode.questions:
            message = next(m for m in episode.history.messages if m.id == question.evidence[0])
            assert {*re.findall(r"\w+", message.content)} >= {thing_of(question), *question.answers}


def test_ages_and_changes_are_told_by_the_category():
    counts = Counter(q.category for e in load(count=40) for q in e.questions)
    assert counts["current/age0"] == 40 * 4 * 2
    assert counts["updated/age0"] == 40 * 3
    assert {c for c in counts if c.startswith("current/")} == {f"current/age{n}" for n in range(4)}
    assert {c for c in counts if c.startswith("updated/")} == {f"updated/age{n}" for n in range(3)}
    for q in (q for e in load() for q in e.questions):
        assert bool(q.old) == q.category.startswith("updated")
        assert len({*q.old, *q.answers}) == len(q.old) + 1


def test_a_longer_draw_starts_with_the_shorter_and_no_name_is_in_both_splits():
    assert load(count=5) == load(count=9)[: 5 * 4]
    assert load(seed=1) != load()
    names = [
        {re.search(r"is (\w+)'s", q.text)[1] for e in load(s, 100) for q in e.questions} for s in ("train", "test")
    ]
    assert not names[0] & names[1]
    assert min(map(len, names)) == 100


@pytest.mark.parametrize("settings", [{"sessions": 0}, {"sessions": 8}, {"facts": 4}, {"values": 3}, {"update": 1}])
def test_sizes_that_cannot_be_are_refused(settings):
    with pytest.raises(HarnessError, match="task 'online' has a wrong setting"):
        load(**settings)


def test_a_line_of_others_tells_what_no_longer_holds():
    online = task("online")
    q = online.question_of({"prediction": "red", "gold": "blue", "old": ["red"]})
    assert online.score("red", q) == {"acc": 0.0, "named": 0.0, "old": 1.0}
    with pytest.raises(HarnessError, match="'old' is no list"):
        online.question_of({"prediction": "red", "gold": "blue"})

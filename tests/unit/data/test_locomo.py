"""LoCoMo's schema and its traps."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from harness.data import locomo
from harness.data.files import Raw
from harness.data.files import read as read_file
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.tasks import task


def conversation(**changed: Any) -> dict[str, Any]:
    row = {
        "sample_id": "c1",
        "conversation": {
            "speaker_a": "A",
            "speaker_b": "B",
            "session_10_date_time": "day ten",
            "session_10": [{"speaker": "A", "dia_id": "D10:1", "text": "last"}],
            "session_2_date_time": "day two",
            "session_2": [
                {"speaker": "A", "dia_id": "D2:1", "text": "first", "blip_caption": "a red boat", "img_url": ["x"]},
                {"speaker": "B", "dia_id": "D2:2", "text": "second"},
            ],
            "session_11_date_time": "a date without a session",
        },
        "qa": [
            {"question": "one?", "answer": 2022, "evidence": ["D2:1; D10:01", "D", "D:2:2"], "category": 2},
            {"question": "two?", "adversarial_answer": "x", "evidence": [], "category": 5},
            {"question": "three?", "answer": "yes; as said", "evidence": ["D2:2 D9:9"], "category": 3},
        ],
    }
    return {**row, **changed}


def read(*rows: Any) -> Any:
    return locomo.read(Raw(list(rows), "official", "locomo10.json", "h")).episodes


def test_sessions_go_by_number_and_dates_without_a_session_are_no_matter():
    messages = read(conversation())[0].history.messages
    assert [m.id for m in messages] == ["D2:1", "D2:2", "D10:1"]
    assert [m.time for m in messages] == ["day two", "day two", "day ten"]
    assert messages[0].content == "A: first (shares a picture: a red boat)"
    assert messages[1].content == "B: second"
    assert messages[2].content == "A: last"


def test_adversarial_questions_are_left_out_and_numbers_become_text():
    episode = read(conversation())[0]
    assert [(q.id, q.category, q.answers) for q in episode.questions] == [
        ("c1-q0", "temporal", ("2022",)),
        ("c1-q2", "open_domain", ("yes; as said",)),
    ]
    assert episode.root == episode.id == "c1"


def test_evidence_that_is_run_together_or_padded_is_found_and_the_lost_dropped():
    assert [q.evidence for q in read(conversation())[0].questions] == [("D2:1", "D10:1"), ("D2:2",)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (conversation(sample_id=3), "row 0: the field 'sample_id' is int, not str"),
        (
            conversation(qa=[{"question": "q", "evidence": [], "category": 1}]),
            r"\(c1\), qa 0: the field 'answer' is miss",
        ),
        (conversation(conversation={"session_1": []}), "'session_1_date_time' is missing"),
        (conversation(conversation={"speaker_a": "A"}), "has no turn"),
        (conversation(conversation={"session_1_date_time": "d", "session_1": [{"speaker": "A"}]}), "turn 0: .*'text'"),
        ("no object", "'sample_id' is missing"),
    ],
)
def test_a_wrong_row_is_named_with_its_field(row, said):
    with pytest.raises(HarnessError, match=said) as error:
        read(row)
    assert "locomo10.json, row 0" in str(error.value)


def test_the_real_file_has_the_published_counts(real):
    data = locomo.load(DataSpec())
    assert (data.source, data.file) == ("official", "locomo/locomo10.json")
    assert Counter(q.category for e in data.episodes for q in e.questions) == {
        "multi_hop": 282,
        "temporal": 321,
        "open_domain": 96,
        "single_hop": 841,
    }
    assert len(data.episodes) == 10
    assert sum(len(e.history.messages) for e in data.episodes) == 5882
    assert sum(len({m.time for m in e.history.messages}) for e in data.episodes) == 272


def test_a_category_5_question_is_left_out_even_where_it_has_an_answer():
    both = {"question": "q?", "answer": "x", "adversarial_answer": "y", "evidence": [], "category": 5}
    assert read(conversation(qa=[*conversation()["qa"], both]))[0].questions == read(conversation())[0].questions


def test_the_real_file_holds_the_traps_that_the_reader_survives(real):
    rows = read_file(real / "locomo/locomo10.json")
    adversarial = [qa for row in rows for qa in row["qa"] if qa["category"] == 5]
    assert (len(adversarial), sum("answer" in qa for qa in adversarial)) == (446, 2)
    assert sum(len(row["qa"]) for row in rows) == 1986
    episodes = {e.id: e for e in locomo.load(DataSpec()).episodes}
    numbers = {
        f"{row['sample_id']}-q{n}": str(qa["answer"])
        for row in rows
        for n, qa in enumerate(row["qa"])
        if isinstance(qa.get("answer"), int)
    }
    found = {q.id: q.answers[0] for e in episodes.values() for q in e.questions}
    assert len(numbers) == 6
    assert {name: found[name] for name in numbers if name in found} == {n: a for n, a in numbers.items() if n in found}
    first = rows[0]["conversation"]
    assert sum(key.endswith("_date_time") for key in first) == 35
    assert len({m.time for m in episodes["conv-26"].history.messages}) == 19
    asked = {row["sample_id"]: len(row["qa"]) for row in rows}
    assert asked == {
        "conv-26": 199, "conv-30": 105, "conv-41": 193, "conv-42": 260, "conv-43": 242,
        "conv-44": 158, "conv-47": 190, "conv-48": 239, "conv-49": 196, "conv-50": 204,
    }  # fmt: skip
    evidence = {e.id: {m.id for m in e.history.messages} for e in episodes.values()}
    assert all({*q.evidence} <= evidence[e.id] for e in episodes.values() for q in e.questions)


def test_the_real_file_is_read_and_worded_in_little_memory(real):
    tracemalloc.start()
    asked = task("locomo")
    episodes = asked.load(DataSpec(), "test", {}).episodes
    prompts = [asked.question(q, removed=removed) for e in episodes for q in e.questions for removed in (False, True)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(prompts) == 2 * 1540
    assert peak < 100 * 2**20


def test_the_release_asks_the_same_questions_of_the_same_turns(real):
    plain, release = (task(name).load(DataSpec(), "test", {}).episodes for name in ("locomo", "locomo@release"))
    assert sum(len(e.questions) for e in release) == 1540
    for one, other in zip(plain, release, strict=True):
        assert [replace(q, decoding=None) for q in other.questions] == [*one.questions]
        assert {m.id for m in one.history.messages} == {m.id for m in other.history.messages}
        assert [q.decoding.seed for q in other.questions] == list(range(42, 42 + len(other.questions)))

"""Every field of every official schema, wrong or missing: the error names file, row and field, or nothing reads it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.data import hotpotqa, locomo, qasper
from harness.data.files import Raw, TaskData
from harness.errors import HarnessError

Path = tuple[str | int, ...]

LOCOMO = {
    "sample_id": "c1",
    "conversation": {
        "speaker_a": "A",
        "speaker_b": "B",
        "session_1_date_time": "day one",
        "session_1": [{"speaker": "A", "dia_id": "D1:1", "text": "hello", "blip_caption": "a boat", "img_url": ["x"]}],
        "session_2_date_time": "a date without a session",
    },
    "qa": [
        {"question": "who?", "answer": "A", "evidence": ["D1:1"], "category": 4},
        {"question": "why?", "adversarial_answer": "x", "evidence": [], "category": 5},
    ],
    "event_summary": {},
}
HOTPOTQA_HUB = {
    "id": "h1",
    "question": "which?",
    "answer": "T",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": {"title": ["T"], "sent_id": [0]},
    "context": {"title": ["T", "U"], "sentences": [["One.", " Two."], ["Three."]]},
}
HOTPOTQA_DOWNLOAD = {
    "_id": "h1",
    "question": "which?",
    "answer": "T",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["T", 0]],
    "context": [["T", ["One.", " Two."]], ["U", ["Three."]]],
}
ANSWER = {
    "unanswerable": False,
    "extractive_spans": ["one"],
    "yes_no": None,
    "free_form_answer": "",
    "evidence": ["P."],
}
SAID = {"unanswerable": False, "extractive_spans": [], "yes_no": None, "free_form_answer": "all", "evidence": []}
QASPER_HUB = {
    "id": "p1",
    "title": "Title",
    "abstract": "Abstract",
    "full_text": {"section_name": ["Intro"], "paragraphs": [["P."]]},
    "qas": {
        "question": ["what?"],
        "question_id": ["q1"],
        "nlp_background": ["two"],
        "answers": [{"answer": [ANSWER, SAID], "annotation_id": ["a", "b"], "worker_id": ["w", "w"]}],
    },
    "figures_and_tables": {"caption": [], "file": []},
}
QASPER_DOWNLOAD = {
    "title": "Title",
    "abstract": "Abstract",
    "full_text": [{"section_name": "Intro", "paragraphs": ["P."]}],
    "qas": [
        {
            "question": "what?",
            "question_id": "q1",
            "answers": [{"answer": ANSWER, "annotation_id": "a"}, {"answer": SAID, "timestamp": "t"}],
        }
    ],
    "figures_and_tables": [{"file": "f", "caption": "c"}],
}
QASPER_REBUILT = {
    "paper_index": 1,
    "title": "Title",
    "qas": [{"question": "what?", "answer": ["free", ["one", "two"], True], "evidence": ["P."]}],
}


def rows(read: Callable[..., TaskData]) -> Callable[[Any], TaskData]:
    """The row stands second in its file, so that a row's number is not by chance the first."""
    first = {locomo.read: LOCOMO, hotpotqa.read: HOTPOTQA_HUB, qasper.read: QASPER_HUB}[read]
    return lambda row: read(Raw([first, row], "official", "file.json", "h"))


def papers(row: Any) -> TaskData:
    return qasper.read(Raw({"first": QASPER_DOWNLOAD, "p1": row}, "official", "file.json", "h"))


def rebuilt(row: Any) -> TaskData:
    return qasper.read(Raw([QASPER_REBUILT, row], "rebuilt", "file.json", "h"))


SCHEMAS: dict[str, tuple[Callable[[Any], TaskData], dict, set[str], set[str]]] = {
    # reader, row, keys that may be absent, keys that nothing reads
    "locomo": (
        rows(locomo.read),
        LOCOMO,
        {"session_1", "blip_caption"},
        {"speaker_a", "speaker_b", "session_2_date_time", "img_url", "event_summary", "adversarial_answer"},
    ),
    "hotpotqa hub": (rows(hotpotqa.read), HOTPOTQA_HUB, set(), {"level"}),
    "hotpotqa download": (rows(hotpotqa.read), HOTPOTQA_DOWNLOAD, set(), {"level"}),
    "qasper hub": (
        rows(qasper.read),
        QASPER_HUB,
        {"section_name", "unanswerable", "extractive_spans", "yes_no", "evidence"},
        {"figures_and_tables", "caption", "file"},
    ),
    "qasper download": (
        papers,
        QASPER_DOWNLOAD,
        {"section_name", "unanswerable", "extractive_spans", "yes_no", "evidence"},
        {"figures_and_tables", "caption", "file", "annotation_id", "timestamp"},
    ),
    "qasper rebuilt": (rebuilt, QASPER_REBUILT, set(), {"title"}),
}
UNREAD = {
    ("locomo", ("qa", 1, "question")),  # not asked: category 5
    ("locomo", ("qa", 1, "evidence")),
    ("hotpotqa hub", ("supporting_facts", "sent_id", 0)),
    ("hotpotqa download", ("supporting_facts", 0, 1)),
    *(("qasper hub", ("qas", "answers", 0, key, n)) for key in ("annotation_id", "worker_id") for n in (0, 1)),
    ("qasper hub", ("qas", "nlp_background", 0)),
    *((s, (*p, "free_form_answer")) for s, p in [
        ("qasper hub", ("qas", "answers", 0, "answer", 0)), ("qasper download", ("qas", 0, "answers", 0, "answer"))
    ]),  # there are spans
    *((s, (*p, "yes_no")) for s, p in [
        ("qasper hub", ("qas", "answers", 0, "answer", 0)), ("qasper download", ("qas", 0, "answers", 0, "answer"))
    ]),
}  # fmt: skip
"""Places that nothing reads, where the key alone does not tell."""
COLUMNS = {"nlp_background", "annotation_id", "worker_id"}
"""Unread, but as columns they must be as long as the others."""
PAIRS = {
    ("hotpotqa download", "context"): ("title", "sentences"),
    ("hotpotqa download", "supporting_facts"): ("title",),
    ("qasper rebuilt", "qas"): ("qa",),
}
"""Other names that an error may give a list of pairs, or of questions."""
MISSING = object()


def places(value: Any, at: Path = ()) -> Iterator[Path]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*at, key)
        yield from places(inner, (*at, key))


def changed(row: Any, place: Path, value: Any) -> Any:
    row = copy.deepcopy(row)
    inner = row
    for key in place[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return row


def cases() -> Iterator[tuple[str, Path, Any]]:
    for name, (_, row, optional, _) in SCHEMAS.items():
        for place in places(row):
            yield name, place, 3.5  # no field of any schema is one
            if isinstance(place[-1], str) and place[-1] not in optional | COLUMNS:
                yield name, place, MISSING


@pytest.mark.parametrize(
    ("name", "place", "value"), cases(), ids=lambda part: "missing" if part is MISSING else str(part)
)
def test_a_wrong_or_missing_field_is_named_with_file_and_row_or_nothing_reads_it(name, place, value):
    read, row, _, unread = SCHEMAS[name]
    keys = [key for key in place if isinstance(key, str)]
    broken = changed(row, place, value)
    if (name, place) in UNREAD or set(keys) & unread:
        assert read(broken).episodes == read(row).episodes
        return
    with pytest.raises(HarnessError) as error:
        read(broken)
    said = str(error.value)
    assert "file.json, row 1" in said
    assert ";" in said  # the mend
    assert "\n" not in said
    # An element of a list is named by the list.
    assert any(f"{key}'" in said or f", {key}" in said for key in [keys[-1], *PAIRS.get((name, keys[-1]), ())])


MAYBE = {"blip_caption", "unanswerable", "extractive_spans", "yes_no"}


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("value", [MISSING, None], ids=["absent", "null"])
def test_what_may_be_absent_or_null_is(name, value):
    read, row, _, unread = SCHEMAS[name]
    for place in places(row):
        if place[-1] in MAYBE | unread and name != "qasper rebuilt":
            assert len(read(changed(row, place, value)).episodes) == len(read(row).episodes)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_truth_value_is_no_number(name):
    read, row, _, _ = SCHEMAS[name]
    for place in places(row):
        if place[-1] in ("category", "paper_index"):
            with pytest.raises(HarnessError, match=f"'{place[-1]}' is bool, not int"):
                read(changed(row, place, True))

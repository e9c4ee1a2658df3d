"""QASPER (Dasigi et al., 2021): questions about research papers, the source of training episodes.

An episode is a question with its paper as the history, as in the paper of δ-mem, whose 2,219 samples are more than
the 888 training papers. How that file was built is not published; here it is the shortest questions first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from harness.data.files import DataFile, HubRows, Raw, TaskData, fetch, field, loaded, optional, rows_of, strings
from harness.data.generated import qasper as generated
from harness.data.settings import only_generated
from harness.episodes import Episode, History, Message, Question, Source
from harness.errors import HarnessError
from harness.experiment import DataSpec

_EVIDENCE = "QASPER training questions with their gold evidence paragraphs in the place of the papers"

FILES = (
    DataFile("qasper/qasper-train-v0.3.json"),
    DataFile("qasper/qasper_hf_train.jsonl"),
    DataFile("qasper/derived/train_answerable_evidence.json.gz", "rebuilt", _EVIDENCE),
    DataFile("qasper/qasper_hf_train.first10.jsonl", note="the first 10 of 888 papers"),
)
# The repository's own branch is a loading script, which `datasets` no longer runs.
HUB = HubRows("allenai/qasper", "qasper", "train", "refs/convert/parquet")

UNANSWERABLE = "unanswerable"
GENERATED = 200
"""Questions generated where the experiment names no number."""


def load(data: DataSpec, count: int | None = None, knobs: generated.Papers | None = None) -> TaskData:
    """The ``count`` shortest training questions (all, where None), or as many generated ones.

    Fewer than ``count``, where there are no more, is said in the note.

    Raises:
        HarnessError: the data cannot be had, or a row is not of the schema.
    """
    only_generated(knobs, "qasper", data)
    rows = functools.partial(generated.rows, count or GENERATED, knobs=knobs)
    return read(fetch(data, FILES, rows, HUB), count)


def read(raw: Raw, count: int | None = None) -> TaskData:
    """Questions as episodes, shortest first; root is the paper.

    A list whose rows have a ``paper_index`` is the rebuilt file; an object is the original download; any other list
    is the hub's rows.
    """
    rows: Any = raw.rows
    one: Callable[[Any, Source, str], Iterator[Episode]] = _paper
    if isinstance(rows, dict):
        rows = [{"id": name, **_object(row, f"{raw.file}, {name}")} for name, row in rows_of(raw, dict).items()]
    elif isinstance(rows_of(raw)[0], dict) and "paper_index" in rows[0]:
        one = _evidence
    episodes = [e for n, row in enumerate(rows) for e in one(row, raw.source, f"{raw.file}, row {n}")]
    episodes.sort(key=_length)
    if count is not None and count > len(episodes):
        return loaded(raw, episodes, f"{len(episodes):,} of the {count:,} episodes asked for, all there are")
    return loaded(raw, episodes[:count])


def _length(episode: Episode) -> tuple[int, str]:
    asked = episode.questions[0]
    return sum(len(m.content) for m in episode.history.messages) + len(asked.text) + len(asked.answers[0]), episode.id


def _object(row: Any, where: str) -> dict:
    if not isinstance(row, dict):
        raise HarnessError(f"{where} is no object; compare docs/data.md")
    return row


def _records(value: dict | list, where: str) -> list[dict]:
    """Rows of a nested list: the download has a list of objects, the hub one object of columns."""
    if isinstance(value, list):
        return [_object(row, where) for row in value]
    columns = {key: field(value, key, list, where) for key in value}
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"'{key}' {len(column)}" for key, column in columns.items())
        raise HarnessError(f"{where}: the columns differ in length ({lengths}); fetch the file again")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _nested(row: Any, key: str, where: str) -> list[dict]:
    return _records(field(row, key, (list, dict), where), f"{where}, {key}")


def _paper(row: Any, source: Source, where: str) -> Iterator[Episode]:
    """A paper with its full text, in either official schema."""
    root = field(row, "id", str, where)
    where = f"{where} ({root})"
    opening = f"{field(row, 'title', str, where)}\n{field(row, 'abstract', str, where)}".strip()
    texts = [opening]
    for n, section in enumerate(_nested(row, "full_text", where)):
        told = f"{where}, full_text {n}"
        name = optional(section, "section_name", str, told) or ""  # a nameless section has null here
        texts += [f"{name}\n{p}".strip() for p in strings(section, "paragraphs", told) if p.strip()]
    history = History(tuple(Message(text, id=f"p{n}") for n, text in enumerate(texts) if text))
    if not history.messages:
        raise HarnessError(f"{where}: the paper has no text; fetch the file again or take the row out")
    for n, qa in enumerate(_nested(row, "qas", where)):
        name = field(qa, "question_id", str, f"{where}, qa {n}")
        asked = f"{where}, qa {n} ({name})"
        given = [field(a, "answer", dict, asked) for a in _nested(qa, "answers", asked)]
        # An annotator may have left all fields empty, which is no answer.
        answers = tuple(filter(None, dict.fromkeys(_answer(a, asked) for a in given)))
        if not answers:
            raise HarnessError(f"{asked}: the question has no answer; take it out")
        cited = {text for a in given for text in _maybe(a, "evidence", asked)}
        evidence = tuple(str(m.id) for m in history.messages if m.content.split("\n", 1)[-1] in cited)
        question = Question(name, field(qa, "question", str, asked), answers, _category(answers[0]), evidence)
        yield Episode(name, history, (question,), root=root, source=source)


def _answer(answer: dict, where: str) -> str:
    """One annotator's answer as text."""
    if optional(answer, "unanswerable", bool, where):
        return UNANSWERABLE
    if spans := _maybe(answer, "extractive_spans", where):
        return ", ".join(spans)
    said = optional(answer, "yes_no", bool, where)
    if said is not None:
        return "yes" if said else "no"
    return field(answer, "free_form_answer", str, where)


def _maybe(answer: dict, key: str, where: str) -> list[str]:
    """A list of strings that may be absent or null."""
    return strings(answer, key, where) if answer.get(key) is not None else []


def _evidence(row: Any, source: Source, where: str) -> Iterator[Episode]:
    """A paper of the rebuilt file: answerable questions, each with its evidence paragraphs and nothing else."""
    root = f"paper{field(row, 'paper_index', int, where)}"
    for n, qa in enumerate(field(row, "qas", list, where)):
        asked = f"{where}, qa {n}"
        texts = [text for text in strings(qa, "evidence", asked) if text.strip()]
        messages = tuple(Message(text.strip(), id=f"p{i}") for i, text in enumerate(texts))
        if not messages:
            raise HarnessError(f"{asked}: the question has no evidence; take it out")
        answers = tuple(filter(None, dict.fromkeys(_plain(a, asked) for a in field(qa, "answer", list, asked))))
        if not answers:
            raise HarnessError(f"{asked}: the question has no answer; take it out")
        evidence = tuple(str(m.id) for m in messages)
        question = Question(f"{root}-q{n}", field(qa, "question", str, asked), answers, _category(answers[0]), evidence)
        yield Episode(question.id, History(messages), (question,), root=root, source=source)


def _plain(answer: Any, where: str) -> str:
    """An answer of the rebuilt file: a list of spans, a truth value, or free text."""
    if isinstance(answer, list):
        return ", ".join(strings({"answer": answer}, "answer", where))
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    return field({"answer": answer}, "answer", str, where)


def _category(answer: str) -> str:
    return "closed" if answer in ("yes", "no", UNANSWERABLE) else "open"

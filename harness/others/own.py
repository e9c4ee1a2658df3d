"""Our own forms: JSON lines as ``harness score`` reads them, and the samples of a record."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from harness import records
from harness.episodes import digest
from harness.errors import HarnessError
from harness.experiment import Experiment
from harness.others.files import Rows
from harness.others.table import Answer, Found, count_of, first_name, share
from harness.tasks import task as named
from harness.tasks import tasks
from harness.tasks.base import text_of

LINES = "JSON lines of `harness score`"
SAMPLES = "samples of a record"
ROOTS = ("root", "history_id", "sample_id")
"""Fields that may name the source document of a line's question."""


def fits(row: Any) -> bool:
    return isinstance(row, dict) and "prediction" in row and ("gold" in row or "instruction_id_list" in row)


def lines(path: Path, rows: Rows, first: dict[str, Any], task: str | None) -> Found:
    """The answers of JSON lines, streamed.

    Raises:
        HarnessError: no task is named, lines name several, or one is wrong.
    """
    ours = task or first.get("task")
    if not isinstance(ours, str) or ours not in tasks():
        raise HarnessError(f"{path}: its lines tell no task; say whose rules score it with --task")
    found = Found(LINES, ours, ())
    found.answers = answers(rows, ours)
    return found


def answers(rows: Rows, ours: str) -> Iterator[Answer]:
    """An answer a line or row."""
    metrics = {m.name for m in tasks()[ours].metrics}
    seen: Counter[str] = Counter()
    for where, row in rows:
        if row.get("task", ours) != ours:
            raise HarnessError(f"{where}: the field 'task' is another than '{ours}'; keep one task a file")
        name = first_name(row, ("id", "_id", "question_id", "key"))
        if not name:
            # By content, so that the order of lines does not matter.
            content = digest(row)[:16]
            seen[content] += 1
            name = f"{content}.{seen[content]}"
        yield answer(where, name, row, metrics)


def answer(where: str, name: str, row: dict[str, Any], metrics: set[str]) -> Answer:
    """One row with its prediction; ``metrics`` are the names of the scores that it may claim."""
    try:
        prediction = text_of(row, "prediction")
    except HarnessError as error:
        raise HarnessError(f"{where}: {error}") from error
    finish = row.get("finish_reason")
    told = {key: one for key in metrics if (one := share(row.get(key)))}
    return Answer(
        where,
        name,
        prediction,
        row,
        root=first_name(row, ROOTS),
        text=str(row.get("question") or row.get("prompt") or ""),
        claimed=told,
        tokens=count_of(row.get("new_tokens", row.get("output_len"))),
        cap=count_of(row.get("max_new_tokens")),
        hit_cap=finish == "length" if isinstance(finish, str) else None,
    )


def samples(path: Path) -> Found:
    """The answers beside a record, with the questions that its own configuration asks.

    Raises:
        HarnessError: there is no whole record, its answers are not stored, or its data cannot be had.
    """
    if not (path.parent / "record.json").is_file():
        raise HarnessError(f"{path} has no record.json beside it, which tells its task; name the folder of a record")
    record = records.load(path.parent / "record.json")
    told = records.samples(record, path.parent)
    if "answer" not in told:
        raise HarnessError(
            f"{path} has no column 'answer', for answers to official data are not published; name the run itself"
        )
    try:
        experiment = Experiment.model_validate(record.provenance.config)
        spec = next(t for t in experiment.tasks if t.name == record.task)
    except (ValueError, StopIteration) as error:
        raise HarnessError(f"{path.parent}/record.json asks none of its own tasks; run the cell again") from error
    data = named(spec.task).load(experiment.data_of(spec), "test", spec.settings, spec.episodes)
    found = Found(SAMPLES, spec.task, ())
    found.known = {q.id: q for e in data.episodes for q in e.questions}
    found.roots = {q.id: e.root for e in data.episodes for q in e.questions}
    metrics = [m.name for m in named(spec.task).metrics]
    found.totals = {name: record.scores[name].value for name in metrics if name in record.scores}
    found.answers = list(_stored(path, told, metrics))
    return found


def _stored(path: Path, told: pd.DataFrame, metrics: list[str]) -> Iterator[Answer]:
    for n, row in enumerate(json.loads(told.to_json(orient="records"))):
        claimed = {
            name: (float(row[f"score.{name}"]), float(row.get(f"weight.{name}", 1)))
            for name in metrics
            if row.get(f"score.{name}") is not None
        }
        yield Answer(
            f"{path}, row {n}",
            row["question_id"],
            row["answer"],
            row,
            root=row["root"],
            draw=row.get("draw", 0),
            claimed=claimed,
            tokens=row.get("new_tokens"),
            hit_cap=bool(row["hit_cap"]) if "hit_cap" in row else None,
        )

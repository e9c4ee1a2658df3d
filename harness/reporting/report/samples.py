"""The samples of the report: question, gold answer, answer, what the memory gave, and the scores of each.

A record holds no question; its words are joined from the data, where that lies here, is the same, and may be shown.
Every cell of a task shows the same questions, drawn by the digest of their ids, so that memories can be held beside
each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.data import files
from harness.episodes import Question
from harness.errors import HarnessError
from harness.experiment import Cell, Experiment, TaskSpec
from harness.records import Record, samples
from harness.reporting.report.inert import script
from harness.tasks import Prompts, task

PER_CELL = 20
"""Questions shown of a cell at most."""
BYTES = 11_000_000
"""Of all samples and questions at most; each cell shows fewer questions where they would take more."""
LONGEST = 600
"""Characters of a question, an answer or a note at most."""

Asked = dict[tuple[str, str], Question]
"""The questions of a task by history and id."""


class Words:
    """The questions of a task's data, or why they are not shown."""

    def __init__(self, experiment: Experiment, spec: TaskSpec, records: Iterable[Record]) -> None:
        prompts = Prompts(Path(experiment.prompts) if experiment.prompts else None)
        self.task = task(spec.task, prompts)
        self.hashes = {str(r.provenance.data.get("hash")) for r in records}
        self.asked: Asked = {}
        self.why = ""
        """Why no text is shown; empty where it is."""
        self.credit = ""
        """What the licence asks to stand beside the text."""
        sources = {str(r.provenance.data.get("source")) for r in records}
        if self.task.secret:
            self.why = "The authors of this benchmark ask that its questions are shown nowhere."
        elif not sources <= {"generated", "own"} and not self.task.licence:
            self.why = "The parts of this benchmark have licences of their own, so that its text is left out."
        elif not sources <= {"generated", "own"} and files.folder() is None:
            self.why = f"The questions are left out, for {files.VARIABLE} named no folder that holds the data."
        else:
            self._join(experiment, spec)
            self.credit = "" if sources <= {"generated", "own"} else f"Text: {self.task.licence}."

    def _join(self, experiment: Experiment, spec: TaskSpec) -> None:
        try:
            data = self.task.load(experiment.data_of(spec), "test", spec.settings, spec.episodes)
        except HarnessError as error:
            self.why = f"The questions are left out: {error}."
            return
        if data.hash not in self.hashes:
            self.why = f"The questions are left out, for {data.file} is not the data that was asked about."
            return
        self.hashes = {data.hash}
        self.asked = {(e.id, q.id): q for e in data.episodes for q in e.questions}

    def of(self, record: Record) -> bool:
        """Whether the words of a record's questions are here."""
        return not self.why and str(record.provenance.data.get("hash")) in self.hashes


class Samples:
    """What the page's script gets: the questions of each task once, and each cell's answers to them."""

    def __init__(self, experiment: Experiment, results: Path, records: Mapping[Cell, Record]) -> None:
        self.results = results
        self.words = {}
        for spec in experiment.tasks:
            mine = [r for r in records.values() if r.task == spec.name]
            if mine:
                self.words[spec.name] = Words(experiment, spec, mine)
        self.cells, self.questions, self.shown = self._fitting(records)

    def _fitting(self, records: Mapping[Cell, Record]) -> tuple[dict[Cell, dict], dict[str, dict], int]:
        """As many questions a cell as ``BYTES`` holds, the same number in each."""
        whole = {cell: self._rows(cell, record) for cell, record in records.items()}
        most = PER_CELL
        while True:
            cells = {cell: {**found, "rows": found["rows"][:most]} for cell, found in whole.items()}
            questions = self._questions(cells)
            if most == 0 or len(script([list(cells.values()), questions]).encode()) <= BYTES:
                return cells, questions, most
            most //= 2

    def _rows(self, cell: Cell, record: Record) -> dict[str, Any]:
        """The answers of a cell to the first questions by digest, of its first draw of donors."""
        words = self.words[cell.task]
        frame = samples(record, self.results / cell.path)
        first = frame[frame["draw"] == 0] if "draw" in frame else frame
        digests = first["question_id"].map(_drawn)
        kept = first.assign(_order=digests).sort_values(["_order", "history_id"], kind="stable").head(PER_CELL)
        metrics = [name.removeprefix("score.") for name in frame.columns if name.startswith("score.")]
        text = words.of(record)
        rows = []
        for row in kept.to_dict("records"):
            rows.append(
                {
                    "h": str(row["history_id"]),
                    "q": str(row["question_id"]),
                    "s": [f"{row[f'score.{m}']:.3g}" for m in metrics],
                    "n": int(row.get("new_tokens", 0)),
                    "cap": bool(row.get("hit_cap", False)),
                    **({"d": str(row["donor"])} if row.get("donor") else {}),
                    **({"g": category} if (category := str(row.get("category") or "")) else {}),
                    **({"a": clipped(row["answer"])} if text and isinstance(row.get("answer"), str) else {}),
                    **({"m": told} if text and (told := gave(row.get("notes"))) else {}),
                }
            )
        return {
            "of": len(first),
            "draws": int(frame["draw"].max()) + 1 if "draw" in frame and len(frame) else 1,
            "metrics": metrics,
            "why": "" if text else words.why or "The questions are left out, for this record's data is another.",
            "credit": words.credit if text else "",
            "stored": "answer" in frame,
            "rows": rows,
        }

    def _questions(self, cells: Mapping[Cell, dict]) -> dict[str, dict]:
        """``task -> history -> question -> [text, gold answers]`` of the questions that some cell shows."""
        found: dict[str, dict] = {}
        for cell, shown in cells.items():
            asked = self.words[cell.task].asked
            if shown["why"]:
                continue
            for row in shown["rows"]:
                question = asked.get((row["h"], row["q"]))
                if question is not None:
                    gold = clipped(" / ".join(question.answers))
                    found.setdefault(cell.task, {}).setdefault(row["h"], {})[row["q"]] = [clipped(question.text), gold]
        return found


def gave(notes: object) -> list[list[str]]:
    """What the memory says of an answer, as pairs of a name and a text: retrieved ids, kept ratio."""
    try:
        told = json.loads(notes) if isinstance(notes, str) and notes else {}
    except ValueError:
        told = {"notes": notes}
    if not isinstance(told, dict):
        told = {"notes": told}
    return [[str(name), clipped(_said(value))] for name, value in told.items() if value not in ("", None, [], {})]


def clipped(text: str) -> str:
    """The beginning of a long text, and how much of it is left out."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} [… {len(text) - LONGEST:,} more characters]"


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _drawn(name: object) -> str:
    return hashlib.sha256(str(name).encode("utf-8", "surrogatepass")).hexdigest()

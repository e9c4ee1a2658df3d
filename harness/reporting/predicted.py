"""What a run took beside what was predicted before it: ``plan.json`` against the records."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import planned
from harness.experiment import Experiment, cells, jobs
from harness.records import Record
from harness.reporting.render import seconds
from harness.reporting.summary import Summary

NONE = "No prediction was stored before this run, so that none stands beside what it took."
TENTH = 10
"""One end of the spread that is told leaves out a tenth."""


@dataclass(frozen=True)
class Step:
    """A fit, the gates of a job, or a cell: predicted seconds, and those that it took."""

    backbone: str
    row: str
    step: str
    predicted: float
    took: float

    @property
    def column(self) -> str:
        """The task, or what else it is."""
        return self.step.split("/")[0]

    @property
    def ratio(self) -> float:
        return self.predicted / self.took


def compared(experiment: Experiment, results: Path, records: Sequence[Record]) -> list[Step]:
    """Every step of which a prediction was stored before it was done, and which this results folder did.

    A fit that was restored took nothing here, so that it is left out; so is a cell whose questions did not all have an
    answer.
    """
    stored = planned.steps(path_of_plan(experiment, results))
    answered = {
        (r.backbone, r.row, r.seed, f"{r.task}/{r.condition}/{r.arm}"): r.costs.wall_seconds
        for r in records
        if not r.failures
    }
    found = []
    for job in jobs(experiment):
        took = {
            cell.step: answered.get((job.backbone, job.row, job.seed, cell.step)) for cell in cells(experiment, job)
        }
        took |= {"fit": _fit(results / job.path / "fit.json"), "gates": _gates(results / job.path / "evaluated.json")}
        for step, actual in took.items():
            said = stored.get(f"{job.path}/{step}")
            if said and actual:
                found.append(Step(job.backbone, job.row, step, said["seconds"], actual))
    return found


def path_of_plan(experiment: Experiment, results: Path) -> Path:
    """Where the predictions of an experiment lie."""
    return results / experiment.name / planned.FILE


def _fit(path: Path) -> float | None:
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"restored": True}
    trials = sum(trial["seconds"] for trial in facts.get("trials", ()))
    return None if facts["restored"] else trials or facts["seconds"]


def _gates(path: Path) -> float | None:
    return json.loads(path.read_text(encoding="utf-8")).get("gates_seconds") if path.is_file() else None


def by_row(found: Sequence[Step]) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of a table: predicted and taken seconds and their ratio, of each row and task."""
    columns = list(dict.fromkeys(step.column for step in found))
    rows = list(dict.fromkeys((step.backbone, step.row) for step in found))
    lines = []
    for backbone, row in rows:
        own = [step for step in found if (step.backbone, step.row) == (backbone, row)]
        each = [_told([step for step in own if step.column == column]) for column in columns]
        lines.append([f"{row} on {backbone}", *each, _told(own)])
    each = [_told([step for step in found if step.column == column]) for column in columns]
    return ["row", *columns, "all"], [*lines, ["all", *each, _told(found)]]


def _told(steps: Sequence[Step]) -> str:
    if not steps:
        return ""
    said, took = sum(step.predicted for step in steps), sum(step.took for step in steps)
    return f"{seconds(said)} / {seconds(took)} = {said / took:.2f}"


def sentence(found: Sequence[Step], asked: int) -> str:
    """How well it was predicted.

    Args:
        asked: Records that there are, predicted or not.
    """
    if not found:
        return NONE
    told = sum("/" in step.step for step in found)
    lacking = f" Of {asked - told} of {asked} cells none was stored before they ran." if told < asked else ""
    if len(found) < 2:
        return f"One step was predicted before it was done, at {found[0].ratio:.2f} of what it took.{lacking}"
    tenths = statistics.quantiles([step.ratio for step in found], n=TENTH, method="inclusive")
    total = sum(step.predicted for step in found) / sum(step.took for step in found)
    return (
        f"Predicted over taken seconds, of {len(found)} steps that were predicted before they were done: median "
        f"{statistics.median(step.ratio for step in found):.2f}, eight in ten between {tenths[0]:.2f} and "
        f"{tenths[-1]:.2f}, all together {total:.2f}.{lacking}"
    )


def texts(experiment: Experiment, summary: Summary) -> tuple[str, list[str], list[list[str]]]:
    """The sentence, and heads and lines of the table; no lines where nothing was predicted."""
    records = list(summary.records.values())
    found = compared(experiment, summary.results, records)
    heads, lines = by_row(found) if found else ([], [])
    return sentence(found, len(records)), heads, lines

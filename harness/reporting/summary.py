"""Reads an experiment's records and answers two questions: how good is a cell, and does one arm beat another.

Donor draws are averaged by question first, then training seeds, so that one question stays one number; intervals are
then over questions, clustered by root document. What the seeds add is told apart (``seed_values``).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from harness import records, statistics
from harness.episodes import CLEAN
from harness.errors import HarnessError
from harness.experiment import Cell, Experiment, Job
from harness.records import Record
from harness.statistics import Estimate


class Place(NamedTuple):
    """A cell without its seed: what one number of a table stands for."""

    backbone: str
    row: str
    task: str
    condition: str
    arm: str = "own"


def collect(experiment: Experiment, results: Path) -> dict[Cell, Record]:
    """Every record that the experiment names, by cell, in the order of its file.

    Args:
        experiment: Says which records count; others under the same folder are left alone.
        results: The results folder; records lie under ``results/<experiment>``.

    Raises:
        HarnessError: a torn record, one of another schema, or two records for one cell.
    """
    found: dict[Cell, Record] = {}
    folders: dict[Cell, Path] = {}
    for path in sorted((results / experiment.name).rglob("record.json")):
        record = records.load(path)
        if record.schema_version != records.SCHEMA_VERSION:
            raise HarnessError(
                f"{path} has schema {record.schema_version}, this version reads {records.SCHEMA_VERSION}; "
                "delete it and run again"
            )
        job = Job(record.experiment, record.backbone, record.row, record.seed)
        cell = Cell(job, record.task, record.condition, record.arm)
        if cell in found:
            raise HarnessError(f"{path} and {folders[cell]} are both the record of cell {cell.id}; delete one")
        found[cell], folders[cell] = record, path
    for cell, path in folders.items():
        if path.parent != results / cell.path:
            raise HarnessError(f"{path} says that it is cell {cell.id}; move it to {results / cell.path}")
    order = {place: i for i, place in enumerate(declared(experiment))}
    wanted = [cell for cell in found if place_of(cell) in order]
    return {cell: found[cell] for cell in sorted(wanted, key=lambda c: (order[place_of(c)], c.job.seed))}


def place_of(cell: Cell) -> Place:
    """A cell without its seed."""
    return Place(cell.job.backbone, cell.job.row, cell.task, cell.condition, cell.arm)


def declared(experiment: Experiment) -> list[Place]:
    """Every place that the experiment's file names, whether its row serves it or not, in its order."""
    return [
        Place(backbone, row.row, task.name, condition, arm)
        for backbone in experiment.backbones
        for row in experiment.rows
        for task in experiment.tasks
        for condition, arms in task.conditions.items()
        for arm in arms
    ]


def samples(results: Path, cell: Cell) -> pd.DataFrame:
    """The answers of a cell, one row a question and draw (columns: ``harness.records.SAMPLE_COLUMNS``).

    Raises:
        HarnessError: missing or torn.
    """
    path = results / cell.path / "samples.parquet"
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these two kinds
        raise HarnessError(f"{path} cannot be read ({error}); delete the cell's folder and run again") from error


class Summary:
    """Estimates from the records of one experiment, computed when asked for."""

    def __init__(self, experiment: Experiment, results: Path) -> None:
        self.experiment = experiment
        self.results = results
        every = collect(experiment, results)
        self.records = {cell: record for cell, record in every.items() if record.status == "ok"}
        self.unanswered = {place_of(cell): record for cell, record in every.items() if record.status != "ok"}
        """Places where a seed has no question with an answer, and the record that says why."""
        if not every:
            raise HarnessError(f"there is no record of '{experiment.name}' under {results}; run the pipeline first")
        self._cells: dict[Place, list[Cell]] = {}
        for cell in self.records:
            self._cells.setdefault(place_of(cell), []).append(cell)
        self._samples: dict[Cell, pd.DataFrame] = {}
        self._by_question: dict[tuple[tuple[Cell, ...], str], pd.DataFrame] = {}

    @property
    def places(self) -> list[Place]:
        """Every cell that ran, seeds taken together, in the order of the experiment."""
        return list(self._cells)

    def records_of(self, place: Place) -> list[Record]:
        """The records behind a place, one a seed; none where it did not run."""
        return [self.records[cell] for cell in self._cells.get(place, [])]

    def may_lead(self, place: Place) -> bool:
        """Whether a claim may rest on it: not where a backbone runs code that came with its weights."""
        return not any((r.provenance.backbone.get("spec") or {}).get("remote_code") for r in self.records_of(place))

    def failed(self, place: Place) -> int:
        """Questions without an answer that the place's numbers leave out."""
        return sum(len(record.failures) for record in self.records_of(place))

    def primary_metric(self, task: str) -> str:
        """The metric by which a task is judged; empty where it did not run."""
        return next((r.primary_metric for r in self.records.values() if r.task == task), "")

    def metrics(self, task: str) -> dict[str, str]:
        """Rule (``official`` or ``release``) by metric of a task, the primary metric first."""
        primary = self.primary_metric(task)
        rules = {
            name: score.rule
            for record in self.records.values()
            if record.task == task
            for name, score in record.scores.items()
            if "/" not in name
        }
        return dict(sorted(rules.items(), key=lambda item: (item[0] != primary, item)))

    def categories(self, task: str) -> list[str]:
        """The categories of a task's questions, sorted, ``clean`` last; none where questions have none."""
        found: set[str] = set()
        for place, cells in self._cells.items():
            if place.task == task:
                found |= set(statistics.categories(self._read(cells[0])))
        return sorted(found, key=lambda name: (name == CLEAN, name))

    def estimate(self, place: Place, metric: str = "", category: str = "") -> Estimate | None:
        """Mean score (0 to 1) of a place with its interval; None where it did not run or asks no such question."""
        scores = self._scores(place, metric, category)
        return None if scores is None else statistics.mean(scores["score"], scores["root"], scores.get("weight"))

    def contrast(self, left: Place, right: Place, metric: str = "", category: str = "") -> Estimate | None:
        """Mean of ``left - right`` over the questions of both, paired; None where either did not run."""
        first, second = self._scores(left, metric, category), self._scores(right, metric, category)
        if first is None or second is None:
            return None
        both = first.join(second["score"], how="inner", rsuffix="_right")
        if both.empty:
            return None
        return statistics.paired(both["score"], both["score_right"], both["root"], weights=both.get("weight"))

    def seed_values(self, place: Place, metric: str = "", category: str = "") -> list[float]:
        """The mean score (0 to 1) of each training seed."""
        seeds = (self._questions((cell,), metric) for cell in self._cells.get(place, ()))
        frames = (statistics.within(questions, category) for questions in seeds)
        return [statistics.average(frame) for frame in frames if not frame.empty]

    def _scores(self, place: Place, metric: str, category: str) -> pd.DataFrame | None:
        cells = self._cells.get(place)
        if not cells:
            return None
        scores = statistics.within(self._questions(tuple(cells), metric), category)
        return None if scores.empty else scores

    def _questions(self, cells: tuple[Cell, ...], metric: str) -> pd.DataFrame:
        """Columns ``score``, ``root``, ``category``; one row a question that every seed was asked."""
        metric = metric or self.primary_metric(cells[0].task)
        if (cells, metric) not in self._by_question:
            seeds = [statistics.by_question(self._read(cell), metric) for cell in cells]
            for cell, scores in zip(cells, seeds, strict=True):
                self._check(cell, metric, scores)
            merged = seeds[0]
            if len(seeds) > 1:
                every = pd.concat([s["score"] for s in seeds], axis=1, join="inner").mean(axis=1)
                merged = merged.loc[every.index].assign(score=every)
            self._by_question[cells, metric] = merged
        return self._by_question[cells, metric]

    def _read(self, cell: Cell) -> pd.DataFrame:
        if cell not in self._samples:
            self._samples[cell] = samples(self.results, cell)
        return self._samples[cell]

    def _check(self, cell: Cell, metric: str, scores: pd.DataFrame) -> None:
        """No table holds a number that no record holds: the samples must give the record's own score."""
        recorded = self.records[cell].scores.get(metric)
        if recorded is None or scores.empty or abs(recorded.value - statistics.average(scores)) > 1e-6:
            raise HarnessError(
                f"the samples of cell {cell.id} do not give the {metric} of its record; delete its folder and run again"
            )


def spread(numbers: Iterable[int]) -> str:
    """``120`` where all are equal, else ``118 to 120``."""
    low, high = min(numbers := sorted(numbers)), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"

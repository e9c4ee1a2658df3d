"""Reads an experiment's records and answers two questions: how good is a cell, and does one arm beat another.

Donor draws are averaged by question first, then training seeds, so that one question stays one number; intervals are
then over questions, clustered by root document. What the seeds add is told apart (``seed_values``).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness import records, statistics
from harness.episodes import CLEAN
from harness.errors import HarnessError
from harness.experiment import Cell, Experiment, Job
from harness.records import Record
from harness.reporting.scores import Questions, Reader, Scores, aligned, averaged
from harness.statistics import Components, Estimate

Method = TypeVar("Method", bound=Callable[..., Any])


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
    shared: dict[tuple[str, str], Any] = {}
    with _kept():
        for path in sorted((results / experiment.name).rglob("record.json")):
            record = records.load(path)
            job = Job(record.experiment, record.backbone, record.row, record.seed)
            cell = Cell(job, record.task, record.condition, record.arm)
            if cell in found:
                raise HarnessError(f"{path} and {folders[cell]} are both the record of cell {cell.id}; delete one")
            found[cell], folders[cell] = record, path
            _share(record, shared)
    for cell, path in folders.items():
        if path.parent != results / cell.path:
            raise HarnessError(f"{path} says that it is cell {cell.id}; move it to {results / cell.path}")
    order = {place: i for i, place in enumerate(declared(experiment))}
    wanted = [cell for cell in found if place_of(cell) in order]
    return {cell: found[cell] for cell in sorted(wanted, key=lambda c: (order[place_of(c)], c.job.seed))}


def _share(record: Record, shared: dict[tuple[str, str], Any]) -> None:
    """Let records hold what is the same in all of one run, and is most of each, once."""
    for name in ("config", "versions", "backbone", "data"):
        own = getattr(record.provenance, name)
        same = shared.setdefault((name, record.task), own)
        if same == own:
            setattr(record.provenance, name, same)


@contextmanager
def _kept() -> Iterator[None]:
    """Many objects are made that all stay: no search for garbage among them, neither now nor later.

    It takes twice the time of reading them, and finds nothing.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if before:
            gc.enable()


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


class _Picked(NamedTuple):
    """Scores of one metric, of the questions of one category."""

    questions: Questions
    """All of them, of whatever category."""
    values: NDArray
    roots: NDArray
    weights: NDArray | None


def remembered(method: Method) -> Method:
    """A method of :class:`Summary` that works each of its answers out once."""

    @wraps(method)
    def asked(self: Summary, *words: Any, **named: Any) -> Any:
        question = (method.__name__, words, tuple(sorted(named.items())))
        if question not in self._known:
            self._known[question] = method(self, *words, **named)
        return self._known[question]

    return asked  # type: ignore[return-value]


class Summary:
    """Estimates from the records of one experiment, computed when asked for and remembered."""

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
        self._reader = Reader()
        self._known: dict[Any, Any] = {}
        """What was asked for before, by question."""

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
        return next((r.primary_metric for r in self._of_task.get(task, ())), "")

    @remembered
    def metrics(self, task: str) -> dict[str, str]:
        """Rule (``official`` or ``release``) by metric of a task, the primary metric first."""
        primary = self.primary_metric(task)
        rules = {
            name: score.rule
            for record in self._of_task.get(task, ())
            for name, score in record.scores.items()
            if "/" not in name
        }
        return dict(sorted(rules.items(), key=lambda item: (item[0] != primary, item)))

    @remembered
    def categories(self, task: str) -> list[str]:
        """The categories of a task's questions, sorted, ``clean`` last; none where questions have none."""
        asked = {self._read(cells[0]).questions: None for place, cells in self._cells.items() if place.task == task}
        found = {name for questions in asked for name in questions.named}
        return sorted(found, key=lambda name: (name == CLEAN, name))

    @remembered
    def estimate(self, place: Place, metric: str = "", category: str = "") -> Estimate | None:
        """Mean score (0 to 1) of a place with its interval; None where it did not run or asks no such question."""
        found = self._scores(place, metric, category)
        return None if found is None else statistics.mean(found.values, found.roots, found.weights)

    @remembered
    def contrast(self, left: Place, right: Place, metric: str = "", category: str = "") -> Estimate | None:
        """Mean of ``left - right`` over the questions of both, paired; None where either did not run."""
        both = self.pairs(left, right, metric, category)
        if both is None:
            return None
        left_values, right_values, roots, weights = both
        return statistics.paired(left_values, right_values, roots, weights=weights)

    @remembered
    def ratio(self, left: Place, right: Place, metric: str = "", category: str = "") -> Estimate | None:
        """Mean of ``left`` over mean of ``right``, the questions of both; None also where ``right`` scores nothing."""
        both = self.pairs(left, right, metric, category)
        return None if both is None or not both[1].any() else statistics.ratio(*both)

    def family(
        self, task: str, condition: str, minus: str = "donor", metric: str = "", category: str = ""
    ) -> dict[Place, tuple[Estimate, float]]:
        """Own minus a control of every row under one task and condition, with the p that Holm corrects over them.

        Rows with too few clusters for a test, or on which no claim may rest, are no part of the family.
        """
        asked = [p for p in self.places if (p.task, p.condition, p.arm) == (task, condition, "own")]
        own = [p for p in asked if self.may_lead(p)]
        tested = {p: self.contrast(p, p._replace(arm=minus), metric, category) for p in own}
        found = {p: (c, c.p) for p, c in tested.items() if c is not None and c.p is not None}
        adjusted = statistics.holm([p for _, p in found.values()])
        return {place: (c, p) for (place, (c, _)), p in zip(found.items(), adjusted, strict=True)}

    def seed_values(self, place: Place, metric: str = "", category: str = "") -> list[float]:
        """The mean score (0 to 1) of each training seed."""
        seeds = [self._picked(self._read(cell), cell, metric, category) for cell in self._cells.get(place, ())]
        return [float(np.average(s.values, weights=s.weights)) for s in seeds if s is not None]

    @remembered
    def components(self, place: Place, metric: str = "", category: str = "") -> Components | None:
        """What training seeds, draws and questions each add to the scatter of a place's mean; None as in `estimate`."""
        cells = self._cells.get(place, [])
        found = self._scores(place, metric, category)
        if found is None:
            return None
        metric = metric or self.primary_metric(place.task)
        seeds = [self._read(cell) for cell in cells]
        questions, places = aligned(seeds)
        chosen = questions.within(category)
        draws = min(s.draws for s in seeds)
        of_seeds = [(s, p[chosen]) for s, p in zip(seeds, places, strict=True)]
        noise = [s.noise[metric][p] for s, p in of_seeds] if draws > 1 else None
        return statistics.components(
            [s.values[metric][p] for s, p in of_seeds], found.roots, weights=found.weights, noise=noise, draws=draws
        )

    @cached_property
    def _of_task(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in self.records.values():
            found.setdefault(record.task, []).append(record)
        return found

    def _scores(self, place: Place, metric: str, category: str) -> _Picked | None:
        """One score a question that every seed of a place was asked."""
        cells = self._cells.get(place)
        return self._picked(self._averaged(place), cells[0], metric, category) if cells else None

    def pairs(self, left: Place, right: Place, metric: str = "", category: str = "") -> tuple | None:
        """Scores of either, clusters and weights of the questions that both were asked."""
        first, second = self._scores(left, metric, category), self._scores(right, metric, category)
        if first is None or second is None:
            return None
        if first.questions is second.questions:
            return first.values, second.values, first.roots, first.weights
        here, there = self._averaged(left), self._averaged(right)
        ours, theirs = here.questions.shared(there.questions)
        chosen = np.isin(ours, here.questions.within(category)) & np.isin(theirs, there.questions.within(category))
        if not chosen.any():
            return None
        name = metric or self.primary_metric(left.task)
        ours, theirs = ours[chosen], theirs[chosen]
        weights = here.weights.get(name)
        return (
            here.values[name][ours], there.values[name][theirs], here.questions.roots[ours],
            None if weights is None else weights[ours],
        )  # fmt: skip

    def _picked(self, scores: Scores, cell: Cell, metric: str, category: str) -> _Picked | None:
        """Of one metric, the questions of a category."""
        metric = metric or self.primary_metric(cell.task)
        if metric not in scores.values:
            raise HarnessError(
                f"the samples of {cell.id} have no column 'score.{metric}'; name one of its metrics, or evaluate again"
            )
        if metric not in self.records[cell].scores:
            raise _at_odds(cell, metric)
        places = scores.questions.within(category)
        if not len(places):
            return None
        weights = scores.weights.get(metric)
        picked = None if weights is None else weights[places]
        return _Picked(scores.questions, scores.values[metric][places], scores.questions.roots[places], picked)

    @remembered
    def _averaged(self, place: Place) -> Scores:
        return averaged([self._read(cell) for cell in self._cells[place]])

    @remembered
    def _read(self, cell: Cell) -> Scores:
        """A cell's scores. No table holds a number that no record holds: they must give the record's own."""
        found = self._reader.read(self.records[cell], self.results / cell.path)
        for name, recorded in self.records[cell].scores.items():
            metric, _, category = name.partition("/")
            places = found.questions.within(category)
            values, weights = found.values.get(metric), found.weights.get(metric)
            if values is None or len(places) != recorded.n:
                raise _at_odds(cell, name)
            mean = np.average(values[places], weights=None if weights is None else weights[places])
            if not abs(recorded.value - mean) <= 1e-6:
                raise _at_odds(cell, name)
        return found


def _at_odds(cell: Cell, score: str) -> HarnessError:
    return HarnessError(
        f"the samples of cell {cell.id} do not give the {score} of its record; delete its folder and run again"
    )


def spread(numbers: Iterable[int]) -> str:
    """``120`` where all are equal, else ``118 to 120``."""
    low, high = min(numbers := sorted(numbers)), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"

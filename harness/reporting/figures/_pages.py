"""Which part of an experiment a page of a figure shows. All of it follows from the experiment alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import efficiency_records
from harness.efficiency_records import EfficiencyRecord
from harness.experiment import Experiment, RowSpec, TaskSpec, cells, jobs, measurements
from harness.method import MemoryMethod
from harness.registry import resolve
from harness.reporting.reported import Comparison, comparisons
from harness.reporting.summary import Place, Summary, place_of

LINES, COLUMNS = 30, 5
"""Rows below each other, and tasks beside each other, at most."""


@dataclass(frozen=True)
class Page:
    """What stands on one page."""

    backbones: tuple[str, ...]
    tasks: tuple[TaskSpec, ...]
    rows: tuple[str, ...]


@dataclass
class Sources:
    """All that figures are drawn from, each read when first asked for."""

    experiment: Experiment
    results: Path
    _measured: list[EfficiencyRecord] = field(default_factory=list)

    @cached_property
    def summary(self) -> Summary:
        return Summary(self.experiment, self.results)

    @cached_property
    def measured(self) -> list[EfficiencyRecord]:
        """Measurements of speed and memory."""
        return [
            efficiency_records.load(efficiency_records.path_of(self.results, j.experiment, j.backbone, j.row))
            for j in measurements(self.experiment)
        ]

    @cached_property
    def printed(self) -> dict[tuple[Place, str, str], float]:
        """The paper's number, in percent, by place, metric and category."""
        found: list[Comparison] = comparisons(self.experiment, self.summary)
        return {(c.place, c.metric, c.category): c.printed for c in found}

    @cached_property
    def declared(self) -> set[Place]:
        """Every place that should have run."""
        return set(declared(self.experiment))


def declared(experiment: Experiment) -> list[Place]:
    """What the experiment asks and its rows serve."""
    found: dict[Place, None] = {}
    for job in jobs(experiment):
        for cell in cells(experiment, job):
            found[place_of(cell)] = None
    return list(found)


def method(row: RowSpec) -> type[MemoryMethod]:
    return resolve(row.method, row.with_)[0]


def rows_where(experiment: Experiment, holds: Callable[[Place], bool]) -> list[str]:
    """Rows of which some declared place is wanted, in the order of the experiment."""
    wanted = {place.row for place in declared(experiment) if holds(place)}
    return [row.row for row in experiment.rows if row.row in wanted]


def named(experiment: Experiment, method: str) -> set[str]:
    """Rows of a method's name."""
    return {row.row for row in experiment.rows if row.method == method}


def pages_of(
    experiment: Experiment,
    rows: Sequence[str],
    *,
    tasks: Sequence[TaskSpec] | None = None,
    lines: int = LINES,
    columns: int = COLUMNS,
) -> list[Page]:
    """Pages of at most so many rows over all backbones, and so many tasks; none where there are no rows.

    Backbones share a page as long as their rows fit on it.
    """
    backbones = list(experiment.backbones)
    together = max(1, lines // max(1, min(len(rows), lines)))
    split = _split(list(experiment.tasks if tasks is None else tasks), columns) or [()]
    return [
        Page(group, part, some)
        for group in _split(backbones, together)
        for part in split
        for some in _split(rows, lines)
    ]


def _split(items: Sequence[Any], most: int) -> list[tuple[Any, ...]]:
    """As few parts as hold them all, as even as can be."""
    if not items:
        return []
    parts = -(-len(items) // most)
    size = -(-len(items) // parts)
    return [tuple(items[at : at + size]) for at in range(0, len(items), size)]

"""Which of our cells answers to which printed number, and what the printed table itself says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import pandas as pd

from harness.experiment import Cell, Experiment, Job, RowSpec, TaskSpec, cells
from harness.reporting import reported
from harness.reporting.aggregates import Score
from harness.reporting.beside import NOT_RUN, Pair, Table
from harness.reporting.reported import ELSEWHERE, RELEASE, Comparison
from harness.reporting.summary import Place, Summary

GRADES = ("generated", "own", "rebuilt", "official")
"""Where questions came from, the last the nearest to the paper's."""


class Printed:
    """The rows and columns of one printed table.

    Args:
        key: Its file under ``tables/reported``.
        overall: The columns that its printed overall average is the mean of.
    """

    def __init__(self, key: str, overall: Sequence[Score] = ()) -> None:
        table = pd.read_csv(reported.FOLDER / f"{key}.csv", keep_default_na=False)
        self.key, self.overall = key, overall
        self._values: dict[tuple[str, str], dict[Score, float | None]] = {}
        for row in table.itertuples():
            value = None if row.value == "" else float(row.value)
            column = Score(row.benchmark, row.metric, row.subset)
            self._values.setdefault((row.backbone, row.method), {})[column] = value
        self.columns = list(dict.fromkeys(c for row in self._values.values() for c in row if c.benchmark != "Overall"))

    def methods(self, backbone: str) -> list[str]:
        """The paper's rows, in its order."""
        return [method for name, method in self._values if name == backbone]

    @property
    def backbones(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._values))

    def value(self, backbone: str, method: str, column: Score) -> float | None:
        """What is printed, in percent; None for a dash or a row that is not there."""
        return self._values.get((backbone, method), {}).get(column)

    def recomputed(self, backbone: str, method: str, column: Score) -> float | None:
        """What the printed parts of an aggregate make of it, where that is not what is printed."""
        printed = self.value(backbone, method, column)
        return None if printed is None else reported.recomputed(backbone, method, column)


class Matching:
    """Which cells of an experiment answer to which printed scores."""

    def __init__(self, experiment: Experiment, summary: Summary, beside: Iterable[Comparison]) -> None:
        self.experiment, self.summary = experiment, summary
        listed = list(beside)
        self._beside = {(c.place, c.metric, c.category, c.method): c for c in listed}
        self._beside |= {(c.place, c.metric, c.category, ""): c for c in reversed(listed)}
        self._scores = pd.read_csv(reported.FOLDER / "scores.csv", keep_default_na=False)
        self._rows = pd.read_csv(
            reported.FOLDER / "rows.csv", keep_default_na=False, converters={"settings": reported._settings}
        )

    def method(self, row: RowSpec, condition: str, methods: Sequence[str], exact: bool = False) -> str | None:
        """Which of a table's rows ours answers to, by its settings or else, unless ``exact``, by its preset.

        Empty where the paper has no such row at all; None where it has one, in another table.
        """
        names = self._rows[(self._rows["row"] == row.method) & (self._rows["condition"] == condition)]
        same = [entry.method for entry in names.itertuples() if entry.settings == row.with_]
        found = [name for name in (same if same or exact else list(names["method"])) if name in methods]
        return found[0] if found else None if same else ""

    def about(self, row: RowSpec, method: str) -> Any:
        """What ``rows.csv`` says of our row beside one of the paper's; None where they are no pair."""
        names = self._rows[(self._rows["row"] == row.method) & (self._rows["method"] == method)]
        return next(names.itertuples(), None)

    def score(self, task: TaskSpec, column: Score) -> tuple[str, str] | None:
        """Our metric and category of a printed score; None where the task is of another benchmark.

        A task that asks in its own way has its release's scoring too.
        """
        metrics = self.summary.metrics(task.name)
        for name in (task.task, f"{task.task}{RELEASE}"):
            for entry in self._scores[self._scores["task"] == name].itertuples():
                if (entry.benchmark, entry.reported_metric, entry.subset) == column and entry.metric in metrics:
                    return entry.metric, entry.category
        return None

    def tasks(self, benchmark: str) -> list[TaskSpec]:
        """The tasks of a benchmark, in the order of the experiment."""
        own = {name.removesuffix(RELEASE) for name in self._scores[self._scores["benchmark"] == benchmark]["task"]}
        return [t for t in self.experiment.tasks if t.task.removesuffix(RELEASE) in own]

    def chosen(self, benchmark: str, conditions: Iterable[str], among: Iterable[TaskSpec] = ()) -> TaskSpec | None:
        """The one task of a benchmark that a table shows: the nearest to the paper's among those that ran.

        Official data come before rebuilt and generated ones, the release's asking before another, then more questions.
        """
        asked = set(conditions)
        found = [t for t in (list(among) or self.tasks(benchmark)) if t in self.tasks(benchmark)]
        ran = [t for t in found if any(p.task == t.name and p.condition in asked for p in self.summary.places)]
        return max(ran, key=self._nearness, default=None)

    def _nearness(self, task: TaskSpec) -> tuple[int, bool, int]:
        records = [r for r in self.summary.records.values() if r.task == task.name]
        grade = self.grade(task)
        rank = GRADES.index(grade) if grade in GRADES else -1
        return rank, task.task.endswith(RELEASE), max((r.questions for r in records), default=0)

    def grade(self, task: TaskSpec) -> str:
        """Where the questions of a task came from."""
        return "/".join(sorted(self._sources.get(task.name, ())))

    @cached_property
    def _sources(self) -> dict[str, set[str]]:
        """By task, where its questions came from."""
        found: dict[str, set[str]] = {}
        for record in self.summary.records.values():
            found.setdefault(record.task, set()).add(str(record.provenance.data.get("source", "unknown")))
        return found

    def conditions(self, row: RowSpec, tasks: Iterable[TaskSpec]) -> list[str]:
        """The conditions under which a row is asked any of these tasks by its own memory."""
        names = {task.name for task in tasks}
        every = [
            cell.condition
            for backbone in self.experiment.backbones
            for cell in self._cells(backbone, row)
            if cell.task in names and cell.arm == "own"
        ]
        return list(dict.fromkeys(every))

    def _cells(self, backbone: str, row: RowSpec) -> list[Cell]:
        return cells(self.experiment, Job(self.experiment.name, backbone, row.row, self.experiment.seeds[0]))

    def entry(
        self, place: Place, task: TaskSpec | None, column: Score, method: str = "", printed: float | None = None
    ) -> Pair:
        """What stands under a printed score for a row of ours that answers to the paper's ``method``."""
        nothing = Pair(printed=printed, verdict=NOT_RUN if printed is not None else "")
        score = self.score(task, column) if task else None
        if task is None or score is None:
            return nothing
        where = place._replace(task=task.name)
        ours = self.summary.estimate(where, *score) if where in self.summary.places else None
        if ours is None:
            lost = self.summary.unanswered.get(where)
            return replace(nothing, remark=lost.status) if lost else nothing
        known = self._beside.get((where, *score, method)) or self._beside.get((where, *score, ""))
        comparison = known if printed is not None else None
        verdict, reason = ("not comparable", ELSEWHERE) if printed is not None else ("", "")
        if comparison is not None:
            verdict, reason = comparison.verdict, comparison.reason
        seeds = tuple(100 * value for value in self.summary.seed_values(where, *score))
        fitted = any(map(reported.is_random, self.summary.records_of(where)))
        return Pair(ours, printed, verdict, reason, place=where, metric=score[0], category=score[1],
                     grade=self.grade(task), seeds=seeds, fitted=fitted)  # fmt: skip


def legend(matching: Matching, table: Table, tasks: Mapping[str, TaskSpec | None]) -> Iterator[str]:
    """What a reader must know of any table: which task each benchmark is, and why verdicts are what they are."""
    shown = []
    for benchmark, task in tasks.items():
        if task:
            others = [t.name for t in matching.tasks(benchmark) if t.name != task.name and matching.grade(t)]
            left = f"; {' and '.join(others)} in the panels above" if others else ""
            shown.append(f"{benchmark} is {task.name} ({matching.grade(task)} data{left})")
    yield f"Ours: {'; '.join(shown)}."
    gone = [benchmark for benchmark, task in tasks.items() if not task]
    if gone:
        yield f"Not asked here: {', '.join(gone)}."
    yield from _reasons(table)


def _reasons(table: Table) -> Iterator[str]:
    """Why verdicts are what they are, each reason once with the rows and benchmarks that it holds for."""
    found: dict[tuple[str, str], dict[str, dict[str, None]]] = {}
    for block in table.blocks:
        for entry, column in zip(block.entries, table.columns, strict=False):
            if entry.reason and entry.ours is not None:
                reason = re.sub(r" \([\d,]+ of [\d,]+ questions\)", "", entry.reason)
                where = found.setdefault((entry.verdict, reason), {})
                where.setdefault(block.row, {})[column.benchmark] = None
    for (verdict, reason), rows in sorted(found.items()):
        alike: dict[tuple[str, ...], list[str]] = {}
        for row, benchmarks in rows.items():
            alike.setdefault(tuple(benchmarks), []).append(row)
        told = "; ".join(f"{', '.join(names)} on {', '.join(where)}" for where, names in alike.items())
        yield f"{verdict}: {reason} ({told})."

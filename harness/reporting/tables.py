"""Writes the tables: ``main`` (TeX, Markdown, CSV), a function of the answers alone, and ``costs``, with the times.

``main`` has three parts: each row's own memory beside its controls; every metric and category under either scoring
rule; the paper's own tables, ours beside the printed numbers (:mod:`harness.reporting.paper`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from harness.experiment import Experiment
from harness.records import atomic
from harness.reporting import costs, memory, mixed, paper
from harness.reporting.memory import CONTROLS
from harness.reporting.notes import Note, notes
from harness.reporting.render import render
from harness.reporting.reported import Comparison, comparisons
from harness.reporting.summary import Place, Summary, spread
from harness.statistics import Estimate

PANEL_COLUMNS = 9
"""As many columns as a landscape page holds with intervals under the numbers."""
CSV_COLUMNS = (
    "backbone", "row", "task", "condition", "arm", "minus", "metric", "rule", "category", "value", "low", "high",
    "n", "failed", "status", "clusters", "p", "test", "seeds", "paper", "paper_backbone", "paper_method", "verdict",
    "reason",
)  # fmt: skip


class Column(NamedTuple):
    """A column of the main table: an arm of a task under a condition, or an arm minus another."""

    task: str
    condition: str
    arm: str
    minus: str = ""

    @property
    def title(self) -> str:
        return f"{self.arm} − {self.minus}" if self.minus else self.arm


class Entry(NamedTuple):
    """What stands in one place of the main table."""

    estimate: Estimate | None
    signed: bool
    """It is a difference."""
    remark: str = ""
    """Why there is no number, or how many questions it leaves out."""


@dataclass(frozen=True)
class Panel:
    """A part of the main table that fits on a page: columns of whole tasks, and all rows."""

    columns: list[Column]
    tasks: list[tuple[str, int]]
    """What stands above the columns (task, metric, questions, clusters), and over how many."""
    conditions: list[tuple[str, int]]
    rows: list[tuple[str, list[Entry]]]
    """A label, and a column each what stands there."""


@dataclass(frozen=True)
class Detail:
    """Every metric of one task, and its primary metric by category, for ``own`` or the arms that its file names."""

    task: str
    arms: str
    heads: list[tuple[str, str]]
    """Metric or category, and the rule that scores it or the number of questions."""
    rows: list[tuple[str, str, list[Estimate | None]]]


def write(experiment: Experiment, results: Path, out: Path) -> list[Path]:
    """Write ``main.{tex,md,csv}``, ``paper.csv``, ``costs.{tex,md}``, and ``efficiency.csv`` where it is measured.

    Args:
        experiment: What was to be run; it fixes rows, columns and their order.
        results: The results folder with the records.
        out: The folder to write into.

    Returns:
        The files written.

    Raises:
        HarnessError: a record or its samples are torn, doubled, foreign or at odds, or one name stands for two
            backbones; nothing is written then.
    """
    summary = Summary(experiment, results) if experiment.tasks else None
    texts = _of_answers(experiment, summary) if summary else _without_answers(experiment)
    texts |= costs.texts(experiment, summary, results)
    for name, text in texts.items():
        with atomic(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return [out / name for name in texts]


def _of_answers(experiment: Experiment, summary: Summary) -> dict[str, str]:
    mixed.check(summary)
    beside = comparisons(experiment, summary)
    printed = paper.tables(experiment, summary, beside)
    main = {
        "experiment": experiment,
        "panels": panels(experiment, summary),
        "details": details(experiment, summary),
        "paper": printed,
        "notes": [*notes(experiment, summary), *mixed.notes(summary)],
        "memory": memory.tested(summary),
    }
    return {
        "main.tex": render("main.tex", **main),
        "main.md": render("main.md", **main),
        "main.csv": _csv(CSV_COLUMNS, _lines(summary, beside)),
        "paper.csv": _csv(paper.CSV_COLUMNS, paper.lines(printed)),
    }


def _without_answers(experiment: Experiment) -> dict[str, str]:
    """The main table of an experiment that asks nothing: it says what the experiment is instead."""
    rows = ", ".join(row.row for row in experiment.rows)
    said = Note("Answers", f"none are asked for. Speed and memory are measured of {rows}; they stand in costs.tex.")
    main = {"experiment": experiment, "panels": [], "details": [], "paper": None, "notes": [said], "memory": []}
    empty = {"main.csv": _csv(CSV_COLUMNS, []), "paper.csv": _csv(paper.CSV_COLUMNS, [])}
    return {"main.tex": render("main.tex", **main), "main.md": render("main.md", **main), **empty}


def columns(experiment: Experiment) -> Iterator[Column]:
    """The columns of the main table: each task's conditions and arms, a difference beside each control."""
    for task in experiment.tasks:
        for condition, arms in task.conditions.items():
            for arm in arms:
                yield Column(task.name, condition, arm)
                if arm in CONTROLS and "own" in arms:
                    yield Column(task.name, condition, "own", arm)


def panels(experiment: Experiment, summary: Summary) -> list[Panel]:
    """The main table, cut between tasks into parts of at most ``PANEL_COLUMNS`` columns where that can be."""
    parts: list[list[Column]] = [[]]
    for _, group in groupby(columns(experiment), key=lambda c: c.task):
        task = list(group)
        if parts[-1] and len(parts[-1]) + len(task) > PANEL_COLUMNS:
            parts.append([])
        parts[-1] += task
    return [_panel(experiment, summary, part) for part in parts]


def _panel(experiment: Experiment, summary: Summary, part: list[Column]) -> Panel:
    rows = []
    for backbone in experiment.backbones:
        for row in experiment.rows:
            label = row.row if len(experiment.backbones) == 1 else f"{backbone}: {row.row}"
            label += " (remote code)" if experiment.backbones[backbone].remote_code else ""
            label += f" ({bits})" if (bits := experiment.backbones[backbone].bits) else ""
            rows.append((label, [_entry(summary, backbone, row.row, c) for c in part]))
    tasks = [(_task_head(summary, task), len(list(g))) for task, g in groupby(part, key=lambda c: c.task)]
    conditions = [(key[1], len(list(g))) for key, g in groupby(part, key=lambda c: (c.task, c.condition))]
    return Panel(part, tasks, conditions, rows)


def _entry(summary: Summary, backbone: str, row: str, column: Column) -> Entry:
    place = Place(backbone, row, column.task, column.condition, column.arm)
    places = [place, place._replace(arm=column.minus)] if column.minus else [place]
    lost = sum(summary.failed(p) for p in places)
    remark = f"{lost:,} failed" if lost else ""
    if column.minus:
        difference = summary.contrast(places[0], places[1])
        return Entry(difference, True, remark if difference else "")
    if place not in summary.places and place in summary.unanswered:
        return Entry(None, False, summary.unanswered[place].status)
    return Entry(summary.estimate(place), False, remark)


def _task_head(summary: Summary, task: str) -> str:
    metric = summary.primary_metric(task)
    scores = [r.scores[metric] for r in summary.records.values() if r.task == task]
    if not scores:
        return task
    clusters = spread(s.clusters for s in scores)
    return f"{task}: {metric}, n = {spread(s.n for s in scores)}, {clusters} clusters"


def details(experiment: Experiment, summary: Summary) -> list[Detail]:
    """Metrics and categories of each task that ran."""
    found = []
    for task in experiment.tasks:
        places = [p for p in summary.places if p.task == task.name and p.arm in task.details]
        if not places:
            continue
        metrics, categories, several = summary.metrics(task.name), summary.categories(task.name), len(task.details) > 1
        if len(metrics) == 1 and len(categories) < 2:
            continue  # the main table says it all
        counts = {c: summary.estimate(places[0], "", c) for c in categories}
        heads = [*metrics.items(), *((c, f"n = {e.n:,}" if e else "") for c, e in counts.items())]
        rows = []
        for place in places:
            label = place.row if len(experiment.backbones) == 1 else f"{place.backbone}: {place.row}"
            values = [summary.estimate(place, m) for m in metrics] + [
                summary.estimate(place, "", c) for c in categories
            ]
            rows.append((label, f"{place.condition}: {place.arm}" if several else place.condition, values))
        found.append(Detail(task.name, f"arm{'s' * several} {', '.join(task.details)}", heads, rows))
    return found


def _lines(summary: Summary, beside: Iterable[Comparison]) -> Iterator[dict[str, Any]]:
    """``main.csv``: every estimate that the records hold, one a line, percent."""
    paper = {(c.place, c.metric, c.category): c for c in beside}
    for place in summary.places:
        scores = [
            (m, rule, c)
            for m, rule in summary.metrics(place.task).items()
            for c in ("", *summary.categories(place.task))
        ]
        controls = [place._replace(arm=arm) for arm in CONTROLS if place.arm == "own"]
        for metric, rule, category in scores:
            line = {**place._asdict(), "metric": metric, "rule": rule, "category": category}
            line |= {"seeds": len(summary.records_of(place)), "failed": summary.failed(place), "status": "ok"}
            estimate = summary.estimate(place, metric, category)
            if estimate is not None:
                yield line | _numbers(estimate) | _paper(paper.get((place, metric, category)))
            for control in controls:
                contrast = summary.contrast(place, control, metric, category)
                if contrast is not None:
                    failed = line["failed"] + summary.failed(control)
                    yield line | {"minus": control.arm, "failed": failed} | _numbers(contrast)
    for place, record in summary.unanswered.items():
        told = {"metric": record.primary_metric, "failed": len(record.failures), "status": record.status}
        if place not in summary.places:
            yield place._asdict() | told


def _numbers(estimate: Estimate) -> dict[str, Any]:
    percent = {k: getattr(estimate, k) for k in ("value", "low", "high")}
    return {
        **{k: "" if v is None else f"{100 * v + 0.0:.4f}" for k, v in percent.items()},
        "n": estimate.n,
        "clusters": estimate.clusters,
        "p": "" if estimate.p is None else f"{estimate.p:.6f}",
        "test": estimate.test,
    }


def _paper(comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None:
        return {}
    return {
        "paper": f"{comparison.printed:.2f}",
        "paper_backbone": comparison.backbone,
        "paper_method": comparison.method,
        "verdict": comparison.verdict,
        "reason": comparison.reason,
    }


def _csv(columns: Sequence[str], lines: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()

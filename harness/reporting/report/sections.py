"""The parts of the page that stand there without its script: head, figures, gates, the paper, costs, speed."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import efficiency_records
from harness.efficiency_records import EfficiencyRecord
from harness.experiment import Experiment, measurements
from harness.records import Record
from harness.reporting import figures as drawing
from harness.reporting import predicted
from harness.reporting.costs import costs_of
from harness.reporting.render import interval, seconds, size, speed, times, value
from harness.reporting.report.faults import counted
from harness.reporting.reported import Comparison
from harness.reporting.summary import Summary, spread

Pair = tuple[str, str]
PICTURES = 5_000_000
"""Characters of all figures at most; one that finds no room is named, not shown."""


@dataclass(frozen=True)
class Table:
    """A table of the page: its caption, heads, and rows whose first entry names them."""

    caption: str
    heads: list[str]
    rows: list[list[str]]
    numbers: range
    """The columns of numbers."""


@dataclass(frozen=True)
class Picture:
    """A figure as a data URI."""

    caption: str
    uri: str


def facts(experiment: Experiment, summary: Summary | None, beside: Sequence[Comparison]) -> list[Pair]:
    """The head of the page: what was run, on what data, how much of it, from which commit."""
    records = list(summary.records.values()) if summary else []
    asked = {r.task: r.scores[r.primary_metric] for r in records if r.primary_metric in r.scores}
    grades = sorted({f"{r.provenance.data.get('source')}" for r in records})
    found = {
        "Backbone" if len(experiment.backbones) == 1 else "Backbones": ", ".join(
            f"{name} ({spec.name})" for name, spec in experiment.backbones.items()
        ),
        "Data": ", ".join(grades),
        "Questions": f"{sum(s.n for s in asked.values()):,} on {counted(len(asked), 'task')}" if asked else "",
        "Clusters": f"{spread(s.clusters for s in asked.values())} a task" if asked else "",
        "Cells": f"{len(records):,}" + (f", {n:,} without an answer" if (n := len(summary.unanswered)) else "")
        if summary
        else "none: nothing is asked",
        "Seeds": ", ".join(map(str, sorted({r.seed for r in records}))),
        "Code": _code(records),
        "Verdicts": ", ".join(f"{n:,} {verdict}" for verdict, n in verdicts(beside)),
    }
    return [(name, fact) for name, fact in found.items() if fact]


def _code(records: Sequence[Record]) -> str:
    """The commits; of many, how many."""
    commits = sorted({r.provenance.commit[:12] for r in records})
    dirty = ", some of it uncommitted" if any(r.provenance.dirty for r in records) else ""
    return (", ".join(commits) if len(commits) < 3 else f"{len(commits)} commits") + dirty


def verdicts(beside: Sequence[Comparison]) -> list[tuple[str, int]]:
    """How often each verdict fell, the commonest first."""
    counts = Counter(c.verdict for c in beside)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def pictures(experiment: Experiment, results: Path) -> tuple[list[Picture], list[str]]:
    """Every figure of the experiment, drawn anew from its records; and the names of those for which no room is left."""
    shown, left, room = [], [], PICTURES
    for name, drawn in drawing.svg(experiment, results).items():
        encoded = base64.b64encode(drawn.encode()).decode("ascii")
        if len(encoded) > room:
            left.append(name)
            continue
        room -= len(encoded)
        shown.append(Picture(drawing.alt(name, experiment), f"data:image/svg+xml;base64,{encoded}"))
    return shown, left


def gates(summary: Summary) -> list[Table]:
    """Every gate of every row: its status, the worst value that any cell measured, and its limit."""
    rows: dict[tuple[str, str], dict[str, list]] = {}
    for record in summary.records.values():
        of_row = rows.setdefault((record.backbone, record.row), {})
        for gate in record.gates:
            of_row.setdefault(gate.name, []).append(gate)
    tables = []
    for (backbone, row), named in rows.items():
        lines = []
        for name, found in named.items():
            status = "warn" if any(g.status == "warn" for g in found) else "pass"
            values = [g.value for g in found if g.value is not None]
            limits = [g.limit for g in found if g.limit is not None]
            notes = sorted({g.note for g in found if g.note})
            lines.append([name, status, _range(values), _range(limits), "; ".join(notes)])
        warned = sum(line[1] == "warn" for line in lines)
        told = f"{row} on {backbone}: {len(lines) - warned} passed, {warned} warned"
        if lines:
            tables.append(Table(told, ["gate", "status", "measured", "limit", "note"], lines, range(2, 4)))
    return tables


def _range(values: Sequence[float]) -> str:
    ends = [f"{v:.3g}" for v in (min(values), max(values))] if values else []
    return " to ".join(dict.fromkeys(ends))


def paper(beside: Sequence[Comparison]) -> list[Table]:
    """Each printed number beside ours, with the verdict."""
    rows = [
        [
            f"{c.place.row} on {c.place.backbone}",
            f"{c.place.task}, {c.place.condition}: {c.score}",
            value(c.ours),
            interval(c.ours),
            f"{c.printed:.2f}",
            f"{c.method}, {c.backbone}",
            c.verdict,
            c.reason,
        ]
        for c in beside
    ]
    heads = ["row", "score", "ours", "95% interval", "paper", "the paper's row", "verdict", "why"]
    return [Table("The paper's numbers beside ours, in percent", heads, rows, range(2, 5))] if rows else []


COSTS = {
    "cells": ("cells", lambda n: f"{n:,}"),
    "questions": ("answers", lambda n: f"{n:,}"),
    "wall_seconds": ("seconds", seconds),
    "write_seconds": ("write", seconds),
    "prefill_seconds": ("prefill", seconds),
    "decode_seconds": ("decode", seconds),
    "overhead_seconds": ("other", seconds),
    "tokens_written": ("tokens written", lambda n: f"{n:,}"),
    "tokens_in": ("tokens in", lambda n: f"{n:,}"),
    "tokens_out": ("tokens out", lambda n: f"{n:,}"),
    "state_bytes": ("state", size),
    "peak_bytes": ("peak memory", size),
    "trainable_parameters": ("trained parameters", lambda n: f"{n:,}"),
    "fit_seconds": ("fit seconds", seconds),
}


def costs(summary: Summary) -> list[Table]:
    """What each job cost."""
    rows = []
    for job in costs_of(summary):
        name = f"{job['row']} on {job['backbone']}, seed {job['seed']}"
        told = [show(job[key]) if job.get(key) is not None else "" for key, (_, show) in COSTS.items()]
        rows.append([name, *told])
    heads = ["job", *(head for head, _ in COSTS.values())]
    return (
        [Table("What each evaluation took, its cells added up; the fit beside", heads, rows, range(1, len(heads)))]
        if rows
        else []
    )


def predictions(experiment: Experiment, summary: Summary) -> tuple[str, list[Table]]:
    """How the seconds that were predicted before the run stand beside those that it took."""
    sentence, heads, lines = predicted.texts(experiment, summary)
    caption = "Seconds predicted before the run / taken = ratio, by row and task"
    return sentence, [Table(caption, heads, lines, range(1, len(heads)))] if lines else []


def speeds(experiment: Experiment, results: Path) -> list[Table]:
    """What was measured of speed and memory, a table a backbone, condition and length."""
    paths = [efficiency_records.path_of(results, j.experiment, j.backbone, j.row) for j in measurements(experiment)]
    found: dict[tuple, list[list[str]]] = {}
    for record in map(efficiency_records.load, paths):
        for point in record.points:
            if point.status != "unsupported":  # a row that does not serve the condition has no line here
                key = record.backbone, point.condition != "replayed", point.prompt_length, point.decode_length
                found.setdefault(key, []).append(_point(record, point))
    heads = ["row", "first token", "over bare", "tokens a second", "over bare", "peak above start", "state", "remark"]
    tables = []
    for (backbone, hidden, prompt, decode), rows in sorted(found.items()):
        where = "out of sight" if hidden else "in the prompt"
        caption = f"{backbone}, history of {prompt:,} tokens {where}, {decode:,} decoded"
        tables.append(Table(caption, heads, rows, range(1, 7)))
    return tables


def _point(record: EfficiencyRecord, point: efficiency_records.Point) -> list[str]:
    if point.row is None:
        return [record.row, "", "", "", "", "", "", f"{point.status}: {point.reason}"]
    figures, ratios = point.row.figures, point.ratios
    first = f"{seconds(figures.first_token_seconds)} s"
    return [
        record.row,
        first,
        times(ratios.get("first_token_seconds")),
        speed(figures.decode_tokens_per_second),
        times(ratios.get("decode_tokens_per_second")),
        size(figures.peak_above_start_bytes),
        size(point.row.state_bytes),
        point.frozen_reason,
    ]


def measured_on(summary: Summary) -> str:
    """Devices, threads and batch sizes behind the costs."""
    found = {
        f"{p.device}, {p.threads} thread{'s' * (p.threads != 1)}, at most {p.batch_size} questions a batch"
        for p in (r.provenance for r in summary.records.values())
    }
    return "; ".join(sorted(found))


def main_rows(places: Sequence[dict[str, Any]]) -> Table:
    """The main results for a page without its script: every row's own arm, primary metric."""
    rows = []
    for p in places:
        if p["a"] == "own":
            score = p.get("s")
            ahead = p.get("donor")
            rows.append(
                [
                    p["r"], p["b"], p["t"], p["c"], f"{score[3]} {score[4]}".strip() if score else p.get("status", ""),
                    f"{p.get('n', '')}", f"{p.get('k', '')}", f"{ahead[3]} {ahead[4]}".strip() if ahead else "",
                ]
            )  # fmt: skip
    heads = ["row", "backbone", "task", "condition", "score", "questions", "clusters", "own − donor"]
    return Table("Every row's own memory, primary metric, in percent", heads, rows, range(4, 8))

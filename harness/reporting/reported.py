"""The paper's printed numbers (``tables/reported``) beside ours, with a verdict (docs/audit.md).

``rows.csv`` and ``scores.csv`` say which of the paper's rows and scores each of ours answers to, what the paper leaves
open about a row (``undisclosed``), in what ours is known to be another (``differs``), and why it is read as it is
(``reading``); one whose settings differ from the preset's goes by ``settings``. ``bands.csv`` holds the points within
which two means count as equal, fixed beforehand; the other files hold what is printed, in percent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import pandas as pd
import yaml

from harness import statistics
from harness.experiment import BackboneSpec, Experiment, RowSpec, TaskSpec
from harness.records import Record
from harness.reporting import aggregates
from harness.reporting.aggregates import GAIN, OVERALL, Paper, Score
from harness.reporting.summary import Place, Summary
from harness.statistics import Estimate
from harness.tasks import tasks

FOLDER = aggregates.FOLDER
MAIN_BACKBONE = "Qwen3-4B-Instruct"
"""The paper's own headline backbone: shown for scale beside a backbone that the paper does not have."""
RELEASE = "@release"
"""Ends the name of a task that asks as the paper's release does."""
ELSEWHERE = "asked otherwise than by the release"
VERDICTS = (
    "reproduced", "compatible", "not reproduced", "inconclusive", "not comparable", "setting undisclosed", "not run",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """One printed number beside ours."""

    place: Place
    metric: str
    category: str
    ours: Estimate
    """In shares of 1, as everywhere in the code."""
    printed: float
    """In percent, as the paper prints it."""
    backbone: str
    """The paper's backbone."""
    method: str
    """The paper's name of the row."""
    verdict: str
    """One of ``VERDICTS``."""
    reason: str
    dagger: bool = False
    """The two must not be held against each other, or not without ``reason``."""

    @property
    def score(self) -> str:
        return f"{self.metric}, {self.category}" if self.category else self.metric


class NotRun(NamedTuple):
    """A printed number that no record of ours stands beside."""

    backbone: str
    """The paper's."""
    method: str
    score: Score
    printed: float
    verdict: str = "not run"


class Answer(NamedTuple):
    """A line of ``rows.csv``: which of the paper's rows a row of ours answers to."""

    row: str
    condition: str
    settings: dict[str, Any]
    method: str
    undisclosed: str
    differs: str
    reading: str


@cache
def printed() -> pd.DataFrame:
    """Every printed score, one a backbone, method, benchmark, metric and subset (value in percent)."""
    files = ("table1", "table2", "table3_heads", "table4_depth", "figure2_no_context")
    table = pd.concat([pd.read_csv(FOLDER / f"{name}.csv", keep_default_na=False) for name in files])
    table = table[table["value"] != ""].drop_duplicates(["backbone", "method", "benchmark", "metric", "subset"])
    return table.assign(value=table["value"].astype(float)).reset_index(drop=True)


def answers() -> list[Answer]:
    """The lines of ``rows.csv``, those of a preset's own settings first."""
    lines = pd.read_csv(FOLDER / "rows.csv", keep_default_na=False, converters={"settings": _settings})
    return [Answer(*line) for line in lines.itertuples(index=False)]


class Column(NamedTuple):
    """A line of ``scores.csv``: the printed score that a metric or category of a task answers to."""

    task: str
    metric: str
    category: str
    score: Score
    questions: int
    """Of the whole benchmark."""


def columns() -> dict[str, list[Column]]:
    """The lines of ``scores.csv``, by task."""
    found: dict[str, list[Column]] = {}
    for line in pd.read_csv(FOLDER / "scores.csv", keep_default_na=False).itertuples():
        score = Score(line.benchmark, line.reported_metric, line.subset)
        found.setdefault(line.task, []).append(
            Column(line.task, line.metric, line.category, score, int(line.questions))
        )
    return found


def bands() -> dict[Score, float]:
    """Points within which two means of a score count as equal."""
    table = pd.read_csv(FOLDER / "bands.csv", keep_default_na=False)
    return {Score(line.benchmark, line.metric, line.subset): float(line.band) for line in table.itertuples()}


def answering(known: list[Answer], row: RowSpec, condition: str) -> tuple[list[Answer], bool]:
    """The paper's rows that one of ours answers to under a condition, and whether its settings are theirs.

    Where they are not, the paper's rows of the preset stand beside it for scale.
    """
    mine = [line for line in known if (line.row, line.condition) == (row.method, condition)]
    same = [line for line in mine if line.settings == row.with_]
    return (same, True) if same else (mine[:1], False)


def comparisons(experiment: Experiment, summary: Summary) -> list[Comparison]:
    """Ours beside the paper's, for each cell that ran and that the paper has a number for."""
    within, asked, known = bands(), columns(), answers()
    specs = {r.row: r for r in experiment.rows}
    asks = {t.name: t for t in experiment.tasks}
    metrics = {name: summary.metrics(name) for name in asks}
    found = []
    for place in summary.places:
        lines, alike = answering(known, specs[place.row], place.condition) if place.arm == "own" else ([], False)
        if not lines:
            continue
        spec, task = experiment.backbones[place.backbone], asks[place.task]
        backbone = spec.reported_as or MAIN_BACKBONE
        for entry in asked.get(task.task, []):
            if entry.metric not in metrics[place.task]:
                continue
            score = entry.score
            ours = summary.estimate(place, entry.metric, entry.category)
            line, value = next(
                ((li, v) for li in lines if (v := value_of(backbone, li.method, score)) is not None), (lines[0], None)
            )
            if ours is None or value is None:
                continue
            records = summary.records_of(place)
            reasons = list(differences(spec, alike, task, records, ours.n, entry.questions))
            held = not (reasons or line.differs or line.undisclosed)
            means = summary.seed_values(place, entry.metric, entry.category) if held else []
            follows = recomputed(backbone, line.method, score)
            verdict, reason = judged(
                line, reasons, [100 * m for m in means], value if follows is None else follows, within[score],
                not any(map(is_random, records)),
            )  # fmt: skip
            if held and follows is not None:
                reason = held_to(follows)
            dagger = verdict == "not comparable" or bool(line.reading)
            found.append(
                Comparison(
                    place, entry.metric, entry.category, ours, value, backbone, line.method, verdict, reason, dagger
                )
            )
    return found


def judged(
    line: Answer, reasons: list[str], ours: list[float], printed: float, band: float, deterministic: bool
) -> tuple[str, str]:
    """Verdict and reason of our numbers, one a seed, beside a printed one; all in points.

    Args:
        line: What is known of the paper's row.
        reasons: What keeps ours from being held against the printed number, beside that.
        band: Points within which they count as equal.
        deterministic: Nothing of it is drawn, neither in training nor in decoding.
    """
    reasons = [*reasons, *filter(None, [line.differs])]
    if reasons:
        verdict, reason = "not comparable", ", ".join(reasons)
    elif line.undisclosed:
        verdict, reason = "setting undisclosed", line.undisclosed
    else:
        verdict, reason = str(statistics.verdict(ours, printed, band, deterministic)), ""
    return verdict, "; ".join(filter(None, [reason, line.reading]))


def not_run(experiment: Experiment, summary: Summary) -> list[NotRun]:
    """What the paper prints in Tables 1 to 4 and Figure 2 of the experiment's backbones and no cell of ours answers to.

    A backbone that the paper does not have is held to its headline backbone. Averages over benchmarks and differences
    are left out: they are run where their parts are.
    """
    specs, asks = {r.row: r for r in experiment.rows}, {t.name: t.task for t in experiment.tasks}
    asked, known = columns(), answers()
    metrics = {name: summary.metrics(name) for name in asks}
    ran: set[tuple[str, str, Score]] = set()
    for place in summary.places:
        backbone = experiment.backbones[place.backbone].reported_as or MAIN_BACKBONE
        lines = answering(known, specs[place.row], place.condition)[0] if place.arm == "own" else []
        for entry in asked.get(asks[place.task], []) if lines else []:
            if entry.metric in metrics[place.task] and summary.estimate(place, entry.metric, entry.category):
                ran |= {(backbone, line.method, entry.score) for line in lines}
    wanted = {spec.reported_as or MAIN_BACKBONE for spec in experiment.backbones.values()}
    found = []
    for line in printed().itertuples():
        key = (line.backbone, line.method, Score(line.benchmark, line.metric, line.subset))
        if line.backbone in wanted and line.method != GAIN and key[2] != OVERALL and key not in ran:
            found.append(NotRun(*key, float(line.value)))
    return found


def recomputed(backbone: str, method: str, score: Score) -> float | None:
    """What the printed parts of an aggregate make of it, in percent, where rounding does not explain the difference.

    Ours is held to it: a mean of all questions is not the plain mean of categories.
    """
    return _misses().get((backbone, method, score))


def held_to(value: float) -> str:
    """Why a verdict is not of the printed number."""
    return f"held to {value:.2f}, which the printed parts make"


def overall(backbone: str, method: str) -> float | None:
    """The overall average that the printed parts make, averages of categories weighted by questions as ours are."""
    return _overalls().get((backbone, method))


@cache
def _overalls() -> dict[tuple[str, str], float]:
    paper = Paper()
    found = {row: paper.recomputed(row, OVERALL, deep=True) for row in paper.cells if row.method != GAIN}
    return {(row.backbone, row.method): value.value for row, value in found.items() if value is not None}


@cache
def _misses() -> dict[tuple[str, str, Score], float]:
    return {(miss.row.backbone, miss.row.method, miss.score): miss.recomputed.value for miss in Paper().misses}


def is_random(record: Record) -> bool:
    """Whether another seed would give other answers: something was fitted, or answers are sampled."""
    sampled = record.configs.get(record.task, {}).get("generation_kwargs", {}).get("do_sample", False)
    return bool(record.provenance.fit) or bool(sampled)


def _settings(text: str) -> dict[str, Any]:
    return yaml.safe_load(text) or {}


def value_of(backbone: str, method: str, score: Score) -> float | None:
    """What the paper prints, in percent; None where it has no such number."""
    return _values().get((backbone, method, score))


@cache
def _values() -> dict[tuple[str, str, Score], float]:
    return {
        (line.backbone, line.method, Score(line.benchmark, line.metric, line.subset)): float(line.value)
        for line in printed().itertuples()
    }


def differences(
    backbone: BackboneSpec, alike: bool, task: TaskSpec, records: list[Record], n: int, full: int
) -> Iterator[str]:
    """What keeps our number from being held against the printed one."""
    if backbone.remote_code:
        yield "remote code"
    if backbone.bits:
        yield backbone.bits
    if backbone.reported_as is None:
        yield "another backbone"
    for source in sorted({str(r.provenance.data.get("source")) for r in records} - {"official"}):
        yield f"{source} data"
    if n < full:
        yield f"a subset ({n:,} of {full:,} questions)"
    if not alike:
        yield "other settings"
    if f"{task.task}{RELEASE}" in tasks():
        yield ELSEWHERE
    if task.max_history_tokens is not None and any(r.truncated for r in records):
        yield f"histories cut at {task.max_history_tokens:,} tokens"

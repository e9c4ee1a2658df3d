"""The paper's printed numbers (``tables/reported``) beside ours, with the verdict of RIGOR 3.

``rows.csv`` and ``scores.csv`` say which of the paper's rows and scores each of ours answers to, and what the
paper leaves open about a row (one whose settings differ from the preset's goes by ``settings``); the other files hold
what is printed, in percent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from harness import statistics
from harness.experiment import BackboneSpec, Experiment, TaskSpec
from harness.records import Record
from harness.reporting.summary import Place, Summary
from harness.statistics import Estimate

FOLDER = Path(__file__).parents[2] / "tables" / "reported"
MAIN_BACKBONE = "Qwen3-4B-Instruct"
"""The paper's own headline backbone: shown for scale beside a backbone that the paper does not have."""
SMALLEST_BAND = 1.0
"""Points within which two means count as equal; one question, where that is more."""


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
    reason: str

    @property
    def score(self) -> str:
        return f"{self.metric}, {self.category}" if self.category else self.metric


@cache
def printed() -> pd.DataFrame:
    """Every printed score, one a backbone, method, benchmark, metric and subset (value in percent)."""
    files = ("table1", "table2", "table3_heads", "table4_depth", "figure2_no_context")
    table = pd.concat([pd.read_csv(FOLDER / f"{name}.csv", keep_default_na=False) for name in files])
    table = table[table["value"] != ""].drop_duplicates(["backbone", "method", "benchmark", "metric", "subset"])
    return table.assign(value=table["value"].astype(float)).reset_index(drop=True)


def comparisons(experiment: Experiment, summary: Summary) -> list[Comparison]:
    """Ours beside the paper's, for each cell that ran and that the paper has a number for."""
    rows = pd.read_csv(FOLDER / "rows.csv", keep_default_na=False, converters={"settings": _settings})
    scores = pd.read_csv(FOLDER / "scores.csv", keep_default_na=False)
    specs = {r.row: r for r in experiment.rows}
    tasks = {t.name: t for t in experiment.tasks}
    found = []
    for place in summary.places:
        row = specs[place.row]
        names = rows[(rows["row"] == row.method) & (rows["condition"] == place.condition)]
        if place.arm != "own" or names.empty:
            continue
        # Else the paper's row of the preset, for scale.
        line = next((entry for entry in names.itertuples() if entry.settings == row.with_), names.iloc[0])
        method, undisclosed, alike = line.method, line.undisclosed, line.settings == row.with_
        spec = experiment.backbones[place.backbone]
        for entry in scores[scores["task"] == tasks[place.task].task].itertuples():
            if entry.metric not in summary.metrics(place.task):
                continue
            ours = summary.estimate(place, entry.metric, entry.category)
            backbone = spec.reported_as or MAIN_BACKBONE
            value = _printed_value(backbone, method, entry.benchmark, entry.reported_metric, entry.subset)
            if ours is None or value is None:
                continue
            records = summary.records_of(place)
            reason = ", ".join(_differences(spec, alike, tasks[place.task], records, ours.n, int(entry.questions)))
            if reason:
                verdict = "not comparable"
            elif undisclosed:
                verdict, reason = "setting undisclosed", undisclosed
            else:
                means = [100 * v for v in summary.seed_values(place, entry.metric, entry.category)]
                fitted = any(record.provenance.fit for record in records)
                verdict = statistics.verdict(means, value, max(SMALLEST_BAND, 100 / ours.n), not fitted)
            found.append(
                Comparison(place, entry.metric, entry.category, ours, value, backbone, method, verdict, reason)
            )
    return found


def _settings(text: str) -> dict[str, Any]:
    return yaml.safe_load(text) or {}


def _printed_value(backbone: str, method: str, benchmark: str, metric: str, subset: str) -> float | None:
    table = printed()
    wanted = {"backbone": backbone, "method": method, "benchmark": benchmark, "metric": metric, "subset": subset}
    hit = table
    for column, name in wanted.items():
        hit = hit[hit[column] == name]
    return None if hit.empty else float(hit.iloc[0]["value"])


def _differences(
    backbone: BackboneSpec, alike: bool, task: TaskSpec, records: list[Record], n: int, full: int
) -> Iterator[str]:
    """What keeps our number from being held against the printed one."""
    if backbone.reported_as is None:
        yield "another backbone"
    for source in sorted({str(r.provenance.data.get("source")) for r in records} - {"official"}):
        yield f"{source} data"
    if n < full:
        yield f"a subset ({n:,} of {full:,} questions)"
    if not alike:
        yield "other settings"
    if task.max_history_tokens is not None and any(r.truncated for r in records):
        yield f"histories cut at {task.max_history_tokens:,} tokens"

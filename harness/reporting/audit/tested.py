"""The paper's claims that are a contrast of two rows, beside the same contrast of our runs.

A claim gets a verdict of its own (docs/audit.md): our gain of each seed is held to the printed gain as a score is held
to a printed score, within the same band; the interval beside it is of the paired difference over questions, and says
whether ours differs from zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.experiment import Experiment
from harness.reporting.aggregates import FOLDER, OVERALL, Paper, Score
from harness.reporting.audit.facts import ANY, VARIANTS, Fact, facts, ranked, short
from harness.reporting.reported import (
    MAIN_BACKBONE,
    RELEASE,
    Answer,
    answering,
    answers,
    columns,
    differences,
    is_random,
    judged,
)  # fmt: skip
from harness.reporting.summary import Place, Summary
from harness.statistics import Estimate

CONTRASTS = ("ratio", "gain", "value", "variants", "highest")
"""Kinds of claims (:mod:`harness.reporting.audit.checks`) that are of two rows."""


@dataclass(frozen=True)
class Tested:
    """A claim's contrast, ours beside the paper's."""

    id: str
    method: str
    """The paper's name of the row that is said to gain."""
    against: str
    score: Score
    printed: float
    """The printed gain, in points."""
    verdict: str
    """One of ``harness.reporting.reported.VERDICTS``."""
    reason: str = ""
    left: Place | None = None
    """Ours of ``method``; of an average over tasks, in the first of them. None where it was not run."""
    right: Place | None = None
    ours: Estimate | None = None
    """Paired difference in shares of 1; an average's interval is of independent tasks."""

    @property
    def label(self) -> str:
        """``TSW − the frozen backbone``."""
        return f"{short(self.method)} − {short(self.against)}"


class _Side(NamedTuple):
    """A row of ours that answers to a row of the paper."""

    line: Answer
    row: str
    condition: str
    alike: bool


class _Part(NamedTuple):
    """One task of a contrast."""

    left: Place
    right: Place
    metric: str
    category: str
    contrast: Estimate
    full: int
    """Questions of the whole benchmark."""


def claims_tested(experiment: Experiment, summary: Summary, folder: Path = FOLDER) -> list[Tested]:
    """Every contrast that the paper claims, tested in each task and backbone of ours that answers to it.

    A claim of δ-mem at large is tested for each of its variants; one that a row is the best, against the second. A
    backbone that the paper does not have is held to its headline backbone.
    """
    paper = Paper(folder)
    found: list[Tested] = []
    for fact in facts(folder):
        for method, against, printed in _contrasts(fact, paper):
            claimed = Tested(fact.id, method, against, fact.score, printed, "not run")
            found += list(_tested(claimed, fact, paper, experiment, summary)) or [claimed]
    return found


def _contrasts(fact: Fact, paper: Paper) -> Iterator[tuple[str, str, float]]:
    """Which row is said to be above which, by how many points."""
    if fact.check not in CONTRASTS or not fact.against:
        return
    for method in VARIANTS if fact.method == ANY else (fact.method,):
        mine = fact.row(paper, method)
        other = ranked(paper, fact.rivals(paper), fact.score)[0][1]
        if fact.check == "gain":
            gain = fact.numbers[0]
        elif len(numbers := fact.numbers if fact.printed else []) == 2:
            gain = numbers[1] - numbers[0]
        else:
            gain = (paper.printed(mine, fact.score) or 0.0) - (paper.printed(other, fact.score) or 0.0)
        yield method, other.method, gain


def _tested(claimed: Tested, fact: Fact, paper: Paper, experiment: Experiment, summary: Summary) -> Iterator[Tested]:
    wanted = paper.of_overall(fact.row(paper, claimed.method)) if claimed.score == OVERALL else (claimed.score,)
    left, right = (_side(experiment, method) for method in (claimed.method, claimed.against))
    if left is None or right is None:
        return
    for backbone, spec in experiment.backbones.items():
        if (spec.reported_as or MAIN_BACKBONE) != fact.backbone:
            continue
        parts = [_parts(experiment, summary, backbone, (left, right), score) for score in wanted]
        if not all(parts):
            continue
        # Of an average the first use of each task; of one score every use.
        for chosen in [[p[0] for p in parts]] if len(parts) > 1 else [[p] for p in parts[0]]:
            yield _judged(claimed, paper, experiment, summary, (left, right), chosen)


def _side(experiment: Experiment, method: str) -> _Side | None:
    """The row of ours that answers best to one of the paper's: with its settings, and not known to be another."""
    known = answers()
    sides = []
    for row in experiment.rows:
        for condition in dict.fromkeys(line.condition for line in known if line.row == row.method):
            lines, alike = answering(known, row, condition)
            sides += [_Side(line, row.row, condition, alike) for line in lines if line.method == method]
    return min(sides, key=lambda side: (not side.alike, bool(side.line.differs)), default=None)


def _parts(
    experiment: Experiment, summary: Summary, backbone: str, sides: tuple[_Side, _Side], score: Score
) -> list[_Part]:
    """The contrast in each task that answers to a score, those that ask as the paper's release does where there are."""
    entries = columns()
    found: list[tuple[bool, _Part]] = []
    for task in experiment.tasks:
        for entry in entries.get(task.task, []):
            if entry.score != score:
                continue
            left, right = (Place(backbone, side.row, task.name, side.condition) for side in sides)
            if not {left, right} <= set(summary.places) or entry.metric not in summary.metrics(task.name):
                continue
            contrast = summary.contrast(left, right, entry.metric, entry.category)
            if contrast is not None:
                part = _Part(left, right, entry.metric, entry.category, contrast, entry.questions)
                found.append((task.task.endswith(RELEASE), part))
    release = any(asked for asked, _ in found)
    return [part for asked, part in found if asked or not release]


def _judged(
    claimed: Tested,
    paper: Paper,
    experiment: Experiment,
    summary: Summary,
    sides: tuple[_Side, _Side],
    parts: list[_Part],
) -> Tested:
    tasks = {task.name: task for task in experiment.tasks}
    reasons: dict[str, None] = {}
    random = False
    for part in parts:
        for side, place in zip(sides, (part.left, part.right), strict=True):
            records, spec = summary.records_of(place), experiment.backbones[place.backbone]
            told = differences(spec, side.alike, tasks[place.task], records, part.contrast.n, part.full)
            reasons |= dict.fromkeys([*told, *filter(None, [side.line.differs])])
            random |= any(map(is_random, records))
    open_ = dict.fromkeys(text for side in sides for text in side.line.undisclosed.split("; ") if text)
    line = sides[0].line._replace(undisclosed="; ".join(open_), differs="", reading="")
    gains = [] if reasons or open_ else _by_seed(summary, parts)
    band = paper.bands[claimed.score]
    verdict, reason = judged(line, list(reasons), gains, claimed.printed, band, not random)
    return Tested(
        claimed.id, claimed.method, claimed.against, claimed.score, claimed.printed, verdict, reason,
        parts[0].left, parts[0].right, _mean([part.contrast for part in parts]),
    )  # fmt: skip


def _by_seed(summary: Summary, parts: list[_Part]) -> list[float]:
    """The gain of each seed in points, averaged over tasks; a side of which nothing is drawn serves every seed."""
    sides, drawn = [], []
    for part in parts:
        for place in (part.left, part.right):
            sides.append(_seeds(summary, place, part.metric, part.category))
            drawn += [set(sides[-1])] if any(map(is_random, summary.records_of(place))) else []
    common: list[Any] = (sorted(set.intersection(*drawn)) if drawn else []) or [None]
    values = [[seeds.get(seed, next(iter(seeds.values()))) for seeds in sides] for seed in common]
    return [100 * sum(left - right for left, right in zip(v[::2], v[1::2], strict=True)) / len(parts) for v in values]


def _seeds(summary: Summary, place: Place, metric: str, category: str) -> dict[int, float]:
    seeds = [record.seed for record in summary.records_of(place)]
    return dict(zip(seeds, summary.seed_values(place, metric, category), strict=True))


def _mean(contrasts: list[Estimate]) -> Estimate:
    """The mean of contrasts of different tasks, whose questions are independent."""
    if len(contrasts) == 1:
        return contrasts[0]
    value = sum(c.value for c in contrasts) / len(contrasts)
    halves = [None if c.low is None or c.high is None else (c.high - c.low) / 2 for c in contrasts]
    known = [half for half in halves if half is not None]
    half = math.sqrt(sum(h**2 for h in known)) / len(contrasts) if len(known) == len(halves) else None
    low, high = (None, None) if half is None else (value - half, value + half)
    return Estimate(value, low, high, sum(c.n for c in contrasts), sum(c.clusters for c in contrasts))

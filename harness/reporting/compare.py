"""Two rows held against each other, question by question: does A beat B on my data, and at what cost?

Each row is asked under the condition that it is made for, or the one that is named with it; rows of two backbones are
held against each other only where both backbones are named. Nothing is averaged over backbones, tasks or conditions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from harness import statistics
from harness.errors import HarnessError, nearest
from harness.experiment import Experiment
from harness.method import Condition
from harness.records import samples
from harness.reporting.memory import suited
from harness.reporting.render import cell, number, size
from harness.reporting.summary import Place, Summary, place_of
from harness.statistics import Estimate

Finding = Literal["better", "worse", "not told apart", "too few clusters"]
Requirement = Literal["better", "not-worse"]
_SIDE = re.compile(r"(?:(?P<backbone>[^/:]+)/)?(?P<row>[^/:]+)(?::(?P<condition>[^/:]+))?")


class Asked(NamedTuple):
    """A side as it was asked for; what was left open is empty."""

    backbone: str
    row: str
    condition: str


@dataclass(frozen=True)
class Spent:
    """What a side cost, averaged over seeds."""

    write_seconds: float
    """A history, wherever in the task it was written; nothing where it stands in the prompt."""
    state_bytes: float
    """A history."""
    prompt_tokens: float
    """A question."""
    seconds: float
    """A question, from asking the memory to the answer's last token."""
    trainable_parameters: int
    device: str


@dataclass(frozen=True)
class Side:
    """One of the two: a row under a condition."""

    place: Place
    score: Estimate
    """Over the questions of both."""
    spent: Spent


@dataclass(frozen=True)
class Contest:
    """Two sides on one task, by one metric."""

    left: Side
    right: Side
    metric: str
    category: str
    usual: bool
    """It is the task's own metric, over all its questions."""
    difference: Estimate
    """left - right, paired by question."""
    ratio: Estimate | None
    """left / right; None where right scores nothing."""
    wins: int
    ties: int
    losses: int
    alone: int
    """Questions that only one of the two has answered, and that nothing here counts."""

    @property
    def task(self) -> str:
        return self.left.place.task

    @property
    def finding(self) -> Finding:
        low, high = self.difference.low, self.difference.high
        if low is None or high is None:
            return "too few clusters"
        return "better" if low > 0 else "worse" if high < 0 else "not told apart"

    @property
    def text(self) -> str:
        return _text(self)

    def holds(self, requirement: Requirement, margin: float) -> bool:
        """Whether the whole interval of left - right lies above ``margin`` points, or above -``margin``."""
        low = self.difference.low
        return low is not None and 100 * low > (margin if requirement == "better" else -margin)


class LeftOut(NamedTuple):
    """A task on which the two could not be compared."""

    task: str
    reason: str


def compare(
    summary: Summary, a: str, b: str, task: str = "", metric: str = "", category: str = "", condition: str = ""
) -> tuple[list[Contest], list[LeftOut]]:
    """A against B on every task that both ran, or on one.

    Args:
        summary: The records.
        a: ``ROW``, ``ROW:CONDITION``, ``BACKBONE/ROW`` or ``BACKBONE/ROW:CONDITION``.
        b: The same.
        task: Only this one.
        metric: Score by it; empty takes each task's own.
        category: Only questions of it.
        condition: Of both sides, where they name none.

    Returns:
        A contest a backbone and task, and the tasks on which there is none, with the reason.

    Raises:
        HarnessError: a name is unknown, or there is nothing to compare.
    """
    experiment = summary.experiment
    first, second = (_asked(experiment, side, condition) for side in (a, b))
    names = [t.name for t in experiment.tasks]
    if task and task not in names:
        raise HarnessError(f"the experiment '{experiment.name}' has no task '{task}'; {nearest(task, names)}")
    contests, left_out = [], []
    for backbones in _backbones(experiment, first, second):
        sides = [asked._replace(backbone=name) for asked, name in zip((first, second), backbones, strict=True)]
        for name in [task] if task else names:
            try:
                contests.append(_contest(summary, sides[0], sides[1], name, metric, category))
            except _ApartError as reason:
                where = f"{name} ({backbones[0]})" if len(experiment.backbones) > 1 else name
                left_out.append(LeftOut(where, str(reason)))
    if not contests:
        reasons = "; ".join(f"{reason} on {where}" for where, reason in together(left_out))
        raise HarnessError(
            f"'{a}' and '{b}' cannot be compared ({reasons}); name rows and conditions that share a task"
        )
    return contests, left_out


def together(left_out: list[LeftOut]) -> list[LeftOut]:
    """The tasks of one reason as one: ``locomo, hotpotqa``."""
    tasks: dict[str, list[str]] = {}
    for task, reason in left_out:
        tasks.setdefault(reason, []).append(task)
    return [LeftOut(", ".join(names), reason) for reason, names in tasks.items()]


def plain(contest: Contest) -> dict[str, Any]:
    """A contest for machines; scores and differences in percent."""
    return {
        "task": contest.task,
        "metric": contest.metric,
        "category": contest.category,
        "left": _plain_side(contest.left),
        "right": _plain_side(contest.right),
        "difference": _plain(contest.difference, 100),
        "ratio": contest.ratio and _plain(contest.ratio, 1),
        "wins": contest.wins,
        "ties": contest.ties,
        "losses": contest.losses,
        "left_alone": contest.alone,
        "finding": contest.finding,
        "text": contest.text,
    }


def named(side: Side, with_backbone: bool = False) -> str:
    """``bm25_rag (own_text)``, or ``bm25_rag on smollm2 (own_text)``."""
    on = f" on {side.place.backbone}" if with_backbone else ""
    return f"{side.place.row}{on} ({side.place.condition})"


class _ApartError(Exception):
    """Why two sides have no contest on a task."""


def _asked(experiment: Experiment, side: str, condition: str) -> Asked:
    found = _SIDE.fullmatch(side)
    if found is None:
        raise HarnessError(f"'{side}' names no row; write ROW, ROW:CONDITION or BACKBONE/ROW:CONDITION")
    asked = Asked(found["backbone"] or "", found["row"], found["condition"] or condition)
    for what, name, known in (
        ("backbone", asked.backbone, list(experiment.backbones)),
        ("row", asked.row, [row.row for row in experiment.rows]),
    ):
        if name and name not in known:
            raise HarnessError(f"the experiment '{experiment.name}' has no {what} '{name}'; {nearest(name, known)}")
    if asked.condition and asked.condition not in get_args(Condition):
        raise HarnessError(
            f"there is no condition '{asked.condition}'; {nearest(asked.condition, get_args(Condition))}"
        )
    return asked


def _backbones(experiment: Experiment, a: Asked, b: Asked) -> list[tuple[str, str]]:
    """The backbones of either side: those that are named, one for both where one is, else each in turn for both."""
    if a.backbone or b.backbone:
        return [(a.backbone or b.backbone, b.backbone or a.backbone)]
    return [(name, name) for name in experiment.backbones]


def _contest(summary: Summary, a: Asked, b: Asked, task: str, metric: str, category: str) -> Contest:
    left, right = _places(summary, a, b, task)
    if left == right:
        raise HarnessError(f"both sides are {left.row} ({left.condition}); name two rows, or two conditions of one")
    for kind, name, known in (
        ("metric", metric, list(summary.metrics(task))),
        ("category", category, summary.categories(task) if category else []),
    ):
        if name and name not in known:
            raise _ApartError(f"there is no {kind} '{name}' ({nearest(name, known).rstrip('?')})")
    difference, both = summary.contrast(left, right, metric, category), summary.pairs(left, right, metric, category)
    if difference is None or both is None:
        raise _ApartError(f"{left.row} and {right.row} have no question in common")
    ours, theirs, roots, weights = both
    gaps = np.asarray(ours) - np.asarray(theirs)
    wins, losses = int((gaps > 1e-12).sum()), int((gaps < -1e-12).sum())
    asked = [scores.n for place in (left, right) if (scores := summary.estimate(place, metric, category))]
    return Contest(
        Side(left, statistics.mean(ours, roots, weights), _spent_by(summary, left)),
        Side(right, statistics.mean(theirs, roots, weights), _spent_by(summary, right)),
        metric or summary.primary_metric(task),
        category,
        metric in ("", summary.primary_metric(task)) and not category,
        difference,
        summary.ratio(left, right, metric, category),
        wins,
        len(gaps) - wins - losses,
        losses,
        sum(asked) - 2 * len(gaps),
    )


def _places(summary: Summary, a: Asked, b: Asked, task: str) -> tuple[Place, Place]:
    """Where the two are looked up: under the conditions that are named, one that both are made for, else each's own."""
    first, second = _conditions(summary, a, task), _conditions(summary, b, task)
    common = [condition for condition in first if condition in second]
    left, right = (common[0], common[0]) if common else (first[0], second[0])
    return Place(a.backbone, a.row, task, left), Place(b.backbone, b.row, task, right)


def _conditions(summary: Summary, asked: Asked, task: str) -> list[str]:
    ran = suited(summary, asked.backbone, asked.row, task)
    wanted = Place(asked.backbone, asked.row, task, asked.condition)
    if asked.condition:
        ran = [asked.condition] if wanted in summary.places else []
    if ran:
        return ran
    for place, record in summary.unanswered.items():
        if place[:3] == wanted[:3] and asked.condition in ("", place.condition):
            raise _ApartError(f"{asked.row} has no answers ({record.status})")
    under = f" under {asked.condition}" if asked.condition else ""
    raise _ApartError(f"{asked.row} did not run{under}")


def _spent_by(summary: Summary, place: Place) -> Spent:
    records = summary.records_of(place)

    def average(values: Iterable[float]) -> float:
        return sum(values) / len(records)

    return Spent(
        write_seconds=_write_seconds(summary, place),
        state_bytes=average(r.costs.state_bytes for r in records),
        prompt_tokens=average(r.costs.tokens_in / r.questions for r in records),
        seconds=average(
            (r.costs.read_seconds + r.costs.prefill_seconds + r.costs.decode_seconds) / r.questions for r in records
        ),
        trainable_parameters=max(r.costs.trainable_parameters for r in records),
        device=" and ".join(sorted({r.provenance.device for r in records})),
    )


def _write_seconds(summary: Summary, place: Place) -> float:
    """Seconds a history. The cells of a task share what is written; the first that needs it is charged."""
    seeds = [cell for cell in summary.records if place_of(cell) == place]
    if not any(summary.records[cell].costs.state_bytes for cell in seeds):
        return 0.0
    wrote = sum(
        record.costs.write_seconds
        for cell, record in summary.records.items()
        if place_of(cell)[:3] == place[:3] and cell.arm in ("own", "donor", "mean") and record.costs.state_bytes
    )
    told = (samples(summary.records[cell], summary.results / cell.path) for cell in seeds)
    return wrote / sum(frame["history_id"].nunique() for frame in told)


def _text(contest: Contest) -> str:
    """One plain sentence: who scores more on what, how surely, and what each keeps and reads for it."""
    left, right, difference = contest.left, contest.right, contest.difference
    apart = left.place.backbone != right.place.backbone
    a, b = named(left, apart), named(right, apart)
    on = f"{contest.category} questions of {contest.task}" if contest.category else contest.task
    by = "" if contest.usual else f", by {contest.metric},"
    points = number(abs(difference.value))
    more = "more" if difference.value > 0 else "less"
    over = f"over {difference.n:,} question{'s' * (difference.n != 1)}"
    if contest.finding == "too few clusters":
        documents = f"{difference.clusters} source document{'s' * (difference.clusters != 1)}"
        scores = f"{points} points {more} than" if float(points) else "as much as"
        said = f"{a} scores {scores} {b} {over} of {documents}, too few for an interval or a claim"
    elif contest.finding == "not told apart":
        said = f"{a} and {b} are not told apart: they differ by {cell(difference, True)} points {over}"
        if difference.detectable is not None:
            said += f", where 80% power finds {number(difference.detectable)} or more"
    else:
        ends = cell(difference, True).split(" ", 1)[1]
        said = f"{a} scores {points} points {more} than {b}, {ends}, {over}"
    return f"On {on}{by} {said}; {_spent(left, right)}."


def _spent(left: Side, right: Side) -> str:
    """``delta_mem_tsw kept 7.7 KB of a history against 237 B and read 26 prompt tokens a question against 52``"""
    kept = [size(round(side.spent.state_bytes)) if side.spent.state_bytes else "nothing" for side in (left, right)]
    read = [f"{side.spent.prompt_tokens:,.0f}" for side in (left, right)]
    if kept[0] == kept[1] and read[0] == read[1]:
        return f"both kept {kept[0]} of a history and read {read[0]} prompt tokens a question"
    who = left.place.row if left.place.row != right.place.row else "the first"
    keeps = f"kept {kept[0]} of a history against {kept[1]}"
    return f"{who} {keeps} and read {read[0]} prompt tokens a question against {read[1]}"


def _plain_side(side: Side) -> dict[str, Any]:
    place = {name: value for name, value in side.place._asdict().items() if name in ("backbone", "row", "condition")}
    return {**place, "score": _plain(side.score, 100), "costs": asdict(side.spent)}


def _plain(estimate: Estimate, scale: float) -> dict[str, Any]:
    """An estimate's fields that say something, its numbers times ``scale``."""
    scaled = ("value", "low", "high", "detectable")
    fields = {k: v for k, v in asdict(estimate).items() if v is not None and v != ""}
    return {k: scale * v if k in scaled else v for k, v in fields.items()}

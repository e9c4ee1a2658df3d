"""What a memory costs against how good it is: bytes kept a history, and prompt tokens read a question.

A point a row; the front joins the rows that no other beats in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.experiment import Experiment
from harness.reporting.figures import _style
from harness.reporting.figures._labels import spread
from harness.reporting.figures._pages import Page, Sources, pages_of, rows_where
from harness.reporting.figures._style import OUT_OF_SIGHT
from harness.reporting.summary import Place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Score of each row by task against what its memory costs, the bytes kept of a history and the prompt tokens read "
    "a question; the line joins the rows that no other beats in both."
)
TASKS = 4
"""A page; each has two panels."""
DIRECT = 8
"""Rows up to which names stand at the points; more are numbered."""
HOLLOW = "Hollow: the history is in the prompt, so that all of it is kept, and the row stands on the right alone."
CONDITIONS = (*OUT_OF_SIGHT, "replayed")
"""What a row is shown under: the first of these that it is asked."""


@dataclass(frozen=True)
class Point:
    """A row in a panel."""

    number: int
    """Among the rows of the experiment."""
    row: str
    condition: str
    cost: float
    score: float
    """In percent."""


def pages(experiment: Experiment) -> list[Page]:
    """A page shows all rows: a point is read beside the others."""
    rows = rows_where(experiment, lambda p: p.condition in CONDITIONS and p.arm == "own")
    return [
        page
        for backbone in (experiment.backbones if len(rows) > 1 else ())
        for page in pages_of(
            experiment.model_copy(update={"backbones": {backbone: experiment.backbones[backbone]}}),
            rows,
            lines=len(rows),
            columns=TASKS,
        )
    ]


def draw(sources: Sources, page: Page) -> Figure:
    [backbone] = page.backbones
    key = len(page.rows) > DIRECT
    lines = -(-len(page.rows) // 5) if key else 0
    size = (7.6, 2.5 * len(page.tasks) + 0.6 + 0.17 * lines)
    figure, grid = _style.canvas(len(page.tasks), 2, size, sharey="row")
    shown: dict[int, Point] = {}
    labelled: list[tuple[Axes, list[Point]]] = []
    for task, (kept, read) in zip(page.tasks, grid, strict=True):
        for axes, tokens in ((kept, False), (read, True)):
            points = _points(sources, backbone, task.name, page.rows, tokens=tokens)
            _panel(axes, points)
            labelled.append((axes, points))
            shown |= {point.number: point for point in points}
            axes.set_title(_style.short(task.name))
            axes.set_xlabel("prompt tokens read a question" if tokens else "bytes kept of a history")
        read.tick_params(labelleft=not kept.has_data())
        kept.set_ylabel(f"{_style.short(sources.summary.primary_metric(task.name) or 'score', 14)} (%)")
    if len(sources.experiment.backbones) > 1:
        figure.suptitle(_style.short(backbone), fontsize=9)
    handles = [_style.handle(f"{n} {_style.short(p.row)}", **_look(p)) for n, p in sorted(shown.items())]
    _style.legend(figure, handles if key else [], _said(page, [p for _, points in labelled for p in points]))
    _style.settle(figure)  # labels are placed among what has its place
    for axes, points in labelled:
        texts = [str(p.number) if key else _style.short(p.row, 18) for p in points]
        spread(axes, [(p.cost or _nothing(points), p.score) for p in points], texts)
    return figure


def _points(sources: Sources, backbone: str, task: str, rows: Sequence[str], *, tokens: bool) -> list[Point]:
    summary = sources.summary
    found = []
    for number, row in enumerate(rows, 1):
        places = (Place(backbone, row, task, condition) for condition in CONDITIONS)
        place = next((p for p in places if summary.records_of(p)), None)
        if place is None or (place.condition == "replayed" and not tokens):
            continue
        records, estimate = summary.records_of(place), summary.estimate(place)
        if estimate is None:
            continue
        costs = [r.costs.tokens_in / max(1, r.questions) if tokens else r.costs.state_bytes for r in records]
        found.append(Point(number, row, place.condition, sum(costs) / len(costs), 100 * estimate.value))
    return found


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in both, the cheapest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.score)):
        if not found or point.score > found[-1].score:
            found.append(point)
    return found


def _panel(axes: Axes, points: Sequence[Point]) -> None:
    if not points:
        _style.empty(axes, "No row of this kind ran here.")
        return
    _axis(axes, points)
    x = {p.number: p.cost or _nothing(points) for p in points}
    best = front(points)
    if len(best) > 1:
        axes.plot([x[p.number] for p in best], [p.score for p in best], color="0.75", linewidth=1.4,
                  drawstyle="steps-post", zorder=1, gid="front")  # fmt: skip
    for point in points:
        axes.plot(x[point.number], point.score, linestyle="none", markersize=6, **_look(point))
    top = max(p.score for p in points)
    axes.set_ylim(-0.06 * max(top, 5), 1.14 * max(top, 5))
    axes.grid(color="0.92", linewidth=0.6)


def _nothing(points: Sequence[Point]) -> float:
    """Where a cost of nothing stands on a log axis: a place of its own at the left."""
    return min([p.cost for p in points if p.cost] or [1.0]) / 4


def _axis(axes: Axes, points: Sequence[Point]) -> None:
    """A log axis with room at the right for names."""
    costs, nothing = [p.cost for p in points], _nothing(points)
    low, high = (min(costs) or nothing), max(*costs, nothing)
    room = max(high / low, 4.0)
    axes.set_xscale("log")
    axes.set_xlim(low / room**0.12, high * room**0.3)
    zero = {nothing: "0"} if 0 in costs else {}
    _style.decades(axes.xaxis, (nothing * 2.2 if zero else low / room**0.12, high * room**0.3), others=zero)
    if zero:
        axes.axvline(nothing * 2, color="0.85", linewidth=0.6, linestyle=":")


def _look(point: Point) -> dict[str, Any]:
    look = _style.look(point.number - 1)
    return {**look, "markerfacecolor": "white"} if point.condition == "replayed" else {
        **look, "markerfacecolor": look["color"]
    }  # fmt: skip


def _said(page: Page, points: Sequence[Point]) -> str:
    """What the marks do not say themselves."""
    absent = [_style.short(row) for row in page.rows if not any(p.row == row for p in points)]
    notes = [HOLLOW] if any(p.condition == "replayed" for p in points) else []
    return " ".join([*notes, *([f"Did not run: {', '.join(absent)}."] if absent else [])])

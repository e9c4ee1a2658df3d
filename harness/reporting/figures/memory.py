"""Each row's own memory, another history's, and no memory at all, a panel a task.

The raw history is out of sight in every point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.experiment import Experiment
from harness.reporting.figures import _style
from harness.reporting.figures._pages import Page, Sources, named, pages_of, rows_where
from harness.reporting.figures._style import ARMS, FLOOR, GREY, OUT_OF_SIGHT
from harness.reporting.summary import Place
from harness.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Score of each row with the history out of sight, by task: its own memory beside another history's (donor), the "
    "mean memory, and the question alone (dashed), with 95% intervals."
)


def pages(experiment: Experiment) -> list[Page]:
    floors = named(experiment, FLOOR)
    rows = rows_where(experiment, lambda p: p.condition in OUT_OF_SIGHT and p.row not in floors)
    return pages_of(experiment, rows)


def draw(sources: Sources, page: Page) -> Figure:
    summary = sources.summary
    size = (2.0 + 2.4 * len(page.tasks), len(page.backbones) * (0.9 + 0.36 * len(page.rows)) + 0.5)
    figure, grid = _style.canvas(len(page.backbones), len(page.tasks), size, sharey="row")
    floors = sorted(named(sources.experiment, FLOOR))
    arms: set[str] = set()
    for backbone, line in zip(page.backbones, grid, strict=True):
        for task, axes in zip(page.tasks, line, strict=True):
            for floor in floors:
                _floor(axes, summary.estimate(Place(backbone, floor, task.name, "removed")))
            for position, row in enumerate(page.rows):
                for condition in OUT_OF_SIGHT:
                    arms |= _row(axes, sources, Place(backbone, row, task.name, condition), position)
            axes.set_title(_style.short(task.name))
            axes.set_xlabel(f"{_style.short(summary.primary_metric(task.name) or 'score')} (%)")
            axes.set_xlim(left=0)
            axes.grid(axis="x", color="0.9", linewidth=0.6)
        line[0].set_yticks(range(len(page.rows)), [_style.short(row) for row in page.rows])
        line[0].set_ylim(len(page.rows) - 0.5, -0.5)
        if len(sources.experiment.backbones) > 1:
            line[0].set_ylabel(_style.short(backbone))
    handles = [_style.handle(arm, **style) for arm, style in ARMS.items() if arm in arms]
    if floors:
        handles.append(_style.handle(FLOOR, color=GREY, linestyle="--", linewidth=1))
    _style.legend(figure, handles)
    return figure


def _floor(axes: Axes, estimate: Estimate | None) -> None:
    if estimate is None:
        return
    axes.axvline(100 * estimate.value, color=GREY, linestyle="--", linewidth=1)
    if estimate.low is not None and estimate.high is not None:
        axes.axvspan(100 * estimate.low, 100 * estimate.high, color="0.5", alpha=0.15, linewidth=0)


def _row(axes: Axes, sources: Sources, place: Place, position: int) -> set[str]:
    """A row's arms; gives those that ran."""
    found = {arm: e for arm in ARMS if (e := sources.summary.estimate(place._replace(arm=arm))) is not None}
    for shift, (arm, estimate) in zip(_style.shifts(len(found)), found.items(), strict=True):
        _style.interval(axes, estimate, position + shift, color=ARMS[arm]["color"])
        axes.plot(100 * estimate.value, position + shift, linestyle="none", markersize=5.5, clip_on=False, **ARMS[arm])
    if not found and place in sources.declared:
        _style.unrun(axes, position)
    return set(found)

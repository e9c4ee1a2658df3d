"""What each row adds to what the bare backbone does: own - frozen, own - question_only, paired by question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.experiment import Experiment
from harness.reporting.figures import _style
from harness.reporting.figures._pages import Page, Sources, declared, named, pages_of, rows_where
from harness.reporting.figures._style import FLOOR, FROZEN, GREY
from harness.reporting.summary import Place
from harness.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Gain of each row by task in points, paired by question, with 95% intervals: over the frozen backbone with the "
    "history in the prompt, and over the question alone with the history out of sight."
)
BASELINES = {"replayed": (FROZEN, "replayed"), "removed": (FLOOR, "removed"), "own_text": (FLOOR, "removed")}
"""By a row's condition: the method it is held against, and under which condition."""
LOOKS: dict[str, dict[str, Any]] = {
    "replayed": {"marker": "o", "color": "#0072B2", "markerfacecolor": "#0072B2"},
    "removed": {"marker": "s", "color": "#D55E00", "markerfacecolor": "white"},
    "own_text": {"marker": "^", "color": "#009E73", "markerfacecolor": "white"},
}
LABELS = {
    "replayed": "replayed: own − frozen",
    "removed": "removed: own − question_only",
    "own_text": "own_text: own − question_only",
}


def pages(experiment: Experiment) -> list[Page]:
    served = set(declared(experiment))
    rows = rows_where(experiment, lambda p: baseline(experiment, p) in served)
    return pages_of(experiment, rows)


def baseline(experiment: Experiment, place: Place) -> Place | None:
    """What a place is held against; None of a control arm, a baseline itself, or where the experiment has none."""
    method, condition = BASELINES.get(place.condition, ("", ""))
    rows = sorted(named(experiment, method))
    reference = named(experiment, FROZEN) | named(experiment, FLOOR)
    if not rows or place.arm != "own" or place.row in reference:
        return None
    return Place(place.backbone, rows[0], place.task, condition)


def gain(sources: Sources, place: Place) -> Estimate | None:
    """Of a place over its baseline; None where either did not run."""
    other = baseline(sources.experiment, place)
    return sources.summary.contrast(place, other) if other else None


def draw(sources: Sources, page: Page) -> Figure:
    size = (2.0 + 2.4 * len(page.tasks), len(page.backbones) * (0.9 + 0.32 * len(page.rows)) + 0.7)
    figure, grid = _style.canvas(len(page.backbones), len(page.tasks), size, sharey="row")
    drawn: set[str] = set()
    for backbone, line in zip(page.backbones, grid, strict=True):
        for task, axes in zip(page.tasks, line, strict=True):
            axes.axvline(0, color=GREY, linewidth=1)
            for position, row in enumerate(page.rows):
                drawn |= _row(axes, sources, Place(backbone, row, task.name, ""), position)
            axes.set_title(_style.short(task.name))
            axes.set_xlabel(f"{_style.short(sources.summary.primary_metric(task.name) or 'score')}, points")
            axes.grid(axis="x", color="0.9", linewidth=0.6)
        line[0].set_yticks(range(len(page.rows)), [_style.short(row) for row in page.rows])
        line[0].set_ylim(len(page.rows) - 0.5, -0.5)
        if len(sources.experiment.backbones) > 1:
            line[0].set_ylabel(_style.short(backbone))
    handles = [_style.handle(LABELS[c], **style) for c, style in LOOKS.items() if c in drawn]
    _style.legend(figure, handles, _without(sources, page))
    return figure


def _row(axes: Axes, sources: Sources, place: Place, position: int) -> set[str]:
    """A row's gains, one a condition; gives the conditions that ran."""
    places = [place._replace(condition=condition) for condition in LOOKS]
    asked = [p for p in places if p in sources.declared and baseline(sources.experiment, p) in sources.declared]
    found = {p.condition: e for p in asked if (e := gain(sources, p)) is not None}
    for shift, (condition, estimate) in zip(_style.shifts(len(found), 0.24), found.items(), strict=True):
        style = LOOKS[condition]
        _style.interval(axes, estimate, position + shift, color=style["color"])
        axes.plot(100 * estimate.value, position + shift, linestyle="none", markersize=5.5, **style)
    if asked and not found:
        _style.unrun(axes, position)
    return set(found)


def _without(sources: Sources, page: Page) -> str:
    """Conditions that no baseline of the experiment answers to."""
    experiment, served = sources.experiment, sources.declared
    names = {t.name for t in page.tasks}
    reference = named(experiment, FROZEN) | named(experiment, FLOOR)
    alone = [
        p for p in served
        if p.arm == "own" and p.task in names and p.row not in reference and baseline(experiment, p) not in served
    ]  # fmt: skip
    if not alone:
        return ""
    conditions = sorted({p.condition for p in alone})
    rows = len({p.row for p in alone})
    return f"Left out for want of a baseline: {' and '.join(conditions)} of {rows} row{'s' * (rows > 1)}."

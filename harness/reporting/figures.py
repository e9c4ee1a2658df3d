"""One figure: each row's own memory, another history's, and no memory at all, a panel a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.experiment import Experiment, TaskSpec
from harness.records import atomic
from harness.reporting.summary import Place, Summary
from harness.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLOOR = "question_only"
"""The method that sees the question alone."""
STYLE = {
    "own": {"marker": "o", "color": "#0072B2", "markerfacecolor": "#0072B2"},
    "donor": {"marker": "s", "color": "#D55E00", "markerfacecolor": "white"},
    "mean": {"marker": "^", "color": "#009E73", "markerfacecolor": "white"},
}
"""Okabe and Ito's colours; shape and filling tell the arms apart in grey."""
SETTINGS = {"font.size": 9, "pdf.fonttype": 42, "svg.hashsalt": "0", "axes.spines.top": False, "axes.spines.right": False}


def write(experiment: Experiment, results: Path, out: Path) -> list[Path]:
    """Write ``memory.pdf`` and ``memory.png`` into ``out``; equal answers give equal pictures.

    Raises:
        HarnessError: a record or its samples are torn, doubled, foreign or at odds; nothing is written then.
    """
    import matplotlib
    from matplotlib import pyplot

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **SETTINGS, "backend": "agg"}):
        figure = _draw(experiment, Summary(experiment, results))
        written = []
        for name, metadata in (("memory.pdf", {"CreationDate": None}), ("memory.png", {"Software": None})):
            with atomic(out / name) as temporary:
                figure.savefig(temporary, format=name[-3:], dpi=200, metadata=metadata)
            written.append(out / name)
        pyplot.close(figure)
    return written


def _draw(experiment: Experiment, summary: Summary) -> Figure:
    from matplotlib import pyplot

    backbones, tasks = list(experiment.backbones), experiment.tasks
    floors = {r.row for r in experiment.rows if r.method == FLOOR}
    rows = [r.row for r in experiment.rows if r.row not in floors]
    size = (1.8 + 2.5 * len(tasks), len(backbones) * (0.9 + 0.34 * len(rows)) + 0.5)
    figure, grid = pyplot.subplots(
        len(backbones), len(tasks), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for backbone, line in zip(backbones, grid, strict=True):
        for task, axes in zip(tasks, line, strict=True):
            condition = _condition(task)
            for floor in sorted(floors):
                _floor(axes, summary.estimate(Place(backbone, floor, task.task, "removed")))
            for place_on_axis, row in enumerate(rows):
                _row(axes, summary, Place(backbone, row, task.task, condition), place_on_axis)
            axes.set_title(f"{task.task}, {condition}", fontsize=9)
            axes.set_xlabel(f"{summary.primary_metric(task.task) or 'score'} (%)")
            axes.set_xlim(left=0)
            axes.grid(axis="x", color="0.9", linewidth=0.6)
            axes.set_axisbelow(True)
        line[0].set_yticks(range(len(rows)), rows)
        line[0].set_ylim(len(rows) - 0.5, -0.5)
        if len(backbones) > 1:
            line[0].set_ylabel(backbone)
    _legend(figure, grid[0][0], bool(floors))
    return figure


def _condition(task: TaskSpec) -> str:
    """The condition under which memory alone can help, where the task has it."""
    return "removed" if "removed" in task.conditions else next(iter(task.conditions))


def _floor(axes: Axes, estimate: Estimate | None) -> None:
    if estimate is None:
        return
    axes.axvline(100 * estimate.value, color="0.35", linestyle="--", linewidth=1)
    if estimate.low is not None and estimate.high is not None:
        axes.axvspan(100 * estimate.low, 100 * estimate.high, color="0.5", alpha=0.15, linewidth=0)


def _row(axes: Axes, summary: Summary, place: Place, position: int) -> None:
    """A row's arms, a little above one another so that their intervals do not hide each other."""
    for shift, (arm, style) in zip((-0.18, 0.08, 0.28), STYLE.items(), strict=True):
        estimate = summary.estimate(place._replace(arm=arm))
        if estimate is None:
            continue
        if estimate.low is not None and estimate.high is not None:
            ends = [100 * estimate.low, 100 * estimate.high]
            axes.plot(ends, [position + shift] * 2, color=style["color"], linewidth=1.4)
        axes.plot(100 * estimate.value, position + shift, linestyle="none", markersize=5.5, **style)


def _legend(figure: Figure, axes: Axes, floor: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="none", label=arm, **style) for arm, style in STYLE.items()]
    if floor:
        handles.append(Line2D([], [], color="0.35", linestyle="--", linewidth=1, label=FLOOR))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)

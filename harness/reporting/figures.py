"""The figure of memory: each row's own memory, another history's, and no memory at all, a panel a task; and, where an
experiment asks for it, that of capacity.

The raw history is out of sight in every point."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.experiment import Experiment, TaskSpec
from harness.records import atomic
from harness.reporting import capacity
from harness.reporting.summary import Place, Summary
from harness.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLOOR = "question_only"
"""The method that sees the question alone."""
OUT_OF_SIGHT = ("removed", "own_text")
"""The conditions under which the history itself is gone, so that only memory can help; a method serves one of them."""
STYLE: dict[str, dict[str, Any]] = {
    "own": {"marker": "o", "color": "#0072B2", "markerfacecolor": "#0072B2"},
    "donor": {"marker": "s", "color": "#D55E00", "markerfacecolor": "white"},
    "mean": {"marker": "^", "color": "#009E73", "markerfacecolor": "white"},
}
"""Okabe and Ito's colours; shape and filling tell the arms apart in grey."""


def write(experiment: Experiment, results: Path, out: Path) -> list[Path]:
    """Write ``memory.pdf`` and ``memory.png`` into ``out``, and the same of ``capacity``; equal answers give equal
    pictures.

    Raises:
        HarnessError: a record or its samples are torn, doubled, foreign or at odds; nothing is written then.
    """
    import matplotlib
    from matplotlib import pyplot

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a reader's own matplotlibrc must not change the picture
        matplotlib.rc("font", size=9)
        matplotlib.rc("pdf", fonttype=42)
        matplotlib.rc("axes.spines", top=False, right=False)
        pyplot.switch_backend("agg")
        summary = Summary(experiment, results)
        drawn = {"memory": _draw(experiment, summary)}
        if capacity.applies(experiment):
            drawn["capacity"] = capacity.draw(experiment, summary)
        written = []
        for name, figure in drawn.items():
            for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
                with atomic(out / f"{name}.{kind}") as temporary:
                    figure.savefig(temporary, format=kind, dpi=200, metadata=metadata)
                written.append(out / f"{name}.{kind}")
            pyplot.close(figure)
    return written


def _draw(experiment: Experiment, summary: Summary) -> Figure:
    from matplotlib import pyplot

    backbones, tasks = list(experiment.backbones), experiment.tasks
    floors = {r.row for r in experiment.rows if r.method == FLOOR}
    rows = [r.row for r in experiment.rows if r.row not in floors and _runs(summary, tasks, r.row)]
    size = (1.8 + 2.5 * len(tasks), len(backbones) * (0.9 + 0.36 * max(len(rows), 1)) + 0.5)
    figure, grid = pyplot.subplots(
        len(backbones), len(tasks), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for backbone, line in zip(backbones, grid, strict=True):
        for task, axes in zip(tasks, line, strict=True):
            for floor in sorted(floors):
                _floor(axes, summary.estimate(Place(backbone, floor, task.name, "removed")))
            for position, row in enumerate(rows):
                for condition in OUT_OF_SIGHT:
                    _row(axes, summary, Place(backbone, row, task.name, condition), position)
            axes.set_title(task.name, fontsize=9)
            axes.set_xlabel(f"{summary.primary_metric(task.name) or 'score'} (%)")
            axes.set_xlim(left=0)
            axes.grid(axis="x", color="0.9", linewidth=0.6)
            axes.set_axisbelow(True)
        line[0].set_yticks(range(len(rows)), rows)
        line[0].set_ylim(max(len(rows), 1) - 0.5, -0.5)
        if len(backbones) > 1:
            line[0].set_ylabel(backbone)
    _legend(figure, {p.arm for p in summary.places if p.condition in OUT_OF_SIGHT}, bool(floors))
    return figure


def _runs(summary: Summary, tasks: Iterable[TaskSpec], row: str) -> bool:
    names = [task.name for task in tasks]
    return any(p.row == row and p.task in names and p.condition in OUT_OF_SIGHT for p in summary.places)


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


def _legend(figure: Figure, arms: set[str], floor: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="none", label=arm, **style) for arm, style in STYLE.items() if arm in arms]
    if floor:
        handles.append(Line2D([], [], color="0.35", linestyle="--", linewidth=1, label=FLOOR))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)

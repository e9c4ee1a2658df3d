"""What the states of a row that keeps one say by layer: how large they are, and how widely the write gate opens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.experiment import Experiment
from harness.reporting.figures import _style
from harness.reporting.figures._pages import Page, Sources, method, pages_of, rows_where
from harness.reporting.summary import Place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Norm of the state S after a history, and mean gates over what was written of it, by layer with a memory, mean "
    "over histories, of each row that keeps a state."
)
CONDITIONS = ("removed", "windowed")
"""Under which a state is written before the question."""
ROWS, TASKS = 8, 4
FACTS = {"norm": "norm of S", "write_gate": "mean gate over writes"}
FORGET = "forget_gate"


def pages(experiment: Experiment) -> list[Page]:
    stateful = {r.row for r in experiment.rows if method(r).capabilities.family == "online_state"}
    wanted = rows_where(experiment, lambda p: p.row in stateful and p.condition in CONDITIONS and p.arm == "own")
    tasks = [t for t in experiment.tasks if set(t.conditions) & set(CONDITIONS)]
    return [
        page
        for backbone in experiment.backbones
        for page in pages_of(
            experiment.model_copy(update={"backbones": {backbone: experiment.backbones[backbone]}}),
            wanted, tasks=tasks, lines=ROWS, columns=TASKS,
        )
    ]  # fmt: skip


def facts(sources: Sources, place: Place, name: str) -> list[float]:
    """A fact by layer, mean over seeds; empty where the records tell none."""
    told = [r.layers[name] for r in sources.summary.records_of(place) if r.layers.get(name)]
    return [float(v) for v in np.mean(told, axis=0)] if told and len({len(t) for t in told}) == 1 else []


def draw(sources: Sources, page: Page) -> Figure:
    [backbone] = page.backbones
    told = any(
        facts(sources, Place(backbone, row, task.name, condition), name)
        for row in page.rows for task in page.tasks for condition in CONDITIONS for name in FACTS
    )  # fmt: skip
    if not told:
        rows = ", ".join(map(_style.short, page.rows))
        return _style.notice(f"What the states of {rows} on {_style.short(backbone)} say by layer is not recorded.")
    size = (7.2, 2.0 * len(page.tasks) + 0.9)
    figure, grid = _style.canvas(len(page.tasks), 2, size, sharex=True)
    drawn: dict[str, dict[str, Any]] = {}
    dashed = False
    for task, line in zip(page.tasks, grid, strict=True):
        for (fact, label), axes in zip(FACTS.items(), line, strict=True):
            found, forgets = _panel(axes, sources, backbone, task.name, page.rows, fact)
            drawn, dashed = drawn | found, dashed or forgets
            axes.set_title(_style.short(task.name))
            axes.set_ylabel(label)
    for axes in grid[-1]:
        if axes.has_data() and axes.lines:
            axes.set_xlabel("layer with a memory")
    if len(sources.experiment.backbones) > 1:
        figure.suptitle(_style.short(backbone), fontsize=9)
    handles = [_style.handle(_style.short(row), **{**look, "linestyle": "-"}) for row, look in drawn.items()]
    if dashed:
        handles.append(_style.handle("forgotten, 1 − λ, where it is a gate of its own", color="black", linestyle="--"))
    _style.legend(figure, handles)
    return figure


def _panel(
    axes: Axes, sources: Sources, backbone: str, task: str, rows: tuple[str, ...], fact: str
) -> tuple[dict[str, dict[str, Any]], bool]:
    drawn, dashed, ran = {}, False, False
    for number, row in enumerate(rows):
        places = [Place(backbone, row, task, condition) for condition in CONDITIONS]
        place = next((p for p in places if sources.summary.records_of(p)), None)
        ran |= place is not None
        values = facts(sources, place, fact) if place else []
        if not place or not values:
            continue
        look = {**_style.look(number), "markersize": 4, "linewidth": 1.2}
        axes.plot(range(1, len(values) + 1), values, label=row, **look)
        drawn[row] = look
        if fact == "write_gate" and (forget := facts(sources, place, FORGET)):
            axes.plot(range(1, len(forget) + 1), forget, color=look["color"], linestyle="--", linewidth=1)
            dashed = True
    if not drawn:
        said = "ran, but this is not recorded" if ran else "did not run"
        _style.empty(axes, f"{_style.short(task)} {said}.")
        return {}, False
    axes.set_ylim(bottom=0)
    axes.grid(color="0.92", linewidth=0.6)
    return drawn, dashed

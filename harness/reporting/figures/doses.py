"""The figure of an experiment in doses: recall and ‖ΔS‖ against what was done to a history, a column a kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.reporting.figures import _style
from harness.reporting.figures._style import COLOURS, MARKERS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {
    "noise": "formatting marks a telling",
    "between": "formatting messages a telling",
    "repeats": "times the target is told",
    "overwrites": "older values of the target",
}


def write(frame: pd.DataFrame, out: Path) -> list[Path]:
    """Write ``granularity.pdf`` and ``granularity.png``; equal numbers give equal pictures.

    Args:
        frame: As ``benchmarks.granularity.table`` gives it.
    """
    with _style.settled("granularity"):
        return _style.save(_draw(frame), "granularity", out)


def _draw(frame: pd.DataFrame) -> Figure:
    kinds = [kind for kind in LABELS if (frame["kind"] == kind).any()]
    rows = list(dict.fromkeys(zip(frame["backbone"], frame["row"], strict=True)))
    figure, grid = _style.canvas(2, len(kinds), (1.0 + 2.1 * len(kinds), 4.6), sharex="col", sharey="row")
    for kind, (recall, state) in zip(kinds, grid.T, strict=True):
        for n, (backbone, row) in enumerate(rows):
            style = {"color": COLOURS[n % len(COLOURS)], "marker": MARKERS[n % len(MARKERS)], "markersize": 4}
            mine = frame[(frame["backbone"] == backbone) & (frame["row"] == row)]
            label = row if len(set(frame["backbone"])) == 1 else f"{row}, {backbone}"
            _lines(recall, state, _along(mine, kind), {**style, "label": label})
        state.set_xlabel(LABELS[kind])
        for axes in (recall, state):
            axes.grid(axis="y", color="0.9", linewidth=0.6)
    for axes in grid[:, 0]:  # after all is drawn, for it ends the scaling to the data
        axes.set_ylim(bottom=0)
    grid[0, 0].set_ylabel("recall (%)")
    grid[1, 0].set_ylabel("‖ΔS‖, relative")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _along(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """One row's lines of a kind by dose, the clean history first."""
    clean = 1 if kind == "repeats" else 0
    part = frame[(frame["kind"] == kind) | (frame["kind"] == "clean")]
    return part.assign(dose=part["dose"].where(part["kind"] == kind, clean)).sort_values("dose")


def _lines(recall: Axes, state: Axes, part: pd.DataFrame, style: dict[str, Any]) -> None:
    """Own with its interval and, dotted, a donor's; below, the change of the state and, dotted, another history's."""
    x = range(len(part))
    dotted = {"color": style["color"], "linestyle": ":", "linewidth": 1}
    recall.plot(x, 100 * part["own"], linewidth=1.4, **style)
    if part["own_low"].notna().all():
        recall.fill_between(
            x, 100 * part["own_low"], 100 * part["own_high"], color=style["color"], alpha=0.12, linewidth=0
        )
    if part["donor"].notna().all():
        recall.plot(x, 100 * part["donor"], **dotted)
    state.plot(x, part["delta"], linewidth=1.4, **style)
    state.plot(x, part["other"], **dotted)
    state.set_xticks(list(x), [str(dose) for dose in part["dose"]])

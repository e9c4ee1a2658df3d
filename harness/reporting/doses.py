"""The figure of an experiment in doses: recall and ‖ΔS‖ against what was done to a history, a column a kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records import atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, one a row."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
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
    import matplotlib
    from matplotlib import pyplot

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rc("font", size=9)
        matplotlib.rc("pdf", fonttype=42)
        matplotlib.rc("axes.spines", top=False, right=False)
        pyplot.switch_backend("agg")
        figure = _draw(frame)
        written = []
        for name, metadata in (("granularity.pdf", {"CreationDate": None}), ("granularity.png", {"Software": None})):
            with atomic(out / name) as temporary:
                figure.savefig(temporary, format=name[-3:], dpi=200, metadata=metadata)
            written.append(out / name)
        pyplot.close(figure)
    return written


def _draw(frame: pd.DataFrame) -> Figure:
    from matplotlib import pyplot

    kinds = [kind for kind in LABELS if (frame["kind"] == kind).any()]
    rows = list(dict.fromkeys(zip(frame["backbone"], frame["row"], strict=True)))
    figure, grid = pyplot.subplots(
        2, len(kinds), figsize=(1.0 + 2.1 * len(kinds), 4.6), sharex="col", sharey="row", squeeze=False,
        layout="constrained",
    )  # fmt: skip
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

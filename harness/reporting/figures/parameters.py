"""Trainable parameters of each row that learns, and their share of the backbone, beside the paper's (its Figure 4)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.experiment import Experiment
from harness.reporting import reported
from harness.reporting.figures import _style
from harness.reporting.figures._pages import Page, Sources, method, pages_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Trainable parameters of each row that learns before it is asked, as a number and as a share of its backbone, on "
    "log scales, beside the paper's."
)


def pages(experiment: Experiment) -> list[Page]:
    rows = [r.row for r in experiment.rows if method(r).capabilities.fits is not None]
    return pages_of(experiment, rows, tasks=())


def counts(sources: Sources, backbone: str) -> dict[str, tuple[int, int]]:
    """Trainable parameters and those of the backbone, by row that has run."""
    found: dict[str, tuple[int, int]] = {}
    for measured in sources.measured:
        if measured.backbone == backbone:
            found[measured.row] = measured.trainable_parameters, _size(measured.provenance.backbone)
    if sources.experiment.tasks:
        for record in sources.summary.records.values():
            if record.backbone == backbone:
                found[record.row] = record.costs.trainable_parameters, _size(record.provenance.backbone)
    return found


def _size(backbone: dict[str, Any]) -> int:
    return int(backbone.get("parameters") or 0)


def printed(experiment: Experiment, row: str, backbone: str) -> tuple[float, float] | None:
    """The paper's number and percentage of a row with its settings; None where it prints none."""
    spec = next(r for r in experiment.rows if r.row == row)
    names = [m for name, settings, m in _names() if name == spec.method and settings == spec.with_]
    model = experiment.backbones[backbone].reported_as or reported.MAIN_BACKBONE
    for name in names:
        found = {metric: value for b, m, metric, value in _numbers() if (b, m) == (model, name)}
        if len(found) == 2:
            return 1e6 * found["trainable_millions"], found["percent_of_backbone"]
    return None


@cache
def _names() -> list[tuple[str, dict[str, Any], str]]:
    rows = pd.read_csv(reported.FOLDER / "rows.csv", keep_default_na=False, converters={"settings": reported._settings})
    return list(zip(rows["row"], rows["settings"], rows["method"], strict=True))


@cache
def _numbers() -> list[tuple[str, str, str, float]]:
    table = pd.read_csv(reported.FOLDER / "figure4_parameters.csv")
    return list(zip(table["backbone"], table["method"], table["metric"], table["value"].astype(float), strict=True))


def draw(sources: Sources, page: Page) -> Figure:
    size = (7.2, len(page.backbones) * (0.8 + 0.3 * len(page.rows)) + 0.5)
    figure, grid = _style.canvas(len(page.backbones), 2, size, sharey="row")
    marks: set[bool] = set()
    for backbone, (left, right) in zip(page.backbones, grid, strict=True):
        found = counts(sources, backbone)
        if not any(found.get(row) for row in page.rows):
            for axes in (left, right):
                _style.empty(axes, f"No row that learns ran on {_style.short(backbone)}.")
            continue
        same = sources.experiment.backbones[backbone].reported_as is not None
        for position, row in enumerate(page.rows):
            paper = printed(sources.experiment, row, backbone)
            _row(left, right, position, found.get(row), paper, same)
            marks |= {same} if paper else set()
        for axes, suffix in ((left, ""), (right, "%")):
            axes.set_xscale("log")
            axes.margins(x=0.22)
            _style.decades(axes.xaxis, axes.get_xlim(), suffix)
            axes.grid(axis="x", color="0.9", linewidth=0.6)
        left.set_xlabel("trainable parameters")
        right.set_xlabel("share of the backbone")
        left.set_yticks(range(len(page.rows)), [_style.short(row) for row in page.rows])
        left.set_ylim(len(page.rows) - 0.5, -0.5)
        if len(sources.experiment.backbones) > 1:
            left.set_ylabel(_style.short(backbone))
    handles = [_style.handle("ours", marker="o", color="#0072B2")] if marks else []
    handles += [_style.handle(_said(same), **_mark(same)) for same in sorted(marks, reverse=True)]
    _style.legend(figure, handles)
    return figure


def _said(same: bool) -> str:
    return "the paper's Figure 4" if same else "† the paper, another backbone: for scale"


def _mark(same: bool) -> dict[str, Any]:
    return {"marker": "D", "color": "black" if same else "0.5", "markerfacecolor": "white", "markersize": 5.5}


def _row(
    left: Axes, right: Axes, at: int, ours: tuple[int, int] | None, paper: tuple[float, float] | None, same: bool
) -> None:
    if paper:
        for axes, value in zip((left, right), paper, strict=True):
            axes.plot(value, at, linestyle="none", zorder=2, **_mark(same))
    if ours and ours[0]:
        left.plot(ours[0], at, marker="o", color="#0072B2", zorder=3, markersize=4.5)
        _text(left, ours[0], at, _style.magnitude(ours[0]))
        if ours[1]:
            share = 100 * ours[0] / ours[1]
            right.plot(share, at, marker="o", color="#0072B2", zorder=3, markersize=4.5)
            _text(right, share, at, f"{share:.2g}%" if share < 1 else f"{share:.3g}%")
    elif ours is None:
        _style.unrun(left, at)


def _text(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), xytext=(0, 5), textcoords="offset points", ha="center", va="bottom", fontsize=7)

"""Training loss by step, a line a fit: rows and seeds that share one stand in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness import fits, seals
from harness.experiment import Experiment
from harness.reporting.figures import _style
from harness.reporting.figures._pages import Page, Sources, method, pages_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = "Training loss by optimiser step of each row that learns, a line a seed (thin: as it was; bold: smoothed)."
ROWS = 8
STYLES = ("-", "--", ":", "-.")
"""One a seed."""
SMOOTH = 40
"""Stretches that the bold line has."""


@dataclass
class Curve:
    """One fit, and the rows that use it."""

    address: str
    seed: int
    losses: list[float]
    rows: list[str] = field(default_factory=list)


def pages(experiment: Experiment) -> list[Page]:
    rows = [r.row for r in experiment.rows if method(r).capabilities.fits is not None] if experiment.tasks else []
    return pages_of(experiment, rows, tasks=(), lines=ROWS)


def curves(sources: Sources, backbone: str, rows: Sequence[str]) -> tuple[list[Curve], list[str]]:
    """The fits of these rows, in their order, and the rows whose fit tells no losses."""
    used: dict[tuple[str, int], dict[str, Any]] = {}
    for record in sources.summary.records.values():
        if record.backbone == backbone and record.provenance.fit:
            used.setdefault((record.row, record.seed), record.provenance.fit)
    found: dict[str, Curve] = {}
    without = []
    for row in rows:
        mine = sorted((seed, fit) for (name, seed), fit in used.items() if name == row)
        for seed, fit in mine:
            address = str(fit.get("address", ""))
            curve = found.get(address) or Curve(address, seed, _losses(sources, address, fit))
            if curve.losses:
                found[address] = curve
                curve.rows += [row] if row not in curve.rows else []
        if not any(row in curve.rows for curve in found.values()):
            without.append(row)
    return list(found.values()), without


def _losses(sources: Sources, address: str, fit: dict[str, Any]) -> list[float]:
    """As the stored fit tells them, else as the record does; none where neither is here."""
    folder = fits.find(sources.results, address) if address else None
    told = seals.read(folder / "fit.json") if folder else fit
    return [float(loss) for loss in told.get("losses") or fit.get("losses") or []]


def draw(sources: Sources, page: Page) -> Figure:
    size = (1.4 + 3.6 * len(page.backbones), 3.5) if len(page.backbones) > 1 else (6.4, 3.6)
    figure, grid = _style.canvas(1, len(page.backbones), size, sharey=True)
    handles, missing = {}, []
    for backbone, axes in zip(page.backbones, grid[0], strict=True):
        found, without = curves(sources, backbone, page.rows)
        missing += without
        if not found:
            _style.empty(axes, f"No losses of a fit on {_style.short(backbone)} are stored.")
            continue
        for curve in found:
            number = page.rows.index(curve.rows[0])
            _line(axes, curve, _look(number, sources.experiment.seeds.index(curve.seed)))
            if curve.rows[0] not in handles:
                handles[curve.rows[0]] = _style.handle(_label(curve), **_look(number, 0))
        axes.set_xlabel("optimiser step")
        axes.set_ylim(bottom=0)
        axes.grid(color="0.92", linewidth=0.6)
        if len(sources.experiment.backbones) > 1:
            axes.set_title(_style.short(backbone))
    grid[0, 0].set_ylabel("training loss")
    absent = ", ".join(_style.short(row) for row in dict.fromkeys(missing))
    notes = ["Solid, dashed, dotted: seed by seed."] if len(sources.experiment.seeds) > 1 and handles else []
    notes += [f"Without a stored fit: {absent}."] if absent and handles else []
    _style.legend(figure, list(handles.values()), " ".join(notes))
    return figure


def _label(curve: Curve) -> str:
    others = len(curve.rows) - 1
    return _style.short(curve.rows[0]) + (f" and {others} more" if others else "")


def _look(number: int, seed: int) -> dict[str, Any]:
    look = _style.look(number)
    return {**look, "markersize": 5, "linewidth": 1.6, "linestyle": STYLES[seed % len(STYLES)]}


def _line(axes: Axes, curve: Curve, look: dict[str, Any]) -> None:
    """Every loss, thin, and means of stretches of steps over it."""
    losses = curve.losses
    steps = range(1, len(losses) + 1)
    axes.plot(steps, losses, color=look["color"], linewidth=0.6, alpha=0.35, label="_steps")
    size = max(1, len(losses) // SMOOTH)
    parts = [losses[at : at + size] for at in range(0, len(losses), size)]
    middles = [at * size + (len(part) + 1) / 2 for at, part in enumerate(parts)]
    means = [sum(part) / len(part) for part in parts]
    axes.plot(middles, means, label=curve.rows[0], markevery=max(1, len(means) // 6), **look)

"""Names at points, moved until none lies on another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.reporting.figures._style import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 7.0
"""Points of a letter's height."""
WIDE, HIGH = 0.56 * SIZE, 1.25 * SIZE
"""Points that a letter takes, about, and a line."""
MARKER = 4.5
"""Half of a point's mark."""


class Box(NamedTuple):
    """In points of the panel."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )


def spread(axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Write a text beside each point where there is room, the nearest place first; a thin line joins it from afar.

    Args:
        axes: With its final limits and scales.
        points: In data coordinates.
        texts: One a point.
    """
    width, height = _inside(axes)
    at = [_place(axes, point, width, height) for point in points]
    taken = [Box(x - MARKER, y - MARKER, x + MARKER, y + MARKER) for x, y in at]
    for number in sorted(range(len(at)), key=lambda n: (-at[n][1], at[n][0], n)):
        box = _free(at[number], len(texts[number]) * WIDE, taken, (width, height))
        taken.append(box)
        x, y = at[number]
        shift = ((box.left + box.right) / 2 - x, (box.bottom + box.top) / 2 - y)
        far = math.hypot(*shift) > len(texts[number]) * WIDE / 2 + 2.5 * MARKER
        axes.annotate(
            texts[number], points[number], xytext=shift, textcoords="offset points", ha="center", va="center",
            fontsize=SIZE, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2} if far else None,
        )  # fmt: skip


def _free(at: tuple[float, float], wide: float, taken: Sequence[Box], panel: tuple[float, float]) -> Box:
    """The nearest box that meets no other and leaves the panel nowhere; the nearest of all where none is free."""
    first = None
    for x, y in _around(at, wide):
        box = Box(x - wide / 2, y - HIGH / 2, x + wide / 2, y + HIGH / 2)
        first = first or box
        inside = box.left >= 0 and box.bottom >= 0 and box.right <= panel[0] and box.top <= panel[1]
        if inside and not any(box.meets(other) for other in taken):
            return box
    assert first is not None
    return first


def _around(at: tuple[float, float], wide: float) -> Iterator[tuple[float, float]]:
    """Centres of boxes beside, above and below a point, then further and further away."""
    x, y = at
    for ring in range(16):
        reach = MARKER + 1.5 + ring * HIGH * 0.6
        for angle in range(0, 360, 30):
            dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            yield x + dx * (reach + wide / 2), y + dy * (reach + HIGH / 2)


def _inside(axes: Axes) -> tuple[float, float]:
    """Width and height of a panel in points, before the layout has placed it: a little less than its share."""
    figure = axes.figure.get_size_inches()
    grid = axes.get_subplotspec().get_gridspec()
    return 72 * (figure[0] / grid.ncols - 0.55), 72 * (figure[1] / grid.nrows - 0.95)


def _place(axes: Axes, point: tuple[float, float], width: float, height: float) -> tuple[float, float]:
    """A point in points of the panel."""
    x, y = axes.transAxes.inverted().transform(axes.transData.transform(point))
    return float(x * width), float(y * height)

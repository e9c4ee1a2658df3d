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
HIGH = 1.25 * SIZE
"""Points of a line."""
MARKER = 4.5
"""Half of a point's mark."""


class Box(NamedTuple):
    """In points of the figure."""

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
        axes: With its final place, limits and scales.
        points: In data coordinates.
        texts: One a point.
    """
    from matplotlib.patheffects import withStroke

    if not points:
        return
    scale = 72 / axes.figure.dpi
    panel = Box(*(scale * edge for edge in axes.get_window_extent().extents))
    at = [(float(x), float(y)) for x, y in scale * axes.transData.transform(points)]
    wide = [_width(text) for text in texts]
    taken = [Box(x - MARKER, y - MARKER, x + MARKER, y + MARKER) for x, y in at]
    for number in sorted(range(len(at)), key=lambda n: (-at[n][1], at[n][0], n)):
        box = _free(at[number], wide[number], taken, panel)
        taken.append(box)
        x, y = at[number]
        shift = ((box.left + box.right) / 2 - x, (box.bottom + box.top) / 2 - y)
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2}
        far = abs(shift[0]) > wide[number] / 2 + 2 * MARKER or abs(shift[1]) > HIGH / 2 + 2 * MARKER
        name = axes.annotate(
            texts[number], points[number], xytext=shift, textcoords="offset points", ha="center", va="center",
            fontsize=SIZE, annotation_clip=False,
            arrowprops=line if far else None,
        )  # fmt: skip
        name.set_path_effects([withStroke(linewidth=1.5, foreground="white")])


def _free(at: tuple[float, float], wide: float, taken: Sequence[Box], panel: Box) -> Box:
    """The nearest box in the panel that meets no other, nor has one between itself and its point.

    The nearest of all where none is free.
    """
    first = None
    for x, y in _around(at, wide):
        box = Box(x - wide / 2, y - HIGH / 2, x + wide / 2, y + HIGH / 2)
        first = first or box
        inside = (
            box.left >= panel.left and box.bottom >= panel.bottom and box.right <= panel.right and box.top <= panel.top
        )
        way = [Box(*(at[0] + t * (x - at[0]), at[1] + t * (y - at[1])) * 2) for t in (0.4, 0.6, 0.8)]
        if inside and not any(step.meets(other) for other in taken for step in (box, *way)):
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


def _width(text: str) -> float:
    """Points that a text takes, with a little room at its ends."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=SIZE), ismath=False)[0]) + 2

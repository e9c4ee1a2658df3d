"""How every figure looks: sizes, colours with shapes that tell them apart in grey, names that fit, files alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records import atomic
from harness.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""Okabe and Ito's, but for the black that baselines have and the yellow that white swallows; and a grey."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
ARMS: dict[str, dict[str, Any]] = {
    "own": {"marker": "o", "color": "#0072B2", "markerfacecolor": "#0072B2"},
    "donor": {"marker": "s", "color": "#D55E00", "markerfacecolor": "white"},
    "mean": {"marker": "^", "color": "#009E73", "markerfacecolor": "white"},
    "shuffled": {"marker": "D", "color": "#CC79A7", "markerfacecolor": "white"},
}
"""Shape and filling tell the arms apart in grey."""
GREY = "0.35"
FLOOR = "question_only"
"""The method that sees the question alone."""
FROZEN = "frozen"
"""The method that sees the history and has no memory."""
OUT_OF_SIGHT = ("removed", "own_text")
"""The conditions under which the history itself is gone, so that only memory can help; a method serves one of them."""
LONGEST = 26
"""Characters of a name; of a longer one the middle goes."""
DPI = 200
FORMATS: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
"""What must not be said in a file, for it would differ from day to day or from machine to machine."""


@contextmanager
def settled(name: str = "") -> Iterator[None]:
    """matplotlib as the figures want it, whatever a reader's own settings are.

    Args:
        name: Of the figure, from which ids inside an SVG follow.
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.use("agg")
        matplotlib.rc("font", size=9)
        matplotlib.rc("text", parse_math=False)  # a name with $ in it is a name
        matplotlib.rc("pdf", fonttype=42)
        matplotlib.rc("svg", hashsalt=name)
        matplotlib.rc("figure", dpi=DPI)
        matplotlib.rc("axes", titlesize=9, axisbelow=True)
        matplotlib.rc("axes.spines", top=False, right=False)
        matplotlib.rc("legend", fontsize=8, frameon=False)
        yield


def canvas(lines: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, Any]:
    """A figure of ``size`` inches and its panels, [lines, columns]."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(lines, columns, squeeze=False, **options)


def save(figure: Figure, name: str, out: Path, kinds: Iterable[str] = ("pdf", "png")) -> list[Path]:
    """Write a figure, whole, under its name in each format; equal figures give equal bytes."""
    settle(figure)
    written = []
    for kind in kinds:
        with atomic(out / f"{name}.{kind}") as temporary:
            draw(figure, kind, temporary)
        written.append(out / f"{name}.{kind}")
    return written


def draw(figure: Figure, kind: str, file: Any) -> None:
    """Put a settled figure into a file; by its canvas alone, for ``savefig`` would place everything once more."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    makers: dict[str, Any] = {
        "pdf": lambda: FigureCanvasPdf(figure).print_pdf,
        "png": lambda: FigureCanvasAgg(figure).print_png,
        "svg": lambda: FigureCanvasSVG(figure).print_svg,
    }
    dpi = figure.dpi
    try:
        makers[kind]()(file, metadata=FORMATS[kind])
    finally:
        figure.dpi = dpi  # which the formats of vectors change


def settle(figure: Figure) -> None:
    """Place everything once, and no more."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def short(text: object, longest: int = LONGEST) -> str:
    """A name on one line; of a long one both ends."""
    flat = re.sub(r"\s+", " ", str(text)).strip()
    half = (longest - 1) // 2
    return flat if len(flat) <= longest else f"{flat[: longest - 1 - half]}…{flat[-half:]}"


def look(number: int) -> dict[str, Any]:
    """Colour, shape and filling of the row of this number: 63 looks before one comes again."""
    colour = COLOURS[number % len(COLOURS)]
    marker = MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
    return {"color": colour, "marker": marker, "markerfacecolor": "white" if number % 2 else colour}


def empty(axes: Axes, sentence: str) -> None:
    """An empty frame that says what is not there, and why."""
    import textwrap

    axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)  # a shared axis keeps its ticks
    axes.spines[:].set(visible=True, color="0.8")
    place: Any = axes.get_subplotspec()
    figure: Any = axes.figure
    width = max(18, int(figure.get_size_inches()[0] * 11 / place.get_gridspec().ncols))
    axes.text(0.5, 0.5, textwrap.fill(sentence, width), transform=axes.transAxes, ha="center", va="center", color=GREY,
              fontsize=8)  # fmt: skip


def notice(sentence: str) -> Figure:
    """A figure of which nothing ran."""
    figure, grid = canvas(1, 1, (5.0, 1.6))
    empty(grid[0, 0], sentence)
    return figure


def interval(axes: Axes, estimate: Estimate, at: float, *, upright: bool = False, **style: Any) -> None:
    """The ends of an estimate, in percent, as a line at ``at``; nothing where it has none."""
    if estimate.low is None or estimate.high is None:
        return
    ends, place = [100 * estimate.low, 100 * estimate.high], [at, at]
    pair = (place, ends) if upright else (ends, place)
    axes.plot(*pair, **{"linewidth": 1.4, "solid_capstyle": "butt", **style})


def legend(figure: Figure, handles: Sequence[Artist], note: str = "") -> None:
    """Below the panels, as wide as the figure allows, under a note in small print; none where there is neither."""
    import textwrap

    width = figure.get_size_inches()[0]
    note = textwrap.fill(note, max(40, int(width * 15)))
    if not handles:
        figure.supxlabel(note, fontsize=7.5, color=GREY)
        return
    labels = [str(h.get_label()) for h in handles]
    columns = next((n for n in range(len(labels), 1, -1) if _wide(labels, n) < width), 1)
    found = figure.legend(handles=list(handles), labels=labels, loc="outside lower center", ncols=columns,
                          columnspacing=1.2, handletextpad=0.5, title=note or None, title_fontsize=7.5)  # fmt: skip
    found.get_title().set_color(GREY)


def _wide(labels: Sequence[str], columns: int) -> float:
    """Inches that a legend of so many columns takes, about; the first columns have one entry more."""
    rows, longer = divmod(len(labels), columns)
    at, total = 0, 0.2
    for column in range(columns):
        part = labels[at : at + rows + (column < longer)]
        at += len(part)
        total += 0.48 + 0.066 * max(map(len, part))
    return total


def handle(label: str, **style: Any) -> Artist:
    """An entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **{"linestyle": "none", "markersize": 5.5, **style})


def shifts(count: int, step: float = 0.18) -> list[float]:
    """Where so many marks of one line stand, a little above one another so that their intervals stay apart."""
    return [step * (number - (count - 1) / 2) for number in range(count)]


def unrun(axes: Axes, position: float) -> None:
    """Says in a line of a panel that it has no answers."""
    axes.text(0.02, position, "did not run", transform=axes.get_yaxis_transform(), va="center", fontsize=7.5,
              color=GREY)  # fmt: skip


def magnitude(value: float) -> str:
    """``4.87M``: three digits and a letter."""
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def decades(axis: Any, limits: tuple[float, float], suffix: str = "", others: dict[float, str] | None = None) -> None:
    """Ticks of a log axis between its limits in plain letters, and others of a name of their own."""
    from matplotlib.ticker import MaxNLocator

    low, high = limits
    steps = (1, 2, 5) if high / low < 50 else (1, 3) if high / low < 500 else (1,)
    ticks = [step * 10.0**n for n in range(-6, 16) for step in steps]
    if high / low < 8:
        ticks = [float(t) for t in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)]
    shown = [t for t in ticks if low <= t <= high][:: 1 if high / low < 1e7 else 2]
    named = {**(others or {}), **{t: magnitude(t) + suffix for t in shown}}
    axis.set_ticks(list(named), list(named.values()))
    axis.set_ticks([], minor=True)

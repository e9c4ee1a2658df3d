"""Speed of decoding and memory against the length of the prompt (the paper's Figure 3), a line a row.

These are measured times and bytes; no other figure holds a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.efficiency_records import EfficiencyRecord, Side
from harness.experiment import Experiment
from harness.reporting.figures import _style
from harness.reporting.figures._pages import Page, Sources, pages_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Tokens decoded a second, and peak memory above what was in use at the start, against the length of the prompt, of "
    "each row beside the bare backbone (black), with the history in the prompt and with it out of sight."
)
ROWS = 8
"""Lines of a panel."""
BARE: dict[str, Any] = {"color": "black", "linewidth": 2.2, "linestyle": "-", "zorder": 1}
VALUES = {
    "decode_tokens_per_second": "decoded tokens a second",
    "peak_above_start_bytes": "peak bytes above the start",
}


def pages(experiment: Experiment) -> list[Page]:
    if experiment.efficiency is None:
        return []
    rows = [r.row for r in experiment.rows if r.method != _style.FROZEN] or [r.row for r in experiment.rows]
    return [
        page
        for backbone in experiment.backbones
        for page in pages_of(
            experiment.model_copy(update={"backbones": {backbone: experiment.backbones[backbone]}}),
            rows, tasks=(), lines=ROWS,
        )
    ]  # fmt: skip


def line(record: EfficiencyRecord, seen: bool, value: str, *, bare: bool = False) -> list[tuple[int, float]]:
    """A row's value by prompt length, of the longest answer that was measured; of the bare backbone beside it."""
    longest = max((p.decode_length for p in record.points), default=0)
    found = []
    for point in record.points:
        side: Side | None = point.frozen if bare else point.row
        if side is None or point.decode_length != longest or (point.condition == "replayed") != seen:
            continue
        number = getattr(side.figures, value)
        if number is not None:
            found.append((point.prompt_length, float(number)))
    return sorted(found)


def draw(sources: Sources, page: Page) -> Figure:
    [backbone] = page.backbones
    records = {r.row: r for r in sources.measured if r.backbone == backbone}
    sides = [
        seen for seen in (True, False)
        if any(line(records[row], seen, value) for row in page.rows if row in records for value in VALUES)
    ]  # fmt: skip
    if not sides:
        return _style.notice(f"None of {', '.join(map(_style.short, page.rows))} was measured on {backbone}.")
    size = (7.2 if len(sides) > 1 else 5.0, 5.6)
    figure, grid = _style.canvas(2, len(sides), size, sharex=True, sharey="row")
    drawn: dict[str, Any] = {}
    for line_of, (value, label) in zip(grid, VALUES.items(), strict=True):
        for axes, seen in zip(line_of, sides, strict=True):
            drawn |= _panel(axes, records, page.rows, value, seen)
            axes.set_title("history in the prompt" if seen else "history out of sight")
        line_of[0].set_ylabel(label)
        if value.endswith("bytes"):
            line_of[0].set_yscale("log")
            _style.decades(line_of[0].yaxis, line_of[0].get_ylim(), "B")
        else:
            line_of[0].set_ylim(bottom=0)
    for axes in grid[1]:
        axes.set_xlabel("prompt tokens with the history in sight")
    if len(sources.experiment.backbones) > 1:
        figure.suptitle(_style.short(backbone), fontsize=9)
    handles = [_style.handle("bare backbone", **BARE)]
    handles += [_style.handle(_style.short(row), **{**look, "linestyle": "-"}) for row, look in drawn.items()]
    missing = [_style.short(row) for row in page.rows if row not in drawn]
    without = f" Without a measurement: {', '.join(missing)}." if missing else ""
    _style.legend(figure, handles, f"The bare backbone has the history in its prompt.{without}")
    return figure


def _panel(axes: Axes, records: dict[str, EfficiencyRecord], rows: tuple[str, ...], value: str, seen: bool) -> dict:
    """The lines of a panel; gives the looks of rows that have one."""
    drawn, lengths = {}, set()
    bare = _bare(records, value)
    for number, row in enumerate(rows):
        points = line(records[row], seen, value) if row in records else []
        if points:
            drawn[row] = {**_style.look(number), "markersize": 4.5, "linewidth": 1.3}
            axes.plot([x for x, _ in points], [y for _, y in points], label=row, **drawn[row])
            lengths |= {x for x, _ in points}
    if not drawn:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=_style.GREY)
        return {}
    if bare:
        axes.plot([x for x, _ in bare], [y for _, y in bare], label="bare backbone", **BARE)
        lengths |= {x for x, _ in bare}
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(lengths), [f"{n:,}" for n in sorted(lengths)])
    axes.minorticks_off()
    axes.grid(color="0.92", linewidth=0.6)
    return drawn


def _bare(records: dict[str, EfficiencyRecord], value: str) -> list[tuple[int, float]]:
    """The bare backbone's, with the history in its prompt: median over the rows that it was measured beside."""
    from statistics import median

    found: dict[int, list[float]] = {}
    for record in records.values():
        for seen in (True, False):
            for length, number in line(record, seen, value, bare=True):
                found.setdefault(length, []).append(number)
    return sorted((length, median(numbers)) for length, numbers in found.items())

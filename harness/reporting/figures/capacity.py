"""The figure "what an r × r state can hold": recall against the pairs stored, a line a rank, a panel a variant.

Drawn from the records of a task whose questions are in categories by number of pairs (:mod:`harness.tasks.recall`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.experiment import Experiment, RowSpec
from harness.registry import resolve
from harness.reporting.figures import _style
from harness.reporting.figures._pages import Page, Sources
from harness.reporting.summary import Place, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TASK = "recall"
RANKS: tuple[dict[str, Any], ...] = (
    {"color": "#9ecae1", "marker": "v"},
    {"color": "#4a98c9", "marker": "s"},
    {"color": "#1764ab", "marker": "^"},
    {"color": "#08204f", "marker": "o"},
)
"""One hue from light to dark, so that ranks keep their order in grey and to every eye; markers tell them apart too."""
CONTROLS = {"donor": {"linestyle": "--", "color": "#D55E00"}, "mean": {"linestyle": ":", "color": "0.35"}}
CEILING = "frozen"
CAPTION = (
    "Recall against the number of pairs stored, a line a rank r, with 95% intervals, beside the best that a control "
    "arm gets at any rank and the backbone with the pairs in its prompt."
)


def pages(experiment: Experiment) -> list[Page]:
    """One a backbone, where the task is asked by numbers of pairs, of rows that differ in rank."""
    tasks = [t for t in experiment.tasks if t.task == TASK and t.settings.get("mixed")]
    panels = _panels(experiment) if tasks else {}
    rows = tuple(row for ranks in panels.values() for row in ranks.values())
    return [Page((backbone,), tuple(tasks[:1]), rows) for backbone in experiment.backbones if rows]


def draw(sources: Sources, page: Page) -> Figure:
    experiment, summary = sources.experiment, sources.summary
    [backbone], task = page.backbones, page.tasks[0].name
    panels, counts = _panels(experiment), summary.categories(task)
    if not counts:
        return _style.notice(f"{_style.short(task)} did not run on {_style.short(backbone)}.")
    figure, line = _style.canvas(1, len(panels), (1.2 + 2.5 * len(panels), 3.2), sharey=True)
    for axes, (variant, rows) in zip(line[0], panels.items(), strict=True):
        for style, (rank, row) in zip(RANKS, sorted(rows.items()), strict=False):
            own = Place(backbone, row, task, "removed")
            _line(axes, summary, own, counts, True, label=f"r = {rank}", markersize=4.5, linewidth=1.5, **style)
        for arm, style in CONTROLS.items():
            _controls(
                axes, summary, [Place(backbone, row, task, "removed", arm) for row in rows.values()], counts, style
            )
        for spec in experiment.rows:
            if spec.method == CEILING:
                ceiling = Place(backbone, spec.row, task, "replayed")
                _line(axes, summary, ceiling, counts, False, color="0.6", linewidth=1, label="pairs in the prompt")
        axes.set_title(variant, fontsize=9)
        axes.set_xlabel("pairs stored")
        axes.set_xscale("log", base=2)
        axes.set_xticks([int(c) for c in counts], [str(int(c)) for c in counts])
        axes.minorticks_off()
        axes.set_ylim(-2, 103)
        axes.grid(axis="y", color="0.9", linewidth=0.6)
    line[0][0].set_ylabel("recall (%)")
    handles, labels = line[0][0].get_legend_handles_labels()
    for entry, label in zip(handles, labels, strict=True):
        entry.set_label(label)
    _style.legend(figure, handles)
    return figure


def _panels(experiment: Experiment) -> dict[str, dict[int, str]]:
    """Rows by rank, of each variant (a method's preset) that has several; in the order of the experiment."""
    found: dict[str, dict[int, str]] = {}
    for row in experiment.rows:
        rank = _rank(row)
        if rank is not None:
            found.setdefault(row.method, {})[rank] = row.row
    return {variant: rows for variant, rows in found.items() if len(rows) > 1}


def _rank(row: RowSpec) -> int | None:
    """r, where the method keeps a state of that rank."""
    cls, config = resolve(row.method, row.with_)
    return getattr(config, "rank", None) if cls.capabilities.family == "online_state" else None


def _line(axes: Axes, summary: Summary, place: Place, counts: list[str], intervals: bool, **style: Any) -> None:
    """Recall by number of pairs."""
    points = [(int(c), e) for c in counts if (e := summary.estimate(place, "", c)) is not None]
    axes.plot([n for n, _ in points], [100 * e.value for _, e in points], **style)
    for n, e in points:
        if intervals and e.low is not None and e.high is not None:
            axes.plot([n, n], [100 * e.low, 100 * e.high], color=style["color"], linewidth=0.8)


def _controls(axes: Axes, summary: Summary, places: list[Place], counts: list[str], style: dict[str, Any]) -> None:
    """The best that a control arm gets at any rank: the mark that a memory has to pass."""
    best = {int(c): [e.value for p in places if (e := summary.estimate(p, "", c)) is not None] for c in counts}
    points = [(n, 100 * max(values)) for n, values in best.items() if values]
    axes.plot([n for n, _ in points], [v for _, v in points], linewidth=1.2, label=f"best {places[0].arm}", **style)

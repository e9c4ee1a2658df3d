"""What is left of a context that is gone: the bars of the paper's Figure 2 with the controls that it lacks.

A panel a row and benchmark, a group of bars a category of questions, a bar an arm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.episodes import CLEAN
from harness.experiment import Experiment, TaskSpec
from harness.reporting.figures import _style
from harness.reporting.figures._pages import Page, Sources, declared, named, pages_of
from harness.reporting.figures._style import FLOOR
from harness.reporting.summary import Place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Score with the history gone, overall and by category of questions, of HotpotQA and LoCoMo: the question alone, "
    "the row's own state, a donor's, the mean state and, where run, the state of the shuffled history, with 95% "
    "intervals and the paper's bars where it prints them."
)
BENCHMARKS = ("hotpotqa", "locomo")
BARS: dict[str, dict[str, Any]] = {
    FLOOR: {"facecolor": "0.75", "hatch": ""},
    "own": {"facecolor": "#0072B2", "hatch": ""},
    "donor": {"facecolor": "#E69F00", "hatch": "///"},
    "mean": {"facecolor": "#BFE5D9", "hatch": "..."},
    "shuffled": {"facecolor": "#F2DCE8", "hatch": "xxx"},
}
"""Lightness and hatching tell the arms apart in grey."""
LINES, COLUMNS = 4, 4


def pages(experiment: Experiment) -> list[Page]:
    """Rows that have a control beside their own state on one of the benchmarks."""
    floors, served = named(experiment, FLOOR), declared(experiment)
    tasks = [t for t in experiment.tasks if t.task.split("@")[0] in BENCHMARKS]
    names = {t.name for t in tasks}
    controlled = {
        (p.row, p.task) for p in served
        if p.task in names and p.condition == "removed" and p.arm in BARS and p.arm != "own" and p.row not in floors
    }  # fmt: skip
    rows = [r.row for r in experiment.rows if any(row == r.row for row, _ in controlled)]
    shown = [t for t in tasks if any(task == t.name for _, task in controlled)]
    return pages_of(experiment, rows, tasks=shown, lines=LINES, columns=COLUMNS)


def draw(sources: Sources, page: Page) -> Figure:
    lines = [(backbone, row) for backbone in page.backbones for row in page.rows]
    groups = {t.name: _groups(sources, t) for t in page.tasks}
    widths = [max(len(g), 2) for g in groups.values()]
    size = (0.9 + 0.78 * sum(widths), 0.9 + 2.0 * len(lines))
    figure, grid = _style.canvas(
        len(lines), len(page.tasks), size, sharex="col", sharey="col", gridspec_kw={"width_ratios": widths}
    )
    arms: set[str] = set()
    marks: set[str] = set()
    for number, ((backbone, row), line) in enumerate(zip(lines, grid, strict=True)):
        for task, axes in zip(page.tasks, line, strict=True):
            place = Place(backbone, row, task.name, "removed")
            found, marked = _panel(axes, sources, place, groups[task.name])
            arms, marks = arms | found, marks | marked
            axes.set_title(_style.short(task.name) if number == 0 else "")
        label = row if len(sources.experiment.backbones) == 1 else f"{row}\n{_style.short(backbone)}"
        line[0].set_ylabel(f"{label}\n(%)" if len(label) > 14 else f"{label} (%)")
    for axes in grid[-1]:  # after all is drawn, for it ends the scaling to the data
        axes.set_ylim(bottom=0)
    _legend(figure, arms, marks)
    return figure


def _groups(sources: Sources, task: TaskSpec) -> list[str]:
    """The empty name of all questions, then the categories."""
    return ["", *(c for c in sources.summary.categories(task.name) if c != CLEAN)]


def _panel(axes: Axes, sources: Sources, place: Place, groups: list[str]) -> tuple[set[str], set[str]]:
    """The bars of a row on a task; gives the arms and the kinds of the paper's marks that were drawn."""
    summary, metric = sources.summary, sources.summary.primary_metric(place.task)
    floor = next(iter(sorted(named(sources.experiment, FLOOR))), "")
    backbone = sources.experiment.backbones[place.backbone]
    ours = backbone.reported_as is not None and not backbone.bits
    places = {arm: place._replace(arm=arm) for arm in BARS if arm != FLOOR}
    places = {FLOOR: place._replace(row=floor), **places} if floor else places
    ran = {arm: p for arm, p in places.items() if summary.records_of(p)}
    if not set(ran) - {FLOOR}:
        _style.empty(axes, f"{_style.short(place.row)} did not run on {_style.short(place.task)} with the history gone")
        return set(), set()
    marks, width = set(), 0.84 / len(ran)
    for number, (arm, at) in enumerate(ran.items()):
        for group, category in enumerate(groups):
            estimate = summary.estimate(at, "", category)
            if estimate is None:
                continue
            x = group - 0.42 + (number + 0.5) * width
            axes.bar(x, 100 * estimate.value, width, edgecolor="black", linewidth=0.6, label=arm, **BARS[arm])
            if estimate.value == 0 and estimate.low is None:  # a bar without height is no missing one
                axes.annotate("0", (x, 0), xytext=(0, 1.5), textcoords="offset points", ha="center", fontsize=6)
            _style.interval(axes, estimate, x, upright=True, color="black", linewidth=0.9)
            printed = sources.printed.get((at, metric, category))
            if printed is not None:
                axes.plot(x, printed, label="printed", clip_on=False, zorder=4, **_mark(ours))
                marks.add("paper" if ours else "scale")
    axes.set_xticks(range(len(groups)), [_label(c) for c in groups])
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    return set(ran), marks


def _mark(same: bool) -> dict[str, Any]:
    return {"marker": "D", "markersize": 4.5, "linestyle": "none", "color": "black" if same else "0.45",
            "markerfacecolor": "white", "markeredgewidth": 1.1}  # fmt: skip


def _label(category: str) -> str:
    return _style.short(category or "overall", 14).replace("_", "\n", 1)


def _legend(figure: Figure, arms: set[str], marks: set[str]) -> None:
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(edgecolor="black", linewidth=0.6, label="own state" if arm == "own" else arm, **style)
        for arm, style in BARS.items() if arm in arms
    ]  # fmt: skip
    if "paper" in marks:
        handles.append(_style.handle("the paper's Figure 2", **_mark(True)))
    if "scale" in marks:
        handles.append(_style.handle("† the paper, another backbone: for scale", **_mark(False)))
    _style.legend(figure, handles)

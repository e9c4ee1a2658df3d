"""Figure 2 as a table: what is left of a context that is gone, with the controls that the paper lacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harness.experiment import RowSpec, TaskSpec
from harness.registry import resolve
from harness.reporting.aggregates import Score
from harness.reporting.beside import NOT_RUN, Block, Pair, Table, joint
from harness.reporting.matching import Matching, Printed, legend
from harness.reporting.memory import CONTROLS
from harness.reporting.reported import MAIN_BACKBONE
from harness.reporting.summary import Place

KEY = "figure2_no_context"
TITLE = "Figure 2, what is left of a context that is gone"
STATE, GAIN, BARE = "delta-Mem (state only)", "gain", "frozen (no context)"
PROMPTS = {"closed_book": "asked as one who has read", "empty_context": "asked with an empty context"}


def tables(matching: Matching) -> Iterator[Table]:
    """A table a backbone and way of asking; none where no state was asked with the history gone."""
    printed = Printed(KEY)
    benchmarks = dict.fromkeys(column.benchmark for column in printed.columns)
    asked = [t for b in benchmarks for t in matching.tasks(b) if "removed" in t.conditions]
    for backbone, spec in matching.experiment.backbones.items():
        if (spec.reported_as or MAIN_BACKBONE) not in printed.backbones:
            continue
        for prompt in dict.fromkeys(task.removed_prompt for task in asked):
            among = [task for task in asked if task.removed_prompt == prompt]
            tasks = {b: matching.chosen(b, ["removed"], among) for b in benchmarks}
            blocks = [b for b in _blocks(matching, printed, backbone, tasks) if b.ours or b.told]
            if not any(block.ran and block.method != BARE for block in blocks):
                continue
            strange = "" if spec.reported_as else " (another backbone, for scale)"
            title = f"{TITLE}, {PROMPTS[prompt]}: {backbone} beside the paper's {MAIN_BACKBONE}{strange}"
            groups = [(b, sum(c.benchmark == b for c in printed.columns)) for b in benchmarks]
            table = Table(KEY, title, printed.columns, groups, blocks)
            yield replace(table, notes=[GAINS, *legend(matching, table, tasks)])


GAINS = (
    "own: only the memory of the history is left; gain: own minus the bare question, paired by question. What donor "
    "and mean share of it is not the history's."
)


def _blocks(matching: Matching, printed: Printed, backbone: str, tasks: dict[str, TaskSpec | None]) -> Iterator[Block]:
    rows = matching.experiment.rows
    floor = next((row for row in rows if matching.method(row, "removed", [BARE])), None)
    bare = _entries(matching, printed, Place(backbone, floor.row if floor else "", "", "removed"), tasks, BARE)
    yield _block(backbone, floor, "own" if floor else "", BARE, bare)
    states = [row for row in rows if "donor" in resolve(row.method, row.with_)[0].capabilities.arms.get("removed", ())]
    told = False
    for row in states:
        method = matching.method(row, "removed", [STATE]) or ""
        told = told or bool(method)
        place = Place(backbone, row.row, "", "removed")
        own = _entries(matching, printed, place, tasks, method)
        yield _block(backbone, row, "own", method, own)
        gains = [_gain(matching, printed, *pair) for pair in zip(printed.columns, own, bare, strict=True)]
        yield _block(backbone, row, f"own − {floor.row if floor else 'bare question'}", GAIN if method else "", gains)
        for arm in CONTROLS:
            control = _block(backbone, row, arm, "", _entries(matching, printed, place._replace(arm=arm), tasks, ""))
            if control.ran:
                yield control
    if not told:
        for method in (STATE, GAIN):
            yield _block(backbone, None, "", method, [_printed(printed, method, c) for c in printed.columns])


def _block(backbone: str, row: RowSpec | None, arm: str, method: str, entries: list[Pair]) -> Block:
    return Block(row.row if row else "", "removed" if row else "", arm, method, entries, backbone, MAIN_BACKBONE)


def _entries(
    matching: Matching, printed: Printed, place: Place, tasks: dict[str, TaskSpec | None], method: str
) -> list[Pair]:
    return [
        matching.entry(place, tasks[c.benchmark], c, method, printed.value(MAIN_BACKBONE, method, c))
        for c in printed.columns
    ]


def _printed(printed: Printed, method: str, column: Score) -> Pair:
    value = printed.value(MAIN_BACKBONE, method, column)
    return Pair(printed=value, verdict=NOT_RUN if value is not None else "")


def _gain(matching: Matching, printed: Printed, column: Score, own: Pair, bare: Pair) -> Pair:
    """Ours is paired by question; the paper's is printed where ``own`` answers to its state."""
    empty = Pair() if own.printed is None else _printed(printed, GAIN, column)
    if own.place is None or bare.place is None:
        return empty
    ours = matching.summary.contrast(own.place, bare.place, own.metric, own.category)
    gain = replace(own, ours=ours, printed=empty.printed, verdict="", reason="", signed=True, seeds=())
    if gain.printed is None or ours is None:
        return gain
    verdict, reason = joint(gain, [own, bare], np.subtract.reduce)
    return replace(gain, verdict=verdict, reason=reason)

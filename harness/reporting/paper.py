"""The paper's own tables, made again from our records: every printed number, ours beside it, and the verdict.

Tables 1 to 4; Figure 2 as a table (:mod:`harness.reporting.recovery`) and Figure 4's parameters
(:mod:`harness.reporting.sizes`). A table shows one task of each benchmark, ``paper.csv`` the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.experiment import Experiment, RowSpec, TaskSpec
from harness.reporting import recovery, reported, sizes
from harness.reporting.aggregates import Score
from harness.reporting.beside import NOT_RUN, Block, Pair, Table, joint
from harness.reporting.matching import Matching, Printed, legend
from harness.reporting.reported import MAIN_BACKBONE, Comparison
from harness.reporting.sizes import Size
from harness.reporting.summary import Place, Summary
from harness.statistics import Estimate

FIVE = (
    Score("IFEval", "prompt_strict_acc", "all"), Score("HotpotQA", "EM", "all"), Score("GPQA-D", "accuracy", "all"),
    Score("MemoryAgentBench", "score", "avg"), Score("LoCoMo", "F1", "avg"),
)  # fmt: skip
"""The scores whose mean is the overall average of Tables 1 and 2."""
TWO = (FIVE[1], FIVE[4])
"""Those of Tables 3 and 4."""
OVERALL = Score("Overall", "avg", "all")
TITLES = {
    "table1": "Table 1, memory mechanisms",
    "table2": "Table 2, backbones",
    "table3_heads": "Table 3, corrected projections",
    "table4_depth": "Table 4, layers with a memory",
}
APART = 0.02
"""Points beyond rounding, by which a printed overall average and its parts are told apart."""
IN_SIGHT = ("replayed", "own_text")
CSV_COLUMNS = (
    "table", "backbone", "row", "task", "condition", "arm", "benchmark", "metric", "subset", "ours", "low", "high",
    "n", "clusters", "grade", "seeds", "paper_backbone", "paper_method", "paper", "recomputed", "difference",
    "verdict", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Paper:
    """What of the paper an experiment answers to."""

    tables: list[Table]
    sizes: list[Size]
    omitted: list[str]
    """A line for each table that the experiment has nothing to do with."""
    backbone: str = MAIN_BACKBONE
    """That of the printed parameter counts."""


def tables(experiment: Experiment, summary: Summary, beside: Iterable[Comparison]) -> Paper:
    """Every table that some row of the experiment belongs in.

    Args:
        experiment: Fixes rows, backbones and their order.
        summary: Its records.
        beside: The verdict of each of our cells that the paper has a number for.
    """
    matching = Matching(experiment, summary, beside)
    found = [*_mechanisms(matching), *_backbones(matching), *_ablations(matching), *recovery.tables(matching)]
    keys = {table.key for table in found}
    reasons = {
        "table1": "no row was asked its benchmarks with the history at hand",
        "table2": "no backbone here is one of those that the paper adds to its own",
        "table3_heads": "no row here corrects other projections than the base",
        "table4_depth": "no row here has its memory in a part of the layers",
        recovery.KEY: "no row was asked its benchmarks with the history gone",
    }
    titles = {**TITLES, recovery.KEY: recovery.TITLE}
    omitted = [f"{titles[key]}: {reason}." for key, reason in reasons.items() if key not in keys]
    return Paper(found, sizes.sizes(matching), omitted)


def _reported(experiment: Experiment, backbone: str) -> str:
    """The paper's backbone beside ours: its own headline one for scale, where the paper does not have ours."""
    return experiment.backbones[backbone].reported_as or MAIN_BACKBONE


def _mechanisms(matching: Matching) -> Iterator[Table]:
    """Table 1 of each backbone that the paper does not have in Table 2 alone."""
    printed = Printed("table1", FIVE)
    for backbone in matching.experiment.backbones:
        if _reported(matching.experiment, backbone) in printed.backbones:
            yield from _of_scores(matching, printed, [backbone])


def _backbones(matching: Matching) -> Iterator[Table]:
    """Table 2, of all our backbones that it has, where one of them is not the headline one."""
    printed = Printed("table2", FIVE)
    ours = [b for b, spec in matching.experiment.backbones.items() if spec.reported_as in printed.backbones]
    if any(_reported(matching.experiment, backbone) != MAIN_BACKBONE for backbone in ours):
        yield from _of_scores(matching, printed, ours)


def _ablations(matching: Matching) -> Iterator[Table]:
    """Tables 3 and 4, where a row is one of theirs and not the base of both."""
    rows = matching.experiment.rows
    for key in ("table3_heads", "table4_depth"):
        printed = Printed(key, TWO)
        names = printed.methods(MAIN_BACKBONE)
        varied = [r for r in rows if r.with_ and matching.method(r, "replayed", names, exact=True)]
        if varied:
            for backbone in matching.experiment.backbones:
                if _reported(matching.experiment, backbone) == MAIN_BACKBONE:
                    yield from _of_scores(matching, printed, [backbone], strangers=False)


def _of_scores(
    matching: Matching, printed: Printed, backbones: Sequence[str], strangers: bool = True
) -> Iterator[Table]:
    """A table of rows by scores; none where no row of ours ran that belongs in it."""
    columns = printed.columns
    pairs = list(_pairs(matching, printed, _reported(matching.experiment, backbones[0]), strangers))
    asked = {condition for _, condition, _ in pairs}
    tasks = {c.benchmark: matching.chosen(c.benchmark, asked) for c in columns}
    blocks: list[Block] = []
    for backbone in backbones:
        name = _reported(matching.experiment, backbone)
        mine = _pairs(matching, printed, name, strangers)
        made = (_block(matching, printed, backbone, row, cond, how, tasks) for row, cond, how in mine)
        plain = [block for block in made if block.ours or block.told]
        known = {block.method for block in plain}
        for method in printed.methods(name):
            if method not in known:
                plain.append(Block("", "", "", method, [_missing(printed, name, method, c) for c in columns],
                                   backbone, name))  # fmt: skip
        order = {method: n for n, method in enumerate(printed.methods(name))}
        plain.sort(key=lambda block: order.get(block.method, len(order)))
        blocks += _with_averages(printed, name, plain)
    if not any(block.ran for block in blocks):
        return
    averages = ("avg_measured", "avg_paper_rule") if printed.overall == FIVE else ("average",)
    groups: dict[str, int] = {}
    for column in columns:
        groups[column.benchmark] = groups.get(column.benchmark, 0) + 1
    groups[f"mean of {len(printed.overall)}"] = len(averages)
    title = f"{TITLES[printed.key]}: {', '.join(backbones)} beside {_named(matching, backbones)}"
    table = Table(
        printed.key, title, columns, list(groups.items()), blocks, averages=averages, several=len(backbones) > 1
    )
    yield replace(table, notes=list(_notes(matching, table, tasks, printed)))


def _named(matching: Matching, backbones: Sequence[str]) -> str:
    names = [_reported(matching.experiment, b) for b in backbones]
    strange = [b for b in backbones if matching.experiment.backbones[b].reported_as is None]
    return "the paper's " + ", ".join(dict.fromkeys(names)) + (" (another backbone, for scale)" if strange else "")


def _pairs(matching: Matching, printed: Printed, name: str, strangers: bool) -> Iterator[tuple[RowSpec, str, str]]:
    """Our rows that belong in a table, the condition they stand under, and the paper's row or none.

    A row that the paper lacks, a stranger, stands under what it serves with the history at hand, or else ``removed``.
    """
    tasks = [t for b in dict.fromkeys(c.benchmark for c in printed.columns) for t in matching.tasks(b)]
    for row in matching.experiment.rows:
        served = [c for c in matching.conditions(row, tasks) if c in (*IN_SIGHT, "removed")]
        seen = [c for c in served if c in IN_SIGHT]
        for condition in served:
            method = matching.method(row, condition, printed.methods(name), exact=not strangers)
            if method or (strangers and method == "" and condition in (seen or served)):
                yield row, condition, method


def _block(
    matching: Matching, printed: Printed, backbone: str, row: RowSpec, condition: str, method: str,
    tasks: dict[str, TaskSpec | None],
) -> Block:  # fmt: skip
    name, place = _reported(matching.experiment, backbone), Place(backbone, row.row, "", condition)
    entries = []
    for column in printed.columns:
        value = printed.value(name, method, column)
        entry = matching.entry(place, tasks[column.benchmark], column, method, value)
        entries.append(replace(entry, recomputed=printed.recomputed(name, method, column)))
    return Block(row.row, condition, "own", method, entries, backbone, name)


def _missing(printed: Printed, backbone: str, method: str, column: Score) -> Pair:
    """The place of a row of the paper that the experiment does not have."""
    value = printed.value(backbone, method, column)
    recomputed = printed.recomputed(backbone, method, column)
    return Pair(printed=value, recomputed=recomputed, verdict=NOT_RUN if value is not None else "")


def _with_averages(printed: Printed, name: str, blocks: Sequence[Block]) -> list[Block]:
    """The blocks of a backbone with the overall averages behind their scores."""
    places = [printed.columns.index(column) for column in printed.overall]
    bare = next((b for b in blocks if b.method == "frozen" and b.row), None)
    found = []
    for block in blocks:
        mine = [block.entries[place] for place in places]
        filled = [e if e.ours or bare is None else bare.entries[p] for e, p in zip(mine, places, strict=True)]
        parts = [f if e.printed is None else e for e, f in zip(mine, filled, strict=True)]
        value = printed.value(name, block.method, OVERALL)
        recomputed = printed.recomputed(name, block.method, OVERALL)
        rule = Pair(_average(filled) if block.ran else None, value, recomputed=recomputed)
        if value is not None:
            follows = reported.overall(name, block.method)
            verdict, reason = joint(rule, parts, np.mean, follows)
            if not reason and rule.ours and follows is not None and abs(follows - value) > APART:
                reason = reported.held_to(follows)
            rule = replace(rule, verdict=verdict, reason=reason)
        measured = [e for e in mine if e.ours]
        plain = Pair(_average(measured), remark=f"{len(measured)} of {len(mine)}" if block.ran else "")
        added = [plain, rule] if printed.overall == FIVE else [rule]
        found.append(replace(block, entries=[*block.entries, *added]))
    return found


def _average(entries: Sequence[Pair]) -> Estimate | None:
    """The plain mean of scores, without an interval; None where one is missing or there is none."""
    values = [entry.ours.value for entry in entries if entry.ours]
    if not values or len(values) < len(entries):
        return None
    return Estimate(float(np.mean(values)), None, None, len(values), 0)


def _notes(matching: Matching, table: Table, tasks: dict[str, TaskSpec | None], printed: Printed) -> Iterator[str]:
    """What a reader must know of a table: its rule, what ours is of, what is not to be held against what."""
    if table.averages == ("average",):
        yield "average: the mean of HotpotQA EM and the LoCoMo average."
    else:
        yield (
            "mean of 5: IFEval, HotpotQA EM, GPQA-D and the averages of MemoryAgentBench (over all its questions) and "
            "LoCoMo. avg_measured: of those that ran. avg_paper_rule: a score that is missing counts as the frozen "
            "backbone's, in ours as in the paper's; empty where the frozen backbone's is missing too."
        )
    entries = [e for block in table.blocks for e in block.entries]
    if any(e.recomputed is not None for e in entries):
        yield "In brackets: what the row's own printed parts make of a printed average that is another number."
    if sum(block.method == "Context2LoRA" for block in table.blocks if block.row):
        yield (
            "†: what the paper calls Context2LoRA is not described; its printed parameter count is that of one LoRA of "
            "rank 8, so the value stands beside lora as beside context2lora."
        )
    yield from legend(matching, table, tasks)


def lines(paper: Paper) -> Iterator[dict[str, Any]]:
    """``paper.csv``: every place of every table, one a line, percent."""
    for table in paper.tables:
        overall = [Score("Overall", title, "all") for title in table.averages]
        for block in table.blocks:
            for entry, column in zip(block.entries, [*table.columns, *overall], strict=True):
                if entry.ours is not None or entry.printed is not None:
                    yield {"table": table.key, **_about(block, entry), **column._asdict(), **_numbers(entry)}
    yield from (line for size in paper.sizes for line in size.lines())


def _about(block: Block, entry: Pair) -> dict[str, Any]:
    place = entry.place
    return {
        "backbone": block.backbone,
        "row": block.row,
        "task": place.task if place else "",
        "condition": block.condition,
        "arm": block.arm,
        "grade": entry.grade,
        "paper_method": block.method,
        "paper_backbone": block.paper_backbone if entry.printed is not None else "",
    }


def _numbers(entry: Pair) -> dict[str, Any]:
    ours = entry.ours or Estimate(0.0, None, None, 0, 0)
    percent = {"ours": ours.value if entry.ours else None, "low": ours.low, "high": ours.high}
    percent["difference"] = entry.difference
    printed = {"paper": entry.printed, "recomputed": entry.recomputed}
    return {
        **{name: "" if v is None else f"{100 * v + 0.0:.4f}" for name, v in percent.items()},
        **{name: "" if v is None else f"{v:.2f}" for name, v in printed.items()},
        "n": ours.n or "",
        "clusters": ours.clusters or "",
        "seeds": len(entry.seeds) or "",
        "verdict": entry.verdict,
        "reason": entry.reason,
    }

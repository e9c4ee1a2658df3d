"""Our numbers beside printed ones: the parts that every table of the paper is made of, and what stands in each place.

A *block* is one row of ours, one of the paper's, or both where they answer to each other; an *entry* is what a block
holds under one printed score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import statistics
from harness.reporting.aggregates import Score
from harness.reporting.summary import Place
from harness.statistics import Estimate

MARKS = {
    "reproduced": "R",
    "compatible": "C",
    "not reproduced": "N",
    "inconclusive": "I",
    "setting undisclosed": "U",
    "not comparable": "X",
}
"""The mark of each verdict that two numbers can get; what did not run has no number to mark."""
NOT_RUN = "not run"
BAND = 1.0
"""Points within which two averages count as equal."""
TITLES = {"prompt_strict_acc": "strict", "accuracy": "acc"}


@dataclass(frozen=True)
class Pair:
    """Ours and the paper's in one place of a table; either may be missing."""

    ours: Estimate | None = None
    """In shares of 1."""
    printed: float | None = None
    """In percent, as are ``recomputed`` and ``seeds``."""
    verdict: str = ""
    """Of what the paper prints; empty where it prints nothing."""
    reason: str = ""
    remark: str = ""
    recomputed: float | None = None
    """What the paper's own parts make of a printed aggregate, where that is another number."""
    signed: bool = False
    """Ours is a difference."""
    place: Place | None = None
    metric: str = ""
    category: str = ""
    grade: str = ""
    """Where the questions came from."""
    seeds: tuple[float, ...] = ()
    fitted: bool = False
    """Ours depends on the training seed."""

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, in shares of 1; None where either is missing."""
        return None if self.ours is None or self.printed is None else self.ours.value - self.printed / 100

    @property
    def mark(self) -> str:
        return MARKS.get(self.verdict, self.verdict)


@dataclass(frozen=True)
class Block:
    """One row of ours, of the paper's, or both."""

    row: str
    """Ours; empty where the experiment has no such row."""
    condition: str
    arm: str
    method: str
    """The paper's name of it; empty where the paper has no such row."""
    entries: list[Pair]
    backbone: str
    paper_backbone: str

    @property
    def ran(self) -> bool:
        return any(entry.ours is not None for entry in self.entries)

    @property
    def ours(self) -> bool:
        """There is something to say of ours: a number, or why there is none."""
        return self.ran or any(entry.remark for entry in self.entries)

    @property
    def told(self) -> bool:
        """The paper has numbers for it."""
        return any(entry.printed is not None for entry in self.entries)

    @property
    def lines(self) -> int:
        """Lines that it takes in LaTeX."""
        return 1 + self.ours + self.ran + self.told + (self.ran and self.told)


@dataclass(frozen=True)
class Table:
    """A table of the paper with one of our backbones, or all of them, beside it."""

    key: str
    """The file under ``tables/reported`` whose numbers it holds."""
    title: str
    columns: list[Score]
    groups: list[tuple[str, int]]
    """What stands above the columns, and over how many."""
    blocks: list[Block]
    notes: list[str] = field(default_factory=list)
    averages: tuple[str, ...] = ()
    """Titles of columns behind ``columns``: averages of them."""
    several: bool = False
    """It holds several backbones."""

    @property
    def titles(self) -> list[str]:
        return [*(_title(column, self.columns) for column in self.columns), *self.averages]

    @property
    def heads(self) -> list[str]:
        """What stands above each column."""
        return [title for title, span in self.groups for _ in range(span)]

    @property
    def arms(self) -> bool:
        """It has more arms than a row's own memory."""
        return any(block.arm not in ("", "own") for block in self.blocks)

    @property
    def counts(self) -> list[tuple[str, str, str]]:
        """Questions, clusters and data grade of each column; empty where nothing was asked."""
        found = []
        for place in range(len(self.columns)):
            ran = [e for e in (b.entries[place] for b in self.blocks) if e.ours is not None]
            ns, clusters = [e.ours.n for e in ran if e.ours], [e.ours.clusters for e in ran if e.ours]
            grades = sorted({e.grade for e in ran})
            found.append((_span(ns), _span(clusters), "/".join(grades)))
        return found + [("", "", "")] * len(self.averages)

    def pages(self, most: int = 43) -> Iterator[list[Block]]:
        """The blocks, as many at a time as a page has lines for."""
        page: list[Block] = []
        for block in self.blocks:
            if page and sum(b.lines for b in page) + block.lines > most:
                yield page
                page = []
            page.append(block)
        if page:
            yield page


def _span(numbers: Sequence[int]) -> str:
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _title(column: Score, among: Sequence[Score]) -> str:
    """What tells a column from its neighbours of the same benchmark."""
    near = [c for c in among if c.benchmark == column.benchmark]
    parts = [
        *([column.metric] if len({c.metric for c in near}) > 1 or len(near) == 1 else []),
        *([column.subset] if len({c.subset for c in near}) > 1 else []),
    ]
    return " ".join(TITLES.get(part, part) for part in parts)


def joint(whole: Pair, parts: Sequence[Pair], how: Any, target: float | None = None) -> tuple[str, str]:
    """The verdict of a number made of others: no better than that of any of them; else from their seeds.

    Args:
        whole: Ours and the printed number.
        parts: What it is made of; of one that depends on the seed, fewer than three seeds decide nothing.
        how: Makes the one of the others, along the first axis.
        target: What the printed parts make, to which ours is held; None takes the printed number.
    """
    if whole.ours is None:
        return NOT_RUN, ""
    for verdict in ("not comparable", NOT_RUN, "setting undisclosed"):
        worst = next((p for p in parts if p.verdict == verdict), None)
        if worst is not None:
            told = worst.reason if verdict != NOT_RUN else "a part that the paper has did not run"
            return ("not comparable" if verdict == NOT_RUN else verdict), told
    own = [part for part in parts if part.seeds]
    count = min((len(p.seeds) for p in own if p.fitted), default=1)
    if len(own) < len(parts):
        return "not comparable", "a part was not measured"
    means = how([(part.seeds * count)[:count] for part in own], axis=0)
    fitted = any(part.fitted for part in own)
    against = whole.printed if target is None else target
    return statistics.verdict(list(means), against or 0.0, BAND, not fitted), ""

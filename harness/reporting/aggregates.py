"""The paper's printed numbers, and each of its aggregates recomputed from the cells that it should follow from.

An average is of its parts, weighted by questions; an overall average the plain mean of its benchmarks, where a cell
that is not printed ("-") takes the frozen backbone's value; a gain a difference; a share the parameters over the
backbone's. Each part is printed rounded, so that a recomputed value is known up to a slack: a printed aggregate misses
where rounding cannot explain it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError
from harness.reporting import closed_forms

FOLDER = Path(__file__).parents[2] / "tables" / "reported"
FILES = (
    "table1", "table2", "table3_heads", "table4_depth", "figure2_no_context", "figure4_parameters",
)  # fmt: skip
FROZEN = "frozen"
GAIN, GAIN_OF = "gain", ("delta-Mem (state only)", "frozen (no context)")
"""A row of Figure 2 that is the difference of two others."""
HALF_DIGIT = 0.005
"""Every number is printed with two decimals."""


class Score(NamedTuple):
    """A column of the paper's tables."""

    benchmark: str
    metric: str
    subset: str = "all"

    @classmethod
    def named(cls, text: str) -> Score:
        """From ``LoCoMo/F1/avg``."""
        return cls(*text.split("/"))

    def __str__(self) -> str:
        metric = "" if self.metric in ("avg", "score") else f" {self.metric}"
        return f"{self.benchmark}{metric}{'' if self.subset == 'all' else f' {self.subset}'}"


OVERALL = Score("Overall", "avg")
SHARE = Score("parameters", "percent_of_backbone")
MILLIONS = Score("parameters", "trainable_millions")
MEMORY_AGENT_BENCH = Score("MemoryAgentBench", "score", "avg")
PARTS = {
    Score("LoCoMo", "F1", "avg"): ("multi", "temporal", "open", "single"),
    MEMORY_AGENT_BENCH: ("AR", "TTL", "LRU", "SF"),
    Score("HotpotQA", "EM"): ("bridge", "comparison"),
    Score("HotpotQA", "F1"): ("bridge", "comparison"),
}
OF_OVERALL = (
    Score("IFEval", "prompt_strict_acc"), Score("HotpotQA", "EM"), Score("GPQA-D", "accuracy"), MEMORY_AGENT_BENCH,
    Score("LoCoMo", "F1", "avg"),
)  # fmt: skip
OF_ABLATIONS = (Score("HotpotQA", "EM"), Score("LoCoMo", "F1", "avg"))
"""What the ablations' overall average (Tables 3 and 4) is of."""


class Row(NamedTuple):
    """A row of one of the paper's tables or figures."""

    source: str
    backbone: str
    method: str


@dataclass(frozen=True)
class Value:
    """A number known up to what rounding of its parts leaves open."""

    value: float
    slack: float = HALF_DIGIT

    def agrees(self, printed: float, half: float = HALF_DIGIT) -> bool:
        """Whether rounding can explain the difference to a printed number."""
        return abs(self.value - printed) <= self.slack + half + 1e-9

    def __sub__(self, other: Value) -> Value:
        return Value(self.value - other.value, self.slack + other.slack)

    def over(self, other: Value) -> Value:
        """The ratio, with the widest slack that either rounding leaves."""
        ratio = self.value / other.value
        return Value(ratio, (self.slack + ratio * other.slack) / (other.value - other.slack))


@dataclass(frozen=True)
class Aggregate:
    """A printed number that should follow from others."""

    row: Row
    score: Score
    printed: float
    recomputed: Value
    plain: float | None = None
    """Of a weighted average, the plain mean of its parts."""

    @property
    def misses(self) -> bool:
        """Rounding does not explain the difference."""
        return not self.recomputed.agrees(self.printed)

    @property
    def is_plain(self) -> bool:
        """It is the plain mean of its parts, which should be weighted."""
        return self.plain is not None and self.misses and Value(self.plain).agrees(self.printed)


class Paper:
    """The printed numbers of one folder.

    Args:
        folder: Holds the CSV files of ``tables/reported``.

    Raises:
        HarnessError: a file is missing, or a line of it is torn.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self.cells: dict[Row, dict[Score, float | None]] = {}
        """By row, then score; None is a "-" of the paper."""
        for name in FILES:
            for line in read(folder / f"{name}.csv"):
                row = Row(line["source"], line["backbone"], line["method"])
                value = _number(line["value"], folder / f"{name}.csv")
                self.cells.setdefault(row, {})[Score(line["benchmark"], line["metric"], line["subset"])] = value
        bands = list(read(folder / "bands.csv"))
        self.bands = {_score(line): float(line["band"]) for line in bands}
        """Points within which two means count as equal, fixed beforehand."""
        self.questions = {_score(line): int(line["questions"]) for line in bands if line["questions"]}

    def rows(self, source: str, backbone: str) -> list[Row]:
        """The rows of a table or figure, in its order."""
        return [row for row in self.cells if (row.source, row.backbone) == (source, backbone)]

    def row(self, backbone: str, method: str, score: Score) -> Row:
        """The first row of that name that prints the score.

        Raises:
            HarnessError: there is none.
        """
        for row, cells in self.cells.items():
            if (row.backbone, row.method) == (backbone, method) and cells.get(score) is not None:
                return row
        raise HarnessError(
            f"{self.folder} prints no {score} of '{method}' on {backbone}; name a row and score of its tables"
        )

    def printed(self, row: Row, score: Score) -> float | None:
        """What a row prints; None where it has no number there."""
        return self.cells.get(row, {}).get(score)

    def recomputed(self, row: Row, score: Score, deep: bool = False) -> Value | None:
        """What a score should be, from the printed parts; None where no parts are printed.

        Args:
            deep: From the parts of the parts, where they are printed.
        """
        if row.method == GAIN:
            state, bare = (row._replace(method=m) for m in GAIN_OF)
            return self.value(state, score, of_parts=False) - self.value(bare, score, of_parts=False)
        if score == OVERALL:
            return self._overall(row, deep)
        if score in PARTS:
            return self._weighted(row, score)
        if score == SHARE:
            millions = self.printed(row, MILLIONS)
            size = closed_forms.backbone(closed_forms.shape()) / 1e6
            return None if millions is None else Value(100 * millions / size, 100 * HALF_DIGIT / size)
        return None

    def value(self, row: Row, score: Score, of_parts: bool = True) -> Value:
        """The recomputed value of an aggregate, the printed one of any other cell.

        Args:
            of_parts: False gives the printed one of aggregates too.

        Raises:
            HarnessError: the row prints no such score.
        """
        found = self.recomputed(row, score) if of_parts else None
        if found is not None:
            return found
        printed = self.printed(row, score)
        if printed is None:
            raise HarnessError(f"{self.folder} prints no {score} of '{row.method}' in {row.source}; restore its file")
        return Value(printed)

    @cached_property
    def aggregates(self) -> list[Aggregate]:
        """Every aggregate that the tables and figures print."""
        return list(self._aggregates())

    @property
    def misses(self) -> list[Aggregate]:
        """Those that do not follow from their parts."""
        return [aggregate for aggregate in self.aggregates if aggregate.misses]

    def _aggregates(self) -> Iterator[Aggregate]:
        for row, cells in self.cells.items():
            for score, printed in cells.items():
                recomputed = self.recomputed(row, score)
                if printed is not None and recomputed is not None:
                    yield Aggregate(row, score, printed, recomputed, self._plain(row, score))

    def _parts(self, row: Row, score: Score) -> dict[Score, float] | None:
        parts = {score._replace(subset=s): self.printed(row, score._replace(subset=s)) for s in PARTS.get(score, ())}
        known = {part: value for part, value in parts.items() if value is not None}
        return known if known and len(known) == len(parts) and row.method != GAIN else None

    def _weighted(self, row: Row, score: Score) -> Value | None:
        parts = self._parts(row, score)
        if parts is None:
            return None
        total = sum(value * self.questions[part] for part, value in parts.items())
        return Value(total / sum(self.questions[part] for part in parts))

    def _plain(self, row: Row, score: Score) -> float | None:
        parts = self._parts(row, score)
        return None if parts is None else sum(parts.values()) / len(parts)

    def of_overall(self, row: Row) -> tuple[Score, ...]:
        """The benchmarks that a row's overall average is of."""
        return OF_ABLATIONS if row.source in ("Table 3", "Table 4") else OF_OVERALL

    def _overall(self, row: Row, deep: bool) -> Value | None:
        found = []
        for score in self.of_overall(row):
            at = row if self.printed(row, score) is not None else row._replace(method=FROZEN)
            value = self.recomputed(at, score) if deep else None
            printed = self.printed(at, score)
            if value is None and printed is not None:
                value = Value(printed)
            if value is None:
                return None
            found.append(value)
        return Value(sum(v.value for v in found) / len(found), sum(v.slack for v in found) / len(found))


def read(path: Path) -> Iterator[dict[str, str]]:
    """The lines of a CSV file, by column.

    Raises:
        HarnessError: it cannot be read, or a line is shorter or longer than the first.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, line in enumerate(csv.DictReader(file), 2):
                if None in line or None in line.values():
                    raise HarnessError(f"{path}, line {number} has not as many fields as the first line; mend it")
                yield line
    except OSError as error:
        raise HarnessError(f"{path} cannot be read ({error.strerror}); restore tables/reported") from error


def _number(text: str, path: Path) -> float | None:
    try:
        return float(text) if text else None
    except ValueError as error:
        raise HarnessError(f"{path} has the value '{text}', which is no number; restore tables/reported") from error


def _score(line: dict[str, str]) -> Score:
    return Score(line["benchmark"], line["metric"], line["subset"])

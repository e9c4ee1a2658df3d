"""What a claim of the paper says (``tables/reported/claims.csv``), and what a check of it finds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.reporting.aggregates import FOLDER, Paper, Row, Score, Value, read

HOLDS, ONE, PART = "holds", "holds for one variant", "holds in part"
WRONG, FALSE, DISAGREE = "does not recompute", "does not hold", "text and figure disagree"
OPEN, UNTESTED, CLOSED = "not resolved", "not tested", "not checkable"
FOLLOWS = "follows from "
"""And the id of the claim whose slip it repeats."""
MEANING = {
    HOLDS: "the printed numbers give it, up to their rounding",
    ONE: "they give it for one of the three variants, which the sentence names",
    PART: "they give a part of what is said",
    WRONG: "rounding cannot explain the difference to what the printed parts give",
    FOLLOWS + "C1": "it repeats the slip of that claim and has none of its own",
    FALSE: "the printed numbers say otherwise, by more than one run's chance",
    DISAGREE: "the paper prints two numbers for one thing",
    OPEN: "the printed numbers say otherwise, by less than one run's chance",
    UNTESTED: "the paper shows no experiment of it",
    CLOSED: "it prints nothing that could be recomputed",
}
"""Every verdict, and what it means."""
VARIANTS = ("delta-Mem (SSW)", "delta-Mem (TSW)", "delta-Mem (MSW)")
ANY, ALL = "delta-Mem", "*"
"""As a method: each of the variants; as what it stands against: every other row of its table."""


class Fact(NamedTuple):
    """A line of ``claims.csv``."""

    id: str
    claim: str
    source: str
    printed: str
    unit: str
    check: str
    """Name of a function of :mod:`harness.reporting.audit.checks`."""
    backbone: str
    method: str
    against: str
    scores: tuple[Score, ...]

    @property
    def numbers(self) -> list[float]:
        """The printed numbers: one, or from and to."""
        return [float(part) for part in self.printed.split(" -> ")]

    @property
    def score(self) -> Score:
        return self.scores[0]

    def row(self, paper: Paper, method: str = "", score: Score | None = None) -> Row:
        """The row that prints a score of the claim."""
        return paper.row(self.backbone, method or self.method, score or self.score)

    def rivals(self, paper: Paper) -> list[Row]:
        """What the method stands against."""
        if self.against != ALL:
            return [self.row(paper, method) for method in self.against.split("|")]
        mine = self.row(paper) if self.method != ANY else self.row(paper, VARIANTS[0])
        rows = paper.rows(mine.source, mine.backbone)
        return [row for row in rows if row.method != self.method and paper.printed(row, self.score) is not None]


class Finding(NamedTuple):
    """What a check of a claim finds."""

    recomputed: str
    verdict: str
    sentence: str


def facts(folder: Path = FOLDER) -> Iterator[Fact]:
    """Every claim, in the order of their ids."""
    lines = sorted(read(folder / "claims.csv"), key=lambda line: (line["id"][0], int(line["id"][1:])))
    for line in lines:
        scores = tuple(Score.named(text) for text in line.pop("score").split("|") if text)
        yield Fact(**line, scores=scores)


def short(method: str) -> str:
    """``TSW`` of ``delta-Mem (TSW)``, ``qkvo`` of its ablation."""
    if "=" in method:
        return method.rsplit("=", 1)[1].lower()
    return {"frozen": "the frozen backbone"}.get(method, method.removeprefix("delta-Mem (").removesuffix(")"))


def told(value: float) -> str:
    """Two decimals, and a third where there is one."""
    text = f"{value:.3f}"
    return text.removesuffix("0").replace("-", "−")


def listed(parts: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def chance(paper: Paper, row: Row, score: Score) -> float:
    """About one standard error of a printed score in points, as of shares right: an upper bound for F1."""
    if score.benchmark == "Overall":
        parts = paper.of_overall(row)
        errors = [
            chance(paper, row if paper.printed(row, part) is not None else row._replace(method="frozen"), part)
            for part in parts
        ]
        return math.sqrt(sum(e**2 for e in errors)) / len(errors)
    share = (paper.printed(row, score) or 0.0) / 100
    return 100 * math.sqrt(share * (1 - share) / paper.questions[score])


def ranked(paper: Paper, rows: list[Row], score: Score) -> list[tuple[Value, Row]]:
    """The rows by their recomputed score, the highest first."""
    return sorted(((paper.value(row, score), row) for row in rows), key=lambda pair: -pair[0].value)

"""The paper's own arithmetic, audited: each claim with what is printed, what recomputes, a verdict and one sentence.

Nothing is copied: ``tables/reported`` holds what the paper prints, and all else is computed from it and from closed
forms, without torch and without a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.reporting.aggregates import FOLDER, FROZEN, OF_OVERALL, OVERALL, SHARE, Aggregate, Paper, Score
from harness.reporting.audit.checks import CHECKS, SLIP
from harness.reporting.audit.facts import (
    CLOSED,
    DISAGREE,
    FALSE,
    FOLLOWS,
    HOLDS,
    MEANING,
    ONE,
    OPEN,
    PART,
    UNTESTED,
    VARIANTS,
    WRONG,
    Fact,
    facts,
    listed,
    short,
)  # fmt: skip
from harness.reporting.render import cell, render

if TYPE_CHECKING:
    from harness.experiment import Experiment
    from harness.reporting.audit.tested import Tested
    from harness.reporting.summary import Summary

UNITS = {"ratio": "×", "percent": "%", "points": " points", "million": "M", "samples": " samples", "tokens": " tokens"}
OTHER_NAMES = {
    "delta-Mem (TSW) heads=qo": "delta-Mem (TSW)",
    "delta-Mem (TSW) layers=All Layers": "delta-Mem (TSW)",
}
"""Rows of the ablations that are a row of Table 1."""
READING = (
    "A printed number is known to half its last digit, and so is what is computed from several: a number misses only "
    "where that cannot explain it. Averages of LoCoMo (282, 321, 96 and 841 questions), HotpotQA (5,918 and 1,487) and "
    "MemoryAgentBench (2,000, 700, 171 and 800) are weighted by questions; the overall average is the plain mean of "
    "IFEval, HotpotQA EM, GPQA-D, MemoryAgentBench and LoCoMo, a cell that is not printed counting as the frozen "
    "backbone's, and in Tables 3 and 4 that of HotpotQA EM and LoCoMo.",
    "One standard error is that of a share of so many questions, an upper bound for F1. It says what another draw of "
    "questions might change, and nothing of what another training seed might.",
    "Nothing here says that a result was not obtained: a slip in an average leaves the cells that it was made of as "
    "they are.",
)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, and what its printed numbers make of it."""

    id: str
    text: str
    source: str
    printed: str
    """With its unit; empty where the claim has no number."""
    recomputed: str
    verdict: str
    """One of :data:`MEANING`."""
    sentence: str


@dataclass(frozen=True)
class Slip:
    """Printed numbers that do not recompute, for one reason."""

    text: str
    claims: tuple[str, ...] = ()
    """The claims that it bears on, by id."""

    def __str__(self) -> str:
        bears = f"bears on {listed(list(self.claims))}" if self.claims else "bears on no claim"
        return f"{self.text}; {bears}."


def claims(folder: Path = FOLDER) -> list[Claim]:
    """Every claim, in the order of their ids.

    Args:
        folder: Holds the CSV files of ``tables/reported``.

    Raises:
        HarnessError: a file is missing or torn.
    """
    paper = Paper(folder)
    found = [(fact, CHECKS[fact.check](fact, paper)) for fact in facts(folder)]
    followers: dict[str, list[str]] = {}
    for fact, finding in found:
        if finding.verdict.startswith(FOLLOWS):
            followers.setdefault(finding.verdict.removeprefix(FOLLOWS), []).append(fact.id)
    return [
        Claim(
            fact.id,
            fact.claim,
            fact.source,
            f"{fact.printed.replace(' -> ', ' → ').replace('x', ' × ')}{UNITS.get(fact.unit, '')}",
            finding.recomputed.replace("8x8", "8 × 8"),
            finding.verdict,
            finding.sentence + (f" {listed(followers[fact.id])} follow from it." if fact.id in followers else ""),
        )
        for fact, finding in found
    ]


def slips(folder: Path = FOLDER) -> list[Slip]:
    """What does not recompute in the paper's tables and figures, each cause once; those that bear on most first."""
    paper, known = Paper(folder), list(facts(folder))
    groups: dict[tuple[object, ...], list[Aggregate]] = {}
    for miss in paper.misses:
        where = (miss.row.backbone, miss.score) if miss.is_plain else (miss.row.backbone, miss.row.method, miss.score)
        groups.setdefault(where, []).append(miss)
    found = [Slip(_cause(misses), tuple(f.id for f in known if _bears(misses, f))) for misses in groups.values()]
    return sorted(found, key=lambda slip: -len(slip.claims))


def _bears(misses: list[Aggregate], fact: Fact) -> bool:
    """Whether a claim of one row, or of two, is made from a number that misses."""
    scores = {*fact.scores, *((SHARE,) if fact.check == "parameters" else ())}
    return any(
        miss.row.backbone == fact.backbone
        and miss.row.method in (fact.method, fact.against)
        and (miss.score in scores or (OVERALL in scores and miss.score in OF_OVERALL))
        for miss in misses
    )


def _cause(misses: list[Aggregate]) -> str:
    first = misses[0]
    where = f"{_named(first.score)} ({listed(sorted({miss.row.source for miss in misses}))}"
    if first.is_plain:
        rows = ", ".join(f"{short(m.row.method)} {m.printed:.2f} for {m.recomputed.value:.2f}" for m in misses)
        return (
            f"{first.row.backbone}, {where}): the plain mean of the categories, which the other backbones' rows weight "
            f"by questions: {rows}"
        )
    plain = f" (their plain mean is {first.plain:.2f})" if first.plain is not None else ""
    parts = f"its parts give {first.recomputed.value:.2f}{plain}"
    return f"{short(first.row.method)}, {where}, {first.row.backbone}): printed {first.printed:.2f}, {parts}"


def _named(score: Score) -> str:
    names = {SHARE: "percent of the backbone's parameters", OVERALL: "overall average"}
    return names.get(score, str(score).replace("avg", "average"))


def repeated(paper: Paper) -> tuple[int, int]:
    """How many numbers the paper prints in more than one place, and how many of them differ between places."""
    places: dict[tuple[str, str, Score], list[float]] = {}
    for row, cells in paper.cells.items():
        method = OTHER_NAMES.get(row.method, row.method)
        for score, value in cells.items():
            if value is not None and not (score == OVERALL and method != row.method):
                places.setdefault((row.backbone, method, score), []).append(value)
    several = [values for values in places.values() if len(values) > 1]
    return len(several), sum(len(set(values)) > 1 for values in several)


def standing(paper: Paper, against: str) -> tuple[int, int]:
    """Of how many variants and backbones the overall average, weighted alike throughout, is above another row's."""
    above = []
    for row in paper.cells:
        if row.source == "Table 2" and row.method in VARIANTS:
            mine, other = (paper.recomputed(r, OVERALL, deep=True) for r in (row, row._replace(method=against)))
            if mine is not None and other is not None:
                above.append(mine.value > other.value)
    return sum(above), len(above)


def markdown(experiment: Experiment | None = None, summary: Summary | None = None, folder: Path = FOLDER) -> str:
    """``audit.md``: a summary, what does not recompute, every claim, and how to read it.

    Args:
        experiment: Ours, whose runs stand beside the claims; None leaves them out.
        summary: Its estimates.
        folder: Holds the CSV files of ``tables/reported``.
    """
    paper, found = Paper(folder), claims(folder)
    tested: list[Tested] = []
    if experiment is not None and summary is not None:
        from harness.reporting.audit.tested import claims_tested

        tested = claims_tested(experiment, summary, folder)
    ran = [t for t in tested if t.ours is not None]
    return render(
        "audit.md",
        summary=list(_summary(paper, found)),
        slips=_wrong(slips(folder), found),
        claims=found,
        verdicts=[(word, meaning) for word, meaning in MEANING.items() if any(c.verdict == word for c in found)],
        reading=READING,
        experiment=experiment,
        runs={claim.id: _runs([t for t in tested if t.id == claim.id]) for claim in found},
        tested=ran,
        not_run=", ".join(dict.fromkeys(t.id for t in tested if t.ours is None)),
    )


def _summary(paper: Paper, found: list[Claim]) -> Iterator[str]:
    """What a reader should take away, in a minute."""
    counts = Counter(claim.verdict for claim in found)
    ids = {verdict: listed([c.id for c in found if c.verdict == verdict]) for verdict in counts}
    named = (ONE, PART, WRONG, FOLLOWS + SLIP, DISAGREE, FALSE, OPEN, UNTESTED, CLOSED)
    rest = "; ".join(f"{counts[v]} {_plural(v, counts[v])} ({ids[v]})" for v in named if counts[v])
    yield f"Of {len(found)} claims {counts[HOLDS]} hold as printed. The others: {rest}."
    total, misses = len(paper.aggregates), paper.misses
    distinct = {(miss.row.backbone, miss.row.method, miss.score) for miss in misses}
    causes = len(slips(paper.folder))
    several, differing = repeated(paper)
    yield (
        f"{total - len(misses)} of {total} averages, gains and shares follow from the numbers that they are made of. "
        f"{len(misses)} do not ({len(distinct)} numbers, for some stand in two tables); they have {causes} independent "
        f"causes, which head the list below. Of {several} numbers printed in more than one place {differing or 'none'} "
        f"differ{'' if differing else 's'} between places."
    )
    above, pairs = standing(paper, FROZEN)
    yield (
        f"What this leaves standing: with every average weighted alike, δ-mem's overall average is above the frozen "
        f"backbone's in {above} of {pairs} pairs of variant and backbone, and above Context2LoRA's in "
        f"{standing(paper, 'Context2LoRA')[0]}. Whether a gain is the memory's is another question, which "
        "printed numbers cannot answer."
    )


def _wrong(found: list[Slip], every: list[Claim]) -> list[str]:
    """What a list of errata would hold: each cause, and what the text says otherwise than a figure."""
    told = [str(slip) for slip in found]
    for claim in every:
        if claim.verdict == DISAGREE:
            told.append(f"{claim.text} ({claim.id}): {claim.printed} in the text, {claim.recomputed} in the figure.")
        if claim.verdict == FALSE:
            told.append(f"{claim.text} ({claim.id}): so the text; the numbers are {claim.recomputed}.")
    return told


def _plural(verdict: str, count: int) -> str:
    """``2 hold in part``, ``1 holds in part``."""
    if count == 1 or not verdict.startswith((HOLDS, FOLLOWS, "does")):
        return {DISAGREE: "where text and figure disagree"}.get(verdict, verdict)
    return verdict.replace("holds", "hold").replace("follows", "follow").replace("does", "do")


def _runs(tested: list[Tested]) -> str:
    """What our runs give for one claim, in short."""
    told = []
    for t in tested:
        label = f"{short(t.method)} " if len({x.method for x in tested}) > 1 else ""
        if t.left is not None and len({x.left.task for x in tested if x.left is not None}) > 1:
            label += f"{t.left.task} "
        told.append(f"{label}{cell(t.ours, True)}, {t.verdict}" if t.ours is not None else f"{label}{t.verdict}")
    return "not run" if told and not any(t.ours for t in tested) else "; ".join(told)

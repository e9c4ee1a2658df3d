"""Is it memory? A row's own memory against another history's, the mean of all others' and its own in another order.

Memory is claimed only where the intervals of own - donor and of own - mean both lie above zero (docs/conditions.md). A
gain over the bare backbone that a donor or the mean shares is format or steering, and another order of the messages
tells order sensitivity alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

from harness.registry import find
from harness.reporting.render import cell, number
from harness.reporting.summary import Place, Summary
from harness.statistics import Estimate
from harness.tasks import tasks

Claim = Literal["memory", "ahead", "not shown", "untested"]
CONTROLS = ("donor", "mean")
"""The arms that a claim of memory is held against."""
SIGHT = {
    "removed": "with the text gone",
    "own_text": "with only the text that it puts back",
    "windowed": "with only the end of the text in sight",
    "replayed": "with the text in sight",
}
"""What the model sees of a history, in the order in which a row's memory is best told apart from the prompt."""
BARE = {
    "removed": ("question_only", "removed", "the question alone"),
    "own_text": ("question_only", "removed", "the question alone"),
    "windowed": ("window", "windowed", "the same window without a memory"),
    "replayed": ("frozen", "replayed", "the frozen backbone with the text"),
}
"""By condition the method without a memory that sees as much, its condition, and what it is called."""
VERDICTS = {"memory": "memory", "ahead": "ahead of donors", "not shown": "not shown", "untested": "untested"}


class Sentence(NamedTuple):
    """What the arms say of one row on one task."""

    backbone: str
    row: str
    task: str
    condition: str
    claim: Claim
    text: str


@dataclass(frozen=True)
class Finding:
    """The arms of one row on one task, under one condition, and what follows from them."""

    place: Place
    own: Estimate
    arms: dict[str, Estimate]
    """The score of each control that ran."""
    ahead: dict[str, Estimate]
    """own - control, paired by question."""
    beside: dict[str, Estimate]
    """The scores of methods without a memory that ran, by what they are called."""
    gains: dict[str, Estimate]
    """own and each control minus the method without a memory that sees as much, paired."""
    offers: frozenset[str]
    """The arms that the method has, under whatever condition."""

    @property
    def claim(self) -> Claim:
        ran = [self.ahead[arm] for arm in CONTROLS if arm in self.ahead]
        if "donor" not in self.ahead or any(contrast.low is None for contrast in ran):
            return "untested"
        if not all(contrast.above_zero for contrast in ran):
            return "not shown"
        return "memory" if len(ran) == len(CONTROLS) else "ahead"

    @property
    def verdict(self) -> str:
        return VERDICTS[self.claim]

    @property
    def sentence(self) -> Sentence:
        return Sentence(*self.place[:4], self.claim, _text(self))


def sentences(summary: Summary) -> list[Sentence]:
    """One sentence a row and task, and a condition where several have controls, in the order of the experiment."""
    return [finding.sentence for finding in findings(summary)]


def findings(summary: Summary) -> list[Finding]:
    """What the sentences say, as numbers. Rows without a memory and tasks without a history have none."""
    own = [place for place in summary.places if place.arm == "own" and summary.may_lead(place)]
    found = []
    for (backbone, row, task), group in groupby(own, key=lambda place: place[:3]):
        if not _remembers(summary, row, task):
            continue
        ran = [_finding(summary, place) for place in group]
        controlled = [finding for finding in ran if finding.ahead.keys() & set(CONTROLS)]
        if controlled:
            found += controlled
        else:
            best = suited(summary, backbone, row, task)[0]
            found += [finding for finding in ran if finding.place.condition == best]
    return found


def tested(summary: Summary) -> list[Finding]:
    """Those findings that stand on another history's memory, or on the mean of all others'."""
    return [finding for finding in findings(summary) if finding.ahead.keys() & set(CONTROLS)]


def suited(summary: Summary, backbone: str, row: str, task: str) -> list[str]:
    """The conditions that a row ran under on a task and is made for, the fullest test of its memory first.

    A row that learnt with the history in sight and has nothing to swap elsewhere (LoRA) is not made for the others.
    """
    ran = [c for c in SIGHT if Place(backbone, row, task, c) in summary.places]
    cls = find(method_of(summary, row))
    if cls is None or cls.capabilities.fits is None:
        return ran
    arms, fits = {str(c): offered for c, offered in cls.capabilities.arms.items()}, cls.capabilities.fits
    return [c for c in ran if c == fits or len(arms.get(c, ())) > 1] or ran


def method_of(summary: Summary, row: str) -> str:
    """The method, or preset of one, that a row of the experiment names."""
    return next((spec.method for spec in summary.experiment.rows if spec.row == row), "")


def told(found: Iterable[Finding], claim: Claim, several: bool) -> str:
    """The findings of one claim by name: ``a, b on locomo (removed); c on hotpotqa (replayed)``; maybe empty.

    Args:
        found: Of any claim.
        claim: Which of them are told.
        several: Rows are named with their backbones.
    """
    rows: dict[tuple[str, str], list[str]] = {}
    for finding in found:
        backbone, row, task, condition, _ = finding.place
        if finding.claim == claim:
            rows.setdefault((task, condition), []).append(f"{backbone}: {row}" if several else row)
    tasks_of: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for (task, condition), names in rows.items():
        tasks_of.setdefault((tuple(names), condition), []).append(task)
    return "; ".join(f"{', '.join(names)} on {', '.join(on)} ({c})" for (names, c), on in tasks_of.items())


def _remembers(summary: Summary, row: str, task: str) -> bool:
    """A memory is asked on a task that has histories."""
    cls = find(method_of(summary, row))
    asked = tasks().get(next((t.task for t in summary.experiment.tasks if t.name == task), ""))
    return (cls is None or cls.capabilities.family != "reference") and (asked is None or asked.unit != "none")


def _finding(summary: Summary, own: Place) -> Finding:
    controls = {arm: own._replace(arm=arm) for arm in (*CONTROLS, "shuffled")}
    cls = find(method_of(summary, own.row))
    return Finding(
        own,
        _score(summary, own),
        {arm: score for arm, place in controls.items() if (score := summary.estimate(place))},
        {arm: paired for arm, place in controls.items() if (paired := summary.contrast(own, place))},
        dict(_beside(summary, own)),
        dict(_gains(summary, own)),
        frozenset(CONTROLS) if cls is None else frozenset(a for arms in cls.capabilities.arms.values() for a in arms),
    )


def _score(summary: Summary, place: Place) -> Estimate:
    score = summary.estimate(place)
    assert score is not None, place
    return score


def _bare(summary: Summary, own: Place, condition: str) -> tuple[Place, str] | None:
    """The method without a memory that sees as much under a condition; None where it is the row itself or not here."""
    method, under, name = BARE[condition]
    row = next((spec.row for spec in summary.experiment.rows if spec.method == method), "")
    place = Place(own.backbone, row, own.task, under)
    return (place, name) if row != own.row and place in summary.places else None


def _beside(summary: Summary, own: Place) -> Iterator[tuple[str, Estimate]]:
    for condition in ("removed", *(["windowed"] if own.condition == "windowed" else []), "replayed"):
        bare = _bare(summary, own, condition)
        if bare is not None:
            place, name = bare
            yield name, _score(summary, place)


def _gains(summary: Summary, own: Place) -> Iterator[tuple[str, Estimate]]:
    bare = _bare(summary, own, own.condition)
    for arm in ("own", *CONTROLS) if bare is not None else ():
        gain = summary.contrast(own._replace(arm=arm), bare[0]) if bare is not None else None
        if gain is not None:
            yield arm, gain


def _text(finding: Finding) -> str:
    """The sentence: what is claimed, the numbers, and what else must be known to read them."""
    backbone, row, task, condition, _ = finding.place
    who, where = f"{row} on {backbone}", f"on {task} {SIGHT[condition]}"
    if not finding.ahead.keys() & set(CONTROLS):
        lacks = "has not been run with another history's memory" if "donor" in finding.offers else "has no donor arm"
        score = f"its score of {number(finding.own.value)}% {where}"
        return f"{who} {lacks}, so whether {score} comes from memory cannot be told."
    opening = {
        "memory": f"{who} remembers {where}",
        "ahead": f"{who} scores higher {where} when it has its own memory than when it has another history's",
        "not shown": f"{who} does not show memory {where}",
        "untested": f"{who} cannot be judged {where}",
    }[finding.claim]
    return f"{'; '.join([f'{opening}: {_evidence(finding)}', *_remarks(finding)])}."


def _evidence(finding: Finding) -> str:
    """``own 49.2%, donor 0.3% (+48.9 [+47.1, +50.6]), the floor 0.0%``"""
    parts = [f"own {number(finding.own.value)}%"]
    for arm in CONTROLS:
        if arm in finding.ahead:
            parts.append(f"{arm} {number(finding.arms[arm].value)}% ({cell(finding.ahead[arm], True)})")
    return ", ".join([*parts, *(f"{name} {number(score.value)}%" for name, score in finding.beside.items())])


def _remarks(finding: Finding) -> Iterator[str]:
    few = [c for arm in CONTROLS if (c := finding.ahead.get(arm)) is not None and c.low is None]
    if few:
        count = min(c.clusters for c in few)
        yield f"{count} source {'document is' if count == 1 else 'documents are'} too few for an interval or a test"
    if "donor" not in finding.ahead:
        yield "another history's memory was not run, so memory cannot be claimed"
    elif finding.claim == "ahead":
        without = "the mean memory was not run" if "mean" in finding.offers else "it has no mean arm"
        yield f"{without}, so memory is not claimed"
    shared = [arm for arm in CONTROLS if _shares(finding, arm)]
    if shared and finding.claim == "not shown":
        name = BARE[finding.place.condition][2]
        by = " and ".join(f"{arm} ({cell(finding.gains[arm], True)})" for arm in shared)
        gain = cell(finding.gains["own"], True)
        yield f"its gain over {name}, {gain}, is shared by {by}, so it is format or steering"
    if "shuffled" in finding.ahead:
        order = finding.ahead["shuffled"]
        differs = order.low is not None and order.high is not None and not order.low <= 0 <= order.high
        verb = "shows" if differs else "does not show"
        yield (
            f"with its messages in another order it scores {number(finding.arms['shuffled'].value)}% (own − shuffled "
            f"{cell(order, True)}), which {verb} that order matters and tells no more"
        )


def _shares(finding: Finding, arm: str) -> bool:
    """Own gains over what sees as much, and so does a control that own is not ahead of."""
    own, control = finding.gains.get("own"), finding.gains.get(arm)
    if own is None or control is None or arm not in finding.ahead:
        return False
    return own.above_zero and control.above_zero and not finding.ahead[arm].above_zero

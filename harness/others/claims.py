"""What a file says that its answers are worth, beside what they are worth."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.others.table import Found
from harness.records import Score
from harness.scoring import mean
from harness.tasks.base import Task

TOLERANCE = 5.1e-5
"""Claims are told to four decimals, or two of percent; half of the last, and a little for binary fractions."""


@dataclass(frozen=True)
class Claim:
    """A score that the file has, and ours of the same answers."""

    name: str
    """As the file calls it."""
    metric: str
    """Ours, which it claims to be."""
    total: float | None
    """The file's own mean."""
    own: float | None
    """The mean of the scores that its answers have in the file."""
    ours: float
    otherwise: int
    """Answers that the file scores otherwise."""
    n: int
    """Answers that have a score in the file."""
    same_as: str = ""
    """Another of our metrics that gives what the file says."""

    @property
    def value(self) -> float:
        """What the file says: its total, or else the mean of its answers' scores."""
        return self.total if self.total is not None else self.own or 0.0

    @property
    def difference(self) -> float:
        """Ours less theirs."""
        return self.ours - self.value

    @property
    def holds(self) -> bool:
        """Whether the rescoring gives what the file says."""
        return abs(self.difference) <= TOLERANCE

    def sentences(self) -> list[str]:
        """Plainly, with both figures."""
        some = f"{self.otherwise} of {self.n} answers {'is' if self.otherwise == 1 else 'are'} scored otherwise"
        counted = f"; {some}" if self.otherwise else ""
        if self.holds:
            found = [f"the file says {percent(self.value)} for {self.name}, and {self.metric} gives the same{counted}"]
        else:
            other = f"; {self.same_as} gives what the file says" if self.same_as else ""
            found = [
                f"the file says {percent(self.value)} for {self.name}, but {self.metric} gives {percent(self.ours)} "
                f"({signed(self.difference)}){counted}{other}"
            ]
        if self.total is not None and self.own is not None and abs(self.total - self.own) > TOLERANCE:
            found.append(
                f"the file's total for {self.name} is {percent(self.total)}, but the scores of its own answers have "
                f"the mean {percent(self.own)}"
            )
        return found


@dataclass
class Claims:
    """Gathers what answers claim while they are scored."""

    scored: Task
    found: Found
    own: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Claimed values and their weights, by the file's name of the score."""
    ours: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """What the same answers earned."""
    otherwise: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unread: set[str] = field(default_factory=set)

    def metric(self, name: str) -> str | None:
        """Our metric that a name of the file claims to be; None where it is none."""
        known = {m.name for m in self.scored.metrics}
        plain = name.partition(",")[0]
        named = self.found.metrics.get(name) or self.found.metrics.get(plain) or plain
        released = f"{plain}_release"
        if named == plain and self.found.rule == "release" and released in known:
            return released
        return named if named in known else None

    def add(self, claimed: Mapping[str, tuple[float, float]], earned: Mapping[str, float]) -> None:
        """One answer's claims, and what it earned by every metric."""
        for name, told in claimed.items():
            metric = self.metric(name)
            if metric is None:
                self.unread.add(name)
                continue
            self.own[name].append(told)
            self.ours[name].append(earned[metric])
            self.otherwise[name] += abs(told[0] - earned[metric]) > TOLERANCE

    def told(self, scores: Mapping[str, Score]) -> list[Claim]:
        """Every claim beside ``scores``, ours of all answers; by name."""
        found = []
        for name in sorted({*self.own, *self.found.totals}):
            metric = self.metric(name)
            if metric is None:
                self.unread.add(name)
                continue
            total, own = self.found.totals.get(name), _mean(self.own.get(name, []))
            ours = scores[metric].value if total is not None or own is None else mean(self.ours[name])
            claim = Claim(name, metric, total, own, ours, self.otherwise.get(name, 0), len(self.own.get(name, [])))
            others = [m.name for m in self.scored.metrics if abs(scores[m.name].value - claim.value) <= TOLERANCE]
            found.append(claim if claim.holds or not others else replace(claim, same_as=others[0]))
        return found


def _mean(told: list[tuple[float, float]]) -> float | None:
    return math.fsum(v * t for v, t in told) / math.fsum(t for _, t in told) if told else None


def signed(value: float) -> str:
    """A difference in points of percent; none has no sign."""
    points = round(100 * value, 2)
    return f"{points:+.2f}" if points else "0.00"


def percent(value: float) -> str:
    """As sentences print a share."""
    return f"{100 * value:.2f}%"

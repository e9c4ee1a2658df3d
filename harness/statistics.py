"""Honest uncertainty: means and paired differences over questions, clustered by root document.

The estimand is always the mean over questions. Questions of one root document (one conversation, one book) share
their luck, so intervals count clusters, not questions: the cluster-robust t interval with G - 1 degrees of freedom,
which keeps its 95% where the percentile bootstrap covers 90% (ten clusters), needs no random draws, and serves one
cluster a question as well. Fewer than ``FEWEST_CLUSTERS`` clusters carry no interval and no test: such a mean speaks
of these contexts only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from harness.episodes import CLEAN, widening
from harness.errors import HarnessError

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
FEWEST_CLUSTERS = 6
EXACT_CLUSTERS = 20
"""Below this many clusters every pattern of signs is tried."""
DRAWS = 10_000
QUESTION = ["history_id", "question_id"]
"""The columns that name a question within a task."""

Verdict = Literal["reproduced", "compatible", "not reproduced", "inconclusive"]


@dataclass(frozen=True)
class Estimate:
    """A mean over questions with its 95% interval; ``low`` and ``high`` are None where there are too few clusters."""

    value: float
    low: float | None
    high: float | None
    n: int
    """Questions."""
    clusters: int
    p: float | None = None
    """Two-sided p of a paired difference; None for plain means and where there are too few clusters."""
    test: str = ""
    """Which test gave ``p``."""

    @property
    def above_zero(self) -> bool:
        """The whole interval lies above zero."""
        return self.low is not None and self.low > 0


def mean(values: ArrayLike, clusters: Iterable[object], weights: ArrayLike | None = None) -> Estimate:
    """Mean of scores in [0, 1] with its cluster-robust 95% t interval.

    Args:
        values: One score a question, shape (n,).
        clusters: The root document of each question, length n.
        weights: How often each counts, shape (n,); None counts each once.

    Raises:
        HarnessError: no questions, unequal lengths, or a value outside [0, 1].
    """
    scores, codes = _checked(values, clusters, 0.0)
    counts = _counts(scores, weights)
    low, high = _interval(scores, codes, 0.0, counts)
    return Estimate(float(np.average(scores, weights=counts)), low, high, len(scores), int(codes.max()) + 1)


def paired(
    left: ArrayLike,
    right: ArrayLike,
    clusters: Iterable[object],
    rng: np.random.Generator | None = None,
    weights: ArrayLike | None = None,
) -> Estimate:
    """Mean of ``left - right`` by question, with its interval and the p of "no difference".

    Binary scores with one question a cluster are tested by McNemar's mid-p, all others by sign-flip over clusters.

    Args:
        left: Scores in [0, 1], shape (n,).
        right: Scores of the same questions in the same order, shape (n,).
        clusters: The root document of each question, length n.
        rng: Draws the signs where there are too many clusters to try all; None seeds one with 0.
        weights: How often each question counts, shape (n,); None counts each once.

    Raises:
        HarnessError: no questions, unequal lengths, or a value outside [0, 1].
    """
    clusters = list(clusters)
    first, codes = _checked(left, clusters, 0.0)
    second, _ = _checked(right, clusters, 0.0)
    difference = first - second
    groups = int(codes.max()) + 1
    counts = _counts(difference, weights)
    low, high = _interval(difference, codes, -1.0, counts)
    p, test = None, ""
    if groups >= FEWEST_CLUSTERS:
        binary = bool(np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all())
        if binary and weights is None and groups == len(difference):
            p, test = mcnemar(first, second), "McNemar mid-p"
        else:
            p, test = sign_flip(np.bincount(codes, weights=counts * difference), rng), "sign-flip"
    return Estimate(float(np.average(difference, weights=counts)), low, high, len(difference), groups, p, test)


def mcnemar(left: ArrayLike, right: ArrayLike) -> float:
    """Two-sided mid-p of McNemar's test on paired binary scores (Fagerland, Lydersen and Laake, 2013)."""
    difference = np.asarray(left, float) - np.asarray(right, float)
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    if wins == losses:
        return 1.0
    binomial = stats.binom(wins + losses, 0.5)
    fewer = min(wins, losses)
    return float(2 * binomial.cdf(fewer) - binomial.pmf(fewer))


def sign_flip(totals: ArrayLike, rng: np.random.Generator | None = None) -> float:
    """Two-sided p that cluster totals are symmetric about zero.

    Exact below ``EXACT_CLUSTERS`` clusters that differ from zero (one at zero has no sign to flip), else ``DRAWS``
    seeded draws with the observed one counted.
    """
    values = np.asarray(totals, float)
    values = values[values != 0]
    if not len(values):
        return 1.0
    observed = abs(values.sum()) - 1e-9 * np.abs(values).sum()  # patterns equal but for rounding count as ties
    if len(values) < EXACT_CLUSTERS:
        sums = values[:1]  # the first sign stays: a pattern and its mirror image have equal absolute sums
        for value in values[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float((np.abs(sums) >= observed).mean())
    rng = np.random.default_rng(0) if rng is None else rng
    signs = rng.integers(0, 2, size=(DRAWS, len(values)), dtype=np.int8) * 2.0 - 1.0
    return float((1 + (np.abs(signs @ values) >= observed).sum()) / (1 + DRAWS))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p of each of a family of tests, in the order given."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted


def smallest_p(clusters: int) -> float | None:
    """The smallest p that a sign-flip over so many clusters can reach; None where there is no test."""
    if clusters < FEWEST_CLUSTERS:
        return None
    return 2.0 ** (1 - clusters) if clusters < EXACT_CLUSTERS else 1 / (1 + DRAWS)


def verdict(means: Sequence[float], printed: float, band: float, deterministic: bool = False) -> Verdict:
    """How our numbers of K seeds agree with a printed one, all in the same unit (RIGOR 3).

    *reproduced*: the 90% t interval of our mean lies within ``printed`` +- ``band``; *compatible*: not that, but
    ``printed`` lies where the next seed is expected; *not reproduced*: it lies outside that and outside our mean
    +- ``band``; *inconclusive*: none of these, or fewer than three seeds of a row that depends on the seed.
    """
    ours, seeds = float(np.mean(means)), len(means)
    if deterministic:
        return "reproduced" if abs(ours - printed) <= band else "not reproduced"
    if seeds < 3:
        return "inconclusive"
    spread = float(np.std(means, ddof=1))
    half = float(stats.t.ppf(0.95, seeds - 1)) * spread / np.sqrt(seeds)
    if abs(ours - printed) + half <= band:
        return "reproduced"
    if abs(ours - printed) <= float(stats.t.ppf(0.975, seeds - 1)) * spread * np.sqrt(1 + 1 / seeds):
        return "compatible"
    return "not reproduced" if abs(ours - printed) > band else "inconclusive"


def by_question(samples: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row a question (index ``QUESTION``): its score, averaged over donor draws, its root and its category.

    Args:
        samples: Columns of ``harness.records.SAMPLE_COLUMNS``; ``score.<metric>`` lies in [0, 1].
        metric: Name of the metric.

    Returns:
        Columns ``score``, ``root``, ``category``, and ``clean`` and the metric's ``weight`` where the samples have it.

    Raises:
        HarnessError: the samples have no such metric.
    """
    column = f"score.{metric}"
    if column not in samples:
        raise HarnessError(f"the samples have no column '{column}'; name a metric of the task, or evaluate again")
    questions = samples.groupby(QUESTION, sort=True)
    kept = {name: (name, "first") for name in ("root", "category", CLEAN) if name in samples}
    if (weight := f"weight.{metric}") in samples:
        kept["weight"] = (weight, "first")
    return questions.agg(score=(column, "mean"), **kept)


def average(questions: pd.DataFrame) -> float:
    """The mean score of questions, each counted as often as its ``weight`` says, where it has one."""
    return float(np.average(questions["score"], weights=questions.get("weight")))


def within(questions: pd.DataFrame, wide: str) -> pd.DataFrame:
    """The questions of a category: those of its own name, and of the narrower ones (``AR/...`` in ``AR``).

    Where an overlay names wrong gold answers, ``clean`` is the category of all others.
    """
    if wide == CLEAN and CLEAN in questions:
        return questions[questions[CLEAN]]
    categories = questions["category"]
    return questions[(categories == wide) | categories.str.startswith(f"{wide}/")] if wide else questions


def categories(samples: pd.DataFrame) -> list[str]:
    """Every category that some question counts in, sorted; ``clean`` last, where an overlay names wrong answers."""
    found = sorted({wide for category in set(samples["category"]) for wide in widening(category)})
    return [*found, CLEAN] if CLEAN in samples and samples[CLEAN].any() else found


def score(samples: pd.DataFrame, metric: str, category: str = "") -> Estimate:
    """The score of one cell, or of one category of its questions: what its record and every table say.

    Raises:
        HarnessError: the samples have no such metric or category.
    """
    scores = within(by_question(samples, metric), category)
    return mean(scores["score"], scores["root"], scores.get("weight"))


def _checked(values: ArrayLike, clusters: Iterable[object], lowest: float) -> tuple[NDArray, NDArray]:
    """Scores as floats, and clusters as codes 0 .. G-1."""
    scores, names = np.asarray(values, float), [str(c) for c in clusters]
    if not len(scores) or len(scores) != len(names):
        raise HarnessError(f"{len(scores)} scores came with {len(names)} clusters; give one cluster a score, and some")
    if not ((scores >= lowest) & (scores <= 1)).all():
        raise HarnessError(f"a score lies outside {lowest:g} to 1 or is missing; mend the metric that gave it")
    return scores, np.unique(names, return_inverse=True)[1]


def _counts(values: NDArray, weights: ArrayLike | None) -> NDArray:
    """How often each value counts, shape (n,)."""
    return np.ones(len(values)) if weights is None else np.asarray(weights, float)


def _interval(values: NDArray, codes: NDArray, lowest: float, counts: NDArray) -> tuple[float | None, float | None]:
    """Cluster-robust t interval, kept within the range ``lowest`` to 1 that the values can take.

    Where no cluster differs from the mean a t interval would claim certainty; then each end moves by the share of
    clusters that could still be otherwise (Clopper and Pearson's bound for 0 of G).
    """
    groups = int(codes.max()) + 1
    if groups < FEWEST_CLUSTERS:
        return None, None
    centre = np.average(values, weights=counts)
    residuals = np.bincount(codes, weights=counts * (values - centre))
    error = np.sqrt(groups / (groups - 1) * (residuals**2).sum()) / counts.sum()
    if error < 1e-12:
        unseen = 1 - ((1 - LEVEL) / 2) ** (1 / groups)
        return float(centre - unseen * (centre - lowest)), float(centre + unseen * (1 - centre))
    half = stats.t.ppf((1 + LEVEL) / 2, groups - 1) * error
    return float(max(centre - half, lowest)), float(min(centre + half, 1.0))

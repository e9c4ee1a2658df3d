"""Means, paired differences and ratios of scores, with cluster-robust 95% intervals.

Every interval is a t interval with G - 1 degrees of freedom, on a scale without ends: the log-odds of the range for
means (0 to 1) and differences (-1 to 1), the logarithm for ratios.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtri, stdtrit

from harness.errors import HarnessError
from harness.statistics.significance import FEWEST_CLUSTERS, mcnemar, sign_flip

LEVEL = 0.95
POWER = 0.8
NOTHING = 1e-12
"""A standard error below this is none: no cluster differs from the mean."""


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
    """Two-sided p of a paired difference; None for means and ratios and where there are too few clusters."""
    test: str = ""
    """Which test gave ``p``."""
    detectable: float | None = None
    """The smallest true difference that 80% of such comparisons would have found at 5%, in the unit of ``value``;
    None for means and ratios, where there is no test, and where no cluster differs from the others."""

    @property
    def above_zero(self) -> bool:
        """The whole interval lies above zero."""
        return self.low is not None and self.low > 0


class _Clustered(NamedTuple):
    """A mean and how its clusters scatter around it."""

    centre: float
    residuals: NDArray
    """What each cluster adds to the deviation from the mean, shape (G,); they sum to zero."""

    @property
    def groups(self) -> int:
        return len(self.residuals)

    @property
    def error(self) -> float:
        """The cluster-robust standard error of the mean."""
        return float(np.sqrt(self.groups / (self.groups - 1) * (self.residuals**2).sum()))


def mean(values: ArrayLike, clusters: Iterable[object], weights: ArrayLike | None = None) -> Estimate:
    """Mean of scores in [0, 1] with its cluster-robust 95% t interval.

    Args:
        values: One score a question, shape (n,).
        clusters: The root document of each question, length n; an array of integers, or names of any kind.
        weights: How often each counts, shape (n,); None counts each once.

    Raises:
        HarnessError: no questions, unequal lengths, or a value outside [0, 1].
    """
    codes = _codes(clusters)
    scores = _checked(values, codes)
    found = _clustered(scores, codes, _counts(scores, weights))
    return Estimate(found.centre, *_interval(found, 0.0), len(scores), found.groups)


def paired(
    left: ArrayLike,
    right: ArrayLike,
    clusters: Iterable[object],
    rng: np.random.Generator | None = None,
    weights: ArrayLike | None = None,
) -> Estimate:
    """Mean of ``left - right`` by question, with its interval, the p of "no difference" and what could be detected.

    Binary scores with one question a cluster are tested by McNemar's mid-p, all others by sign-flip over clusters.

    Args:
        left: Scores in [0, 1], shape (n,).
        right: Scores of the same questions in the same order, shape (n,).
        clusters: The root document of each question, as in :func:`mean`.
        rng: Draws the signs where there are too many clusters to try all; None seeds one with 0.
        weights: How often each question counts, shape (n,); None counts each once.

    Raises:
        HarnessError: no questions, unequal lengths, or a value outside [0, 1].
    """
    codes = _codes(clusters)
    first, second = _checked(left, codes), _checked(right, codes)
    difference = first - second
    counts = _counts(difference, weights)
    found = _clustered(difference, codes, counts)
    p, test = None, ""
    if found.groups >= FEWEST_CLUSTERS:
        if weights is None and found.groups == len(difference) and _binary(first) and _binary(second):
            p, test = mcnemar(first, second), "McNemar mid-p"
        else:
            p, test = sign_flip(np.bincount(codes, weights=counts * difference), rng), "sign-flip"
    ends = _interval(found, -1.0)
    return Estimate(found.centre, *ends, len(difference), found.groups, p, test, _detectable(found))


def ratio(left: ArrayLike, right: ArrayLike, clusters: Iterable[object], weights: ArrayLike | None = None) -> Estimate:
    """Mean of ``left`` over mean of ``right``, with an interval of its own.

    The interval is a t interval of the logarithm (delta method over clusters, questions paired). There is none where
    there are too few clusters, where either mean is zero, and where the denominator's own interval on its plain scale
    reaches zero: such a ratio may be anything.

    Args:
        left: Scores in [0, 1], shape (n,).
        right: Scores of the same questions in the same order, shape (n,).
        clusters: The root document of each question, as in :func:`mean`.
        weights: How often each question counts, shape (n,); None counts each once.

    Raises:
        HarnessError: no questions, unequal lengths, a value outside [0, 1], or a denominator of zero.
    """
    codes = _codes(clusters)
    first, second = _checked(left, codes), _checked(right, codes)
    counts = _counts(first, weights)
    above, below = _clustered(first, codes, counts), _clustered(second, codes, counts)
    if not below.centre:
        raise HarnessError("a ratio to a mean score of 0 was asked for; compare by the difference instead")
    value, groups, low, high = above.centre / below.centre, below.groups, None, None
    if groups >= FEWEST_CLUSTERS and above.centre:
        times = quantile((1 + LEVEL) / 2, groups - 1)
        relative = above.residuals / above.centre - below.residuals / below.centre
        reach = np.exp(times * _Clustered(0.0, relative).error)
        if below.centre > times * below.error:
            low, high = float(value / reach), float(value * reach)
    return Estimate(value, low, high, len(first), groups)


@lru_cache(maxsize=1024)
def quantile(share: float, freedom: float) -> float:
    """The quantile of Student's t."""
    return float(stdtrit(freedom, share))


def _codes(clusters: Iterable[object]) -> NDArray:
    """Clusters as codes 0 .. G-1."""
    if isinstance(clusters, np.ndarray) and clusters.dtype.kind in "iu":
        return np.unique(clusters, return_inverse=True)[1]
    names = [str(c) for c in clusters]
    return np.unique(names, return_inverse=True)[1] if names else np.zeros(0, int)


def _checked(values: ArrayLike, codes: NDArray) -> NDArray:
    """Scores as floats."""
    scores = np.asarray(values, float)
    if not len(scores) or len(scores) != len(codes):
        raise HarnessError(f"{len(scores)} scores came with {len(codes)} clusters; give one cluster a score, and some")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise HarnessError("a score lies outside 0 to 1 or is missing; mend the metric that gave it")
    return scores


def _binary(scores: NDArray) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _counts(values: NDArray, weights: ArrayLike | None) -> NDArray:
    """How often each value counts, shape (n,)."""
    return np.ones(len(values)) if weights is None else np.asarray(weights, float)


def _clustered(values: NDArray, codes: NDArray, counts: NDArray) -> _Clustered:
    """The mean of ``values`` and each cluster's part in its error."""
    total = counts.sum()
    centre = float((values * counts).sum() / total)
    return _Clustered(centre, np.bincount(codes, weights=counts * (values - centre)) / total)


def _interval(found: _Clustered, lowest: float) -> tuple[float | None, float | None]:
    """Cluster-robust t interval for a mean of values between ``lowest`` and 1.

    Where no cluster differs from the mean a t interval would claim certainty; then each end moves by the share of
    clusters that could still be otherwise (Clopper and Pearson's bound for 0 of G).
    """
    if found.groups < FEWEST_CLUSTERS:
        return None, None
    centre, error = found.centre, found.error
    if error < NOTHING:
        unseen = 1 - ((1 - LEVEL) / 2) ** (1 / found.groups)
        return float(centre - unseen * (centre - lowest)), float(centre + unseen * (1 - centre))
    return bounded(centre, quantile((1 + LEVEL) / 2, found.groups - 1) * error, lowest)


def bounded(centre: float, half: float, lowest: float = 0.0) -> tuple[float, float]:
    """Ends of the interval that reaches ``half`` to either side on the log-odds of the range ``lowest`` to 1.

    On the plain scale the interval of a low score from few clusters is too short: a sample that holds few right
    answers shows little scatter too (docs/statistics.md gives the rates).
    """
    width = 1 - lowest
    share = (centre - lowest) / width
    if not 0 < share < 1:
        return centre, centre
    place, reach = logit(share), half / width / (share * (1 - share))
    low, high = expit([place - reach, place + reach])
    return float(lowest + width * low), float(lowest + width * high)


def _detectable(found: _Clustered) -> float | None:
    """The smallest effect that ``POWER`` of such comparisons would have found.

    The two quantiles of t that lie between, times the error. Where a sign-flip reaches 5% only if all clusters agree
    (six of them), it is the effect with which they do.
    """
    groups = found.groups
    if groups < FEWEST_CLUSTERS or found.error < NOTHING:
        return None
    if 2 * 2.0 ** (1 - groups) > 1 - LEVEL:
        return float(np.sqrt(groups) * ndtri(POWER ** (1 / groups))) * found.error
    return (quantile((1 + LEVEL) / 2, groups - 1) + quantile(POWER, groups - 1)) * found.error

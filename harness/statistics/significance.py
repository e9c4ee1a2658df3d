"""Tests of "no difference", always paired: McNemar's mid-p, sign-flip over clusters, and Holm within a family."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr

FEWEST_CLUSTERS = 6
EXACT_CLUSTERS = 20
"""Below this many clusters every pattern of signs is tried."""
DRAWS = 10_000
BLOCK = 1 << 20
"""Signs that are multiplied at once: 8 MB."""


def mcnemar(left: ArrayLike, right: ArrayLike) -> float:
    """Two-sided mid-p of McNemar's test on paired binary scores (Fagerland, Lydersen and Laake, 2013)."""
    difference = np.asarray(left, float) - np.asarray(right, float)
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    if wins == losses:
        return 1.0
    fewer = min(wins, losses)
    below = bdtr(fewer - 1, wins + losses, 0.5) if fewer else 0.0
    return float(bdtr(fewer, wins + losses, 0.5) + below)


def sign_flip(totals: ArrayLike, rng: np.random.Generator | None = None) -> float:
    """Two-sided p that cluster totals are symmetric about zero.

    Exact below ``EXACT_CLUSTERS`` clusters that differ from zero (one at zero has no sign to flip), else ``DRAWS``
    seeded draws with the observed one counted.

    Args:
        totals: Sum of the differences of each cluster, shape (G,).
        rng: Draws the signs where there are too many clusters to try all; None seeds one with 0.
    """
    values = np.asarray(totals, float)
    values = values[values != 0]
    if not len(values):
        return 1.0
    observed = abs(values.sum()) - 1e-9 * np.abs(values).sum()  # patterns equal but for rounding count as ties
    if len(values) < EXACT_CLUSTERS:
        return _exact(values, observed)
    bits = _bits(len(values)) if rng is None else _draw(rng, len(values))
    rows = max(1, BLOCK // len(values))
    hits = sum(
        int((np.abs(bits[start : start + rows] @ (2 * values) - values.sum()) >= observed).sum())
        for start in range(0, DRAWS, rows)
    )
    return (1 + hits) / (1 + DRAWS)


def _exact(values: NDArray, observed: float) -> float:
    """The share of sign patterns whose absolute sum is at least ``observed``.

    The first sign stays, for a pattern and its mirror image have equal absolute sums. The sums of one half of the
    values are sorted, and each sum of the other half counts those that take it far enough.
    """
    if observed <= 0:
        return 1.0
    half = len(values) // 2
    first, second = _sums(values[:1], values[1 : half + 1]), np.sort(_sums(np.zeros(1), values[half + 1 :]))
    above = len(second) - np.searchsorted(second, observed - first, side="left")
    below = np.searchsorted(second, -observed - first, side="right")
    return float((above + below).sum() / (len(first) * len(second)))


def _sums(start: NDArray, values: NDArray) -> NDArray:
    """``start`` plus and minus every value, all patterns."""
    for value in values:
        start = np.concatenate([start + value, start - value])
    return start


def _draw(rng: np.random.Generator, clusters: int) -> NDArray:
    """Which signs stay, shape (``DRAWS``, ``clusters``), int8."""
    return rng.integers(0, 2, size=(DRAWS, clusters), dtype=np.int8)


@lru_cache(maxsize=4)
def _bits(clusters: int) -> NDArray:
    """The seeded draws, the same for every test over so many clusters; 15 MB where there are 1,540."""
    return _draw(np.random.default_rng(0), clusters)


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

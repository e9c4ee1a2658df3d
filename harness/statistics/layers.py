"""Layers of chance, kept apart and combined: training seed, draw (decoding or donor), question.

A place is asked the same questions under several training seeds, so seeds and questions cross. What each layer adds
to the scatter of one mean is told apart (:func:`components`). A bootstrap that draws seeds and clusters, each with
replacement, combines them for several methods at once (:func:`crossed`). Each layer draws one less than it has, which
makes the variance of the draws that of the mean (Rao and Wu, 1988), not (n - 1)/n of it; with five seeds that is a
fifth. What seeds and questions do together counts three times in such draws (Owen, 2007), so that they err on the
wide side; the interval of :class:`Components` counts it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import HarnessError
from harness.statistics.estimates import (
    LEVEL,
    NOTHING,
    _Clustered,
    _clustered,
    _codes,
    _counts,
    _interval,
    bounded,
    quantile,
)  # fmt: skip
from harness.statistics.significance import DRAWS, FEWEST_CLUSTERS

BLOCK = 1 << 20
"""Drawn clusters that are held at once: 8 MB."""


@dataclass(frozen=True)
class Components:
    """What each layer of chance adds to the scatter of one mean (shares of 1), and the interval with all of them."""

    value: float
    low: float | None
    """The 95% interval with seeds and questions combined; None with fewer than six clusters."""
    high: float | None
    seeds: int
    draws: int
    """Answers a question and seed: decoding seeds where answers are sampled, derangements in the donor arm."""
    n: int
    clusters: int
    seed_sd: float | None
    """SD between the means of training seeds, what draws add taken off; None with one seed. Where answers are sampled
    and ``draws`` is 1, a seed's decoding is in it."""
    draw_sd: float | None
    """SD of a seed's mean from one draw a question to the next; None with one draw."""
    question_se: float
    """Cluster-robust standard error of the mean over questions, the seeds at hand averaged."""
    total_se: float
    """Standard error of the mean over other seeds and other questions."""


def components(
    scores: ArrayLike,
    clusters: Iterable[object],
    *,
    weights: ArrayLike | None = None,
    noise: ArrayLike | None = None,
    draws: int = 1,
) -> Components:
    """The layers of chance behind one mean.

    The variance of the mean is the seeds' part plus the questions' part less what both hold in common (the analysis
    of variance of a two-way layout). The interval is a t interval with Satterthwaite's degrees of freedom.

    Args:
        scores: One score a seed and question, draws averaged, shape (S, n).
        clusters: The root document of each question, length n.
        weights: How often each question counts, shape (n,); None counts each once.
        noise: Variance of a question's score between its draws, shape (S, n); None with one draw.
        draws: Draws behind each score.

    Raises:
        HarnessError: no seeds or questions, or shapes that do not fit.
    """
    table = np.atleast_2d(np.asarray(scores, float))
    codes = _codes(clusters)
    if table.shape[1] != len(codes) or not table.size or (noise is not None and np.shape(noise) != table.shape):
        raise HarnessError("scores or noise of other shapes than (seeds, questions) were given; give one a question")
    counts = _counts(table[0], weights)
    seeds = [_clustered(row, codes, counts) for row in table]
    whole = _clustered(table.mean(axis=0), codes, counts)
    groups, share = whole.groups, counts / counts.sum()
    one_draw = None if noise is None else float(share**2 @ np.asarray(noise, float).mean(axis=0))
    of_questions = whole.error**2 if groups > 1 else 0.0
    total, parts, seed_sd = of_questions, [(of_questions, groups - 1)], None
    if len(seeds) > 1:
        apart = float(np.var([seed.centre for seed in seeds], ddof=1))
        seed_sd = max(0.0, apart - (one_draw or 0.0) / draws) ** 0.5
        of_seeds = apart / len(seeds)
        parts.append((of_seeds, len(seeds) - 1))
        total = max(of_questions, of_seeds, of_questions + of_seeds - _in_common(seeds, whole))
    low = high = None
    if total**0.5 < NOTHING:
        low, high = _interval(whole, 0.0)  # as of one seed: no scatter is no certainty
    elif groups >= FEWEST_CLUSTERS:
        half = quantile((1 + LEVEL) / 2, _freedom(total, parts)) * total**0.5
        low, high = bounded(whole.centre, half)
    return Components(
        whole.centre, low, high, len(seeds), draws, len(codes), groups, seed_sd,
        None if one_draw is None else one_draw**0.5, of_questions**0.5, total**0.5,
    )  # fmt: skip


def _in_common(seeds: Sequence[_Clustered], whole: _Clustered) -> float:
    """The variance that seeds and questions together give the mean: it is in the part of either."""
    if whole.groups < 2:
        return 0.0
    apart = sum(float(np.square(seed.residuals - whole.residuals).sum()) for seed in seeds)
    return whole.groups / (whole.groups - 1) * apart / (len(seeds) - 1) / len(seeds)


def crossed(
    scores: Sequence[NDArray],
    clusters: Iterable[object],
    *,
    weights: ArrayLike | None = None,
    draws: int = DRAWS,
    rng: np.random.Generator | None = None,
    same_seeds: bool = False,
) -> NDArray:
    """Means of several methods with seeds and clusters drawn anew, the same clusters for all methods.

    A difference of two columns is the drawn contrast of two methods, paired by question.

    Args:
        scores: One array a method, shape (S, n): a score a training seed and question.
        clusters: The root document of each question, length n.
        weights: How often each question counts, shape (n,); None counts each once.
        draws: How many times.
        rng: None seeds one with 0.
        same_seeds: Seed for seed the methods share their fits, as two arms of one row do; else each draws its own.

    Returns:
        Shape (draws, methods). One seed, or one cluster, is always drawn: its layer is not in the scatter.

    Raises:
        HarnessError: no methods, or shapes that do not fit.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    codes = _codes(clusters)
    tables = [np.atleast_2d(np.asarray(table, float)) for table in scores]
    sizes = {len(table) for table in tables}
    if not tables or {table.shape[1] for table in tables} != {len(codes)} or not len(codes) or not min(sizes):
        raise HarnessError("scores of other shapes than (seeds, questions) were given, or none; give one a question")
    if same_seeds and len(sizes) > 1:
        raise HarnessError(f"methods of {' and '.join(map(str, sorted(sizes)))} seeds share none; draw each one's own")
    counts = _counts(codes, weights)
    groups = int(codes.max()) + 1
    totals = np.stack([np.bincount(codes, counts * row, groups) for table in tables for row in table], axis=1)
    size = np.bincount(codes, counts, groups)
    columns = np.cumsum([0, *(len(table) for table in tables)])
    found = np.empty((draws, len(tables)))
    step = max(1, BLOCK // groups)
    for start in range(0, draws, step):
        some = min(step, draws - start)
        drawn = _resampled(rng, some, groups)
        sums = drawn @ totals / (drawn @ size)[:, None]
        shared = _resampled(rng, some, len(tables[0])) if same_seeds else None
        for method, table in enumerate(tables):
            seeds = _resampled(rng, some, len(table)) if shared is None else shared
            part = sums[:, columns[method] : columns[method + 1]]
            found[start : start + some, method] = (seeds * part).sum(axis=1) / seeds.sum(axis=1)
    return found


def _resampled(rng: np.random.Generator, draws: int, size: int) -> NDArray:
    """How often each of ``size`` is drawn, one less than there are, shape (draws, size)."""
    if size == 1:
        return np.ones((draws, 1))
    picked = rng.integers(0, size, size=(draws, size - 1)) + size * np.arange(draws)[:, None]
    return np.bincount(picked.ravel(), minlength=draws * size).reshape(draws, size).astype(float)


def _freedom(total: float, parts: Sequence[tuple[float, int]]) -> float:
    """Satterthwaite's degrees of freedom of a variance that is made of parts, each with its own."""
    below = sum(variance**2 / freedom for variance, freedom in parts if variance)
    return total**2 / below if below else float(min(freedom for _, freedom in parts))

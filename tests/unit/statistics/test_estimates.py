"""Intervals cover what they claim, tests keep their level, and small cases agree with scipy or a count by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness import statistics
from harness.errors import HarnessError


def clustered(rng, groups, size, between, within):
    """Scores around 0.5 with a normal effect a cluster: the truth is 0.5."""
    effects = rng.normal(0, between, size=(groups, 1))
    scores = np.clip(0.5 + effects + rng.normal(0, within, size=(groups, size)), 0, 1)
    return scores.ravel(), np.repeat(np.arange(groups), size)


@pytest.mark.parametrize("groups", [6, 10, 60])
def test_interval_covers_the_truth_in_95_percent(groups):
    rng = np.random.default_rng(groups)
    hits = 0
    for _ in range(1200):
        estimate = statistics.mean(*clustered(rng, groups, 5, 0.08, 0.1))
        hits += estimate.low <= 0.5 <= estimate.high
    assert 0.935 <= hits / 1200 <= 0.965


@pytest.mark.parametrize("groups", [10, 30])
def test_equal_arms_are_told_apart_in_at_most_6_5_percent(groups):
    rng = np.random.default_rng(groups)
    false = 0
    for _ in range(1000):
        left, clusters = clustered(rng, groups, 4, 0.1, 0.1)
        right, _ = clustered(rng, groups, 4, 0.1, 0.1)
        false += statistics.sign_flip(np.bincount(clusters, left - right), rng=rng) <= 0.05
    assert false / 1000 <= 0.065


def test_one_question_a_cluster_is_the_t_interval_of_the_log_odds():
    values = np.random.default_rng(0).uniform(0.2, 0.8, 30)
    estimate = statistics.mean(values, range(30))
    m, error = values.mean(), stats.sem(values)
    ends = stats.t.interval(0.95, 29, np.log(m / (1 - m)), error / m / (1 - m))
    assert (estimate.low, estimate.high) == pytest.approx(tuple(1 / (1 + np.exp(-end)) for end in ends), rel=1e-12)


def test_a_difference_has_the_t_interval_of_fishers_z():
    rng = np.random.default_rng(1)
    left, right = rng.uniform(0, 1, 25), rng.uniform(0, 1, 25)
    estimate = statistics.paired(left, right, range(25))
    d, error = (left - right).mean(), stats.sem(left - right)
    ends = np.tanh(stats.t.interval(0.95, 24, np.arctanh(d), error / (1 - d**2)))
    assert (estimate.low, estimate.high) == pytest.approx(tuple(ends), rel=1e-12)


def test_clusters_widen_the_interval():
    values, clusters = clustered(np.random.default_rng(1), 8, 20, 0.1, 0.02)
    together, apart = statistics.mean(values, clusters), statistics.mean(values, range(len(values)))
    assert together.value == apart.value
    assert together.high - together.low > 2 * (apart.high - apart.low)
    assert (together.n, together.clusters) == (160, 8)


@pytest.mark.parametrize("groups", [1, 5])
def test_few_clusters_have_neither_interval_nor_test(groups):
    estimate = statistics.paired([1.0] * 10, [0.0] * 10, [i % groups for i in range(10)])
    assert (estimate.value, estimate.low, estimate.high, estimate.p) == (1.0, None, None, None)
    assert not estimate.above_zero


def test_all_wrong_is_not_certainty():
    estimate = statistics.mean(np.zeros(30), range(30))
    exact = stats.binomtest(0, 30).proportion_ci(0.95, "exact")
    assert (estimate.low, estimate.high) == pytest.approx((exact.low, exact.high))


def test_no_difference_anywhere():
    estimate = statistics.paired(np.full(12, 0.5), np.full(12, 0.5), range(12))
    assert (estimate.value, estimate.p) == (0.0, 1.0)
    assert estimate.low < 0 < estimate.high


def test_intervals_stay_in_range():
    scores = [0.0] * 11 + [1.0]
    few, many = statistics.mean(scores, range(12)), statistics.mean([1 - s for s in scores], range(12))
    assert 0 < few.low < few.value < few.high < 1
    assert (1 - many.high, 1 - many.low) == pytest.approx((few.low, few.high))


@pytest.mark.parametrize(("wins", "losses"), [(8, 1), (3, 3), (1, 6), (0, 5)])
def test_mcnemar_is_the_binomial_mid_p(wins, losses):
    left = [1] * wins + [0] * losses + [1] * 4
    right = [0] * wins + [1] * losses + [1] * 4
    exact = stats.binomtest(wins, wins + losses).pvalue
    at = stats.binom(wins + losses, 0.5).pmf(wins)
    assert statistics.mcnemar(left, right) == pytest.approx(1.0 if wins == losses else exact - at)


def test_exact_sign_flip_counts_every_pattern_and_its_ties():
    totals = np.array([0.3, 0.3, -0.1, 0.2, 0.0, 0.5, 0.1])
    patterns = [abs(np.dot(signs, totals)) for signs in itertools.product((-1, 1), repeat=7)]
    by_hand = np.mean([p >= abs(totals.sum()) - 1e-12 for p in patterns])
    assert statistics.sign_flip(totals) == pytest.approx(by_hand)


def test_exact_sign_flip_agrees_with_scipy():
    totals = np.random.default_rng(4).normal(0.4, 1, 9)
    scipy = stats.permutation_test((totals,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert statistics.sign_flip(totals) == pytest.approx(scipy.pvalue)


def test_drawn_sign_flip_is_seeded_and_near_the_t_test():
    totals = np.random.default_rng(5).normal(0.3, 1, 40)
    p = statistics.sign_flip(totals)
    assert p == statistics.sign_flip(totals, np.random.default_rng(0))
    assert p == pytest.approx(stats.ttest_1samp(totals, 0).pvalue, abs=0.01)


def test_paired_takes_mcnemar_only_for_binary_scores_with_a_cluster_each():
    left, right = [1, 1, 0, 1, 1, 1, 0, 1], [0, 1, 0, 0, 1, 0, 0, 0]
    assert statistics.paired(left, right, range(8)).test == "McNemar mid-p"
    assert statistics.paired(left, right, [0, 0, 1, 2, 3, 4, 5, 6]).test == "sign-flip"
    assert statistics.paired(np.array(left) * 0.5, right, range(8)).test == "sign-flip"


@pytest.mark.parametrize(
    ("ps", "expected"),
    [([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]), ([0.5, 0.9], [1.0, 1.0]), ([0.02], [0.02]), ([], [])],
)
def test_holm(ps, expected):
    assert statistics.holm(ps) == pytest.approx(expected)


def test_smallest_p_is_what_a_clear_win_reaches():
    assert statistics.smallest_p(5) is None
    assert statistics.sign_flip(np.full(10, 0.2)) == statistics.smallest_p(10) == pytest.approx(2 / 1024)
    assert statistics.sign_flip(np.full(60, 0.2)) == statistics.smallest_p(60)


@pytest.mark.parametrize(
    ("means", "deterministic", "expected"),
    [
        ([46.4, 46.5, 46.6], False, "reproduced"),
        ([44.0, 47.5, 50.0], False, "compatible"),
        ([41.0, 41.1, 41.2], False, "not reproduced"),
        ([45.55, 45.57, 45.59], False, "reproduced"),
        ([46.5, 46.5], False, "inconclusive"),
        ([47.38, 47.48, 47.58], False, "inconclusive"),  # beyond the next seed, and not beyond the band
        ([46.1], True, "reproduced"),
        ([40.8], True, "not reproduced"),
    ],
)
def test_verdict(means, deterministic, expected):
    assert statistics.verdict(means, 46.53, 1.0, deterministic) == expected


@pytest.mark.parametrize(
    ("values", "clusters"), [([], []), ([0.5], ["a", "b"]), ([1.5], ["a"]), ([float("nan")], ["a"])]
)
def test_bad_scores_are_refused(values, clusters):
    with pytest.raises(HarnessError):
        statistics.mean(values, clusters)


def test_a_wide_category_takes_in_its_narrow_ones_and_no_namesake():
    questions = pd.DataFrame({"category": ["AR/ruler_qa1", "AR", "ARC", "TTL/AR", ""]})
    assert [*statistics.within(questions, "AR").index] == [0, 1]
    assert [*statistics.within(questions, "AR/ruler_qa1").index] == [0]
    assert [*statistics.within(questions, "").index] == [0, 1, 2, 3, 4]

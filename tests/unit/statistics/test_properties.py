"""What holds of every estimate, whatever the scores: order does not matter, ends stand in order, sides mirror."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness import statistics
from harness.errors import HarnessError

SCORE = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, allow_subnormal=False))
PAIRS = st.lists(st.tuples(SCORE, SCORE, st.integers(0, 11), st.floats(0.5, 4)), min_size=6, max_size=60)


def columns(rows):
    left, right, clusters, weights = (np.array(column) for column in zip(*rows, strict=True))
    return left, right, clusters, weights


@settings(deadline=None, max_examples=150)
@given(PAIRS, st.randoms(use_true_random=False))
def test_order_does_not_matter(rows, random):
    shuffled = random.sample(rows, len(rows))
    for one, other in (
        (statistics.mean(a, c, w), statistics.mean(d, f, x))
        if kind == "mean"
        else (statistics.paired(a, b, c, weights=w), statistics.paired(d, e, f, weights=x))
        for kind in ("mean", "paired")
        for a, b, c, w in [columns(rows)]
        for d, e, f, x in [columns(shuffled)]
    ):
        assert (one.n, one.clusters, one.test) == (other.n, other.clusters, other.test)
        for name in ("value", "low", "high", "p", "detectable"):
            here, there = getattr(one, name), getattr(other, name)
            assert (here is None) == (there is None)
            assert here is None or here == pytest.approx(there, rel=1e-9, abs=1e-7)


@settings(deadline=None, max_examples=150)
@given(PAIRS)
def test_ends_stand_in_order_and_sides_mirror(rows):
    left, right, clusters, weights = columns(rows)
    there = statistics.paired(left, right, clusters, weights=weights)
    back = statistics.paired(right, left, clusters, weights=weights)
    assert there.value == pytest.approx(-back.value, abs=1e-12)
    assert (there.p, there.detectable) == (back.p, back.detectable) or there.p == pytest.approx(back.p, abs=1e-3)
    if there.low is None:
        assert there.clusters < statistics.FEWEST_CLUSTERS
        assert (there.p, there.detectable) == (None, None)
    else:
        assert -1 <= there.low <= there.value + 1e-12
        assert there.value <= there.high + 1e-12 <= 1 + 1e-9
        assert there.low == pytest.approx(-back.high, abs=1e-7)
        assert 0 < there.p <= 1


@settings(deadline=None, max_examples=150)
@given(PAIRS)
def test_a_ratio_and_its_inverse(rows):
    left, right, clusters, weights = columns(rows)
    if np.average(right, weights=weights) == 0:
        with pytest.raises(HarnessError, match="difference"):
            statistics.ratio(left, right, clusters, weights)
        return
    found = statistics.ratio(left, right, clusters, weights)
    assert found.value == pytest.approx(np.average(left, weights=weights) / np.average(right, weights=weights))
    if found.low is not None:
        assert found.low <= found.value <= found.high
        assert math.isclose(found.low * found.high, found.value**2, rel_tol=1e-9)


def test_a_ratio_is_the_delta_method_in_a_loop():
    rng = np.random.default_rng(0)
    left, right, codes = rng.uniform(0, 1, 60), rng.uniform(0, 1, 60), [i % 12 for i in range(60)]
    found = statistics.ratio(left, right, codes)
    a, b = sum(left) / 60, sum(right) / 60
    parts = [0.0] * 12
    for i in range(60):
        parts[codes[i]] += ((left[i] - a) / a - (right[i] - b) / b) / 60
    error = math.sqrt(12 / 11 * sum(part**2 for part in parts))
    half = stats.t.ppf(0.975, 11) * error
    assert (found.low, found.high) == pytest.approx((a / b * math.exp(-half), a / b * math.exp(half)), rel=1e-12)


def test_a_ratio_to_almost_nothing_has_no_interval():
    left, right = np.full(60, 0.5), np.zeros(60)
    right[0] = 1
    assert (statistics.ratio(left, right, range(60)).value, statistics.ratio(left, right, range(60)).low) == (30, None)
    assert statistics.ratio(np.zeros(60), np.full(60, 0.5), range(60)).low is None
    assert statistics.ratio(left, left, range(60)).low == 1  # both always the same: no doubt of it


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=1, max_size=11))
def test_the_exact_sign_flip_is_every_pattern(totals):
    values = [v for v in totals if v]
    sums = [0.0]
    for value in values:
        sums = [s + sign * value for s in sums for sign in (1, -1)]
    limit = abs(math.fsum(values)) - 1e-9 * sum(map(abs, values))
    assert statistics.sign_flip(totals) == pytest.approx(np.mean([abs(s) >= limit for s in sums]), rel=1e-12)


def test_what_is_detectable_is_two_quantiles_of_t_away():
    rng = np.random.default_rng(0)
    left, right = rng.uniform(0, 1, 40), rng.uniform(0, 1, 40)
    error = (left - right).std(ddof=1) / math.sqrt(40)
    found = statistics.paired(left, right, range(40)).detectable
    assert found == pytest.approx((stats.t.ppf(0.975, 39) + stats.t.ppf(0.8, 39)) * error, rel=1e-12)
    assert statistics.paired(left, left, range(40)).detectable is None

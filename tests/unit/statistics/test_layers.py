"""Layers of chance: the parts are what a count by hand gives, and the bootstrap is the analysis of variance."""

import numpy as np
import pytest

from harness import statistics
from harness.errors import HarnessError


def table(seeds=4, clusters=7, seed=0):
    """Scores with effects of seeds and clusters of unequal size, shape (seeds, n), and the clusters."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(clusters), rng.integers(2, 6, clusters))
    effects = rng.normal(0, 0.05, (seeds, 1)) + rng.normal(0, 0.1, clusters)[codes]
    return np.clip(0.5 + effects + rng.normal(0, 0.1, (seeds, len(codes))), 0, 1), codes


def test_the_parts_are_those_of_loops():
    scores, codes = table()
    weights = np.linspace(0.5, 2, len(codes))
    found = statistics.components(scores, codes, weights=weights)
    seeds, n, total = len(scores), len(codes), sum(weights)
    means = [sum(weights[i] * row[i] for i in range(n)) / total for row in scores]
    mean = sum(means) / seeds
    apart = sum((m - mean) ** 2 for m in means) / (seeds - 1)
    parts = [[0.0] * (max(codes) + 1) for _ in range(seeds)]
    for s in range(seeds):
        for i in range(n):
            parts[s][codes[i]] += weights[i] * (scores[s][i] - means[s]) / total
    groups = max(codes) + 1
    scale = groups / (groups - 1)
    middle = [sum(part[g] for part in parts) / seeds for g in range(groups)]
    of_questions = scale * sum(m * m for m in middle)
    common = scale * sum((parts[s][g] - middle[g]) ** 2 for s in range(seeds) for g in range(groups))
    whole = of_questions + apart / seeds - common / (seeds - 1) / seeds
    assert found.value == pytest.approx(mean, rel=1e-12)
    assert found.seed_sd == pytest.approx(apart**0.5, rel=1e-12)
    assert found.question_se == pytest.approx(of_questions**0.5, rel=1e-12)
    assert found.total_se == pytest.approx(max(of_questions, apart / seeds, whole) ** 0.5, rel=1e-12)
    assert (found.seeds, found.draws, found.n, found.clusters) == (4, 1, n, groups)


def test_draws_are_a_layer_of_their_own():
    rng = np.random.default_rng(1)
    answers = np.clip(0.5 + rng.normal(0, 0.2, (3, 4, 50)), 0, 1)  # seeds, draws, questions
    found = statistics.components(answers.mean(axis=1), range(50), noise=answers.var(axis=1, ddof=1), draws=4)
    by_hand = [sum(answers[s, :, q].var(ddof=1) for q in range(50)) / 50**2 for s in range(3)]
    assert found.draw_sd == pytest.approx(np.mean(by_hand) ** 0.5, rel=1e-12)
    between = np.var(answers.mean(axis=(1, 2)), ddof=1)
    assert found.seed_sd == pytest.approx(max(0.0, between - np.mean(by_hand) / 4) ** 0.5, abs=1e-12)


def test_one_seed_is_the_plain_mean():
    scores, codes = table(seeds=1)
    found, plain = statistics.components(scores, codes), statistics.mean(scores[0], codes)
    assert (found.seed_sd, found.draw_sd) == (None, None)
    assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high), rel=1e-12)


def test_the_bootstrap_scatters_as_the_parts_say():
    """Seeds, questions, and once more what both hold in common, which the draws count three times."""
    scores, codes = table(seeds=5, clusters=40)
    found = statistics.components(scores, codes)
    drawn = statistics.crossed([scores], codes)[:, 0]
    seeds = found.seed_sd**2 / 5
    common = found.question_se**2 + seeds - found.total_se**2
    assert drawn.mean() == pytest.approx(found.value, abs=4 * drawn.std() / 100)
    assert drawn.var() == pytest.approx(found.question_se**2 + seeds + common, rel=0.06)


def test_the_bootstrap_pairs_methods_by_question():
    scores, codes = table(seeds=1, clusters=40)
    drawn = statistics.crossed([scores, scores - 0.01], codes)
    assert np.ptp(drawn[:, 0] - drawn[:, 1]) == pytest.approx(0, abs=1e-12)
    five, _ = table(seeds=5, clusters=40)
    apart, shared = (statistics.crossed([five, five], codes, same_seeds=same) for same in (False, True))
    assert np.array_equal(shared[:, 0], shared[:, 1])
    assert np.ptp(apart[:, 0] - apart[:, 1]) > 0.01


def test_the_bootstrap_is_seeded_and_a_loop_gives_the_same():
    scores, codes = table(seeds=3)
    groups = int(codes.max()) + 1
    drawn = statistics.crossed([scores], codes, draws=50, rng=np.random.default_rng(3))[:, 0]
    rng, again = np.random.default_rng(3), []
    clusters, seeds = rng.integers(0, groups, (50, groups - 1)), rng.integers(0, 3, (50, 2))
    for some_clusters, some_seeds in zip(clusters, seeds, strict=True):
        means = []
        for s in some_seeds:
            picked = [score for g in some_clusters for score in scores[s][codes == g]]
            means.append(sum(picked) / len(picked))
        again.append(sum(means) / len(means))
    assert drawn == pytest.approx(again, rel=1e-12)


@pytest.mark.parametrize("seeds", [[], [np.ones((2, 3))], [np.ones((0, 5))]])
def test_shapes_that_do_not_fit_are_refused(seeds):
    with pytest.raises(HarnessError):
        statistics.crossed(seeds, range(5))


def test_methods_of_other_numbers_of_seeds_share_none():
    with pytest.raises(HarnessError, match="2 and 3 seeds"):
        statistics.crossed([np.ones((2, 5)), np.ones((3, 5))], range(5), same_seeds=True)
    with pytest.raises(HarnessError):
        statistics.components(np.ones((2, 5)), range(5), noise=np.ones((1, 5)), draws=2)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_scores_without_scatter_are_no_certainty(score):
    alike = statistics.components(np.full((3, 30), score), range(30))
    one = statistics.mean(np.full(30, score), range(30))
    assert (alike.low, alike.high) == (one.low, one.high)
    assert alike.high - alike.low > 0.1

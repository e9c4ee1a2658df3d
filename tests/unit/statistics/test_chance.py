"""The machinery tests itself: where the truth is known, tests keep their level and intervals hold it (fixed draws)."""

import pytest

from benchmarks import chance
from benchmarks.chance import COVERED, FALSE, SETTINGS, Setting

DRAWS = 4000
"""The error of a rate near 5% is then 0.34 points, a fifth of what the goals leave."""


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_equal_methods_are_told_apart_in_at_most_6_5_percent_and_intervals_cover(setting):
    found = chance.rates(setting, DRAWS)
    assert found.false <= FALSE
    assert COVERED[0] <= found.mean <= COVERED[1]
    assert COVERED[0] <= found.paired <= COVERED[1]
    # A ratio has no interval where its denominator may be zero; of six clusters that leaves the luckier ones.
    assert 0.935 <= found.ratio <= 0.97
    assert found.rated > (0.6 if setting.clusters == 6 else 0.97)


def test_a_sign_flip_over_six_clusters_errs_on_the_safe_side():
    """Its smallest p is 1/32, and the next is above 5%."""
    assert chance.rates(Setting(6, 20, 0.1), DRAWS).false <= 1 / 32 + 0.005


@pytest.mark.parametrize(
    ("clusters", "size", "alike"),
    [(6, 20, 0.0), (6, 20, 0.05), (8, 20, 0.1), (10, 20, 0.1), (20, 10, 0.1), (60, 1, 0.0)],
)
def test_what_is_called_detectable_is_found_in_80_percent(clusters, size, alike):
    assert chance.power(Setting(clusters, size, alike), 1500) == pytest.approx(0.8, abs=0.06)


def test_an_effect_that_nears_the_ceiling_is_found_more_often():
    """Six clusters as alike as this need 45 points; a rate of 95% scatters less than the one that was asked about."""
    assert chance.power(Setting(6, 20, 0.1), 1500) > 0.8


@pytest.mark.parametrize(
    ("seeds", "clusters", "size", "between"),
    [(5, 10, 10, (0.03, 0.08, 0.1)), (5, 60, 1, (0.02, 0.2, 0.2)), (5, 6, 20, (0.02, 0.08, 0.1)),
     (5, 60, 1, (0.05, 0.1, 0.1)), (5, 60, 2, (0.0, 0.1, 0.1))],
)  # fmt: skip
def test_the_interval_of_seeds_and_questions_together_covers(seeds, clusters, size, between):
    assert COVERED[0] <= chance.layers(seeds, clusters, size, between, 2000) <= COVERED[1]

"""The scorers against cases with known values; ``test_parity.py`` holds them against a second derivation."""

from __future__ import annotations

import pytest

from harness.scoring import bag_f1, exact, f1, hotpotqa_f1, locomo_f1, normalize, normalize_release


def test_where_the_two_rules_part():
    assert exact("U.S.", "US") == 1.0
    assert exact("U.S.", "US", normalize_release) == 0.0
    assert normalize("The state-of-the-art") == "stateoftheart"
    assert normalize_release("The state-of-the-art") == "state of art"
    assert normalize_release("snake_case") == "snake_case"
    assert hotpotqa_f1("yes it is", "yes") == 0.0
    assert f1("yes it is", "yes", normalize_release) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("answer", "gold", "category", "value"),
    [
        ("7 May, 2023", "7 May 2023", "temporal", 1.0),
        ("the paintings", "painted", "single_hop", 1.0),
        ("swimming and pottery", "pottery, swimming", "single_hop", 1.0),
        ("pottery", "pottery, swimming", "multi_hop", 0.5),
        ("swimming, pottery", "pottery, swimming", "multi_hop", 1.0),
        ("Likely no", "Likely no; she never went", "open_domain", 1.0),
        ("Likely no", "Likely no; she never went", "single_hop", 4 / 7),
        ("", "7 May 2023", "temporal", 0.0),
    ],
)
def test_locomo_cases(answer, gold, category, value):
    assert locomo_f1(answer, gold, category) == pytest.approx(value)


def test_an_empty_bag_earns_nothing():
    assert bag_f1([], []) == bag_f1(["x"], []) == bag_f1([], ["x"]) == 0.0
    assert bag_f1(["x", "x"], ["x"]) == pytest.approx(2 / 3)

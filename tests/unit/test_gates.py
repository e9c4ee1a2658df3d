"""The forms of comparison that gates are made of."""

from __future__ import annotations

import math

import pytest
import torch

from harness import gates
from harness.gates import GateError


def test_relative_difference():
    a = torch.tensor([3.0, 4.0])
    assert gates.relative(a, a) == 0.0
    assert gates.relative(2 * a, a) == pytest.approx(1.0)
    assert gates.relative(torch.zeros(2), torch.zeros(2)) == 0.0
    assert gates.relative(a, torch.zeros(2)) > 1e20
    assert math.isnan(gates.relative(a * math.nan, a))


@pytest.mark.parametrize("shift", [1e-4, math.nan, math.inf])
def test_a_sharp_gate_refuses_differences_and_what_is_no_number(shift):
    a = torch.ones(4, dtype=torch.float64)
    assert gates.sharp("g", [(a, a), (a + 1e-6, a)]).status == "pass"
    with pytest.raises(GateError, match="gate g failed"):
        gates.sharp("g", [(a, a), (a + shift, a)])


def test_in_situ_allows_twice_the_bare_difference_and_warns_where_it_drowns_the_effect():
    gate = lambda d, bare, effect: gates.in_situ("g", d, bare, effect, torch.float32)  # noqa: E731
    assert gate(1e-6, 0.0, 1.0).status == "pass"
    assert gate(2e-3, 1e-3, 1.0).status == "pass"
    assert gate(2e-3, 1e-3, 7e-3).status == "warn"
    for difference, bare in ((2.1e-3, 1e-3), (2e-5, 0.0), (math.nan, 1.0)):
        with pytest.raises(GateError):
            gate(difference, bare, 1.0)


def test_the_frozen_backbone_must_be_the_same_bit_for_bit(tiny):
    backbone = tiny()
    probe = {"input_ids": torch.tensor([[1, 2, 3]])}
    before = backbone.model(**probe).logits
    assert gates.frozen_backbone(backbone, before, probe).value == 0.0
    with torch.no_grad():
        backbone.model.model.norm.weight[0] += 1e-3
    with pytest.raises(GateError, match=r"isolation\.backbone"):
        gates.frozen_backbone(backbone, before, probe)

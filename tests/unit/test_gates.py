"""The forms of comparison that gates are made of."""

from __future__ import annotations

import contextlib
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
    gate = lambda d, bare, effect: gates.in_situ("g", d, bare, 0.0, effect, torch.float32)  # noqa: E731
    assert gate(1e-6, 0.0, 1.0).status == "pass"
    assert gate(2e-3, 1e-3, 1.0).status == "pass"
    assert gate(2e-3, 1e-3, 7e-3).status == "warn"
    for difference, bare in ((2.1e-3, 1e-3), (2e-5, 0.0), (math.nan, 1.0)):
        with pytest.raises(GateError):
            gate(difference, bare, 1.0)


def test_in_bf16_a_bit_may_do_more_than_the_bare_backbone_shows():
    gate = lambda d, noise: gates.in_situ("g", d, 1e-3, noise, 1.0, torch.bfloat16)  # noqa: E731
    assert gate(1e-2, 0.0).limit == gates.DTYPE_FLOOR[torch.bfloat16]
    assert gate(2e-2, 3e-2).limit == 3e-2
    with pytest.raises(GateError):
        gate(3.1e-2, 3e-2)


def test_the_dtype_may_take_half_of_the_effect():
    gate = lambda d, effect: gates.in_dtype("g", d, 2e-2, effect, torch.bfloat16)  # noqa: E731
    assert gate(0.24, 1.0).status == "pass"
    assert gate(0.3, 1.0).status == "warn"
    assert gate(2e-2, 1e-3).status == "warn"  # one bit does as much
    for difference, effect in ((0.6, 1.0), (2.1e-2, 1e-3), (math.nan, 1.0)):
        with pytest.raises(GateError, match="bfloat16"):
            gate(difference, effect)


def test_the_frozen_backbone_must_be_the_same_bit_for_bit(tiny):
    backbone = tiny()
    probe = {"input_ids": torch.tensor([[1, 2, 3]])}
    before = backbone.model(**probe).logits
    assert gates.frozen_backbone(backbone, before, probe).value == 0.0
    with torch.no_grad():
        backbone.model.model.norm.weight[0] += 1e-3
    with pytest.raises(GateError, match=r"isolation\.backbone"):
        gates.frozen_backbone(backbone, before, probe)


# --- in fp32 for a while ---


def held(backbone):
    """Where each tensor lies, and its dtype."""
    return {name: (t.data_ptr(), t.dtype) for name, t in backbone.model.state_dict(keep_vars=True).items()}


def test_a_model_in_fp32_computes_with_the_same_weights_and_is_then_what_it_was(tiny):
    backbone, whole = tiny(dtype="bfloat16"), tiny()
    whole.model.load_state_dict(backbone.model.state_dict())
    before, ids = held(backbone), torch.arange(12)[None]
    with torch.no_grad(), gates.in_fp32(backbone):
        assert torch.equal(backbone.model(ids).logits, whole.model(ids).logits)
    assert held(backbone) == before  # the very same memory, which may be mapped from a file


def test_a_model_that_could_not_be_widened_is_what_it_was(tiny, monkeypatch):
    backbone = tiny(dtype="bfloat16")
    before, widen, calls = held(backbone), torch.Tensor.float, []

    def short(tensor):
        calls.append(tensor)
        if len(calls) == 5:
            raise MemoryError
        return widen(tensor)

    monkeypatch.setattr(torch.Tensor, "float", short)
    with pytest.raises(MemoryError), gates.in_fp32(backbone):
        pass
    assert held(backbone) == before


def test_last_bits_are_drawn_by_a_seed_and_gone_afterwards(tiny):
    backbone, ids = tiny(dtype="bfloat16"), torch.arange(12)[None]

    def logits(seed=None):
        with torch.no_grad(), contextlib.nullcontext() if seed is None else gates.last_bits(backbone, seed):
            return backbone.model(ids).logits

    plain = logits()
    assert torch.equal(logits(1), logits(1))
    assert 1e-4 < gates.relative(logits(1), plain) < 0.1
    assert not torch.equal(logits(1), logits(2))
    assert torch.equal(logits(), plain)

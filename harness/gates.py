"""Validity gates: a number is written only past them (docs/validity.md).

A gate fails (no record; the run says which and why) or warns (the warning travels into the table's notes). The
forms of comparison stand here; a method with gates of its own says what is compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.backbones import Backbone
from harness.errors import HarnessError
from harness.records import GateOutcome

__all__ = [
    "DTYPE_FLOOR",
    "SHARP",
    "GateError",
    "GateOutcome",
    "attention",
    "frozen_backbone",
    "in_situ",
    "relative",
    "require",
    "sharp",
]

SHARP = 1e-5
"""Largest relative difference a tensor between two ways that compute the same, in fp32."""
DTYPE_FLOOR = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float64: 1e-9}
"""What arithmetic alone may do in situ; bf16: some 5e-3 was measured between SDPA and eager."""


class GateError(HarnessError):
    """A gate failed; no record is written."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"gate {name} failed: {why}; no record is written before this is mended")


def relative(a: Tensor, b: Tensor) -> float:
    """‖a - b‖ / ‖b‖, in fp64; 0 where both are zero."""
    a, b = a.double(), b.double()
    difference, size = (a - b).norm(), b.norm()
    return 0.0 if float(difference) == 0 else float(difference / size.clamp_min(1e-30))


def require(name: str, holds: bool, why: str, value: float | None = None, limit: float | None = None) -> GateOutcome:
    """A passed gate.

    Raises:
        GateError: it does not hold (a NaN never does).
    """
    if not holds:
        raise GateError(name, why)
    return GateOutcome(name=name, status="pass", value=value, limit=limit)


def sharp(name: str, pairs: Sequence[tuple[Tensor, Tensor]]) -> GateOutcome:
    """Equality in fp32: the largest relative difference of any pair is at most ``SHARP``."""
    value = float(torch.tensor([relative(a, b) for a, b in pairs]).max())  # Python's own max would pass over a NaN
    return require(
        name, value <= SHARP, f"two ways that compute the same differ by {value:.1e} of {SHARP:.0e}", value, SHARP
    )


def in_situ(name: str, with_memory: float, bare: float, effect: float, dtype: torch.dtype) -> GateOutcome:
    """Equality in the run's dtype: no more than twice what the bare backbone differs by on the same two ways.

    Args:
        with_memory: Relative difference of logits between the two ways, steered.
        bare: The same of the frozen backbone.
        effect: Relative size of what the memory does, own against zero state; warns where the difference exceeds
            a quarter of it, because the effect then drowns in arithmetic.
    """
    limit = max(DTYPE_FLOOR[dtype], 2 * bare)
    passed = require(
        name, with_memory <= limit, f"steered logits differ by {with_memory:.1e} of {limit:.1e}", with_memory, limit
    )
    if with_memory > effect / 4:
        note = f"differs by {with_memory:.1e}, over a quarter of the memory's effect {effect:.1e}"
        return passed.model_copy(update={"status": "warn", "note": note})
    return passed


def frozen_backbone(backbone: Backbone, before: Tensor, probe: dict[str, Any]) -> GateOutcome:
    """Isolation: outside every Steering the backbone's logits are what they were, bit for bit."""
    with torch.no_grad():
        after = backbone.model(**probe).logits
    difference = float((after - before).abs().max())
    return require(
        "isolation.backbone",
        difference == 0.0,
        f"the frozen backbone's logits moved by {difference:.1e}",
        difference,
        0.0,
    )


@contextlib.contextmanager
def attention(backbone: Backbone, implementation: str) -> Iterator[None]:
    """The model with another attention backend inside the block."""
    before = backbone.model.config._attn_implementation
    backbone.model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        backbone.model.set_attn_implementation(before)

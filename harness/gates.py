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
    "DRAWS",
    "DTYPE_FLOOR",
    "SHARP",
    "GateError",
    "GateOutcome",
    "attention",
    "frozen_backbone",
    "in_dtype",
    "in_fp32",
    "in_situ",
    "last_bits",
    "relative",
    "require",
    "sharp",
]

SHARP = 1e-5
"""Largest relative difference a tensor between two ways that compute the same, in fp32."""
HALVES = (torch.bfloat16, torch.half)
DRAWS = 4
"""Of last bits that are moved; what the largest of them does is the noise."""
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


def in_situ(name: str, with_memory: float, bare: float, noise: float, effect: float, dtype: torch.dtype) -> GateOutcome:
    """Equality in the run's dtype: no more than twice what the bare backbone differs by, or than one bit does.

    Args:
        with_memory: Relative difference of logits between two ways, steered.
        bare: The same of the frozen backbone on the same two ways.
        noise: What :func:`last_bits` do to the steered logits; 0 in fp32. In bf16 a backbone may compute bit for bit
            alike on two ways, and many layers still make much of the bit that a memory has from one of them.
        effect: Relative size of what the memory does, own against zero state; warns where the difference exceeds
            a quarter of it, because the effect then drowns in arithmetic.
    """
    limit = max(DTYPE_FLOOR[dtype], 2 * bare, noise)
    passed = require(
        name, with_memory <= limit, f"steered logits differ by {with_memory:.1e} of {limit:.1e}", with_memory, limit
    )
    return _drowned(passed, with_memory, effect)


def in_dtype(name: str, rounded: float, noise: float, effect: float, dtype: torch.dtype) -> GateOutcome:
    """The run's dtype against fp32: rounding may move the logits by half of what the memory does, or by its bits.

    Args:
        rounded: Relative difference of steered logits.
        noise, effect: As in :func:`in_situ`; warns likewise.
    """
    limit = max(DTYPE_FLOOR[dtype], noise, effect / 2)
    why = f"steered logits in {str(dtype).removeprefix('torch.')} are {rounded:.1e} of {limit:.1e} off those in float32"
    return _drowned(require(name, rounded <= limit, why, rounded, limit), rounded, effect)


@contextlib.contextmanager
def last_bits(backbone: Backbone, seed: int) -> Iterator[None]:
    """The last bit of each number of every embedding moves up or down, as a seed draws.

    It shows what arithmetic makes of a bit; a fault of a method is in both runs alike and cannot hide in it.
    """
    rng = torch.Generator().manual_seed(seed)
    step = torch.finfo(backbone.dtype).eps

    def move(module: Any, args: Any, embedded: Tensor) -> Tensor:
        signs = torch.randint(0, 2, embedded.shape, generator=rng).to(embedded) * 2 - 1
        return embedded * (1 + step * signs)

    hook = backbone.model.get_input_embeddings().register_forward_hook(move)
    try:
        yield
    finally:
        hook.remove()


def _drowned(passed: GateOutcome, difference: float, effect: float) -> GateOutcome:
    if difference <= effect / 4:
        return passed
    note = f"differs by {difference:.1e}, over a quarter of the memory's effect {effect:.1e}"
    return passed.model_copy(update={"status": "warn", "note": note})


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


@contextlib.contextmanager
def in_fp32(backbone: Backbone) -> Iterator[None]:
    """The model in fp32 inside the block: the same weights, since every bf16 number is an fp32 number.

    Tensors are widened and narrowed one by one: what is fp32 in a bf16 model (RoPE's frequencies) must stay so. Each is
    found by its module, for what accelerate brings from elsewhere is another tensor after each use. The narrow ones are
    kept where accelerate knows tied weights by their address, and on CPUs, where they are mapped from their file.
    Weights of four bits stay as they are, and are multiplied in fp32.
    """
    modules = list(backbone.model.modules())
    placed = any(hasattr(module, "_hf_hook") for module in modules)
    keep = lambda tensor: placed or tensor.device.type == "cpu"  # noqa: E731
    stores = [store for module in modules for store in (module._parameters, module._buffers)]
    halves = [(s, n, t.dtype, t.data if keep(t) else None) for s in stores for n, t in s.items() if _is_half(t)]
    packed = [(m, m.compute_dtype) for m in modules if getattr(m, "compute_dtype", None) in HALVES]
    try:  # memory may run short in the middle
        for store, name, dtype, _ in halves:
            if store[name].dtype == dtype:  # tied weights are met twice
                store[name].data = store[name].data.float()
        for module, _ in packed:
            module.compute_dtype = torch.float32
        yield
    finally:
        for store, name, dtype, narrow in halves:
            if store[name].dtype != dtype:
                store[name].data = store[name].data.to(dtype) if narrow is None else narrow
        for module, dtype in packed:
            module.compute_dtype = dtype


def _is_half(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.dtype in HALVES

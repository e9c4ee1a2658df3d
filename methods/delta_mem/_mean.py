"""What the memories of many histories have in common: the control ``mean`` (RIGOR 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.method import MemoryState
from methods.delta_mem._state import DeltaState, Trace

TINY = 1e-12


def mean(memories: Sequence[MemoryState], own: MemoryState | None) -> DeltaState | Trace:
    """The mean of states, scaled a layer and head to the norm of ``own``; of traces, a constant read a layer.

    Prompt and answer keep a read each, for message writes read nothing over their prompt.
    """
    if isinstance(own, DeltaState):
        S = torch.stack([m.S for m in memories if isinstance(m, DeltaState)]).mean(0)
        scale = _norm(own.S) / _norm(S).clamp_min(TINY)
        return DeltaState((scale * S).to(own.S.dtype), own.tokens)
    traces = [m for m in memories if isinstance(m, Trace)]
    return Trace(*(_constant([getattr(t, part) for t in traces]) for part in ("prompt", "answer")))


def _norm(S: Tensor) -> Tensor:
    """[layers, N, 1, 1], Frobenius."""
    return S.float().flatten(2).norm(dim=2)[..., None, None]


def _constant(reads: list[Tensor]) -> Tensor:
    """[layers, 1, R]: the mean over positions, then over traces, of reads [layers, T, R]."""
    return torch.stack([r.mean(1, keepdim=True) for r in reads]).mean(0)

"""A second, plain writing of specification 1.2 to 1.4, sharing no code with the memory: what a gate holds it against.

Every way of running can agree with every other and still be another mathematics (λ and β swapped, a read after the
write, a scaling left out); only this tells.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from methods.delta_mem._layer import DeltaMemLayer, DeltaMemory


def scan(memory: DeltaMemory, x: Tensor, S: Tensor, owner: Sequence[int] | None, writes: bool) -> tuple[Tensor, Tensor]:
    """Reads [T, R] and the state [N, r, r] after the tokens x [T, H], one at a time, or after the messages' means."""
    reads = []
    for token in x:
        reads.append((S @ _unit(memory, memory.memory_q_proj @ token).unsqueeze(-1)).flatten())
        if writes and owner is None:
            S = _written(memory, S, token)
    for message in sorted(set(owner or ()) - {-1}):
        S = _written(memory, S, x[torch.tensor(owner, device=x.device) == message].mean(0))
    return torch.stack(reads), S


def corrections(memory: DeltaMemory, reads: Tensor) -> dict[str, Tensor]:
    """What is added to each active head's projection, [T, out]."""
    scale = memory.config.alpha / memory.config.r
    return {head: scale * reads @ getattr(memory, f"delta_{head}_proj").T for head in memory.config.delta_heads}


@contextlib.contextmanager
def watched(layer: DeltaMemLayer) -> Iterator[list[tuple[Tensor, dict[str, Tensor]]]]:
    """What the attention module received, [T, H], and the corrections beside it, for each forward in the block."""
    seen: list[tuple[Tensor, dict[str, Tensor]]] = []

    def keep(_module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        x = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        prepared, reads = layer.door.call.heard
        nothing = {h: x.new_zeros(*x.shape[:2], weight.shape[1]) for h, weight in prepared.heads.items()}
        seen.append((x[0], {h: prepared.correct(h, zero, reads)[0] for h, zero in nothing.items()}))

    hook = layer.base_layer.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def _written(memory: DeltaMemory, S: Tensor, x: Tensor) -> Tensor:
    config, N = memory.config, memory.config.num_state_heads
    k = _unit(memory, memory.memory_k_proj @ x).unsqueeze(1)
    v = (memory.memory_v_proj @ x).view(N, -1, 1)
    beta = torch.sigmoid(memory.beta_proj @ x + memory.beta_bias).view(N, -1, 1)
    lam = 1 - beta
    if not config.couple_lambda:
        lam = torch.sigmoid(memory.lambda_proj @ x + memory.lambda_bias).view(N, -1, 1)
    keep = 1.0 if config.state_update_mode == "no_lambda" else lam
    erase = lam * beta if config.state_update_mode == "lambda_outside" else beta
    return keep * S - erase * (S @ k.mT) * k + beta * v * k


def _unit(memory: DeltaMemory, z: Tensor) -> Tensor:
    z = z.view(memory.config.num_state_heads, -1)
    if not memory.config.normalize_qk:
        return z
    z = torch.tanh(z)
    return z / z.pow(2).sum(-1, keepdim=True).sqrt().clamp_min(1e-6)

"""One memory beside one attention module: its parameters, what it reads, what it writes (specification 1.2 to 1.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from methods.delta_mem._cache import MemoryCache, Segments
from methods.delta_mem._config import DeltaMemConfig
from methods.delta_mem._recurrence import scan

HEADS = ("q", "k", "v", "o")


@dataclass
class Call:
    """One forward of the backbone, as all its memories see it."""

    mask: Tensor
    """[B, T] bool: which tokens are real."""
    cache: MemoryCache
    message_ids: Tensor | None
    """[B, T], the message of each token, -1 for none; None writes token by token."""


class Door:
    """Holds the call in progress; set at the model's door, read by every memory."""

    call: Call | None = None


class DeltaMemory(nn.Module):
    """The parameters of one memory and its mathematics. Paper eq. 4 to 9."""

    def __init__(self, config: DeltaMemConfig, attention: nn.Module) -> None:
        super().__init__()
        self.config = config
        r, N = config.r, config.num_state_heads
        R, G = N * r, N * (r if config.rankwise_gates else 1)
        H = attention.q_proj.in_features
        empty = lambda *shape: nn.Parameter(torch.empty(*shape))  # noqa: E731
        self.memory_q_proj, self.memory_k_proj, self.memory_v_proj = empty(R, H), empty(R, H), empty(R, H)
        self.beta_proj, self.beta_bias = empty(G, H), empty(G)
        if not config.couple_lambda:
            self.lambda_proj, self.lambda_bias = empty(G, H), empty(G)
        for head in config.delta_heads:
            out = getattr(attention, f"{head}_proj").out_features
            setattr(self, f"delta_{head}_proj", empty(out, R))
        if config.delta_o_rmsnorm:
            self.delta_o_rmsnorm_weight = empty(H)
        if config.trainable_delta_scale:
            self.delta_scale_raw = empty(1 if config.delta_scale_granularity == "layer" else 4)

    @torch.no_grad()
    def initialise(self, attention: nn.Module, generator: torch.Generator) -> None:
        """Specification 1.10. Drawn on the CPU from ``generator``, so that a seed means the same everywhere."""
        config = self.config
        for projection in (self.memory_q_proj, self.memory_k_proj, self.memory_v_proj):
            _uniform(projection, projection.shape[1], generator)
        self.beta_proj.zero_()
        self.beta_bias.fill_(config.beta_bias_init)
        if not config.couple_lambda:
            self.lambda_proj.zero_()
            self.lambda_bias.fill_(-config.beta_bias_init)
        for head in config.delta_heads:
            delta, base = getattr(self, f"delta_{head}_proj"), getattr(attention, f"{head}_proj").weight
            if config.output_init == "random":
                _uniform(delta, delta.shape[1], generator)
                delta.mul_(config.online_gain)
                continue
            delta.zero_()
            if config.output_init != "zero":
                wide = config.r if config.output_init == "base_slice" else min(config.base_slice_ref_width, config.r)
                columns = base[:, : min(wide, base.shape[1])].float()
                columns = columns / columns.norm(dim=0).clamp_min(1e-6)
                delta[:, : columns.shape[1]] = (columns * config.online_gain).to(delta)
        if config.delta_o_rmsnorm:
            self.delta_o_rmsnorm_weight.fill_(1.0)
        if config.trainable_delta_scale:
            ratio = min(max(config.delta_scale_init / config.delta_scale_max, 1e-4), 1 - 1e-4)
            self.delta_scale_raw.fill_(math.log(ratio / (1 - ratio)))

    # --- reading and writing ---

    def attend(self, x: Tensor, call: Call, layer: int) -> dict[str, Tensor]:
        """Read, write, and return the corrections of the active heads, each [B, T, out].

        Args:
            x: [B, T, H], what self-attention receives.
            layer: Which of the cache's states is this memory's.
        """
        cache, config = call.cache, self.config
        packed = self._project(x, cache.states[layer].dtype)
        q = self._squash(packed[..., : config.width])
        by_message = cache.writes and call.message_ids is not None
        if cache.writes and not by_message:
            k, v, gates = self._keys_values_gates(packed[..., config.width :])
            reads, cache.states[layer] = scan(q, k, v, *_masked(gates, call.mask), cache.states[layer])
        else:
            reads = torch.einsum("bnij,btnj->btni", cache.states[layer], q)
            if by_message:
                self._collect(packed[..., config.width :], call, layer)
        reads = reads.flatten(2) * call.mask.unsqueeze(-1)
        if cache.recorded is not None:
            cache.recorded[layer].append(reads.detach())
        if cache.replayed is not None:
            reads = _replay(cache.replayed[cache.answering][layer], cache.seen, call.mask)
        return self._corrections(reads, x.dtype)

    def commit(self, cache: MemoryCache, layer: int) -> None:
        """Write the messages of a logical call, one mean each, in order (SSW; specification 1.7)."""
        pending = cache.pending[layer]
        if pending is None:
            return
        active = pending.counts > 0
        mean = pending.sums / pending.counts.clamp_min(1).unsqueeze(-1)
        k, v, gates = self._keys_values_gates(mean)
        _, cache.states[layer] = scan(k, k, v, *_masked(gates, active), cache.states[layer])
        cache.pending[layer] = None

    def _project(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """x times every input projection at once, without biases: [B, T, 3R + gates] in the state's dtype."""
        weights = [self.memory_q_proj, self.memory_k_proj, self.memory_v_proj, self.beta_proj]
        if not self.config.couple_lambda:
            weights.append(self.lambda_proj)
        return F.linear(x, torch.cat(weights).to(x.dtype)).to(dtype)

    def _squash(self, z: Tensor) -> Tensor:
        """To state heads [B, T, N, r]; tanh and unit norm a head unless ``normalize_qk`` is off."""
        z = z.unflatten(-1, (self.config.num_state_heads, self.config.r))
        if not self.config.normalize_qk:
            return z
        z = z.tanh()
        return z / z.norm(dim=-1, keepdim=True).clamp_min(1e-6)

    def _keys_values_gates(self, packed: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """k, v [B, T, N, r] and (log keep, erase, write) [B, T, N, g] from packed projections without q."""
        config, R, G = self.config, self.config.width, self.beta_bias.numel()
        k = self._squash(packed[..., :R])
        v = packed[..., R : 2 * R].unflatten(-1, (config.num_state_heads, config.r))
        z = packed[..., 2 * R : 2 * R + G] + self.beta_bias.to(packed)
        beta, log_lam = z.sigmoid(), F.logsigmoid(-z)  # coupled: λ = 1 - β, in logs from the start
        if not config.couple_lambda:
            log_lam = F.logsigmoid(packed[..., 2 * R + G :] + self.lambda_bias.to(packed))
        erase = beta
        if config.state_update_mode == "no_lambda":
            log_lam = torch.zeros_like(log_lam)
        elif config.state_update_mode == "lambda_outside":
            erase = beta * log_lam.exp()
        log_lam, erase, beta = (g.unflatten(-1, (config.num_state_heads, -1)) for g in (log_lam, erase, beta))
        return k, v, (log_lam, erase, beta)

    def _collect(self, packed: Tensor, call: Call, layer: int) -> None:
        """Add this forward's tokens to the sums of their messages."""
        ids = call.message_ids
        active = call.mask & (ids >= 0)
        pending = call.cache.pending[layer]
        M = max(int(ids.max()) + 1, pending.counts.shape[1] if pending else 0, 1)
        one_hot = F.one_hot(ids.clamp_min(0), M).to(packed.dtype) * active.unsqueeze(-1)  # [B, T, M]
        sums, counts = one_hot.mT @ packed, one_hot.sum(1)
        if pending is not None:
            more = M - pending.counts.shape[1]
            sums = sums + F.pad(pending.sums, (0, 0, 0, more))
            counts = counts + F.pad(pending.counts, (0, more))
        call.cache.pending[layer] = Segments(sums, counts)

    def _corrections(self, reads: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
        config = self.config
        scale = config.alpha / config.r
        corrections = {}
        for head in config.delta_heads:
            weight = getattr(self, f"delta_{head}_proj")
            delta = scale * self._trained_scale(head) * F.linear(reads, weight.to(reads.dtype))
            if head == "o" and config.delta_o_rmsnorm:
                delta = F.rms_norm(
                    delta, (delta.shape[-1],), self.delta_o_rmsnorm_weight.to(delta.dtype), config.delta_o_rmsnorm_eps
                )
            corrections[head] = delta.to(dtype)
        return corrections

    def _trained_scale(self, head: str) -> Tensor | float:
        if not self.config.trainable_delta_scale:
            return 1.0
        raw = self.delta_scale_raw[0 if self.delta_scale_raw.numel() == 1 else HEADS.index(head)]
        return raw.sigmoid() * self.config.delta_scale_max


class DeltaMemLayer(nn.Module, BaseTunerLayer):
    """Wraps a self-attention module: steers it while a call is in progress, else is not there.

    No attention class is copied: corrections are added to the *outputs* of q_proj, k_proj, v_proj (before the
    reshape to heads, so before q/k norms and RoPE) and of o_proj, by forward hooks on those linear layers.
    """

    adapter_layer_names = ("delta_mem_memory",)

    def __init__(self, base_layer: nn.Module, door: Door, index: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.delta_mem_memory = nn.ModuleDict()
        self.door, self.index = door, index
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = "default"
        self._corrections: dict[str, Tensor] = {}
        self._hooks = [getattr(base_layer, f"{head}_proj").register_forward_hook(self._correct(head)) for head in HEADS]

    def _correct(self, head: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
            delta = self._corrections.get(head)
            return None if delta is None else output + delta

        return hook

    def update_layer(self, adapter_name: str, config: DeltaMemConfig) -> None:
        """Add a memory under ``adapter_name``; its parameters follow from the seed and this layer's index."""
        memory = DeltaMemory(config, self.base_layer)
        memory.initialise(self.base_layer, torch.Generator().manual_seed(config.seed * 1_000_003 + self.index))
        self.delta_mem_memory[adapter_name] = memory.to(self.base_layer.q_proj.weight.device)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @property
    def serves(self) -> bool:
        """The active adapter has a memory at this layer."""
        return self.active_adapters[0] in self.delta_mem_memory

    @property
    def memory(self) -> DeltaMemory:
        """The active memory."""
        return self.delta_mem_memory[self.active_adapters[0]]

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        call = self.door.call
        if self.disable_adapters or call is None or not self.serves:
            return self.base_layer(hidden_states, *args, **kwargs)
        self._corrections = self.memory.attend(hidden_states, call, self.index)
        try:
            return self.base_layer(hidden_states, *args, **kwargs)
        finally:
            self._corrections = {}

    def unhook(self) -> None:
        """Remove the hooks from the wrapped module, which is then as it was."""
        for hook in self._hooks:
            hook.remove()

    def merge(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("δ-mem cannot be merged: its corrections depend on a state, not on weights alone")

    def unmerge(self) -> None:
        raise ValueError("δ-mem is never merged, so there is nothing to unmerge")


def _uniform(tensor: Tensor, fan_in: int, generator: torch.Generator) -> None:
    """Kaiming uniform with a = √5: U(-1/√fan_in, 1/√fan_in)."""
    if tensor.is_meta:
        return
    bound = 1 / math.sqrt(fan_in)
    tensor.copy_(torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator))


def _masked(gates: tuple[Tensor, Tensor, Tensor], valid: Tensor) -> tuple[Tensor, ...]:
    """Gates that leave the state as it is where a token is not valid: log keep 0, erase 0, write 0."""
    keep = valid[:, :, None, None]
    return tuple(torch.where(keep, gate, 0.0) for gate in gates)


def _replay(reads: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
    """Reads [T', R] of another stream at the positions of these tokens, [B, T, R]."""
    positions = (seen.unsqueeze(1) + mask.long().cumsum(1) - 1).clamp_min(0) % len(reads)
    return reads[positions] * mask.unsqueeze(-1)

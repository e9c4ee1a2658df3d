"""One memory beside one attention module: its parameters, what it reads, what it writes (specification 1.2 to 1.4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from harness.backbones import place_of, weight_of
from methods.delta_mem._cache import MemoryCache, Segments, Tally
from methods.delta_mem._config import DeltaMemConfig
from methods.delta_mem._recurrence import compiles, scan

HEADS = ("q", "k", "v", "o")
FEW = 16
"""Tokens up to which everything after the projections is one compiled call; for more, activations are vectorised."""


@dataclass
class Call:
    """One forward of the backbone, as all its memories see it."""

    adapter: str
    mask: Tensor | None
    """[B, T] bool: which tokens are real; None where all are."""
    cache: MemoryCache
    members: Tensor | None
    """[B, T, M], 1 where a token belongs to a segment (a message or a sentence); None writes token by token."""
    heard: tuple[Prepared, Tensor] | None = None
    """Inside an attention module: its memory's weights, and what the tokens read, [B T, R]."""

    def on(self, device: torch.device) -> Call:
        """As a layer on that device sees it; a backbone may be spread over several."""
        there = [x is None or x.device == device for x in (self.mask, self.members)]
        if all(there):
            return self
        mask, members = (x if x is None else x.to(device) for x in (self.mask, self.members))
        return replace(self, mask=mask, members=members)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A memory's weights in the form in which forwards want them, in the dtype of the hidden states."""

    memory: DeltaMemory
    packed: Tensor
    """[P, H]: the rows of q, k, v, β and, uncoupled, λ, so that one product gives all of them."""
    biases: tuple[Tensor, Tensor | None]
    """[N g], of β and, uncoupled, of λ; at least fp32."""
    heads: dict[str, Tensor]
    """[R, out] a head: the transpose of W_Δ, times everything that scales it."""
    fused: Callable[..., tuple[Tensor, Tensor]] | None
    """Does all that follows the projections in one call; None where it cannot (a GPU, bf16, no compiler)."""

    def __deepcopy__(self, memo: Any) -> Prepared:
        return self  # a cache is copied for its rows; the weights stay one

    def correct(self, head: str, output: Tensor, reads: Tensor) -> Tensor:
        """The output of a head's projection, [B, T, out], corrected by reads [B T, R]; without gradient, in place."""
        weight, config = self.heads.get(head), self.memory.config
        if weight is None:
            return output
        if head == "o" and config.delta_o_rmsnorm:
            gain = self.memory.delta_o_rmsnorm_weight.to(reads.dtype)
            delta = F.rms_norm(reads @ weight.to(reads.dtype), gain.shape, gain, config.delta_o_rmsnorm_eps)
            return output + delta.to(output.dtype).view_as(output)
        flat, reads = output.view(len(reads), -1), reads.to(output.dtype)
        if torch.is_grad_enabled():
            return torch.addmm(flat, reads, weight).view_as(output)
        flat.addmm_(reads, weight)
        return output


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
            delta = getattr(self, f"delta_{head}_proj")
            if config.output_init == "random":
                _uniform(delta, delta.shape[1], generator)
                delta.mul_(config.online_gain)
                continue
            delta.zero_()
            if config.output_init != "zero":
                base = weight_of(getattr(attention, f"{head}_proj"))
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

    def attend(self, x: Tensor, call: Call, layer: int) -> Tensor:
        """Read, then write.

        Args:
            x: [B, T, H], what self-attention receives.
            layer: Which of the cache's states is this memory's.

        Returns:
            What the tokens read, [B, T, R], 0 where a token is not real.
        """
        cache, prepared = call.cache, self.prepared(call.cache, layer, x.dtype)
        state = cache.state(layer)
        if cache.gates is not None:
            cache.gates.append(self._mean_gate(x, call.mask))
        if prepared.fused and x.shape[1] <= FEW and call.members is None:
            z = F.linear(x, prepared.packed)
            if cache.tallies is not None and cache.writes:
                self._keys_values_gates(z[..., self.config.width :], state, cache.tallies[layer], call.mask)
            reads, state = prepared.fused(z, call.mask, state, *prepared.biases, self.config, cache.writes)
        else:
            reads, state = self._attend_many(x, prepared.packed, call, state, layer)
        if cache.writes:
            cache.keep(layer, state)
        return cache.heard(layer, reads, call.mask)

    def _attend_many(self, x: Tensor, packed: Tensor, call: Call, state: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        R = self.config.width
        if call.cache.writes and call.members is None:
            z = F.linear(x, packed)
            tally = call.cache.tallies and call.cache.tallies[layer]
            k, v, gates = self._keys_values_gates(z[..., R:], state, tally, call.mask)
            reads, state = scan(self._squash(z[..., :R], state), k, v, *_masked(gates, call.mask), state)
        else:
            reads = torch.einsum("bnij,btnj->btni", state, self._squash(F.linear(x, packed[:R]), state))
            if call.cache.writes:
                self._collect(F.linear(x, packed[R:]), call, layer)
        reads = reads.flatten(2)
        return reads if call.mask is None else reads * call.mask.unsqueeze(-1), state

    def commit(self, cache: MemoryCache, layer: int) -> None:
        """Write the segments of a logical call, one mean each, in order (SSW; specification 1.7)."""
        pending = cache.pending[layer]
        if pending is None:
            return
        state = cache.state(layer)
        mean = pending.sums / pending.counts.clamp_min(1).unsqueeze(-1)
        tally = cache.tallies and cache.tallies[layer]
        k, v, gates = self._keys_values_gates(mean, state, tally, pending.counts > 0)
        cache.keep(layer, scan(k, k, v, *_masked(gates, pending.counts > 0), state)[1])
        cache.pending[layer] = None

    def prepared(self, cache: MemoryCache, layer: int, dtype: torch.dtype) -> Prepared:
        """Packed and scaled weights: made once a cache, or, with gradient, once a forward."""
        kept = cache.prepared[layer]
        if torch.is_grad_enabled() or kept is None or kept.memory is not self or kept.packed.dtype != dtype:
            kept = cache.prepared[layer] = self._prepare(dtype, cache.state(layer))
        return kept

    def _prepare(self, dtype: torch.dtype, state: Tensor) -> Prepared:
        rows = [self.memory_q_proj, self.memory_k_proj, self.memory_v_proj, self.beta_proj]
        if not self.config.couple_lambda:
            rows.append(self.lambda_proj)
        scale = self.config.alpha / self.config.r
        heads = {
            head: (scale * self._trained_scale(head) * getattr(self, f"delta_{head}_proj")).to(dtype).T.contiguous()
            for head in self.config.delta_heads
        }
        wide = torch.promote_types(dtype, torch.float32)
        lambda_bias = None if self.config.couple_lambda else self.lambda_bias.to(wide)
        packed, fused = torch.cat(rows).to(dtype), None
        if not torch.is_grad_enabled() and dtype == wide and compiles(packed, state):
            from methods.delta_mem._compiled import attend as fused
        return Prepared(self, packed, (self.beta_bias.to(wide), lambda_bias), heads, fused)

    def _squash(self, z: Tensor, state: Tensor) -> Tensor:
        """To state heads [B, T, N, r]; tanh and unit norm a head unless ``normalize_qk`` is off."""
        z = z.to(state.dtype).unflatten(-1, (self.config.num_state_heads, self.config.r))
        return F.normalize(z.tanh(), dim=-1, eps=1e-6) if self.config.normalize_qk else z

    def _keys_values_gates(
        self, z: Tensor, state: Tensor, tally: Tally | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """k, v [B, T, N, r] and (log keep, erase, write) [B, T, N, g] from packed projections without q.

        A ``tally`` takes in the gates of the writes that ``mask`` [B, T] leaves.
        """
        config, R, G = self.config, self.config.width, self.beta_bias.numel()
        z = z.to(state.dtype)
        k = self._squash(z[..., :R], state)
        v = z[..., R : 2 * R].unflatten(-1, (config.num_state_heads, config.r))
        gate = z[..., 2 * R : 2 * R + G] + self.beta_bias.to(z)
        beta, log_lam = gate.sigmoid(), F.logsigmoid(-gate)  # coupled: λ = 1 - β, in logs from the start
        if not config.couple_lambda:
            log_lam = F.logsigmoid(z[..., 2 * R + G :] + self.lambda_bias.to(z))
        erase = beta
        if config.state_update_mode == "no_lambda":
            log_lam = torch.zeros_like(log_lam)
        elif config.state_update_mode == "lambda_outside":
            erase = beta * log_lam.exp()
        log_lam, erase, beta = (g.unflatten(-1, (config.num_state_heads, -1)) for g in (log_lam, erase, beta))
        if tally:
            tally.add(beta, log_lam, mask)
        return k, v, (log_lam, erase, beta)

    def _mean_gate(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """β averaged over real tokens and gate entries (specification 4.3)."""
        beta = F.linear(x, self.beta_proj.to(x), self.beta_bias.to(x)).float().sigmoid().mean(-1)
        return beta.mean() if mask is None else (beta * mask).sum() / mask.sum()

    def _collect(self, z: Tensor, call: Call, layer: int) -> None:
        """Add this forward's tokens to the sums of their segments."""
        members, pending = call.members.to(z.dtype), call.cache.pending[layer]
        sums, counts = members.mT @ z, members.sum(1)
        if pending is not None:
            more = counts.shape[1] - pending.counts.shape[1]
            sums = F.pad(sums, (0, 0, 0, -min(more, 0))) + F.pad(pending.sums, (0, 0, 0, max(more, 0)))
            counts = F.pad(counts, (0, -min(more, 0))) + F.pad(pending.counts, (0, max(more, 0)))
        call.cache.pending[layer] = Segments(sums, counts)

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
        self._hooks: dict[str, Any] = {}

    def _correct(self, head: str) -> Any:
        door = self.door

        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
            call = door.call
            if call is None or call.heard is None:
                return None
            prepared, reads = call.heard
            return prepared.correct(head, output, reads)

        return hook

    def update_layer(self, adapter_name: str, config: DeltaMemConfig) -> None:
        """Add a memory under ``adapter_name``; its parameters follow from the seed and this layer's index."""
        memory = DeltaMemory(config, self.base_layer)
        memory.initialise(self.base_layer, torch.Generator().manual_seed(config.seed * 1_000_003 + self.index))
        self.delta_mem_memory[adapter_name] = memory.to(place_of(self.base_layer.q_proj))
        for head in config.delta_heads:
            if head not in self._hooks:
                projection = getattr(self.base_layer, f"{head}_proj")
                self._hooks[head] = projection.register_forward_hook(self._correct(head))
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @property
    def memory(self) -> DeltaMemory:
        """The active memory."""
        return self.delta_mem_memory[self.active_adapters[0]]

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        call = self.door.call
        memory = None if call is None else self.delta_mem_memory._modules.get(call.adapter)
        if memory is None:
            return self.base_layer(hidden_states, *args, **kwargs)
        reads = memory.attend(hidden_states, call.on(hidden_states.device), self.index)
        call.heard = call.cache.prepared[self.index], reads.flatten(0, 1)
        try:
            return self.base_layer(hidden_states, *args, **kwargs)
        finally:
            call.heard = None

    def unhook(self) -> None:
        """Remove the hooks from the wrapped module, which is then as it was."""
        for hook in self._hooks.values():
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


def _masked(gates: tuple[Tensor, Tensor, Tensor], valid: Tensor | None) -> tuple[Tensor, ...]:
    """Gates that leave the state as it is where a token is not valid: log keep 0, erase 0, write 0."""
    if valid is None:
        return gates
    keep = valid[:, :, None, None]
    return tuple(torch.where(keep, gate, 0.0) for gate in gates)

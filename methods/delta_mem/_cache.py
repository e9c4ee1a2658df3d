"""Where S travels: a transformers cache that carries the state of every memory layer beside keys and values.

Row repetition, selection and beam reordering happen to state and keys together, a snapshot is a deep copy, and
cropping, which assisted decoding needs and a recurrence cannot undo, is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig

from harness.errors import HarnessError


@dataclass
class Segments:
    """The message writes of one logical call, before they are scanned.

    Means are taken before the projections (specification 1.7); the projections are linear, so their sums are
    kept instead of hidden states: a few numbers a message, however long it is.
    """

    sums: Tensor
    """[B, M, P], the sum of packed projections over the active tokens of each message."""
    counts: Tensor
    """[B, M], how many tokens that were."""


@dataclass
class Tally:
    """The gates of what one memory has written, summed over writes."""

    sums: Tensor | None = None
    """[2], in float64: of the write gate β and of 1 - λ, each a mean over gate entries."""
    writes: int = 0
    """Tokens or, of message writes, messages."""

    def add(self, write: Tensor, log_keep: Tensor, mask: Tensor | None) -> None:
        """Take in the gates of a forward's writes, [B, T, N, g]; those under a false ``mask`` [B, T] are none."""
        gates = torch.stack([write, -torch.expm1(log_keep)]).double().flatten(3).mean(-1)
        sums = (gates if mask is None else gates * mask).sum((1, 2))
        self.sums = sums if self.sums is None else self.sums + sums
        self.writes += gates[0].numel() if mask is None else int(mask.sum())


def together(tensors: Iterable[Tensor]) -> list[Tensor]:
    """On the first one's device, for layers may be on several."""
    found = list(tensors)
    return [x.to(found[0].device) for x in found]


class MemoryCache(DynamicCache):
    """Keys, values and the memory's state for one batch.

    Args:
        config: The backbone's configuration.
        states: One tensor a memory layer, [B, N, r, r]; it is never written in place.
        writes: Whether the tokens that are read are also written.
        generated: Whether, where tokens are written, the answer's are too (as in the release's evaluation).
        keep_kv: False leaves keys and values out: for a single forward, such as a training pass.
        replayed: Reads of another stream over its prompt and over its answer, [layers, T', R] each, used instead of
            the state's own at equal positions of each (the donor under ``replayed``); past an end they start again.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        states: list[Tensor],
        *,
        writes: bool,
        generated: bool = True,
        keep_kv: bool = True,
        replayed: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__(config=config)
        self.states = list(states)
        self.stored = states[0].dtype
        self.wide = torch.promote_types(self.stored, torch.float32)
        self.prompt_writes, self.answer_writes = writes, writes and generated
        self.keep_kv = keep_kv
        self.replayed = replayed
        self.seen = torch.zeros(states[0].shape[0], dtype=torch.long, device=states[0].device)
        """[B], valid tokens fed so far, of the prompt or, once ``answering``, of the answer."""
        self.started = self.answering = False
        self.pending: list[Segments | None] = [None] * len(states)
        self.segments: Tensor | None = None
        self.prepared: list[Any] = [None] * len(states)
        """Each memory's weights as its forwards want them."""
        self.recorded: list[list[Tensor]] | None = None
        """Where reads are kept when asked for: a list a layer of [B, T, R]."""
        self.gates: list[Tensor] | None = None
        """Where mean write gates are kept when asked for: one number a layer and forward."""
        self.tallies: list[Tally] | None = None
        """Where the gates of all writes are summed when asked for: one a layer."""

    # --- what the memories ask ---

    @property
    def writes(self) -> bool:
        """Whether the tokens of this forward are written."""
        return self.answer_writes if self.answering else self.prompt_writes

    def state(self, layer: int) -> Tensor:
        """S [B, N, r, r] to compute with, at least fp32, however it is stored."""
        stored = self.states[layer]
        return stored if stored.dtype == self.wide else stored.to(self.wide)

    def keep(self, layer: int, state: Tensor) -> None:
        """Store S in the precision that it is stored in."""
        self.states[layer] = state if state.dtype == self.stored else state.to(self.stored)

    def heard(self, layer: int, reads: Tensor, mask: Tensor | None) -> Tensor:
        """What a layer's tokens are to hear [B, T, R], given what they read."""
        if self.recorded is not None:
            self.recorded[layer].append(reads.detach())
        if self.replayed is None:
            return reads
        other, seen = self.replayed[self.answering][layer].to(reads.device), self.seen.to(reads.device)
        real = torch.ones(reads.shape[:2], dtype=torch.bool, device=reads.device) if mask is None else mask
        positions = (seen.unsqueeze(1) + real.long().cumsum(1) - 1).clamp_min(0) % len(other)
        return other[positions] * real.unsqueeze(-1)

    # --- the forwards of a call ---

    def announce(self, segments: Tensor | None) -> None:
        """Say which segment (message or sentence) each token of the next forward belongs to, [B, T], -1 for none.

        Announced forwards are parts of one logical call, in which every token reads the state from before it, where
        segments are written; the call ends with :meth:`DeltaMemModel.commit` or with the first forward that is not
        announced. That forward, unless it is the cache's first, is the answer's.
        """
        self.segments = segments

    def enter(self) -> Tensor | None:
        """Begin a forward: the segments announced for it, None where there are none."""
        segments, self.segments = self.segments, None
        if segments is None and self.started and not self.answering:
            self.answering, self.seen = True, torch.zeros_like(self.seen)
        self.started = True
        return segments

    def leave(self, mask: Tensor | None, tokens: int) -> None:
        """End a forward of so many tokens a row."""
        self.seen = self.seen + (tokens if mask is None else mask.sum(1))

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        if not self.keep_kv:
            return key_states, value_states
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def _each_row(self, change: Any) -> None:
        self.states = [change(s) for s in self.states]
        self.seen = change(self.seen)
        self.pending = [p and Segments(change(p.sums), change(p.counts)) for p in self.pending]

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._each_row(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._each_row(lambda x: x[indices.to(x.device)])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._each_row(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def crop(self, *args: Any, **kwargs: Any) -> None:
        raise HarnessError("a δ-mem state cannot be rolled back, so assisted decoding is refused; decode without it")

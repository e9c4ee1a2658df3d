"""Training of δ-mem: a write pass with gradient, then a read pass at fresh positions without the history
(specification 4.1 to 4.3).

Two objectives. The paper's is cross-entropy on the answer and the end of its turn. The release's has two quirks more:
the labels begin with the header of the answer's turn, which is given when the model is used; and it adds
w · mean over layers of (β̄ - 0.05)², where β̄ is the mean write gate over the tokens of the *read* pass, which write
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from harness import training
from harness.episodes import Episode, Message
from harness.errors import HarnessError
from harness.experiment import Budget
from harness.progress import Progress
from methods.delta_mem._cache import MemoryCache, Segments, together

if TYPE_CHECKING:
    from methods.delta_mem import DeltaMem

SPARSITY = 0.05
"""The mean write gate that the release's objective pulls towards."""


@dataclass
class Batch:
    """Histories to write, [B, T] padded on the right, and the questions asked of each."""

    ids: Tensor
    mask: Tensor
    segments: Tensor
    """The message or sentence of each token, -1 for none."""
    questions: Tensor
    """[B], how many questions a history has."""
    reads: training.Reads

    @property
    def tokens(self) -> int:
        return int(self.mask.sum() + self.reads.mask.sum())


def fit(
    method: DeltaMem, episodes: Sequence[Episode], budget: Budget, workdir: Path, progress: Progress
) -> training.FitReport:
    """Train the memory's parameters; the backbone stays frozen."""
    with method.backbone.active(method.name):
        return training.fit(
            method.peft,
            episodes,
            lambda batch: collate(method, batch, budget),
            lambda _, batch: loss(method, batch),
            backbone=method.backbone,
            budget=budget,
            seed=method.seed,
            workdir=workdir,
            progress=progress,
        )


def collate(method: DeltaMem, episodes: Sequence[Episode], budget: Budget) -> Batch:
    """Tokens of a batch; of longer histories the last ``max_write_tokens`` are written."""
    backbone, release = method.backbone, method.config.objective == "release"
    written = [backbone.encode(e.history.messages, system=e.history.system, unit=method.unit) for e in episodes]
    width = min(budget.max_write_tokens, max(len(ids) for ids, _ in written))
    ids = torch.full((len(written), width), backbone.pad_token_id)
    mask = torch.zeros_like(ids)
    segments = torch.full_like(ids, -1)
    for n, (tokens, owner) in enumerate(written):
        kept = torch.tensor(tokens[-width:])
        ids[n, : len(kept)], mask[n, : len(kept)] = kept, 1
        segments[n, : len(kept)] = torch.tensor(owner[-width:])
    asked = [
        training.answer_ids(backbone, [Message(q.text)], e.history.system, q.answers[0], header=release)
        for e in episodes
        for q in e.questions
    ]
    counts = torch.tensor([len(e.questions) for e in episodes])
    reads = training.reads(backbone, asked, budget.max_read_tokens)
    return Batch(*(x.to(backbone.device) for x in (ids, mask, segments, counts)), reads)


def loss(method: DeltaMem, batch: Batch) -> tuple[Tensor, int]:
    """Loss of the answers given nothing but the states, with gradient through the whole write."""
    config, memory = method.config, method.memory
    states = [s.repeat_interleave(batch.questions, dim=0) for s in written(method, batch, config.recompute)]
    cache = memory.memory_cache(states, writes=False, keep_kv=False)
    cache.gates = [] if config.objective == "release" else None
    value = training.answer_loss(method.peft, batch.reads, past_key_values=cache)
    if cache.gates is not None:
        value = value + config.write_sparsity * (torch.stack(together(cache.gates)) - SPARSITY).square().mean()
    return value, batch.tokens


def written(method: DeltaMem, batch: Batch, recompute: int | None = None) -> list[Tensor]:
    """The states [B, N, r, r], a layer each, after the histories.

    Args:
        recompute: Tokens a part. Of each part only its keys, its values and the states behind it are kept, and the
            rest is computed again in the backward pass; the gradient is the same. None feeds all in one forward.
    """
    memory, width = method.memory, batch.ids.shape[1]
    cache = memory.memory_cache(batch_size=len(batch.ids), keep_kv=False)
    if recompute is None:
        _feed(method, batch, cache, slice(0, width))
    else:
        parts: list[list[tuple[Tensor, Tensor]]] = []
        for at in range(0, width, recompute):
            part, before = slice(at, min(width, at + recompute)), (cache.states, cache.pending)
            states, pending, fresh = checkpoint(_fed, method, batch, part, *before, parts[:], use_reentrant=False)
            cache.states, cache.pending = states, pending
            parts.append(fresh)
    memory.commit(cache)
    return cache.states


def _feed(method: DeltaMem, batch: Batch, cache: MemoryCache, part: slice) -> None:
    cache.announce(batch.segments[:, part])
    decoder = method.backbone.model.get_decoder()
    decoder(
        input_ids=batch.ids[:, part],
        attention_mask=batch.mask[:, : part.stop],
        past_key_values=cache,
        use_cache=cache.keep_kv,
    )


def _fed(
    method: DeltaMem,
    batch: Batch,
    part: slice,
    states: list[Tensor],
    pending: list[Segments | None],
    parts: list[list[tuple[Tensor, Tensor]]],
) -> tuple[list[Tensor], list[Segments | None], list[tuple[Tensor, Tensor]]]:
    """Feed a part; given are states and open segments before it and the (keys, values) a layer of all parts before.

    Returns:
        The same three after it, keys and values of this part alone.
    """
    cache = method.memory.memory_cache(states)
    cache.pending = list(pending)
    for n, pairs in enumerate(zip(*parts, strict=True)):
        keys, values = (torch.cat(x, dim=2) for x in zip(*pairs, strict=True))
        cache.update(keys, values, n)
    _feed(method, batch, cache, part)
    if any(layer.keys.shape[2] != part.stop for layer in cache.layers):
        raise HarnessError("a layer of this backbone drops keys beyond its window; set `recompute` to none")
    new = slice(part.start, None)
    fresh = [(layer.keys[:, :, new].clone(), layer.values[:, :, new].clone()) for layer in cache.layers]
    return cache.states, cache.pending, fresh

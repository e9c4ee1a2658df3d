"""Training of δ-mem: a write pass with gradient, then a read pass at fresh positions without the history
(specification 4.1, 4.2; the paper's objective, cross-entropy on the answer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness import training
from harness.episodes import Episode, Message
from harness.experiment import Budget
from harness.progress import Progress

if TYPE_CHECKING:
    from methods.delta_mem import DeltaMem


@dataclass
class Batch:
    """Histories to write, [B, T] padded on the right, and the questions asked of each."""

    ids: Tensor
    mask: Tensor
    message_ids: Tensor
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
    backbone = method.backbone
    written = [backbone.encode(e.history.messages, system=e.history.system) for e in episodes]
    width = min(budget.max_write_tokens, max(len(ids) for ids, _ in written))
    ids = torch.full((len(written), width), backbone.pad_token_id)
    mask = torch.zeros_like(ids)
    message_ids = torch.full_like(ids, -1)
    for n, (tokens, owner) in enumerate(written):
        kept = torch.tensor(tokens[-width:])
        ids[n, : len(kept)], mask[n, : len(kept)] = kept, 1
        message_ids[n, : len(kept)] = torch.tensor(owner[-width:])
    asked = [
        training.answer_ids(backbone, [Message(q.text)], e.history.system, q.answers[0])
        for e in episodes
        for q in e.questions
    ]
    counts = torch.tensor([len(e.questions) for e in episodes])
    reads = training.reads(backbone, asked, budget.max_read_tokens)
    return Batch(*(x.to(backbone.device) for x in (ids, mask, message_ids, counts)), reads)


def loss(method: DeltaMem, batch: Batch) -> tuple[Tensor, int]:
    """Mean cross-entropy of the answers given nothing but the states, with gradient through the whole write."""
    states = written(method, batch)
    cache = method.memory.memory_cache(
        [s.repeat_interleave(batch.questions, dim=0) for s in states], writes=False, keep_kv=False
    )
    return training.answer_loss(method.peft, batch.reads, past_key_values=cache), batch.tokens


def written(method: DeltaMem, batch: Batch) -> list[Any]:
    """The states [B, N, r, r], a layer each, after one forward over the histories."""
    cache = method.memory.memory_cache(batch_size=len(batch.ids), keep_kv=False)
    cache.announce(batch.message_ids)
    decoder = method.backbone.model.get_decoder()
    decoder(input_ids=batch.ids, attention_mask=batch.mask, past_key_values=cache, use_cache=False)
    method.memory.commit(cache)
    return cache.states

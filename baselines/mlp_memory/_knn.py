"""kNN-LM's next-token distributions over a datastore in memory, by exact search."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 16_384
"""Keys that are compared in one product."""
SAMPLE = 256
"""Keys from which the temperature is calibrated."""


@dataclass(frozen=True)
class Datastore:
    """What was read, and what came next."""

    keys: Tensor
    """[N, d], fp16."""
    values: Tensor
    """[N] token ids."""

    def neighbours(self, at: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Squared distances and indices [B, min(k, N - 1)] of the nearest keys to those at ``at`` [B], but itself."""
        query, k = self.keys[at].float(), min(k, len(self.keys) - 1)
        best = torch.full((len(at), 0), math.inf, device=query.device)
        where = torch.zeros(len(at), 0, dtype=torch.long, device=query.device)
        for begin in range(0, len(self.keys), BLOCK):
            block = self.keys[begin : begin + BLOCK].float()
            far = torch.addmm(block.square().sum(-1), query, block.T, alpha=-2) + query.square().sum(-1, keepdim=True)
            own = at - begin
            inside = (own >= 0) & (own < len(block))
            far.clamp_(min=0)[inside, own[inside]] = math.inf
            near, index = far.topk(min(k, len(block)), largest=False)
            best, where = torch.cat([best, near], 1), torch.cat([where, index + begin], 1)
            best, order = best.topk(min(k, best.shape[1]), largest=False)
            where = where.gather(1, order)
        return best, where

    def targets(self, at: Tensor, k: int, temperature: float) -> tuple[Tensor, Tensor]:
        """kNN-LM's distribution at some keys: tokens and probabilities [B, k], each token once, the rest 0."""
        far, where = self.neighbours(at, k)
        tokens, order = self.values[where].sort(1)
        weights = torch.softmax(-far / temperature, 1).gather(1, order)
        group = torch.nn.functional.pad((tokens[:, 1:] != tokens[:, :-1]).long().cumsum(1), (1, 0))
        return torch.zeros_like(tokens).scatter_(1, group, tokens), torch.zeros_like(weights).scatter_add_(
            1, group, weights
        )

    def calibrated(self, k: int, seed: int) -> float:
        """The temperature at which the median entropy of the neighbours' weights is log 10.

        Of a datastore too small for that, nine tenths of what its neighbours can have.
        """
        rng = torch.Generator().manual_seed(seed)
        at = torch.randperm(len(self.keys), generator=rng)[:SAMPLE].to(self.keys.device)
        far, _ = self.neighbours(at, k)
        far = (far - far[:, :1]).double()
        wanted = min(math.log(10), 0.9 * math.log(max(2, far.shape[1])))
        low, high = -30.0, 60.0  # of log T; entropy grows with it
        for _ in range(60):
            middle = (low + high) / 2
            weights = torch.softmax(-far / math.exp(middle), 1)
            entropy = -torch.xlogy(weights, weights).sum(1).median()
            low, high = (middle, high) if entropy < wanted else (low, middle)
        return math.exp((low + high) / 2)

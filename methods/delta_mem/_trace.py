"""What a memory reads over a whole prompt and its answer: the donor of the condition ``replayed`` (RIGOR 2).

A donor's *state* carried in would wash out within a few tokens, since a write gate of 0.18 halves it every 3.4; so the
reads themselves are replayed, position by position. Prompt and answer are kept apart: message writes read nothing
over their prompt, and all of their memory acts in the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.episodes import History, Query
from methods.delta_mem._cache import MemoryCache, together
from methods.delta_mem._state import Trace

if TYPE_CHECKING:
    from methods.delta_mem import DeltaMem

ANSWER = 16
"""Tokens of the answer that are traced; a longer one hears them again."""


def trace(method: DeltaMem, history: History, query: Query) -> Trace:
    """Stream over the prompt from a zero state, answer greedily, and keep every read."""
    backbone = method.backbone
    asked = (*history.messages, query.message())
    ids, owner = backbone.encode(asked, system=query.system, answer_next=True, unit=method.unit)
    cache = method.memory.memory_cache(generated=method.config.answer_writes)
    cache.recorded = [[] for _ in cache.states]
    hidden = method.feed(cache, ids, owner)
    prompt = _recorded(cache)
    decoder, head = backbone.model.get_decoder(), backbone.model.get_output_embeddings()
    with torch.no_grad(), backbone.active(method.name):
        for _ in range(ANSWER):
            token = head(hidden[:, -1:]).argmax(-1)
            hidden = decoder(input_ids=token, past_key_values=cache).last_hidden_state
    return Trace(prompt, _recorded(cache))


def _recorded(cache: MemoryCache) -> Tensor:
    """The reads kept so far, [layers, T, R]; keeping starts anew."""
    assert cache.recorded is not None, "the cache was told to record"
    reads = torch.stack(together(torch.cat(parts, dim=1)[0] for parts in cache.recorded))
    cache.recorded = [[] for _ in cache.recorded]
    return reads

"""What the memories that retrieve have in common: how much they return, and in which order."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from harness import chunks
from harness.chunks import Texts, Unit
from harness.episodes import Message, Query
from harness.errors import HarnessError
from harness.method import UNIT_TOKENS, Capabilities, MemoryMethod, MemoryState, MethodConfig, Steering

if TYPE_CHECKING:
    import numpy as np

    from harness.backbones import Backbone


class RetrievalSettings(MethodConfig):
    """What is returned; the paper discloses none of it."""

    top_k: int | None = Field(
        4,
        ge=1,
        description="Units returned at most; None returns all. Official agents: 10 chunks; here histories are short.",
    )
    budget_tokens: int | None = Field(
        None, ge=1, description="Tokens returned at most, dates among them, in whole units; None sets no budget."
    )
    unit: Literal["message", "chunk"] = Field(
        "message",
        exclude_if=lambda value: value == "message",
        description="message: what the task calls one, a turn or paragraph; chunk: long messages are split.",
    )
    chunk_tokens: int = Field(
        512,
        ge=1,
        exclude_if=lambda value: value == 512,
        description="Tokens of a chunk at most, the backbone's. MemoryAgentBench: 4096, in its ablation 512.",
    )
    order: Literal["document", "rank"] = Field(
        "document",
        exclude_if=lambda value: value == "document",
        description="document: as they were said; rank: best first, as MemoryAgentBench lists them.",
    )

    def text_load(self, tokens: int) -> float:
        unit = self.chunk_tokens if self.unit == "chunk" else UNIT_TOKENS
        return min(super().text_load(tokens), (self.top_k or math.inf) * unit)


class Retrieval(MemoryMethod):
    """The best ``top_k`` units for the question, within ``budget_tokens``."""

    capabilities = Capabilities(family="textual", arms={"own_text": ("own", "donor")})
    config: Any

    def __init__(self, config: RetrievalSettings, backbone: Backbone, seed: int) -> None:
        super().__init__(config, backbone, seed)
        if config.unit == "chunk" and config.chunk_tokens > backbone.window:
            raise HarnessError(
                f"chunk_tokens is {config.chunk_tokens} but '{backbone.spec.name}' reads {backbone.window} tokens at "
                "most; lower chunk_tokens"
            )

    @abstractmethod
    def rank(self, state: Any, query: Query, count: int) -> Sequence[int]:
        """Numbers of the best ``count`` units, best first; equally good ones in the order in which they were said."""

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        if not isinstance(state, Texts):
            return Steering(messages=())
        config, size = self.config, len(state.units)
        ranked = self.rank(state, query, min(config.top_k or size, size))
        count = len(ranked)
        if config.budget_tokens is not None:
            count = chunks.most(config.budget_tokens, count, lambda n: self._told(state, ranked[:n]))
        found = self._found(state, ranked[:count])
        settings = {"top_k": config.top_k, "budget_tokens": config.budget_tokens, "unit": config.unit}
        return Steering(messages=found, notes={"retrieved": [m.id for m in found], **settings})

    def units(self, messages: Sequence[Message]) -> tuple[Unit, ...]:
        """What of these messages can be retrieved."""
        if self.config.unit == "message":
            return chunks.whole(messages)
        return chunks.chunked(messages, self.config.chunk_tokens, self.backbone)

    def _found(self, state: Texts, numbers: Sequence[int]) -> tuple[Message, ...]:
        return chunks.joined(state.units, sorted(numbers) if self.config.order == "document" else numbers)

    def _told(self, state: Texts, numbers: Sequence[int]) -> int:
        return chunks.told_tokens(self._found(state, numbers), self.backbone)


def best(scores: np.ndarray, count: int) -> list[int]:
    """Numbers of the ``count`` highest scores, highest first; equal ones in their order."""
    import numpy as np

    if count < len(scores):
        least = np.partition(scores, -count)[-count]
        above = np.flatnonzero(scores > least)
        found = np.concatenate([above, np.flatnonzero(scores == least)[: count - len(above)]])
    else:
        found = np.arange(len(scores))
    return found[np.argsort(-scores[found], kind="stable")].tolist()

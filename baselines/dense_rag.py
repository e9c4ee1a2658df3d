"""Dense retrieval: what is nearest to the question, by a sentence encoder, stands in the prompt instead of the history.

State: the messages, or chunks of them, and a unit vector of each. Read: the best ``top_k`` within ``budget_tokens``,
in the order in which they were said; the same as ``bm25_rag`` but for the score, a cosine. The paper has no such row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from baselines._textual import Retrieval, RetrievalSettings, Texts, best
from harness.embedding import PACKAGED, Embedder, embedder
from harness.episodes import History, Query
from harness.method import MemoryState

if TYPE_CHECKING:
    from harness.backbones import Backbone


class Settings(RetrievalSettings):
    """Retrieval settings and the encoder."""

    chunk_tokens: int = Field(
        192, ge=1, description="Tokens of a chunk at most, the backbone's; all-MiniLM-L6-v2 reads no more than 256."
    )
    embedder: str = Field(
        PACKAGED, description="Package that carries a sentence encoder, or a folder in sentence-transformers' layout."
    )


@dataclass(frozen=True, eq=False)
class Embedded(Texts):
    """Units and their vectors."""

    vectors: np.ndarray
    """[N, D], fp32."""
    kind: ClassVar[str] = "vectors"

    def nbytes(self) -> int:
        """Texts, and 4 D bytes a unit."""
        return super().nbytes() + self.vectors.nbytes

    def save(self, directory: Path) -> None:
        from safetensors.numpy import save_file

        super().save(directory)
        save_file({"vectors": self.vectors}, directory / "vectors.safetensors")

    @classmethod
    def load(cls, directory: Path) -> Embedded:
        from safetensors.numpy import load_file

        return cls(cls.load_units(directory), load_file(directory / "vectors.safetensors")["vectors"])


class DenseRag(Retrieval):
    """Retrieval by sentence vectors."""

    name = "dense_rag"
    summary = "the messages whose sentence vectors are nearest to the question's, in the prompt"
    Config = Settings

    config: Settings

    def __init__(self, config: Settings, backbone: Backbone, seed: int) -> None:
        super().__init__(config, backbone, seed)
        self._asked: dict[str, np.ndarray] = {}

    @property
    def embedder(self) -> Embedder:
        """The encoder, where the backbone is; loaded when it is first used."""
        return embedder(self.config.embedder, str(self.backbone.device))

    def write(self, history: History, state: MemoryState | None = None) -> Embedded | None:
        """Embed the units; continued online, only the new ones. None of an empty history."""
        units = self.units(history.messages)
        vectors = self.embedder.encode([u.message.content for u in units]) if units else None
        if not isinstance(state, Embedded):
            return Embedded(units, vectors) if vectors is not None else None
        return state if vectors is None else Embedded(state.units + units, np.concatenate([state.vectors, vectors]))

    def rank(self, state: Embedded, query: Query, count: int) -> Sequence[int]:
        if query.text not in self._asked:  # asked again of a donor's state
            self._asked[query.text] = self.embedder.encode([query.text])[0]
        return best(state.vectors @ self._asked[query.text], count)

    def extra_parameters(self) -> int:
        return self.embedder.parameters()

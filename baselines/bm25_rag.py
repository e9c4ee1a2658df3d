"""BM25 retrieval: what is nearest to the question, by words, stands in the prompt instead of the history.

State: the messages, or chunks of them, and a sparse index of their words. Read: the best ``top_k`` within
``budget_tokens``, in the order in which they were said. The paper does not say its unit, k or tokeniser
(specification of baselines 3.1); here they stand in every record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from baselines._textual import Retrieval, RetrievalSettings, Texts, best
from harness.episodes import History, Query
from harness.method import MemoryState

WORD = re.compile(r"\w+")


class Settings(RetrievalSettings):
    """Retrieval settings; k1 and b are bm25s's and rank_bm25's common defaults."""

    k1: float = Field(1.5, gt=0, description="Saturation of term frequency.")
    b: float = Field(0.75, ge=0, le=1, description="Strength of length normalisation.")
    tokenizer: Literal["word", "whitespace"] = Field(
        "word", description="word: lower-cased alphanumerics; whitespace: the official agents' case-sensitive split."
    )


@dataclass(frozen=True, eq=False)
class Indexed(Texts):
    """Units and their BM25 index."""

    index: Any
    kind: ClassVar[str] = "index"

    def nbytes(self) -> int:
        """Texts, and the postings: 8 bytes a word of a unit, counted once a unit, and 8 a word of the vocabulary."""
        return super().nbytes() + sum(v.nbytes for name, v in self.index.scores.items() if name != "num_docs")

    def save(self, directory: Path) -> None:
        super().save(directory)
        self.index.save(str(directory))

    @classmethod
    def load(cls, directory: Path) -> Indexed:
        import bm25s

        return cls(cls.load_units(directory), bm25s.BM25.load(str(directory)))


class Bm25Rag(Retrieval):
    """Sparse retrieval."""

    name = "bm25_rag"
    summary = "the messages that share most words with the question, in the prompt"
    Config = Settings

    config: Settings

    def write(self, history: History, state: MemoryState | None = None) -> Indexed | None:
        """Index the units; continued online, the index is made anew over all of them. None of an empty history."""
        import bm25s

        units = (*(state.units if isinstance(state, Indexed) else ()), *self.units(history.messages))
        if not units:
            return None
        vocabulary: dict[str, int] = {}
        ids = [[vocabulary.setdefault(w, len(vocabulary)) for w in self._words(u.message.content)] for u in units]
        # Lucene's weights are positive even for a word in most of the units, where Okapi's turn negative.
        index = bm25s.BM25(method="lucene", k1=self.config.k1, b=self.config.b)
        index.index((ids, vocabulary), show_progress=False)
        return Indexed(units, index)

    def rank(self, state: Indexed, query: Query, count: int) -> Sequence[int]:
        known = [w for w in self._words(query.text) if w and w in state.index.vocab_dict]
        return best(state.index.get_scores(known), count) if known else range(count)

    def _words(self, text: str) -> list[str]:
        return (text.split() if self.config.tokenizer == "whitespace" else WORD.findall(text.lower())) or [""]

"""BM25 retrieval: the messages nearest to the question, by words, stand in the prompt instead of the history.

State: the messages and a sparse index of their words. Read: the best ``top_k`` within ``budget_tokens``, in the
order in which they were said. The paper does not say its unit, k or tokeniser (specification of baselines 3.1);
here a unit is the task's message, and k and the budget stand in every record.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harness.episodes import History, Message, Query
from harness.method import Capabilities, MemoryMethod, MemoryState, MethodConfig, Steering


class Settings(MethodConfig):
    """Retrieval settings; k1 and b are bm25s's and rank_bm25's common defaults."""

    top_k: int = Field(
        4, ge=1, description="Messages returned at most. Official agents: 10 chunks; here histories are short."
    )
    budget_tokens: int | None = Field(None, ge=1, description="Tokens returned at most; None sets no budget.")
    k1: float = Field(1.5, gt=0, description="Saturation of term frequency.")
    b: float = Field(0.75, ge=0, le=1, description="Strength of length normalisation.")
    tokenizer: Literal["word", "whitespace"] = Field(
        "word", description="word: lower-cased alphanumerics; whitespace: the official agents' case-sensitive split."
    )


@dataclass(frozen=True, eq=False)
class Indexed(MemoryState):
    """Messages and their BM25 index."""

    messages: tuple[Message, ...]
    index: Any

    def nbytes(self) -> int:
        """Texts, and the postings (scores, ids and pointers)."""
        postings = sum(array.nbytes for name, array in self.index.scores.items() if name != "num_docs")
        return sum(len(m.content.encode()) for m in self.messages) + postings

    def describe(self) -> dict[str, Any]:
        return {"kind": "index", "messages": len(self.messages)}

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.index.save(str(directory))
        rows = [{"content": m.content, "role": m.role, "time": m.time, "id": m.id} for m in self.messages]
        (directory / "messages.json").write_text(json.dumps(rows, ensure_ascii=False))

    @classmethod
    def load(cls, directory: Path) -> Indexed:
        import bm25s

        rows = json.loads((directory / "messages.json").read_text())
        return cls(tuple(Message(**row) for row in rows), bm25s.BM25.load(str(directory)))


class Bm25Rag(MemoryMethod):
    """Sparse retrieval over the history's messages."""

    name = "bm25_rag"
    summary = "the messages that share most words with the question, in the prompt"
    Config = Settings
    capabilities = Capabilities(family="textual", arms={"own_text": ("own",)})

    config: Settings

    def write(self, history: History, state: MemoryState | None = None) -> Indexed | None:
        """Index the messages; continued online, the index is made anew over all of them. None of an empty history."""
        import bm25s

        messages = (*(state.messages if isinstance(state, Indexed) else ()), *history.messages)
        if not messages:
            return None
        # Lucene's weights are positive even for a word in most of the messages, where Okapi's turn negative.
        index = bm25s.BM25(method="lucene", k1=self.config.k1, b=self.config.b)
        index.index([self._words(m.content) for m in messages], show_progress=False)
        return Indexed(messages, index)

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        if not isinstance(state, Indexed):
            return Steering(messages=())
        ranked = self._rank(state, query)
        kept, tokens = [], 0
        for n in ranked[: self.config.top_k]:
            tokens += self.backbone.count(state.messages[n].content)
            if self.config.budget_tokens is not None and tokens > self.config.budget_tokens:
                break
            kept.append(n)
        found = tuple(state.messages[n] for n in sorted(kept))
        return Steering(messages=found, notes={"retrieved": [m.id for m in found], "top_k": self.config.top_k})

    def _rank(self, state: Indexed, query: Query) -> list[int]:
        """Message numbers from best to worst; equal scores in the order in which they were said."""
        known = [w for w in self._words(query.text) if w and w in state.index.vocab_dict]
        if not known:
            return list(range(len(state.messages)))
        scores = state.index.get_scores(known)
        return sorted(range(len(state.messages)), key=lambda n: (-scores[n], n))

    def _words(self, text: str) -> list[str]:
        import re

        words = text.split() if self.config.tokenizer == "whitespace" else re.findall(r"\w+", text.lower())
        return words or [""]

"""Selective Context: what the backbone itself finds predictable is dropped; the rest stands in the prompt.

State: the text that is left. Read: all of it, whatever the question. Li et al. (EMNLP 2023) score units by their
self-information -log2 p(token | what precedes it); their default unit is spaCy's noun chunk, here a word or a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from baselines._compression import Compressed, Compression, Span, cut, join, overlapping, word_starts
from harness.episodes import Message
from harness.errors import HarnessError
from harness.method import MethodConfig
from harness.segments import statement_starts

if TYPE_CHECKING:
    from harness.backbones import Backbone

BATCH = 4
"""Pieces a forward pass; their scores over the vocabulary are the peak of memory."""


class Settings(MethodConfig):
    """What is scored, and how much of it goes."""

    level: Literal["word", "sentence"] = Field("word", description="Unit that is kept or dropped. Official: phrase.")
    ratio: float = Field(
        0.35, ge=0, lt=1, description="Share of the units that is dropped (reduce_ratio). Official: 0.35."
    )
    budget_tokens: int | None = Field(
        None, ge=1, description="Tokens kept at most, the best units first, dates among them, in place of the ratio."
    )
    score: Literal["mean", "sum"] = Field("mean", description="Of a unit, over its tokens. Official code: mean.")
    piece_tokens: int = Field(
        512, ge=8, description="Tokens read in one pass; a quarter of them is left context. Official: the model's."
    )

    def write_load(self, tokens: int, device: str) -> float:
        return tokens


class SelectiveContext(Compression):
    """Compression by the self-information of the backbone."""

    name = "selective_context"
    summary = "the history without the words that the backbone finds predictable"
    Config = Settings
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "selective_context": {},
        "selective_context_sentence": {"level": "sentence"},
    }

    config: Settings

    def __init__(self, config: Settings, backbone: Backbone, seed: int) -> None:
        super().__init__(config, backbone, seed)
        if config.piece_tokens > backbone.window:
            raise HarnessError(
                f"selective_context reads pieces of {config.piece_tokens} tokens, beyond the backbone's window of "
                f"{backbone.window}; lower piece_tokens"
            )

    def compress(self, messages: Sequence[Message]) -> Compressed:
        import numpy as np

        starts = statement_starts if self.config.level == "sentence" else word_starts
        units = [cut(m.content, starts(m.content)) for m in messages]
        scores = np.array(self._scores(messages, units))
        if self.config.budget_tokens is None:
            least = np.percentile(scores, 100 * self.config.ratio) if len(scores) else 0.0
            return join(messages, units, scores >= least)
        rank = np.empty(len(scores), int)
        rank[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
        return self.within(self.config.budget_tokens, len(scores), lambda n: join(messages, units, rank < n))

    def _scores(self, messages: Sequence[Message], units: Sequence[Sequence[Span]]) -> list[float]:
        """Self-information of each unit, in bits."""
        found = []
        for (spans, bits), cuts in zip(self.information([m.content for m in messages]), units, strict=True):
            for inside in overlapping(cuts, spans):
                total = sum(bits[n] for n in inside)
                found.append(total / max(1, len(inside)) if self.config.score == "mean" else total)
        return found

    def information(self, texts: Sequence[str]) -> Iterator[tuple[list[Span], list[float]]]:
        """Of each text, the offsets of its tokens and their self-information in bits.

        The texts are read as one, a line break between them, in pieces: of a piece the first quarter was scored in
        the one before and is context; the first piece begins at the beginning-of-sequence token, or the token that
        ends one.
        """
        encoded = self.backbone.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        between = self.backbone.tokenizer("\n", add_special_tokens=False)["input_ids"]
        stream: list[int] = []
        begins = []
        for ids in encoded["input_ids"]:
            stream += between if begins else []
            begins.append(len(stream))
            stream += ids
        bits = self._bits(stream)
        for begin, spans in zip(begins, encoded["offset_mapping"], strict=True):
            yield spans, bits[begin : begin + len(spans)]

    def _bits(self, stream: Sequence[int]) -> list[float]:
        """-log2 p of each token given those before it in its piece."""
        start = self.backbone.tokenizer.bos_token_id
        ids = [self.backbone.eos_token_ids[0] if start is None else start, *stream]
        size, stride = self.config.piece_tokens, self.config.piece_tokens - self.config.piece_tokens // 4
        pieces = [ids[at : at + size] for at in range(0, max(1, len(ids) - (size - stride)), stride)]
        found: list[float] = []
        for at in range(0, len(pieces), BATCH):
            batch = pieces[at : at + BATCH]
            for n, bits in enumerate(self._read(batch), at):
                found += bits if n == 0 else bits[size - stride - 1 :]
        self.effort.lm_calls += len(pieces)
        self.effort.tokens_read += sum(map(len, pieces))
        return found

    def _read(self, pieces: Sequence[Sequence[int]]) -> Iterator[list[float]]:
        """-log2 p of every token of a piece but the first; pieces are padded on the right, where none looks."""
        import torch

        width = max(map(len, pieces))
        rows = [[*p, *[self.backbone.pad_token_id] * (width - len(p))] for p in pieces]
        ids = torch.tensor(rows, device=self.backbone.device)
        with torch.no_grad():
            scores: Any = self.backbone.model(input_ids=ids, use_cache=False).logits
        for row, target, piece in zip(scores, ids, pieces, strict=True):
            logs = row[:-1].float().log_softmax(-1).gather(1, target[1:, None])[: len(piece) - 1, 0]
            yield (logs / -math.log(2)).tolist()

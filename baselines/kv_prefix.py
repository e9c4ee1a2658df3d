"""Per-context prefix: p keys and values a layer, begun as the context's own and distilled until they stand for it.

Cartridges (specification of baselines 6). State: the cache of p positions. Write: the first p positions of the cached
context are the start, position 0 (the attention sink) stays; the teacher is the frozen backbone with the context in
the prompt, the student the backbone behind the prefix, and both read questions made from the context's own words.
Read: the question alone, from position p on.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from harness.episodes import History, Message, Query
from harness.errors import HarnessError, UnsupportedError
from harness.method import Capabilities, MemoryMethod, MemoryState, MethodConfig, Steering
from harness.triples import VERBS, parse

if TYPE_CHECKING:
    from harness.backbones import Backbone

FILE = "prefix.safetensors"

ABOUT = "What does the text say about {}?"
FACT = "{} / {}: say the word of the text that belongs in the third column."
COMPLETE = "Complete the sentence with words of the text: {}"
REPEAT = "Repeat what you were told, word for word."


class Settings(MethodConfig):
    """Sizes for two cores and histories of some ten facts; the official values are for contexts of 100k tokens."""

    tokens: int = Field(
        64, ge=1, description="p, positions kept; a shorter context keeps its own. PEFT's example: 256."
    )
    steps: int = Field(40, ge=0, description="Gradient steps a context; 0 keeps the first p as they are. PEFT's: 500.")
    learning_rate: float = Field(2e-2, gt=0, description="AdamW's, constant. PEFT's: 1e-3, for ten times the steps.")
    batch_size: int = Field(8, ge=1, description="Questions a step.")
    truth: float = Field(
        1.0,
        ge=0,
        description="Weight of the answer's own tokens beside the teacher's scores. Cartridges: 0; a teacher of 135M "
        "parameters knows the context's words but does not answer from them.",
    )
    top_logits: int = Field(20, ge=1, description="Of the teacher's next-token scores, those kept. Cartridges: 20.")
    frozen: int = Field(1, ge=0, description="First positions that are not trained, the attention sink. Cartridges: 1.")
    longest: int = Field(128, ge=1, description="Tokens of an answer that are distilled at most.")

    def write_load(self, tokens: int, device: str) -> float:
        """The history, and questions of some forty tokens."""
        return tokens + 2 * self.steps * self.batch_size * 40


@dataclass(frozen=True, eq=False)
class Prefix(MemoryState):
    """Keys and values [layers, 2, kv_heads, p, head_dim], rotated to positions 0 .. p - 1."""

    kv: Any

    def nbytes(self) -> int:
        """layers x 2 x kv_heads x head_dim x p numbers."""
        return self.kv.numel() * self.kv.element_size()

    def describe(self) -> dict[str, Any]:
        return {"kind": "kv", "tokens": self.kv.shape[3], "norm": round(float(self.kv.float().norm()), 4)}

    def save(self, directory: Path) -> None:
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        save_file({"kv": self.kv.detach().cpu().contiguous()}, directory / FILE)

    @classmethod
    def load(cls, directory: Path) -> Prefix:
        from safetensors.torch import load_file

        return cls(load_file(directory / FILE)["kv"])


@dataclass(frozen=True)
class _Start:
    """Makes a fresh cache that holds a prefix; equal for one state, so that its questions share a batch."""

    state: Prefix
    method: KvPrefix

    def __call__(self) -> Any:
        return self.method.cache(self.state.kv)


@dataclass
class _Lesson:
    """A question behind the prefix with its answer, and what the teacher would say at each token of it."""

    ids: list[int]
    answer: int
    """Where the answer begins."""
    tokens: Any = None
    """The teacher's likeliest tokens [answer, k]."""
    logs: Any = None
    """Their log-probabilities [answer, k], nats."""


class KvPrefix(MemoryMethod):
    """A distilled prefix a context."""

    name = "kv_prefix"
    summary = "64 keys and values a layer, distilled from the frozen backbone with the history in the prompt"
    Config = Settings
    capabilities = Capabilities(family="parametric", arms={"windowed": ("own", "donor"), "removed": ("own", "donor")})

    config: Settings

    def __init__(self, config: Settings, backbone: Backbone, seed: int) -> None:
        super().__init__(config, backbone, seed)
        if config.tokens >= backbone.window:
            raise HarnessError(
                f"a prefix of {config.tokens} tokens leaves no room in the backbone's window of {backbone.window}; "
                "lower tokens"
            )

    def write(self, history: History, state: MemoryState | None = None) -> Prefix | None:
        """Read the history once, keep p positions, distil. None of an empty history.

        Raises:
            UnsupportedError: there is a state to continue; a prefix is written whole.
        """
        if state is not None:
            raise UnsupportedError("'kv_prefix' cannot continue a state; write the whole history at once")
        if not history.messages:
            return None
        import torch

        ids, _ = self.backbone.encode(history.messages, system=history.system)
        if len(ids) > self.backbone.window:
            raise UnsupportedError(
                f"the history's {len(ids)} tokens do not fit the backbone's window of {self.backbone.window}; lower "
                "the task's max_history_tokens"
            )
        with torch.no_grad():
            context = self._read(ids)
        kept = min(self.config.tokens, len(ids))
        kv = torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in context.layers])[..., :kept, :]
        if self.config.steps and kept > self.config.frozen:
            with torch.random.fork_rng(), torch.enable_grad():
                kv = self._distilled(kv, self._lessons(history, ids, context))
        return Prefix(kv.detach().contiguous())

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        return Steering(past_key_values=_Start(state, self)) if isinstance(state, Prefix) else Steering()

    def cache(self, kv: Any, rows: int = 1) -> Any:
        """A cache of ``rows`` equal rows that holds keys and values [layers, 2, kv_heads, p, head_dim]."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.backbone.model.config)
        for layer, (keys, values) in enumerate(kv.to(self.backbone.device)):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        return cache

    def _read(self, ids: Sequence[int]) -> Any:
        """The cache after a context."""
        import torch
        from transformers import DynamicCache

        cache = DynamicCache(config=self.backbone.model.config)
        self._count(1, len(ids))
        decoder = self.backbone.model.get_decoder()
        decoder(input_ids=torch.tensor([ids], device=self.backbone.device), past_key_values=cache)
        return cache

    def _count(self, rows: int, tokens: int) -> None:
        self.effort.lm_calls += rows
        self.effort.tokens_read += tokens

    # --- the teacher ---

    def _lessons(self, history: History, context_ids: Sequence[int], context: Any) -> list[_Lesson]:
        """Questions with the teacher's scores, computed once. Teacher and student read the same answers."""
        import torch

        lessons, behind = [], []
        for question, answer in questions(history, self.seed):
            told = self.backbone.tokenizer(answer, add_special_tokens=False)["input_ids"][: self.config.longest]
            told.append(self.backbone.turn_end_id)
            asked = [
                self.backbone.encode([*before, Message(question)], system=history.system, answer_next=True)[0]
                for before in ((), history.messages)
            ]
            lessons.append(_Lesson(asked[0] + told, len(asked[0])))
            behind.append((asked[1], told))
        # A template may render the last message otherwise once a question follows it: that part is read again.
        shared = min(_common(context_ids, asked) for asked, _ in behind)
        teacher = [_Lesson(asked[shared:] + told, len(asked) - shared) for asked, told in behind]
        size = self.config.batch_size
        for at in range(0, len(lessons), size):
            cache = copy.deepcopy(context)
            if shared < len(context_ids):
                cache.crop(shared - len(context_ids))
            cache.batch_repeat_interleave(len(teacher[at : at + size]))
            with torch.no_grad():
                logs = self._scores(teacher[at : at + size], cache)
            for lesson, found in zip(lessons[at : at + size], logs, strict=True):
                lesson.logs, lesson.tokens = found.topk(min(self.config.top_logits, found.shape[-1]))
        return lessons

    def _scores(self, lessons: Sequence[_Lesson], cache: Any) -> list[Any]:
        """Log-probabilities [answer, V] of each lesson's answer, read behind a cache with a row a lesson."""
        import torch

        width = max(len(lesson.ids) for lesson in lessons) - 1
        pad = self.backbone.pad_token_id  # on the right, where no token of a causal model sees it
        rows = [lesson.ids[:-1] + [pad] * (width + 1 - len(lesson.ids)) for lesson in lessons]
        self._count(len(lessons), sum(len(lesson.ids) - 1 for lesson in lessons))
        model, ids = self.backbone.model, torch.tensor(rows, device=self.backbone.device)
        hidden = model.get_decoder()(input_ids=ids, past_key_values=cache).last_hidden_state
        kept = [hidden[n, lesson.answer - 1 : len(lesson.ids) - 1] for n, lesson in enumerate(lessons)]
        logs = model.get_output_embeddings()(torch.cat(kept)).float().log_softmax(-1)
        return list(logs.split([len(k) for k in kept]))

    # --- the student ---

    def _distilled(self, kv: Any, lessons: Sequence[_Lesson]) -> Any:
        """Keys and values after ``steps`` of AdamW on the divergence from the teacher."""
        import torch

        # Steps are taken in fp32: in bf16 most of them would be rounded away.
        fixed, free = (
            kv[..., : self.config.frozen, :],
            kv[..., self.config.frozen :, :].float().clone().requires_grad_(),
        )
        optimiser = torch.optim.AdamW([free], lr=self.config.learning_rate, weight_decay=0.0)
        rng, waiting = random.Random(f"kv_prefix/{self.seed}"), []
        for _ in range(self.config.steps):
            while len(waiting) < self.config.batch_size:
                waiting += rng.sample(range(len(lessons)), len(lessons))
            batch = [lessons[waiting.pop(0)] for _ in range(self.config.batch_size)]
            found = self._scores(batch, self.cache(torch.cat([fixed, free.to(kv.dtype)], -2), len(batch)))
            pairs = list(zip(batch, found, strict=True))
            loss = torch.cat([_divergence(*pair) + self.config.truth * _surprise(*pair) for pair in pairs]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            self.effort.gradient_steps += 1
        return torch.cat([fixed, free.to(kv.dtype)], -2)


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _divergence(lesson: _Lesson, logs: Any) -> Any:
    """Kullback-Leibler divergence from the teacher over its likeliest tokens [answer], nats."""
    return (lesson.logs.exp() * (lesson.logs - logs.gather(-1, lesson.tokens))).sum(-1)


def _surprise(lesson: _Lesson, logs: Any) -> Any:
    """Negative log-probability of the answer's tokens [answer], nats."""
    return -logs.gather(-1, logs.new_tensor(lesson.ids[lesson.answer :]).long()[:, None])[:, 0]


def questions(history: History, seed: int) -> list[tuple[str, str]]:
    """Questions about a history in its own words, with answers in its own words; never a task's questions.

    Three a sentence: what is said of a word of it, its rest after a beginning, its last word; a fourth of one that
    tells a thing of someone, as a row of a table. And the repetition of all.
    """
    rng, found = random.Random(f"kv_prefix/questions/{seed}"), [(REPEAT, _told(history))]
    for sentence in _sentences(history):
        words = sentence.split()
        names = [w for word in words if len(w := word.strip(".,;:!?\"'()")) > 3 or w[:1].isupper()] or words
        found.append((ABOUT.format(rng.choice(names)), sentence))
        if len(words) > 1:
            cut = rng.randrange(1, len(words))
            found.append((COMPLETE.format(" ".join(words[:cut])), " ".join(words[cut:])))
            found.append((COMPLETE.format(" ".join(words[:-1])), words[-1]))
        fact = parse(sentence)
        if fact is not None and fact.relation not in VERBS:
            found.append((FACT.format(fact.subject, fact.relation), fact.object))
    return found


def _told(history: History) -> str:
    return "\n".join(message.content for message in history.messages)


def _sentences(history: History) -> list[str]:
    return [s for s in re.split(r"(?<=[.!?])\s+|\n+", _told(history)) if s.strip()]

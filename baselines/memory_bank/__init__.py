"""MemoryBank: dated turns, summaries of days, a global summary and a portrait, with a curve of forgetting.

State: what was said, day by day, its summaries, a sentence vector of each, and how often a turn was recalled. Read:
the portrait, the global summary and the turns and days nearest to the question, by date. Zhong et al. (AAAI 2024).
"""

from __future__ import annotations

import json
import math
import random
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from baselines.memory_bank import _digests
from baselines.memory_bank._digests import Digests, day_name, days_of
from harness import chunks
from harness.embedding import PACKAGED, Embedder, embedder
from harness.episodes import History, Message, Query
from harness.errors import HarnessError
from harness.method import Capabilities, MemoryMethod, MemoryState, MethodConfig, Steering

if TYPE_CHECKING:
    from harness.backbones import Backbone

Curve = Literal["off", "paper", "official_code", "scaled"]


class Settings(MethodConfig):
    """Official values are those of the released SiliconFriend; the δ-mem paper does not say its own."""

    top_k: int = Field(2, ge=1, description="Turns and days recalled. Official: 2 by its command line, 6 forgetting.")
    widen_characters: int = Field(
        0, ge=0, description="Characters up to which a hit takes in neighbours of its day; 0: none. Official: 200."
    )
    budget_tokens: int | None = Field(None, ge=1, description="Tokens put back at most, dates among them.")
    summarizer: Literal["extractive", "lm"] = Field(
        "extractive",
        description="lm: the backbone, greedy. extractive: the most central sentences. Official: gpt-3.5-turbo.",
    )
    summary_tokens: int = Field(128, ge=1, description="New tokens of one summary at most (lm). Official: 400.")
    summary_sentences: int = Field(3, ge=1, description="Sentences of one summary (extractive).")
    include_global_summary: bool = Field(
        True, description="The summary of all days stands in the prompt. Official English templates leave it out."
    )
    include_portrait: bool = Field(True, description="Portraits are made and stand in the prompt. Official: on.")
    forgetting: Curve = Field(
        "off",
        description="Retention after a time t at strength S. paper: exp(-t/S); official_code: exp(-S t/5); scaled: "
        "exp(-t/(5 S)). Official default: off.",
    )
    time_unit: Literal["day", "session"] = Field(
        "day", description="What t counts: days, or days on which something was said. Official: day."
    )
    now: date | None = Field(
        None,
        description="The day on which questions are asked; None: the day after the last. Official: the wall clock.",
    )
    online: bool = Field(
        False, description="Recall strengthens: what questions recalled is stronger after the next write. Official: on."
    )
    embedder: str = Field(PACKAGED, description="Sentence encoder, a package or folder. Official: all-MiniLM-L6-v2.")

    def write_load(self, tokens: int, device: str) -> float:
        """Two readings a day, of one day, and two of the digests; a decoded token is taken for ten read."""
        return 2 * tokens + 4 * 10 * self.summary_tokens if self.summarizer == "lm" else 0.0


@dataclass(frozen=True, eq=False)
class Bank(MemoryState):
    """What is remembered; days are proleptic ordinals, a history without dates is day 1."""

    messages: tuple[Message, ...]
    days: np.ndarray
    """[N] int32: when each turn was said."""
    strength: np.ndarray
    """[N] int32, S: 1, and 1 more for each recall."""
    recalled: np.ndarray
    """[N] int32: the day of the last recall, at first that of the turn."""
    digests: Digests
    sessions: tuple[int, ...]
    """Every day on which something was said, forgotten ones too."""
    vectors: np.ndarray
    """[N + D, E] fp32: of the turns, then of the days' summaries in order."""
    summarizer: str

    def nbytes(self) -> int:
        """Texts in UTF-8, 4 E bytes a turn and a day, 12 a turn for its numbers and 4 a session."""
        arrays = self.days, self.strength, self.recalled, self.vectors
        texts = [*(m.content for m in self.messages), *self.digests.texts()]
        return sum(len(t.encode()) for t in texts) + sum(a.nbytes for a in arrays) + 4 * len(self.sessions)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "bank",
            "messages": len(self.messages),
            "days": len(self.digests.events),
            "summarizer": self.summarizer,
            "strength": int(self.strength.sum()),
        }

    def save(self, directory: Path) -> None:
        from safetensors.numpy import save_file

        directory.mkdir(parents=True, exist_ok=True)
        facts = {
            "messages": [asdict(m) for m in self.messages],
            "digests": asdict(self.digests),
            "sessions": self.sessions,
            "summarizer": self.summarizer,
        }
        (directory / "bank.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
        names = ("days", "strength", "recalled", "vectors")
        save_file({n: np.ascontiguousarray(getattr(self, n)) for n in names}, directory / "bank.safetensors")

    @classmethod
    def load(cls, directory: Path) -> Bank:
        from safetensors.numpy import load_file

        facts = json.loads((directory / "bank.json").read_text(encoding="utf-8"))
        return cls(
            messages=tuple(Message(**row) for row in facts["messages"]),
            digests=Digests.of(facts["digests"]),
            sessions=tuple(facts["sessions"]),
            summarizer=facts["summarizer"],
            **load_file(directory / "bank.safetensors"),
        )


def retention(curve: Curve, t: float, strength: float) -> float:
    """The probability that a turn is kept at a time ``t`` after its last recall.

    The official code's division binds so that a stronger turn is forgotten faster; ``scaled`` is what it may have
    meant.
    """
    if curve == "off":
        return 1.0
    if curve == "official_code":
        return math.exp(-strength * t / 5)
    return math.exp(-t / (strength if curve == "paper" else 5 * strength))


class MemoryBank(MemoryMethod):
    """Summaries, dense recall and forgetting.

    In ``online`` mode a question notes on the method, not in the state, what it recalled. The next write that
    continues the state, also one of an empty history, begins from a copy in which these turns are stronger.
    """

    name = "memory_bank"
    summary = "dated turns and summaries, recalled by sentence vectors, with a portrait and a global summary"
    Config = Settings
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"memory_bank": {}, "memory_bank_lm": {"summarizer": "lm"}}
    capabilities = Capabilities(family="textual", arms={"own_text": ("own", "donor")})

    config: Settings

    def __init__(self, config: Settings, backbone: Backbone, seed: int) -> None:
        super().__init__(config, backbone, seed)
        if config.summarizer == "lm" and config.summary_tokens > backbone.window // 2:
            raise HarnessError(
                f"summaries of {config.summary_tokens} tokens leave no room to read in the backbone's window of "
                f"{backbone.window}; lower summary_tokens"
            )
        if config.online and config.forgetting == "off":
            raise HarnessError("memory_bank's recalls act on forgetting alone; set forgetting beside online")
        self._recalls: weakref.WeakKeyDictionary[Bank, list[int]] = weakref.WeakKeyDictionary()

    @property
    def embedder(self) -> Embedder:
        """The encoder, where the backbone is; loaded when it is first used."""
        return embedder(self.config.embedder, str(self.backbone.device))

    def extra_parameters(self) -> int:
        """The sentence encoder's."""
        return self.embedder.parameters()

    def write(self, history: History, state: MemoryState | None = None) -> Bank | None:
        """Summarise the days, embed, and forget as of ``now``. None of an empty history.

        Continued online, days to which turns were added are summarised again, and what is global anew. What was
        forgotten stays so; what is left is held against the curve again, at the new ``now``.

        Raises:
            HarnessError: a date does not parse, a history with dates continues one without, or ``now`` is in the past.
        """
        held = self._strengthened(state) if isinstance(state, Bank) else None
        if not history.messages:
            return held
        days = days_of(history.messages, held.sessions[-1] if held else None)
        if held is not None and held.sessions[-1] == 1 and max(days) > 1:
            raise HarnessError("memory_bank cannot continue an undated history with a dated one; give both dates")
        new = np.array(days, np.int32)
        vectors = self._embedded([_dated(m.content, day) for m, day in zip(history.messages, days, strict=True)])
        if held is None:
            bank = Bank(history.messages, new, np.ones_like(new), new, Digests(), (), vectors, self.config.summarizer)
        else:
            bank = replace(
                held,
                messages=held.messages + history.messages,
                days=np.concatenate([held.days, new]),
                strength=np.concatenate([held.strength, np.ones_like(new)]),
                recalled=np.concatenate([held.recalled, new]),
                vectors=np.concatenate([held.vectors[: len(held.messages)], vectors]),
            )
        bank = replace(bank, sessions=tuple(sorted({*bank.sessions, *days})))
        return self._forgotten(self._consolidated(bank, set(days)))

    def _consolidated(self, bank: Bank, changed: set[int]) -> Bank:
        """Summaries of the changed days, and of all of them; ``vectors`` are of turns alone before, of both after."""
        texts: dict[int, list[str]] = {day: [] for day in sorted(changed)}
        for message, day in zip(bank.messages, bank.days.tolist(), strict=True):
            if day in texts:
                texts[day].append(message.content)
        make = _digests.by_backbone if self.config.summarizer == "lm" else _digests.by_extraction
        digests = make(self, texts, bank.digests)
        days = self._embedded([_dated(text, day) for day, text in digests.events.items()])
        return replace(bank, digests=digests, vectors=np.concatenate([bank.vectors, days]))

    def _embedded(self, texts: Sequence[str]) -> np.ndarray:
        return self.embedder.encode(texts)

    # --- forgetting ---

    def now(self, bank: Bank) -> int:
        """The day on which questions are asked; a history without dates knows none but the next."""
        last = bank.sessions[-1]
        if self.config.now is None or last == 1:
            return last + 1
        if self.config.now.toordinal() < last:
            raise HarnessError(
                f"memory_bank is asked on {self.config.now}, before the last turn of {day_name(last)}; set now to a "
                "later day or leave it unset"
            )
        return self.config.now.toordinal()

    def _forgotten(self, bank: Bank) -> Bank:
        """Without the turns that the draws of this day drop, and without the summaries of emptied days."""
        now = self.now(bank)
        if self.config.forgetting == "off":
            return bank
        keep = [n for n in range(len(bank.messages)) if self._stays(bank, n, now)]
        left = {int(bank.days[n]) for n in keep}
        rows = [n for n, day in enumerate(bank.digests.events, len(bank.messages)) if day in left]
        return replace(
            bank,
            messages=tuple(bank.messages[n] for n in keep),
            **{name: getattr(bank, name)[keep] for name in ("days", "strength", "recalled")},
            digests=bank.digests.of_days(left),
            vectors=bank.vectors[keep + rows],
        )

    def _stays(self, bank: Bank, n: int, now: int) -> bool:
        """A turn's draw: its own, whatever else is in the history, and one for all writes, so that what is left after a
        time is the curve's share of the turns however often they were looked at. The official code draws anew each day.
        """
        t, m = now - int(bank.recalled[n]), bank.messages[n]
        if self.config.time_unit == "session":
            t = sum(bank.recalled[n] < day <= now for day in {*bank.sessions, now})
        on = now if self.config.forgetting == "official_code" else "ever"
        draw = random.Random(f"{self.seed}/{on}/{m.id}/{m.time}/{m.content}").random()
        return draw < retention(self.config.forgetting, t, int(bank.strength[n]))

    def _strengthened(self, bank: Bank) -> Bank:
        """A copy in which what was recalled since it was written is stronger; itself where nothing was."""
        found = self._recalls.get(bank, [])
        if not found:
            return bank
        strength, recalled = bank.strength.copy(), bank.recalled.copy()
        np.add.at(strength, found, 1)
        recalled[found] = self.now(bank)
        return replace(bank, strength=strength, recalled=recalled)

    # --- reading ---

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        if not isinstance(state, Bank):
            return Steering(messages=())
        hits = self._nearest(state, query)
        turns = [n for n in hits if n < len(state.messages)]
        if self.config.online and turns:
            self._recalls.setdefault(state, []).extend(turns)
        wanted: list[int | str] = [*hits, *self._neighbours(state, turns)]
        if self.config.include_global_summary and state.digests.overview:
            wanted.append("overview")
        if self.config.include_portrait and state.digests.portrait:
            wanted.append("portrait")
        wanted = _new(state, wanted)
        count = len(wanted)
        if self.config.budget_tokens is not None:
            count = chunks.most(
                self.config.budget_tokens,
                count,
                lambda n: chunks.told_tokens(_assembled(state, wanted[:n]), self.backbone),
            )
        notes = {
            "retrieved": [_label(state, n) for n in hits],
            "put_back": [n if isinstance(n, str) else _label(state, n) for n in wanted[:count]],
            "top_k": self.config.top_k,
            "summarizer": state.summarizer,
            "forgetting": self.config.forgetting,
            "dates": "none: one day" if state.sessions == (1,) else f"{len(state.sessions)} days",
        }
        return Steering(messages=_assembled(state, wanted[:count]), notes=notes)

    def _nearest(self, bank: Bank, query: Query) -> list[int]:
        """Rows of ``vectors``, best first; of unit vectors the nearest are those of the largest product."""
        if not len(bank.vectors):
            return []
        scores = bank.vectors @ self._embedded([query.text])[0]
        return np.argsort(-scores, kind="stable")[: self.config.top_k].tolist()

    def _neighbours(self, bank: Bank, turns: Sequence[int]) -> list[int]:
        """The turns after and before each recalled one, by turns, until the next would exceed the width."""
        found: dict[int, None] = {}
        for n in turns:
            room = self.config.widen_characters - len(bank.messages[n].content)
            for step in range(1, len(bank.messages)):
                near = [m for m in (n + step, n - step) if 0 <= m < len(bank.days) and bank.days[m] == bank.days[n]]
                for m in near:
                    room -= len(bank.messages[m].content)
                    if room >= 0:
                        found[m] = None
                if room < 0 or not near:
                    break
        return [m for m in found if m not in turns]


def _new(bank: Bank, wanted: Sequence[int | str]) -> list[int | str]:
    """Without what says nothing that those before it do not say: an extract of a short day is that day."""
    told: set[str] = set()
    kept = []
    for n in wanted:
        said = set(_digests.sentences([_text(bank, n)]))
        if said - told:
            kept.append(n)
        told |= said
    return kept


def _text(bank: Bank, n: int | str) -> str:
    """What a row of ``vectors``, or a global text by name, says."""
    if isinstance(n, str):
        return str(getattr(bank.digests, n))
    return (
        bank.messages[n].content if n < len(bank.messages) else [*bank.digests.events.values()][n - len(bank.messages)]
    )


def _dated(text: str, day: int) -> str:
    return f"{day_name(day)}: {text}" if day > 1 else text


def _label(bank: Bank, n: int) -> str:
    """A turn's id, or its number where it has none; the day of a summary."""
    if n < len(bank.messages):
        return bank.messages[n].id or str(n)
    return f"summary of {day_name([*bank.digests.events][n - len(bank.messages)])}"


def _assembled(bank: Bank, wanted: Sequence[int | str]) -> tuple[Message, ...]:
    """Portrait, global summary, and then day by day its summary and its turns."""
    heads = [
        Message(f"{title}: {text}")
        for name, title, text in (
            ("portrait", "What is known of the speakers", bank.digests.portrait),
            ("overview", "Summary of all that was said", bank.digests.overview),
        )
        if name in wanted
    ]
    events, size = [*bank.digests.events.items()], len(bank.messages)
    dated = []
    for n in (n for n in wanted if isinstance(n, int)):
        if n < size:
            dated.append((int(bank.days[n]), 1, n, bank.messages[n]))
        else:
            day, text = events[n - size]
            time = next((m.time for m, d in zip(bank.messages, bank.days, strict=True) if d == day), None)
            dated.append((day, 0, n, Message(f"Summary of the day: {text}", time=time)))
    return (*heads, *(row[-1] for row in sorted(dated, key=lambda row: row[:3])))

"""What the memories that drop part of a text have in common: their state, their units, and writing within a budget.

A unit is a sentence or a word with the whitespace before it, so that the units of a text join to the text itself.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import chunks
from harness.chunks import Texts
from harness.episodes import History, Message, Query
from harness.method import Capabilities, MemoryMethod, MemoryState, Steering

Span = tuple[int, int]
"""Offsets [start, end) in a message's text."""


@dataclass(frozen=True, eq=False)
class Compressed(Texts):
    """Messages after compression."""

    cut: int
    """Units, words or sentences, that the history was cut into."""
    kept: int

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "cut": self.cut, "kept": self.kept}

    def save(self, directory: Path) -> None:
        super().save(directory)
        (directory / "counts.json").write_text(json.dumps({"cut": self.cut, "kept": self.kept}))

    @classmethod
    def load(cls, directory: Path) -> Compressed:
        return cls(cls.load_units(directory), **json.loads((directory / "counts.json").read_text()))


class Compression(MemoryMethod):
    """A text memory whose state is the history without some of its units."""

    capabilities = Capabilities(family="textual", arms={"own_text": ("own", "donor")})
    config: Any

    @abstractmethod
    def compress(self, messages: Sequence[Message]) -> Compressed:
        """What is left of some messages."""

    def write(self, history: History, state: MemoryState | None = None) -> Compressed | None:
        """Compress a history. Continued online, what is new is compressed and comes after what is held; under a
        budget both are compressed anew, together. None of an empty history.
        """
        held = state if isinstance(state, Compressed) else None
        if not history.messages:
            return held
        if held is None:
            return self.compress(history.messages)
        if self.config.budget_tokens is not None:
            return self.compress((*held.messages, *history.messages))
        new = self.compress(history.messages)
        return Compressed(held.units + new.units, held.cut + new.cut, held.kept + new.kept)

    def within(self, budget: int, levels: int, build: Callable[[int], Compressed]) -> Compressed:
        """The last text of ``build(0)``, of nothing, to ``build(levels)``, of all, that has at most ``budget`` tokens,
        dates among them.
        """
        found = build(chunks.most(budget, levels, lambda n: chunks.told_tokens(build(n).messages, self.backbone)))
        if chunks.told_tokens(found.messages, self.backbone) > budget:  # blank messages, which have dates alone
            return Compressed((), found.cut, 0)
        return found

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        if not isinstance(state, Compressed):
            return Steering(messages=())
        notes = {"kept": state.kept, "cut": state.cut, "budget_tokens": self.config.budget_tokens}
        return Steering(messages=state.messages, notes=notes)


def cut(text: str, starts: Sequence[int]) -> list[Span]:
    """The units of a text that begin at ``starts`` (the first at 0); they leave nothing out."""
    return list(zip(starts, [*starts, len(text)][1:], strict=True))


def word_starts(text: str) -> list[int]:
    """Where words begin: at the whitespace in front of them, the first at 0; none in a blank text."""
    return [0, *[m.start() for m in re.finditer(r"\s*\S+", text)][1:]] if text.strip() else []


def overlapping(units: Sequence[Span], tokens: Sequence[Span]) -> list[list[int]]:
    """The numbers of the tokens that share a character with each unit; a token that reaches over a cut is in both."""
    starts, ends = [a for a, _ in units], [b for _, b in units]
    found: list[list[int]] = [[] for _ in units]
    for n, (begin, end) in enumerate(tokens):
        for unit in range(bisect_right(ends, begin), bisect_left(starts, end)):
            found[unit].append(n)
    return found


def join(messages: Sequence[Message], units: Sequence[Sequence[Span]], keep: Sequence[bool]) -> Compressed:
    """What is left of messages when only the units with ``keep``, counted through all messages, stay.

    A message that loses nothing is itself; one that loses all is gone, and so are blank ones unless all stays. Roles,
    times and ids stay.
    """
    left, at, whole = [], 0, all(keep)
    for message, spans in zip(messages, units, strict=True):
        kept = [span for span, stays in zip(spans, keep[at : at + len(spans)], strict=True) if stays]
        at += len(spans)
        text = "".join(message.content[a:b] for a, b in kept).strip()
        if whole or (spans and len(kept) == len(spans)):
            left.append(message)
        elif text:
            left.append(replace(message, content=text))
    return Compressed(chunks.whole(left), at, sum(map(bool, keep)))

"""What a text memory can put back: messages, or the chunks of long ones, counted as a reader sees them."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.episodes import Message, spoken
from harness.method import MemoryState
from harness.segments import sentence_starts

if TYPE_CHECKING:
    from harness.backbones import Backbone


@dataclass(frozen=True)
class Unit:
    """A message, or one chunk of a long one."""

    message: Message
    continues: bool = False
    """Goes on with the message that the unit before it is of."""


@dataclass(frozen=True, eq=False)
class Texts(MemoryState):
    """Messages, or chunks of them, in the order in which they were said."""

    units: tuple[Unit, ...]
    kind: ClassVar[str] = "text"

    @property
    def messages(self) -> tuple[Message, ...]:
        """The history that was kept."""
        return joined(self.units, range(len(self.units)))

    def nbytes(self) -> int:
        """Texts in UTF-8."""
        return sum(len(u.message.content.encode()) for u in self.units)

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "messages": len(self.units)}

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        rows = [{**asdict(u.message), "continues": u.continues} for u in self.units]
        (directory / "units.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")

    @staticmethod
    def load_units(directory: Path) -> tuple[Unit, ...]:
        """The units that ``save`` wrote."""
        rows = json.loads((directory / "units.json").read_text(encoding="utf-8"))
        return tuple(Unit(continues=row.pop("continues"), message=Message(**row)) for row in rows)

    @classmethod
    def load(cls, directory: Path) -> Texts:
        return cls(cls.load_units(directory))


def whole(messages: Sequence[Message]) -> tuple[Unit, ...]:
    """One unit a message."""
    return tuple(Unit(m) for m in messages)


def chunked(messages: Sequence[Message], limit: int, backbone: Backbone) -> tuple[Unit, ...]:
    """One unit a message of at most ``limit`` tokens; longer ones in chunks, packed at sentence boundaries.

    A sentence that is longer itself is cut between tokens. The chunks of a message, one after the other, are its text.
    """
    packed = [(m, n, text) for m in messages for n, text in enumerate(_packed(m.content, limit, backbone))]
    return tuple(Unit(replace(m, content=text), n > 0) for m, n, text in packed)


def joined(units: Sequence[Unit], numbers: Sequence[int]) -> tuple[Message, ...]:
    """The units of these numbers as messages; chunks that follow each other in one message are one again.

    All numbers in order give the messages that the units were made of. What is only part of a message loses blank ends.
    """
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1 and units[n].continues:
            runs[-1].append(n)
        else:
            runs.append([n])
    return tuple(_message(units, run[0], run[-1] + 1) for run in runs)


def _message(units: Sequence[Unit], start: int, end: int) -> Message:
    text = "".join(u.message.content for u in units[start:end])
    part = units[start].continues or (end < len(units) and units[end].continues)
    return replace(units[start].message, content=text.strip() if part else text)


def told_tokens(messages: Sequence[Message], backbone: Backbone) -> int:
    """Tokens of the texts of messages, with the dates that a reader is told; the chat template's own are not among
    them.

    Every ``budget_tokens`` of a text memory is held against this.
    """
    return sum(backbone.count(text) for text in spoken(messages))


def most(limit: int, end: int, cost: Callable[[int], int]) -> int:
    """The largest n from 0 to ``end`` whose cost, which grows with n, is within ``limit``.

    Asks for the cost of few n, none of them far beyond the answer.
    """
    high = 1
    while high < end and cost(high) <= limit:
        high *= 2
    low = high // 2
    return low + bisect_right(range(low + 1, min(high, end) + 1), limit, key=cost)


def ending(messages: Sequence[Message], budget: int, backbone: Backbone) -> tuple[Message, ...]:
    """The last ``budget`` tokens told: whole messages from the end, and of the one before them what still fits."""
    size = len(messages)
    count = most(budget, size, lambda n: told_tokens(messages[size - n :], backbone))
    kept = tuple(messages[size - count :])
    return kept if count == size else (*_end_of(messages[size - count - 1], kept, budget, backbone), *kept)


def _end_of(message: Message, kept: tuple[Message, ...], budget: int, backbone: Backbone) -> tuple[Message, ...]:
    """As many last tokens of a message as fit before those kept; none where its date alone does not."""
    text = message.content
    spans = backbone.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    def end(n: int) -> Message:
        return replace(message, content=text[spans[-n][0] :])

    count = most(budget, len(spans), lambda n: told_tokens((end(n), *kept), backbone))
    return (end(count),) if count else ()


def _packed(text: str, limit: int, backbone: Backbone) -> list[str]:
    """Sentence after sentence, as many in a chunk as have at most ``limit`` tokens one by one."""
    starts = sentence_starts(text) or [0]
    sentences = [text[a:b] for a, b in pairwise([*starts, len(text)])]
    encoded = backbone.tokenizer(sentences, add_special_tokens=False, return_attention_mask=False)
    chunks: list[list[str]] = [[]]
    room = limit
    for sentence, size in zip(sentences, map(len, encoded["input_ids"]), strict=True):
        if size <= room:
            chunks[-1].append(sentence)
            room -= size
        else:
            parts = _cut(sentence, limit, backbone) if size > limit else [sentence]
            chunks += [[part] for part in parts]
            room = limit - (backbone.count(parts[-1]) if size > limit else size)
    return ["".join(chunk) for chunk in chunks if chunk]


def _cut(text: str, limit: int, backbone: Backbone) -> list[str]:
    """Pieces of at most ``limit`` tokens; no character is cut in two, however many tokens it has."""
    spans = backbone.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    cuts, size = [0], 0
    for begin, tokens in Counter(begin for begin, _ in spans).items():
        if size and size + tokens > limit:
            cuts.append(begin)
            size = 0
        size += tokens
    return [text[a:b] for a, b in pairwise([*cuts, len(text)])]

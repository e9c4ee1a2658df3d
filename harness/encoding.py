"""Conversations as token ids in a tokenizer's chat template; a history's part is made once for all of its questions.

Nothing is shared on trust: what is put together of parts is held against the whole, and made whole where it differs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

from jinja2 import TemplateError

from harness.episodes import Message, Turn, turns
from harness.method import Unit
from harness.segments import by_sentence

Segment = Unit | Literal["part"]
"""``part``: messages that share a turn, told apart."""
KEPT = 2
"""Histories whose encoding is kept: the one whose questions are asked now, and the one before."""
AROUND = 64
"""Tokens that may stand around a question within what its prompt shares with no other."""


class Joined(Sequence[int]):
    """A list of which the beginning is shared with others and held once. Slices are plain lists."""

    __slots__ = ("own", "shared")

    def __init__(self, shared: list[int], own: list[int]) -> None:
        self.shared, self.own = shared, own

    def __len__(self) -> int:
        return len(self.shared) + len(self.own)

    def __iter__(self) -> Iterator[int]:
        yield from self.shared
        yield from self.own

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> list[int]: ...
    def __getitem__(self, at: int | slice) -> int | list[int]:
        border = len(self.shared)
        if isinstance(at, slice):
            begin, end, step = at.indices(len(self))
            if step != 1:
                return [*self][at]
            return self.shared[begin:end] + self.own[max(0, begin - border) : max(0, end - border)]
        at = range(len(self))[at]
        return self.shared[at] if at < border else self.own[at - border]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]


@dataclass(eq=False)
class _Told:
    """A history in the chat template, before any question."""

    chat: list[dict[str, str]]
    text: str
    opening: str
    """What begins an answer; before it, a prompt ends with the question."""
    ids: list[int]
    owner: list[int]
    units: int
    """Messages or sentences in it; a question's count on from there."""
    splits: bool | None = None
    """Whether its tokens are those of the beginning of every prompt; None before the first prompt was looked at."""


class Encoder:
    """Encodes conversations with a fast tokenizer that has a chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._kept: dict[Any, _Told] = {}
        self._begun: dict[Any, tuple[list[int], list[int]]] = {}

    def encode(
        self, messages: Sequence[Message], *, system: str = "", answer_next: bool = False, unit: Segment = "message"
    ) -> tuple[list[int], list[int]]:
        """Token ids, and the message or sentence each belongs to; see :meth:`harness.backbones.Backbone.encode`."""
        chat, said = _chat(messages, system)
        if not chat:
            return [], []
        text = self._render(chat, answer_next)
        return self._tokens(text, self._ends(chat, bool(system)), said, unit)[:2]

    def asked(
        self,
        messages: Sequence[Message],
        question: str,
        *,
        system: str = "",
        unit: Unit = "message",
        frame: str | None = None,
    ) -> tuple[Sequence[int], Sequence[int]]:
        """As :meth:`encode` of a history, a question and the opening of the answer.

        The history's tokens are shared by all of its prompts where the tokenizer cuts the text at the question
        anyway: where a special token begins there. The first prompt of a history is also encoded whole, to see that
        the tokens are the same; where they are not, every prompt is. So is one whose question stands in a message of
        the history, for no special token begins there; what it has in common with the first one is then found out.
        """
        if not messages:
            said = [Message(question, frame=frame)]
            return self.encode(said, system=system, answer_next=True, unit=unit)
        if frame is not None:
            return self._held(messages, Message(question, frame=frame), system, unit)
        told = self._history(tuple(messages), system, unit)
        chat = [*told.chat, {"role": "user", "content": question}]
        text, begin = self._render(chat, True), len(told.text)
        end = len(text) - len(told.opening)
        splits = text.startswith(told.text) and text.startswith(self._borders, begin) and text.endswith(told.opening)
        if told.splits is not False and splits:
            turn = Turn("user", question, (0, len(question)))
            ids, owner, _ = self._tokens(text[begin:], [0, end - begin], [turn], unit)
            owner = [n if n < 0 else told.units + n for n in owner]
            if told.splits is None:
                told.splits = self._whole(messages, question, system, unit) == (told.ids + ids, told.owner + owner)
            if told.splits:
                return Joined(told.ids, ids), Joined(told.owner, owner)
        return self._held(messages, Message(question), system, unit)

    def _held(
        self, messages: Sequence[Message], question: Message, system: str, unit: Unit
    ) -> tuple[Sequence[int], Sequence[int]]:
        """A prompt that is encoded whole and keeps of it what the first one of its history does not hold already."""
        said = [*messages, question]
        ids, owner = self.encode(said, system=system, answer_next=True, unit=unit)
        key = tuple(messages), system, unit, question.frame, str(self.tokenizer.chat_template)
        if key not in self._begun:
            own = len(self.tokenizer(question.content, add_special_tokens=False)["input_ids"]) + AROUND
            cut = max(0, len(ids) - own)
            _keep(self._begun, key, (ids[:cut], owner[:cut]))
        begun, owned = self._begun[key]
        cut = len(begun)
        if not cut or ids[:cut] != begun or owner[:cut] != owned:
            return ids, owner
        return Joined(begun, ids[cut:]), Joined(owned, owner[cut:])

    def _whole(
        self, messages: Sequence[Message], question: str, system: str, unit: Unit
    ) -> tuple[list[int], list[int]]:
        return self.encode([*messages, Message(question)], system=system, answer_next=True, unit=unit)

    def _history(self, messages: tuple[Message, ...], system: str, unit: Unit) -> _Told:
        key = messages, system, unit, str(self.tokenizer.chat_template)
        if key not in self._kept:
            chat, said = _chat(messages, system)
            text = self._render(chat)
            opening = self._render(chat, True).removeprefix(text)
            told = _Told(chat, text, opening, *self._tokens(text, self._ends(chat, bool(system)), said, unit))
            _keep(self._kept, key, told)
        return self._kept[key]

    @property
    def _borders(self) -> tuple[str, ...]:
        """Special tokens at which text is cut before anything else, whatever stands beside them."""
        added = self.tokenizer.added_tokens_decoder.values()
        return tuple(t.content for t in added if t.special and not (t.lstrip or t.normalized or t.single_word))

    def _render(self, chat: Sequence[dict[str, str]], answer_next: bool = False) -> str:
        return self.tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=answer_next, enable_thinking=False
        )

    def _ends(self, chat: list[dict[str, str]], system: bool) -> list[int]:
        """Where the system message (0 without one) and then each message end in the rendered text."""
        parts = self._parts(chat, 1 + system) if len(chat) > 2 + system else None
        ends = [len(self._render(chat[:1])) if system else 0]
        if parts is None:
            return ends + [len(self._render(chat[:n])) for n in range(1 + system, len(chat) + 1)]
        at = 0
        for part in parts:
            at += len(part)
            ends.append(at)
        return ends

    def _parts(self, chat: list[dict[str, str]], first: int) -> list[str] | None:
        """What the first ``first`` and then each further message add to the text; None where that is not all.

        Each is rendered behind the beginning alone, so that a long conversation takes time in proportion. That this
        gives the conversation is seen from its whole text, and from it without its last message.
        """
        try:
            base = self._render(chat[:first])
            texts = [self._render([*chat[:first], message]) for message in chat[first:]]
            if not all(text.startswith(base) for text in texts):
                return None
            parts = [base, *(text[len(base) :] for text in texts)]
            whole = self._render(chat) == "".join(parts) and self._render(chat[:-1]) == "".join(parts[:-1])
        except TemplateError:  # e.g. of a template that wants the roles to take turns
            return None
        return parts if whole else None

    def _tokens(
        self, text: str, ends: Sequence[int], said: Sequence[Turn], unit: Segment
    ) -> tuple[list[int], list[int], int]:
        """Token ids, owners, and the number of units, of a rendered text."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans, owner, j = encoded["offset_mapping"], [], 0
        for start, _ in spans:
            while j < len(ends) and start >= ends[j]:
                j += 1
            owner.append(j - 1 if j < len(ends) else -1)
        if unit == "sentence":
            return encoded["input_ids"], *_sentences(text, spans, owner, ends, [turn.content for turn in said])
        if unit == "part" and any(len(turn.ends) > 2 for turn in said):
            owner = _parts(text, spans, owner, ends, said)
        return encoded["input_ids"], owner, len(said)


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    """Put a value to the last ones, in the place of the oldest."""
    while len(kept) >= KEPT:
        del kept[next(iter(kept))]
    kept[key] = value


def _chat(messages: Sequence[Message], system: str) -> tuple[list[dict[str, str]], list[Turn]]:
    """A conversation as templates take it, and its turns."""
    said = turns(messages)
    chat = [{"role": turn.role, "content": turn.content} for turn in said]
    return ([{"role": "system", "content": system}] if system else []) + chat, said


def _parts(
    text: str, spans: Sequence[tuple[int, int]], owner: Sequence[int], ends: Sequence[int], said: Sequence[Turn]
) -> list[int]:
    """The message of each token where several share a turn; -1 for the turn's opening and the template's own."""
    begins, first, count = [], [], 0
    for n, turn in enumerate(said):
        at = text.find(turn.content.strip(), ends[n], ends[n + 1])  # templates may strip what they are given
        begins.append(max(at, ends[n]))
        first.append(count)
        count += len(turn.ends) - 1
    found = []
    for (start, _), n in zip(spans, owner, strict=True):
        part = bisect_right(said[n].ends, start - begins[n]) - 1 if n >= 0 else -1
        found.append(first[n] + part if 0 <= part < len(said[n].ends) - 1 else -1)
    return found


def _sentences(
    text: str, spans: Sequence[tuple[int, int]], owner: Sequence[int], ends: Sequence[int], contents: Sequence[str]
) -> tuple[list[int], int]:
    """The sentence of each token, -1 for none, given the message of each and where messages end; and their number."""
    found, count = [-1] * len(spans), 0
    tokens: list[list[int]] = [[] for _ in contents]
    for t, n in enumerate(owner):
        if n >= 0:
            tokens[n].append(t)
    for n, content in enumerate(contents):
        at = text.find(content.strip(), ends[n], ends[n + 1])  # templates may strip what they are given
        if at < 0:
            continue
        end = at + len(content.strip())
        inside = [t for t in tokens[n] if at <= spans[t][0] < end]
        numbers = by_sentence(text[at:end], [(spans[t][0] - at, spans[t][1] - at) for t in inside])
        for t, number in zip(inside, numbers, strict=True):
            found[t] = count + number
        count += max(numbers, default=-1) + 1
    return found, count

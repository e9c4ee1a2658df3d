"""A context as the messages of a history: what is read does not change, only where it is cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from harness.data.memory_agent_bench.inventory import Unit

CHARACTERS_A_TOKEN = 4
"""A chunk is measured without a tokenizer, so that it is the same for every backbone."""

STARTS: dict[Unit, str] = {
    "document": r"^Document \d+:$",
    "session": r"^(?:Chat Time|Session Date|Chat Date|DATE): ",
    "fact": r"^\d+\. ",
    "dialogue": r"^(?:Dialogue|Conversation) \d+:?",
}
"""What the first line of a part looks like; exemplars are told by their last."""
EXEMPLAR_END = re.compile(r"^label: \S+\n\n", re.MULTILINE)
SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])|\n+")
"""A small splitter of our own: the benchmark's, NLTK's Punkt, has to be downloaded."""


def parts(context: str, unit: Unit, chunk_tokens: int) -> list[str]:
    """The context's own parts: documents, sessions, exemplars, dialogues or facts; chunks where it has none.

    Joined, they are the context. What stands before the first part goes with it.
    """
    if unit == "exemplar":
        found = _cut(context, [match.end() for match in EXEMPLAR_END.finditer(context)])
    elif unit in STARTS:
        found = _cut(context, [m.start() for m in re.finditer(STARTS[unit], context, re.MULTILINE)][1:])
    else:
        found = [context]
    return found if len(found) > 1 else chunks(context, chunk_tokens)


def chunks(context: str, tokens: int) -> list[str]:
    """Whole sentences, as many a chunk as fit ``tokens``, counted as four characters each; joined, the context.

    A sentence that is longer than a chunk is cut at a space.
    """
    room, found, held = tokens * CHARACTERS_A_TOKEN, [], ""
    for sentence in _sentences(context, room):
        if held and len(held) + len(sentence) > room:
            found.append(held)
            held = ""
        held += sentence
    return [*found, held] if held else found


def _sentences(context: str, room: int) -> Iterator[str]:
    for sentence in _cut(context, [match.end() for match in SENTENCE_END.finditer(context)]):
        while len(sentence) > room:
            at = sentence.rfind(" ", 1, room) + 1 or room
            yield sentence[:at]
            sentence = sentence[at:]
        if sentence:
            yield sentence


def _cut(text: str, places: list[int]) -> list[str]:
    """The text cut at the places; a piece of white space alone goes with the one before it."""
    edges = [0, *(p for p in places if 0 < p < len(text)), len(text)]
    pieces: list[str] = []
    for start, end in pairwise(edges):
        piece = text[start:end]
        if pieces and not piece.strip():
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return pieces


def head_and_tail(text: str, characters: int, marker: str) -> str:
    """At most ``characters`` of a text: its first third and its last two, with a marker between them."""
    if len(text) <= characters:
        return text
    head = (characters - len(marker)) // 3
    tail = characters - len(marker) - head
    return f"{text[:head].rstrip()}{marker}{text[-tail:].lstrip()}"

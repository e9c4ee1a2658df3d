"""Questions and answers made from a text: by reading its facts, by gaps in its sentences, or by the backbone.

The wording is this module's own and says that something is recalled, filled in or looked up by a label, so that no
pair is a question that a task asks; answers are spans of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from harness import triples
from harness.segments import sentence_starts

if TYPE_CHECKING:
    from harness.episodes import Message
    from harness.triples import Triple

Source = Literal["auto", "parsed", "cloze", "lm"]

ATTRIBUTE = (
    "Recall the {relation} of {subject}. What was said of it?",
    "You were told something about {subject}'s {relation}. Say it again.",
    "Finish what you heard: {prompt} ...",
    "{subject} / {relation}: what belongs in the third column?",
)
VERB = (
    "Finish what you heard: {prompt} ...",
    "Recall what you were told of {subject}. It {relation} whom or what?",
    "Say the missing end from memory: {prompt} ___",
    "{subject} / {relation}: what belongs in the third column?",
)
LABEL = (
    "Recall which label goes with this utterance: {utterance}",
    "Utterance: {utterance} Which number was it filed under?",
    "Say the label you were shown for these words: {utterance}",
)
GAP = (
    "Fill the gap from memory: {gapped}",
    "Some words are missing here. Which? {gapped}",
    "You have read this before. Say what stood at the blank: {gapped}",
)
LABELLED = re.compile(
    r"^(?P<utterance>[^\n]+?)[ \t]*(?:->|→)?[ \t]*\n?[ \t]*label:[ \t]*(?P<label>\S+)[ \t]*$", re.MULTILINE
)
ENTITY = re.compile(r"[A-Z][\w'’-]*(?: (?:(?:of|the|de|von|van) )?[A-Z][\w'’-]*)*|\d[\d.,:]*\d|\d")
WORD = re.compile(r"[^\W\d_]{4,}")
WRITTEN = re.compile(r"Q\d*[:.]\s*(?P<question>[^\n]+)\s*\n\s*A\d*[:.]\s*(?P<answer>[^\n]+)")
ASK = (
    "Write questions about the text above and their answers of fewer than ten words, each on two lines:\n"
    "Q: a question\nA: its answer"
)
MORE = "\nThese are written already; write others:\n{known}"


@dataclass(frozen=True)
class Pair:
    """A question made from a text, and its answer."""

    question: str
    answer: str
    source: Source = "parsed"


def statements(text: str) -> Iterator[str]:
    """Facts whole, and the sentences of all else, without serial numbers."""
    for sentence in triples.sentences(text):
        if triples.parse(sentence):
            yield sentence
        else:
            starts = [*sentence_starts(sentence), len(sentence)]
            yield from (part for a, b in pairwise(starts) if (part := sentence[a:b].strip(' \t"”’)]')))


def facts(messages: Sequence[Message]) -> list[Triple]:
    """All facts of messages, in order."""
    found = (triples.parse(s) for m in messages for s in statements(m.content) if not LABELLED.search(m.content))
    return [fact for fact in found if fact]


def parsed(messages: Sequence[Message], current: Callable[[Triple], bool] = lambda fact: True) -> list[Pair]:
    """Four pairs a fact, three a labelled utterance.

    Args:
        messages: A chunk.
        current: Whether a fact still holds; of those told again otherwise only the newest is asked for.
    """
    pairs = [
        Pair(wording.format(utterance=found["utterance"].strip()), found["label"])
        for m in messages
        for found in LABELLED.finditer(m.content)
        for wording in LABEL
    ]
    for fact in triples.newest(f for f in facts(messages) if current(f)):
        values = {"subject": fact.subject, "relation": fact.relation, "prompt": fact.prompt}
        wordings = VERB if fact.relation in triples.VERBS else ATTRIBUTE
        pairs += [Pair(wording.format(**values), fact.object) for wording in wordings]
    return pairs


def cloze(messages: Sequence[Message], *, told: bool = True) -> list[Pair]:
    """Three pairs for each gap: a name or number that does not begin the sentence, else its last content word.

    Args:
        messages: A chunk.
        told: Also of statements that :func:`parsed` understands.
    """
    pairs = []
    for message in messages:
        if not told and LABELLED.search(message.content):
            continue
        for sentence in statements(message.content):
            if told or not triples.parse(sentence):
                pairs += [
                    Pair(wording.format(gapped=f"{sentence[:a]}___{sentence[b:]}"), sentence[a:b], "cloze")
                    for a, b in spans(sentence)
                    for wording in GAP
                ]
    return pairs


def spans(sentence: str) -> list[tuple[int, int]]:
    """Where the names and numbers of a sentence are; without one, its last word of at least four letters."""
    named = [m.span() for m in ENTITY.finditer(sentence) if m.start()]
    return named or [m.span() for m in WORD.finditer(sentence)][-1:]


def written(text: str) -> list[Pair]:
    """The pairs in what a model wrote."""
    return [Pair(m["question"].strip(), m["answer"].strip(), "lm") for m in WRITTEN.finditer(text)]

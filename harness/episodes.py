"""The nouns of memory: messages make a history, a history and its questions make an episode.

All are frozen values. Nothing here knows a model, a task or a file format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Source = Literal["official", "rebuilt", "generated", "own"]

CLEAN = "clean"
"""The column that tells which gold answers no overlay names as wrong, and the category of their questions."""


@dataclass(frozen=True)
class Message:
    """One unit of a history; the task says what a unit is (a turn, a paragraph, a fact)."""

    content: str
    role: Role = "user"
    time: str | None = None
    """When it was said, as the data set writes it; None where it has no date."""
    id: str | None = None
    """The data set's own name of the unit (LoCoMo ``D1:3``, a HotpotQA title); evidence points at it."""
    frame: str | None = None
    """Opening of the one chat message that it shares with its neighbours of the same frame; None is one of its own."""
    heading: str | None = None
    """What tells ``time`` where it changes; None tells it as ``[time]``."""


@dataclass(frozen=True)
class History:
    """Ordered messages, and the instruction (system message) under which they are read."""

    messages: tuple[Message, ...]
    system: str = ""

    def digest(self) -> str:
        """sha256 over roles, texts, times and the instruction: equal histories, equal digest."""
        return digest([self.system, [_plain(asdict(m)) for m in self.messages]])


def spoken(messages: Iterable[Message]) -> list[str]:
    """What a reader sees of each message: its text, with its date in front where the date changes.

    Told once a session, and again wherever a cut or a retrieval starts, so that no form of history lacks it; on
    each of LoCoMo's some 600 turns it would cost a third of the window.
    """
    texts, before = [], None
    for message in messages:
        dated = message.time is not None and message.time != before
        heading = f"[{message.time}]" if message.heading is None else message.heading
        texts.append(f"{heading}\n{message.content}" if dated else message.content)
        before = message.time
    return texts


@dataclass(frozen=True)
class Turn:
    """One chat message: a message of its own, or neighbours that share a frame, a blank line between them."""

    role: Role
    content: str
    ends: tuple[int, ...]
    """Where the opening (0 without one) and then each message ends in ``content``, in characters."""


def turns(messages: Sequence[Message]) -> list[Turn]:
    """The chat messages that messages stand in, in order."""
    texts, found = spoken(messages), []

    def place(n: int) -> tuple[str | None, int]:
        return messages[n].frame, n if messages[n].frame is None else -1

    for (frame, _), run in groupby(range(len(messages)), key=place):
        parts = list(run)
        content = frame or ""
        ends = [len(content)]
        for n in parts:
            content = f"{content}\n\n{texts[n]}" if content else texts[n]
            ends.append(len(content))
        found.append(Turn(messages[parts[0]].role, content, tuple(ends)))
    return found


@dataclass(frozen=True)
class Decoding:
    """How an answer is sampled: transformers' own temperature, top-k and nucleus, in this order."""

    temperature: float
    top_p: float
    top_k: int
    seed: int
    """Of this answer alone, which so depends on no other question and on no order."""

    def arguments(self) -> dict[str, Any]:
        """As transformers and lm-eval name them; the seed is no argument of theirs."""
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}


@dataclass(frozen=True)
class Question:
    """One question asked of a history, with every answer that counts as right."""

    id: str
    text: str
    answers: tuple[str, ...]
    category: str = ""
    """Empty, a name, or names from wide to narrow (``AR/eventqa_full``): a question counts in each of them."""
    evidence: tuple[str, ...] = ()
    """Ids of the messages that hold the answer, where the data has them."""
    max_new_tokens: int | None = None
    """The benchmark's own cap of this answer, where its questions differ in that; None is the task's."""
    decoding: Decoding | None = None
    """How the answer is sampled, where the benchmark does that; None is greedy."""
    doc: Mapping[str, Any] | None = None
    """The benchmark's own row, where its wording or its rule takes more than text and answers."""


def cap_of(question: Question, cap: int) -> int:
    """Tokens of an answer at most: the experiment's or task's ``cap``, or the question's own where that is less."""
    return min(question.max_new_tokens or cap, cap)


@dataclass(frozen=True)
class Episode:
    """A history that is written once, and the questions asked of it."""

    id: str
    history: History
    questions: tuple[Question, ...]
    root: str
    """The source document; episodes of one root are one cluster for statistics and never each other's donor."""
    source: Source
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Facts for the record, e.g. ``{"lost_share": 0.42}`` after truncation."""
    continues: str | None = None
    """Id of an episode whose history begins this one: a memory is written on from there, not anew."""

    def with_questions(self, questions: Iterable[Question]) -> Episode:
        return replace(self, questions=tuple(questions))


def lineage(episode: Episode, known: Mapping[str, Episode]) -> list[Episode]:
    """The episodes that this one goes on from, the nearest first; empty for one that starts anew."""
    found: list[Episode] = []
    while (episode.continues or "") in known and len(found) < len(known):
        episode = known[episode.continues or ""]
        found.append(episode)
    return found


def continued(episode: Episode, known: Mapping[str, Episode]) -> Episode | None:
    """The episode whose memory is written on for this one; None where its history is written whole.

    That is so too where a cut has taken the beginning that both had in common.
    """
    before = known.get(episode.continues or "")
    if before is None or before.history.system != episode.history.system:
        return None
    told, whole = before.history.messages, episode.history.messages
    return before if len(told) < len(whole) and whole[: len(told)] == told else None


@dataclass(frozen=True)
class Query:
    """A question as the model gets it: the task's instruction and the question in the task's wording."""

    system: str
    text: str
    question_id: str = ""
    evidence: tuple[str, ...] = ()
    """Ids of the messages that hold the answer; empty for every method but those with ``Capabilities.gold``."""
    frame: str | None = None
    """Of the chat message that it shares with the history in sight; None is one of its own."""
    decoding: Decoding | None = None

    def message(self) -> Message:
        """The user's message that asks it."""
        return Message(self.text, frame=self.frame)


def digest(value: Any) -> str:
    """sha256 of canonical JSON (sorted keys, no spaces, UTF-8)."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def episodes_digest(episodes: Iterable[Episode]) -> str:
    """sha256 over episodes in order, as it enters a fit's address and a record.

    What later versions have added counts only where it is used, so that older addresses stay.
    """
    return digest([_told(asdict(e)) for e in episodes])


def _told(episode: dict[str, Any]) -> dict[str, Any]:
    if episode["continues"] is None:
        del episode["continues"]
    episode["history"]["messages"] = [_plain(m) for m in episode["history"]["messages"]]
    episode["questions"] = [_plain(q) for q in episode["questions"]]
    return episode


def _plain(part: dict[str, Any]) -> dict[str, Any]:
    """A message or question without what later versions have added, where it is not used."""
    added = ("frame", "heading", "max_new_tokens", "decoding", "doc")
    return {key: value for key, value in part.items() if value is not None or key not in added}


def widening(category: str) -> list[str]:
    """The categories that a question of ``category`` counts in: ``AR/eventqa`` in itself and in ``AR``."""
    names = category.split("/") if category else []
    return ["/".join(names[:n]) for n in range(1, len(names) + 1)]

"""Conversations in LoCoMo's schema: two speakers, dated sessions, questions of categories 1 to 4.

Each fact is told by one speaker of a friend or of themselves, amid small talk and facts that nobody asks for.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from harness.data.generated import short
from harness.data.generated.words import (
    ANIMALS,
    CITIES,
    DISHES,
    EVENTS,
    INSTRUMENTS,
    JOBS,
    LANGUAGES,
    NUMBERS,
    SMALL_TALK,
    SPORTS,
    VEGETABLES,
    WEEKDAYS,
    article,
    date,
)
from harness.data.names import NAMES
from harness.data.settings import Knobs

SINGLES = (
    (
        JOBS,
        ("My friend {x} works as {an} now.", "{x}, my friend, has found work as {an}."),
        "What does {who}'s friend {x} work as?",
    ),
    (
        DISHES,
        ("My cousin {x} mostly cooks {v} now.", "{x}, my cousin, cooks {v} every day."),
        "Which dish does {who}'s cousin {x} cook?",
    ),
    (
        tuple(CITIES),
        ("My colleague {x} lives in {v} now.", "{x}, my colleague, has moved to {v}."),
        "In which city does {who}'s colleague {x} live?",
    ),
)
"""Values, tellings and question of a fact about somebody else."""
LISTS = (
    (INSTRUMENTS, "I took up the {v}.", "Which instruments has {who} taken up?"),
    (SPORTS, "I tried {v} for the first time.", "Which sports has {who} tried?"),
    (ANIMALS, "I watched {v} by the lake.", "Which animals has {who} watched by the lake?"),
    (VEGETABLES, "I sowed {v} in the garden.", "Which vegetables has {who} sown?"),
    (LANGUAGES, "I have begun to learn {v}.", "Which languages has {who} begun to learn?"),
)
"""Values, telling and question of a list whose items are told one by one."""
MOST_FACTS = 2 * len(LISTS)
"""Each speaker has one list of a kind."""
MOST_ITEMS = min(len(pool) for pool, *_ in LISTS)
"""No item of a list comes twice."""


class Conversations(Knobs):
    """Knobs of generated conversations; none gives the short ones, of two sessions."""

    sessions: int | None = Field(None, ge=2, le=40, description="Dated sessions a conversation; None: the short form.")
    turns: int = Field(
        4, ge=0, le=60, description="Further turns a session: small talk, and facts that nobody asks for, by halves."
    )
    facts: int = Field(2, ge=1, le=MOST_FACTS, description="Questions of each of the four categories.")
    updates: int = Field(
        0, ge=0, description="Newer values that each single-hop fact gets in later sessions; the newest counts."
    )
    hops: int = Field(
        2, ge=1, le=MOST_ITEMS, description="Items of each multi-hop list, each told in a session of its own."
    )
    dates: int = Field(
        1, ge=0, le=3, description="How events are dated: 0 today, 1 yesterday, 2 days or weeks ago, 3 last Friday."
    )

    @model_validator(mode="after")
    def _sessions_enough(self) -> Conversations:
        if self.sessions is not None and max(self.hops, self.updates + 1) > self.sessions:
            raise ValueError("a list item or a new value takes a session of its own; raise sessions or lower it")
        return self


def rows(count: int, seed: int, knobs: Conversations | None = None) -> list[dict[str, Any]]:
    """``count`` conversations, with ``4 * facts`` questions each."""
    if knobs is None or not knobs.graded:
        return short.locomo(count, seed)
    rng = random.Random(f"locomo/graded/{seed}")
    return [_Conversation(knobs, rng).row(f"invented-{n}") for n in range(count)]


@dataclass
class _Told:
    """A turn, and the question that it is evidence of."""

    speaker: str
    text: str
    asked: int | None = None


class _Conversation:
    """One conversation in the making: turns a session, and questions."""

    def __init__(self, knobs: Conversations, rng: random.Random) -> None:
        assert knobs.sessions is not None, "graded rows have a number of sessions"
        self.knobs, self.rng, self.sessions = knobs, rng, knobs.sessions
        self.names = rng.sample(NAMES, len(NAMES))
        self.speakers = self.names.pop(), self.names.pop()
        self.days = [dt.date(rng.randint(2005, 2030), rng.randint(1, 12), rng.randint(1, 28))]
        while len(self.days) < self.sessions:
            self.days.append(self.days[-1] + dt.timedelta(days=rng.randint(8, 40)))
        self.told: list[list[_Told]] = [[] for _ in self.days]
        self.qa: list[dict[str, Any]] = []
        self.lists = rng.sample([(who, n) for who in self.speakers for n in range(len(LISTS))], MOST_FACTS)
        self.events = rng.sample(EVENTS, len(EVENTS))
        for n in range(knobs.facts):
            self._single(n)
            self._event()
            self._list(*self.lists.pop())
            self._trip()
        self._further()

    def row(self, name: str) -> dict[str, Any]:
        """In the official schema."""
        conversation: dict[str, Any] = dict(zip(("speaker_a", "speaker_b"), self.speakers, strict=True))
        for number, (day, turns) in enumerate(zip(self.days, self.told, strict=True), 1):
            hour = f"{self.rng.randint(1, 11)}:{self.rng.randint(0, 59):02d} {self.rng.choice(('am', 'pm'))}"
            conversation[f"session_{number}_date_time"] = f"{hour} on {date(day, comma=True)}"
            first, other = self.rng.sample(self.speakers, 2)
            turns = [_Told(first, f"Hello {other}!"), *self.rng.sample(turns, len(turns))]
            conversation[f"session_{number}"] = [
                {"speaker": t.speaker, "dia_id": f"D{number}:{n}", "text": t.text} for n, t in enumerate(turns, 1)
            ]
            for n, told in enumerate(turns, 1):
                if told.asked is not None:
                    self.qa[told.asked]["evidence"].append(f"D{number}:{n}")
        return {"sample_id": name, "conversation": conversation, "qa": self.qa}

    def _ask(self, category: int, question: str, answer: str) -> int:
        self.qa.append({"category": category, "question": question, "answer": answer, "evidence": []})
        return len(self.qa) - 1

    def _sessions(self, count: int) -> list[int]:
        return sorted(self.rng.sample(range(self.sessions), count))

    def _single(self, n: int) -> None:
        """A fact about a friend, and its newer values."""
        pool, tellings, question = SINGLES[n % len(SINGLES)]
        who, x = self.rng.choice(self.speakers), self.names.pop()
        values = self.rng.sample(pool, self.knobs.updates + 1)
        asked = self._ask(4, question.format(who=who, x=x), values[-1])
        for session, value in zip(self._sessions(len(values)), values, strict=True):
            text = self.rng.choice(tellings).format(x=x, v=value, an=article(value))
            self.told[session].append(_Told(who, text, asked if value == values[-1] else None))

    def _event(self) -> None:
        """Something that a speaker did, dated from the session's day."""
        who, (past, base), session = self.rng.choice(self.speakers), self.events.pop(), self._sessions(1)[0]
        when, ago = self._when(self.days[session])
        asked = self._ask(2, f"When did {who} {base}?", date(self.days[session] - dt.timedelta(days=ago)))
        self.told[session].append(_Told(who, f"I {past} {when}.", asked))

    def _when(self, day: dt.date) -> tuple[str, int]:
        """An expression of the level that is set, and how many days before ``day`` it means."""
        if self.knobs.dates < 2:
            return (("today", 0), ("yesterday", 1))[self.knobs.dates]
        if self.knobs.dates == 2:
            n = self.rng.randrange(len(NUMBERS))
            return self.rng.choice(((f"{NUMBERS[n]} days ago", n + 2), (f"{NUMBERS[n]} weeks ago", 7 * (n + 2))))
        ago = self.rng.randint(1, 7)
        return f"last {WEEKDAYS[(day.weekday() - ago) % 7]}", ago

    def _list(self, who: str, kind: int) -> None:
        """Items that add up over sessions."""
        pool, telling, question = LISTS[kind]
        values = self.rng.sample(pool, self.knobs.hops)
        asked = self._ask(1, question.format(who=who), ", ".join(values))
        for session, value in zip(self._sessions(len(values)), values, strict=True):
            self.told[session].append(_Told(who, telling.format(v=value), asked))

    def _trip(self) -> None:
        """A journey to a city, of whose country only the world tells."""
        who, x = self.rng.choice(self.speakers), self.names.pop()
        city, country = self.rng.choice(list(CITIES.items()))
        asked = self._ask(3, f"Which country did {who} go to with {x}?", f"{country}; {city} is a city there")
        self.told[self._sessions(1)[0]].append(_Told(who, f"I went to {city} with {x}.", asked))

    def _further(self) -> None:
        """Turns that answer nothing."""
        for day, turns in zip(self.days, self.told, strict=True):
            unasked = self._unasked(day)
            for n in range(self.knobs.turns):
                who = self.rng.choice(self.speakers)
                turns.append(next(unasked) if n % 2 else _Told(who, self.rng.choice(SMALL_TALK)))

    def _unasked(self, day: dt.date) -> Iterator[_Told]:
        """Facts of the same kinds, of people, lists and events that no question is about."""
        while True:
            who, x = self.rng.choice(self.speakers), self.rng.choice(self.names)
            pool, tellings, _ = self.rng.choice(SINGLES)
            value = self.rng.choice(pool)
            yield _Told(who, self.rng.choice(tellings).format(x=x, v=value, an=article(value)))
            yield _Told(who, f"I {self.rng.choice(self.events)[0]} {self._when(day)[0]}.")
            yield _Told(who, f"I went to {self.rng.choice(list(CITIES))} with {x}.")
            if self.lists:
                who, kind = self.rng.choice(self.lists)
                pool, telling, _ = LISTS[kind]
                yield _Told(who, telling.format(v=self.rng.choice(pool)))

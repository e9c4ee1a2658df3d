"""Online use: a person's preferences are told and change from session to session, with questions in between.

The history grows; a memory is written on after each session and asked for everything told so far. A question's
category says how long ago its answer was told and whether an earlier answer had to go: ``current/age2`` was told two
sessions ago and never changed, ``updated/age0`` changed in the last session. So what a memory forgets shows by age,
and what it does not overwrite by ``old``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field, model_validator

from harness.data.names import NAMES
from harness.episodes import Episode, History, Message, Question, episodes_digest
from harness.experiment import DataSpec
from harness.tasks.base import Metric, Split, Task, TaskData, TaskSettings
from harness.tasks.granularity import Asked
from harness.tasks.write_clear_read import COLOURS, EPISODES, THINGS, first_word

TELLINGS = (
    "{name}'s favourite {thing} is {colour}.",
    "{name} has a favourite {thing} that is {colour}.",
    "The favourite {thing} of {name} is {colour}.",
    "{name} likes the {colour} {thing} best.",
)
UPDATES = (
    "{name}'s favourite {thing} is now {colour}.",
    "{name} now has a favourite {thing} that is {colour}.",
    "The favourite {thing} of {name} is {colour} now.",
    "{name} now likes the {colour} {thing} best.",
)
QUESTION = "What colour is {name}'s favourite {thing}?"


class Sessions(TaskSettings):
    """The size of a history that goes on from session to session."""

    sessions: int = Field(4, ge=1, description="Sessions, each followed by questions about all that was told so far.")
    facts: int = Field(2, ge=1, description="Preferences told for the first time, a session.")
    updates: int = Field(1, ge=0, description="Preferences of earlier sessions that change, a session.")
    values: int = Field(10, ge=2, le=len(COLOURS), description="Possible answers.")

    @model_validator(mode="after")
    def _enough(self) -> Sessions:
        if self.sessions * self.facts > len(THINGS):
            raise ValueError(f"each preference is of another thing, so sessions x facts may not exceed {len(THINGS)}")
        if self.updates and self.sessions > self.values:
            raise ValueError("what changes never changes back, so sessions may not exceed values")
        return self


@dataclass
class _Preference:
    """One thing that a person likes in one colour, and the sessions that said so."""

    thing: str
    colours: list[str] = field(default_factory=list)
    """Told one after the other; the last one holds."""
    session: int = 0
    """Of the last telling."""
    message: str = ""
    """Id of the last telling."""


class Online(Task):
    """Preferences that change between sessions; see the module's text."""

    name = "online"
    summary = "preferences are told and change from session to session, with questions in between"
    unit = "preference"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("acc"),
        Metric("named"),
        Metric("old", higher_is_better=False),
    )
    primary_metric = "acc"
    max_new_tokens = 4
    splits = ("test", "train")
    Settings = Sessions

    def _load(self, data: DataSpec, split: Split, settings: Sessions, count: int | None) -> TaskData:
        # No name is in both splits, as in write_clear_read.
        names = [*(NAMES[::2] if split == "train" else NAMES[1::2])]
        rng = random.Random(f"{self.name}/{split}/{data.seed}")
        rng.shuffle(names)
        people = ((f"{split}-{n:05d}", names[n % len(names)]) for n in range(count or EPISODES))
        episodes = tuple(e for root, name in people for e in _sessions(root, name, settings, rng))
        where = f"{self.name} {split}, seed {data.seed}"
        return TaskData(episodes, "generated", where, episodes_digest(episodes))

    @classmethod
    def question_of(cls, row: Mapping[str, Any]) -> Question:
        """As every task's; ``old`` lists the values that no longer hold."""
        return Asked.of(super().question_of(row), row)

    def score(self, answer: str, q: Question) -> dict[str, float]:
        """``acc``: the first word is the value that holds; ``named``: the first colour is.

        ``old``: the first colour is one that held once.
        """
        named = next((word for word in re.findall(r"\w+", answer.lower()) if word in COLOURS), "")
        old = q.old if isinstance(q, Asked) else ()
        return {
            "acc": float(first_word(answer) in q.answers),
            "named": float(named in q.answers),
            "old": float(named in old),
        }


def _sessions(root: str, name: str, settings: Sessions, rng: random.Random) -> list[Episode]:
    """The history after each session, each continuing the one before, with questions about all told so far."""
    things = rng.sample(THINGS, settings.sessions * settings.facts)
    told: list[_Preference] = []
    messages: tuple[Message, ...] = ()
    episodes: list[Episode] = []
    for session in range(settings.sessions):
        changed = rng.sample(told, min(settings.updates, len(told)))
        new = [_Preference(things.pop()) for _ in range(settings.facts)]
        told += new
        said = changed + new
        rng.shuffle(said)
        for preference in said:
            messages += (_tell(preference, name, session, str(len(messages)), settings, rng),)
        last = episodes[-1].id if episodes else None
        here = f"{root}-s{session}"
        asked = tuple(_asked(f"{here}-{n}", preference, name, session) for n, preference in enumerate(told))
        episodes.append(Episode(here, History(messages), asked, root, "generated", continues=last))
    return episodes


def _tell(
    preference: _Preference, name: str, session: int, message: str, settings: Sessions, rng: random.Random
) -> Message:
    """Give the preference a value that it never had, and say so."""
    forms = UPDATES if preference.colours else TELLINGS
    preference.colours.append(rng.choice([c for c in COLOURS[: settings.values] if c not in preference.colours]))
    preference.session, preference.message = session, message
    text = rng.choice(forms).format(name=name, thing=preference.thing, colour=preference.colours[-1])
    return Message(text, id=message)


def _asked(name: str, preference: _Preference, person: str, session: int) -> Asked:
    *old, colour = preference.colours
    return Asked(
        name,
        QUESTION.format(name=person, thing=preference.thing),
        (colour,),
        category=f"{'updated' if old else 'current'}/age{session - preference.session}",
        evidence=(preference.message,),
        old=tuple(old),
    )

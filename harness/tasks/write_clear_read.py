"""Write, clear, read: a few invented facts are told, the text is removed, each is asked for.

The smallest question that only a memory can answer: nothing in a model's weights helps, and a guess is right once
in ``values`` times.
"""

from __future__ import annotations

import random
import re
from typing import ClassVar

from pydantic import Field, model_validator

from harness.data.names import NAMES
from harness.episodes import Episode, History, Message, Question, episodes_digest
from harness.experiment import DataSpec
from harness.tasks.base import Metric, Split, Task, TaskData, TaskSettings

EPISODES = 100
"""Episodes generated where the experiment names no number."""

COLOURS = ("red", "blue", "green", "black", "white", "yellow", "orange", "purple", "brown", "gray", "gold", "pink")
"""Words of one token in most vocabularies, so that an answer is learnt in one step; the first ``values`` are used."""

THINGS = ("car", "door", "hat", "boat", "kite", "coat", "bike", "lamp", "cup", "bag", "tent", "chair", "desk", "ring")

TELLINGS = (
    "{name}'s {thing} is {colour}.",
    "{name} has a {thing} that is {colour}.",
    "The {thing} of {name} is {colour}.",
    "{name} painted the {thing} {colour}.",
)


class Facts(TaskSettings):
    """The size of an episode."""

    facts: int = Field(2, ge=1, le=len(THINGS), description="Facts told, and questions asked, an episode.")
    values: int = Field(10, ge=2, le=len(COLOURS), description="Possible answers.")

    @model_validator(mode="after")
    def _enough(self) -> Facts:
        if self.facts > self.values:
            raise ValueError("each fact of an episode has its own answer, so facts may not exceed values")
        return self


class WriteClearRead(Task):
    """Invented facts about people's things; see the module's text."""

    name = "write_clear_read"
    summary = "a few invented facts are told, their text is removed, each is asked for"
    unit = "fact"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("acc"), Metric("named"))
    primary_metric = "acc"
    max_new_tokens = 4
    splits = ("test", "train")
    Settings = Facts

    def _load(self, data: DataSpec, split: Split, settings: Facts, count: int | None) -> TaskData:
        # No name is in both splits: what is learnt is to keep a fact, not a person.
        names = NAMES[::2] if split == "train" else NAMES[1::2]
        rng = random.Random(f"{self.name}/{split}/{data.seed}")
        episodes = tuple(_episode(f"{split}-{n:05d}", names, settings, rng) for n in range(count or EPISODES))
        where = f"{self.name} {split}, seed {data.seed}"
        return TaskData(episodes, "generated", where, episodes_digest(episodes))

    def score(self, answer: str, q: Question) -> dict[str, float]:
        """``acc``: the first word is the answer, whatever its case and punctuation; ``named``: the first colour is.

        A model that was not trained to answer in one word says a sentence, of which ``acc`` knows nothing.
        """
        golds = [first_word(gold) for gold in q.answers]
        named = next((word for word in re.findall(r"\w+", answer.lower()) if word in COLOURS), "")
        return {"acc": float(first_word(answer) in golds), "named": float(named in golds)}


def first_word(text: str) -> str:
    """In lower case, without punctuation; empty where there is no word."""
    found = re.search(r"\w+", text.lower())
    return found.group() if found else ""


def _episode(name: str, names: tuple[str, ...], settings: Facts, rng: random.Random) -> Episode:
    people = rng.sample(names, settings.facts)
    things = rng.sample(THINGS, settings.facts)
    colours = rng.sample(COLOURS[: settings.values], settings.facts)
    messages, questions = [], []
    for n, (person, thing, colour) in enumerate(zip(people, things, colours, strict=True)):
        told = rng.choice(TELLINGS).format(name=person, thing=thing, colour=colour)
        messages.append(Message(told, id=str(n)))
        asked = f"What colour is {person}'s {thing}?"
        questions.append(Question(f"{name}-{n}", asked, (colour,), evidence=(str(n),)))
    return Episode(name, History(tuple(messages)), tuple(questions), root=name, source="generated")

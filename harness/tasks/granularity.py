"""Granularity: what a memory written by token, by message or in several states makes of disturbed facts.

Facts of ``write_clear_read``, or pairs of ``recall``, are told amid formatting, more than once, or with a value that
changes, and each is asked for. An episode has the same facts, order and questions at every dose, so that doses are
compared question by question; dose nought is the clean history. One fact of each episode is the target of repetition
and overwriting: its extra tellings stand somewhere before its last one, so that what was said last is the same at every
dose.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, model_validator

from harness.data.names import NAMES
from harness.episodes import Episode, History, Message, Question, episodes_digest
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.tasks.base import Metric, Split, TaskData
from harness.tasks.recall import KEYS, VALUES, Recall
from harness.tasks.write_clear_read import COLOURS, EPISODES, TELLINGS, THINGS, Facts, WriteClearRead, first_word

MARKS = ("**", "__", "~~", "`", "#", ">", "|", "-", "*", "...")
"""Formatting that stands between words."""
RULES = ("---", "* * *", "## Notes", "```", "| --- | --- |", "[edited]", "(continued)")
"""Messages that say nothing."""
NONE = {"noise": 0, "between": 0, "repeats": 1, "overwrites": 0}
"""The clean history, in doses."""


class Doses(Facts):
    """The size of an episode, and what is done to its history."""

    noise: int = Field(0, ge=0, le=64, description="Formatting marks strewn among the words of each telling.")
    between: int = Field(0, ge=0, le=16, description="Messages of formatting alone after each telling.")
    repeats: int = Field(1, ge=1, le=64, description="Times that the target is told.")
    overwrites: int = Field(0, ge=0, description="Older values of the target, each told once.")
    mixed: bool = Field(False, description="Draw an episode's doses between none and these; meant for training.")

    @model_validator(mode="after")
    def _values_left(self) -> Doses:
        if self.facts + self.overwrites > self.values:
            raise ValueError("every value of an episode is another one, so facts + overwrites may not exceed values")
        return self

    def drawn(self, rng: random.Random) -> Doses:
        """The doses of one episode."""
        if not self.mixed:
            return self
        return self.model_copy(update={name: rng.randint(none, getattr(self, name)) for name, none in NONE.items()})


@dataclass(frozen=True)
class Asked(Question):
    """A question about a fact that may have been told otherwise before."""

    old: tuple[str, ...] = ()
    """The values that no longer hold."""

    @classmethod
    def of(cls, q: Question, row: Mapping[str, Any]) -> Asked:
        """The question of a line of ``harness score``, whose ``old`` lists the values that no longer hold."""
        old = row.get("old")
        if not isinstance(old, list) or not all(isinstance(value, str) for value in old):
            raise HarnessError(
                "the field 'old' is no list of strings; list the values that no longer hold, or none: []"
            )
        return cls(q.id, q.text, q.answers, q.category, old=tuple(old))


@dataclass(frozen=True)
class Fact:
    """What can be told, with any value, and asked."""

    wording: str
    question: str
    value: str

    def told(self, value: str | None = None) -> str:
        return self.wording.format(value=value or self.value)


class Granularity(WriteClearRead):
    """Facts, disturbed; see the module's text."""

    name = "granularity"
    summary = "facts amid formatting, told again or with a value that changes, are asked for"
    metrics = (Metric("acc"), Metric("old", higher_is_better=False))
    Settings = Doses
    wording: ClassVar[str] = WriteClearRead.name
    """The task whose instruction and questions these are."""
    values: ClassVar[tuple[str, ...]] = COLOURS

    def _load(self, data: DataSpec, split: Split, settings: Any, count: int | None) -> TaskData:
        episodes = tuple(
            _episode(self, f"{split}-{n:05d}", split, settings, data.seed) for n in range(count or EPISODES)
        )
        where = f"{self.name} {split}, seed {data.seed}"
        return TaskData(episodes, "generated", where, episodes_digest(episodes))

    def facts(self, values: Sequence[str], split: Split, rng: random.Random) -> list[Fact]:
        """A fact a value."""
        people = rng.sample(NAMES[::2] if split == "train" else NAMES[1::2], len(values))
        things = rng.sample(THINGS, len(values))
        wordings = [
            rng.choice(TELLINGS).format(name=person, thing=thing, colour="{value}")
            for person, thing in zip(people, things, strict=True)
        ]
        questions = [f"What colour is {person}'s {thing}?" for person, thing in zip(people, things, strict=True)]
        return list(map(Fact, wordings, questions, values))

    def score(self, answer: str, q: Question) -> dict[str, float]:
        """``acc``: the first word is the value that holds; ``old``: it is one that was overwritten."""
        old = q.old if isinstance(q, Asked) else ()
        word = first_word(answer)
        return {"acc": float(word in map(first_word, q.answers)), "old": float(word in map(first_word, old))}

    @classmethod
    def question_of(cls, row: Mapping[str, Any]) -> Question:
        """As every task's; ``old`` lists the values that no longer hold."""
        return Asked.of(super().question_of(row), row)


class GranularityOfPairs(Granularity):
    """The same with the pairs of ``recall``, whose words the tiny backbone knows; formatting it does not know."""

    name = "granularity_pairs"
    summary = "pairs of a value and a key, disturbed as in granularity"
    unit = Recall.unit
    max_new_tokens = Recall.max_new_tokens
    wording = Recall.name
    values = VALUES

    def facts(self, values: Sequence[str], split: Split, rng: random.Random) -> list[Fact]:
        keys = rng.sample(KEYS, len(values))
        return [Fact(f"{{value}} {key}", key, value) for key, value in zip(keys, values, strict=True)]


def clean(doses: Doses) -> Doses:
    """The same episodes, undisturbed."""
    return doses.model_copy(update={**NONE, "mixed": False})


def dose(doses: Doses) -> tuple[str, int]:
    """What is dosed, and how much; ``clean`` where nothing is, ``several`` where more than one thing is."""
    found = [(name, getattr(doses, name)) for name, none in NONE.items() if getattr(doses, name) != none]
    return found[0] if len(found) == 1 else ("several" if found else "clean", 0)


def _episode(task: Granularity, name: str, split: Split, settings: Doses, seed: int) -> Episode:
    rng = random.Random(f"granularity/{name}/{seed}")
    values = rng.sample(task.values[: settings.values], settings.values)
    facts = task.facts(values[: settings.facts], split, rng)
    target, spare = rng.randrange(len(facts)), tuple(values[settings.facts :])
    rng = random.Random(f"granularity/doses/{name}/{seed}")
    doses = settings.drawn(rng)
    old = spare[: doses.overwrites]
    told = [(n, fact.told()) for n, fact in enumerate(facts)]
    for text in [facts[target].told()] * (doses.repeats - 1) + [facts[target].told(value) for value in old]:
        last = max(place for place, (n, _) in enumerate(told) if n == target)
        told.insert(rng.randint(0, last), (target, text))
    messages: list[str] = []
    last_told: dict[int, str] = {}
    for n, text in told:
        last_told[n] = str(len(messages))
        messages.append(_strewn(text, doses.noise, rng))
        messages += [rng.choice(RULES) for _ in range(doses.between)]
    questions = tuple(
        Asked(
            f"{name}-{n}",
            fact.question,
            (fact.value,),
            category="target" if n == target else "other",
            evidence=(last_told[n],),
            old=old if n == target else (),
        )
        for n, fact in enumerate(facts)
    )
    history = History(tuple(Message(text, id=str(n)) for n, text in enumerate(messages)))
    return Episode(name, history, questions, root=name, source="generated")


def _strewn(text: str, marks: int, rng: random.Random) -> str:
    words = text.split()
    for _ in range(marks):
        words.insert(rng.randint(0, len(words)), rng.choice(MARKS))
    return " ".join(words)

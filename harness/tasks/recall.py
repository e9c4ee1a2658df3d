"""Associative recall: pairs of a value and a key are told, a pair a message, and each key is asked for its value.

The measure of what a state can hold: words and form stay the same, and only the number of pairs grows. A guess is
right once in ``len(VALUES)`` times, a memory of what was said, but not of whom, once in ``pairs`` times.
"""

from __future__ import annotations

import random

from pydantic import Field, model_validator

from harness.episodes import Episode, History, Message, Question, episodes_digest
from harness.experiment import DataSpec
from harness.tasks.base import Metric, Split, Task, TaskData, TaskSettings

EPISODES = 100
"""Episodes generated where the experiment names no number."""

KEYS = tuple(
    """
    apple arrow badge bag ball basket bell belt bike boat book boot bottle bowl box bread brush bucket button
    cake camera candle cap car card chair clock coat coin comb cup desk door drum fan flag fork glass glove
    hammer hat jar kettle key kite knife ladder lamp map mirror nail pan pen pipe plate ring rope saddle shoe
    spoon table tent umbrella wheel
    """.split()  # noqa: SIM905 - a list of words reads better than a list of strings
)
"""64 things."""

VALUES = tuple(
    """
    amber black blue bright broken brown clean cold cracked dark dry dusty golden green heavy hollow large light
    new old pale plain red rough round sharp small smooth soft square warm white
    """.split()  # noqa: SIM905 - a list of words reads better than a list of strings
)
"""32 words for how a thing is."""


class Pairs(TaskSettings):
    """The size of an episode."""

    pairs: int = Field(2, ge=1, le=len(KEYS), description="Pairs told an episode.")
    mixed: tuple[int, ...] = Field(
        (), description="Numbers of pairs, one drawn an episode; takes the place of `pairs` where it is given."
    )
    asked: int = Field(8, ge=1, description="Pairs asked for at most, drawn from those told.")

    @model_validator(mode="after")
    def _possible(self) -> Pairs:
        if any(not 1 <= n <= len(KEYS) for n in self.mixed):
            raise ValueError(f"each number of pairs lies between 1 and {len(KEYS)}, the number of keys")
        return self


class Recall(Task):
    """Pairs told, keys asked; see the module's text."""

    name = "recall"
    summary = "pairs of a value and a key are told, then each key is asked for its value"
    unit = "pair"
    metrics = (Metric("acc"),)
    primary_metric = "acc"
    max_new_tokens = 2
    splits = ("test", "train")
    Settings = Pairs

    def _load(self, data: DataSpec, split: Split, settings: Pairs, count: int | None) -> TaskData:
        rng = random.Random(f"{self.name}/{split}/{data.seed}")
        episodes = tuple(episode(f"{split}-{n:05d}", settings, rng) for n in range(count or EPISODES))
        where = f"{self.name} {split}, seed {data.seed}"
        return TaskData(episodes, "generated", where, episodes_digest(episodes))

    def score(self, answer: str, q: Question) -> dict[str, float]:
        """``acc``: the answer's first word is the value."""
        return {"acc": float(answer.split()[:1] == [q.answers[0]])}


def episode(name: str, settings: Pairs, rng: random.Random) -> Episode:
    """An episode of distinct keys; values may come twice, as what is told of one key says nothing of another's."""
    pairs = rng.choice(settings.mixed) if settings.mixed else settings.pairs
    keys = rng.sample(KEYS, pairs)
    values = [rng.choice(VALUES) for _ in keys]
    told = tuple(Message(f"{value} {key}", id=str(n)) for n, (key, value) in enumerate(zip(keys, values, strict=True)))
    asked = tuple(
        Question(f"{name}-{n}", keys[n], (values[n],), f"{pairs:02d}", evidence=(str(n),))
        for n in sorted(rng.sample(range(pairs), min(pairs, settings.asked)))
    )
    return Episode(name, History(told), asked, root=name, source="generated")

"""Questions in HotpotQA's schema: chains of paragraphs, from a novel to its writer, the writer's town and its river.

A bridge question follows one chain; a comparison sets the novels, or the writers, of two side by side.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from harness.data.generated import short
from harness.data.generated.words import ADJECTIVES, NOUNS, PLACE_ENDS, PLACE_STARTS, RIVERS, SURNAMES
from harness.data.names import NAMES
from harness.data.settings import Knobs

BRIDGES = {
    2: "In which town was the writer of the novel {title} born?",
    3: "On which river lies the town in which the writer of the novel {title} was born?",
    4: "Who first mapped the river on which lies the town in which the writer of the novel {title} was born?",
}
"""Question by paragraphs that it takes."""


class Chains(Knobs):
    """Knobs of generated questions; none gives the short ones, of four paragraphs."""

    paragraphs: int | None = Field(
        None, ge=2, le=10, description="Paragraphs a question, ten in the official form; None: the short form."
    )
    hops: int = Field(2, ge=2, le=4, description="Paragraphs that a bridge question takes.")
    near: int = Field(
        0, ge=0, le=8, description="Paragraphs on things whose titles share a word with those that are asked about."
    )
    yes_no: float = Field(0.5, ge=0, le=1, description="Share of the comparisons that are answered by yes or no.")

    @model_validator(mode="after")
    def _room(self) -> Chains:
        if self.paragraphs is not None and self.hops + self.near > self.paragraphs:
            raise ValueError("hops and near are among the paragraphs; raise paragraphs or lower them")
        return self


def rows(count: int, seed: int, knobs: Chains | None = None) -> list[dict[str, Any]]:
    """``count`` questions, every third a comparison."""
    if knobs is None or not knobs.graded:
        return short.hotpotqa(count, seed)
    rng = random.Random(f"hotpotqa/graded/{seed}")
    return [_question(f"invented-{n}", n % 3 == 2, knobs, rng) for n in range(count)]


@dataclass(frozen=True)
class _Chain:
    title: tuple[str, str]
    writer: tuple[str, str]
    year: int
    town: tuple[str, str]
    river: str
    mapper: str

    def names(self) -> tuple[str, str, str, str]:
        """Titles of the four paragraphs, in the order in which they lead to each other."""
        return f"The {' '.join(self.title)}", " ".join(self.writer), "".join(self.town), self.river

    def paragraph(self, place: int) -> tuple[str, list[str]]:
        """Title and sentences; the second sentence of all but a novel's leads on."""
        title, writer, town, river = self.names()
        return (
            (title, [f"{title} is a novel by {writer}.", f" It was published in {self.year}."]),
            (writer, [f"{writer} is a writer.", f" {self.writer[0]} was born in {town}."]),
            (town, [f"{town} is a small town.", f" It lies on the river {river}."]),
            (river, [f"{river} is a short river.", f" It was first mapped by {self.mapper}."]),
        )[place]


def _chains(rng: random.Random) -> Iterator[_Chain]:
    """Chains that share no word."""
    pools = [rng.sample(pool, len(pool)) for pool in (ADJECTIVES, NOUNS, NAMES, SURNAMES, PLACE_STARTS, PLACE_ENDS)]
    years, rivers = rng.sample(range(1850, 2020), 170), rng.sample(RIVERS, len(RIVERS))
    while True:
        adjective, noun, first, last, start, end = (pool.pop() for pool in pools)
        mapper = f"{pools[2].pop()} {pools[3].pop()}"
        yield _Chain((adjective, noun), (first, last), years.pop(), (start, end), rivers.pop(), mapper)


def _near(gold: _Chain, other: _Chain) -> _Chain:
    """``other`` with a word of each of the titles of ``gold``."""
    return _Chain(
        (gold.title[0], other.title[1]),
        (other.writer[0], gold.writer[1]),
        other.year,
        (gold.town[0], other.town[1]),
        other.river,
        other.mapper,
    )


def _question(name: str, compares: bool, knobs: Chains, rng: random.Random) -> dict[str, Any]:
    chains = _chains(rng)
    one, two = next(chains), next(chains)
    if not compares:
        question, answer = BRIDGES[knobs.hops].format(title=one.names()[0]), _end(one, knobs.hops)
        gold = [(one, place) for place in range(knobs.hops)]
        facts = [(one.names()[place], int(place > 0)) for place in range(knobs.hops)]
    elif rng.random() < knobs.yes_no:
        same = rng.random() < 0.5
        two = _Chain(two.title, two.writer, two.year, one.town, one.river, one.mapper) if same else two
        first, second = rng.sample([one, two], 2)
        question = f"Were {first.names()[1]} and {second.names()[1]} born in the same town?"
        answer, gold = "yes" if same else "no", [(one, 1), (two, 1)]
        facts = [(chain.names()[1], 1) for chain, _ in gold]
    else:
        question = f"Which novel was published first, {one.names()[0]} or {two.names()[0]}?"
        answer, gold = min(one, two, key=lambda chain: chain.year).names()[0], [(one, 0), (two, 0)]
        facts = [(chain.names()[0], 1) for chain, _ in gold]
    kinds = 2 if compares else knobs.hops
    assert knobs.paragraphs is not None, "graded rows have a number of paragraphs"
    near = [(chain, n % kinds) for n, chain in _by(kinds, knobs.near, (_near(one, chain) for chain in chains))]
    far = [(chain, n % kinds) for n, chain in _by(kinds, knobs.paragraphs - len(gold) - len(near), chains)]
    shown = [chain.paragraph(place) for chain, place in [*gold, *near, *far]]
    rng.shuffle(shown)
    return {
        "id": name,
        "question": question,
        "answer": answer,
        "type": "comparison" if compares else "bridge",
        "level": "easy",
        "supporting_facts": {"title": [t for t, _ in facts], "sent_id": [n for _, n in facts]},
        "context": {"title": [title for title, _ in shown], "sentences": [sentences for _, sentences in shown]},
    }


def _end(chain: _Chain, hops: int) -> str:
    """Where a chain leads to in so many paragraphs."""
    return (*chain.names(), chain.mapper)[hops]


def _by(size: int, count: int, chains: Iterator[_Chain]) -> Iterator[tuple[int, _Chain]]:
    """Numbers up to ``count``, and a chain for every ``size`` of them."""
    for n in range(count):
        if n % size == 0:
            chain = next(chains)
        yield n, chain

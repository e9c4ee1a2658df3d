"""Invented rows of MemoryAgentBench's schema, from a seed: short, and each question answered by its context alone.

One form for every ability: documents and events (AR), labelled exemplars (TTL), a mystery (LRU), and facts that
are told again with other values, asked one by one or in a chain (SF). They go through the reader of the official rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Set
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from harness.data.names import NAMES
from harness.errors import HarnessError

SURNAMES = ("Abbot", "Barlow", "Corrigan", "Dunmore", "Ellery", "Fenwick", "Galt", "Hollis", "Irving", "Jessop")
PEOPLE = len(NAMES) * len(SURNAMES)
CITIES = ["Oslo", "Lisbon", "Kyoto", "Lima", "Cairo", "Vienna", "Quito", "Dublin", "Nairobi", "Hanoi", "Riga", "Perth"]
LINKS = ("mentor", "dentist", "neighbour", "tailor", "landlord", "cousin")
PLACES = ("library", "bakery", "theatre", "lighthouse", "museum", "bridge", "station", "mill")
VERBS = ("painted", "mended", "sold", "borrowed", "cleaned", "hid", "photographed", "counted")
THINGS = [
    "lantern",
    "violin",
    "teapot",
    "ladder",
    "basket",
    "clock",
    "carpet",
    "anchor",
    "mirror",
    "barrel",
    "kettle",
    "saddle",
    "compass",
    "drum",
]
ROOMS = ("attic", "cellar", "kitchen", "garden", "stable", "pantry", "chapel", "study")
TOPICS = {
    "rain": ("will there be rain in {city}", "how much rain fell on {city}", "does {name} expect rain today"),
    "alarm": ("set an alarm for {hour}", "turn off the alarm at {hour}", "which alarm did {name} set"),
    "song": ("play the song that {name} likes", "repeat that song at {hour}", "find a song about {city}"),
    "soup": ("how long does soup cook", "order soup for {name} at {hour}", "is there soup in {city}"),
    "ticket": ("buy a ticket to {city}", "cancel the ticket of {name}", "print my ticket before {hour}"),
}
"""A word that tells a label, and utterances that have it."""


class Knobs(BaseModel):
    """How hard a generated row is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    facts: int = Field(4, ge=1, le=400, description="Generated rows: what is asked; questions of a row, about.")
    distractors: int = Field(4, ge=0, le=2000, description="Generated rows: facts and documents that nothing asks for.")
    updates: int = Field(1, ge=0, le=16, description="Generated facts: older values of each asked one, told before it.")
    hops: int = Field(
        2,
        ge=1,
        le=6,
        validate_default=True,
        description="Generated facts: links of a chain that a multi-hop question follows.",
    )

    @field_validator("hops")
    @classmethod
    def _enough_people(cls, hops: int, others: ValidationInfo) -> int:
        facts, distractors, updates = (others.data.get(name, 0) for name in ("facts", "distractors", "updates"))
        if facts * (hops + updates) + distractors > PEOPLE:
            raise ValueError(f"facts x (hops + updates) + distractors may not exceed {PEOPLE:,}, the names there are")
        return hops


def rows(count: int, knobs: Knobs, wanted: Set[str], seed: int) -> list[dict[str, Any]]:
    """``count`` rows of the forms among ``wanted`` in turn; rows of facts come in pairs of one context.

    Raises:
        HarnessError: none of the sub-data sets that are wanted is generated.
    """
    forms = [name for name in FORMS if name in wanted]
    if not forms:
        raise HarnessError(f"none of the chosen sub-data sets is generated; these are: {', '.join(FORMS)}")
    made = []
    for n in range(count):
        name = forms[n % len(forms)]
        make, label = FORMS[name]
        rng = random.Random(f"memory_agent_bench/{label}/{n // len(forms)}/{seed}")
        context, asked = make(rng, knobs)
        made.append(_row(name, context, asked))
    return made


Asked = list[tuple[str, str]]
"""Questions with their gold answers."""


def _row(source: str, context: str, asked: Asked) -> dict[str, Any]:
    unused = ("demo", "haystack_sessions", "keypoints", "previous_events", "question_dates", "question_ids")
    metadata = {**dict.fromkeys((*unused, "qa_pair_ids", "question_types")), "source": source}
    questions, answers = [q for q, _ in asked], [[a] for _, a in asked]
    return {"context": context, "questions": questions, "answers": answers, "metadata": metadata}


def _people(rng: random.Random, count: int) -> list[str]:
    names = [f"{first} {last}" for first in NAMES for last in SURNAMES]
    return rng.sample(names, count)


# --- facts ---


Fact = tuple[str, str]
"""What is told of, and the value it has."""


def _facts(rng: random.Random, knobs: Knobs) -> tuple[str, Asked, Asked]:
    """A numbered list in which a later value replaces an earlier one; questions of what has changed, and chains."""
    hops, chains = knobs.hops, knobs.facts
    people = iter(_people(rng, chains * (hops + knobs.updates) + knobs.distractors))
    told: list[Fact] = [(_born(next(people)), rng.choice(CITIES)) for _ in range(knobs.distractors)]
    single: Asked = []
    chained: Asked = []
    for _ in range(chains):
        path, links = [next(people) for _ in range(hops)], rng.sample(LINKS, hops - 1)
        keys = [*(_of(link, who) for link, who in zip(links, path[:-1], strict=True)), _born(path[-1])]
        values, changed = [*path[1:], rng.choice(CITIES)], rng.randrange(hops)
        for _ in range(knobs.updates):
            old = next(people)  # who lives on as a blind alley: one that knows no better ends in another city
            if changed < hops - 1:
                told += [(keys[changed], old), (_born(old), _other(rng, values[-1]))]
            else:
                told.append((keys[-1], _other(rng, values[-1])))
        told += zip(keys, values, strict=True)
        single.append(
            (_who(links[changed], path[changed]) if changed < hops - 1 else _where(path[-1]), values[changed])
        )
        way = "".join(f"the {link} of " for link in reversed(links))
        chained.append((_where(way + path[0]), values[-1]))
    lines = [f"{n}. {key} {value}.\n" for n, (key, value) in enumerate(_in_time(told, rng))]
    return "".join(["Here is a list of facts:\n", *lines]), single, chained


def _born(who: str) -> str:
    return f"{who} was born in the city of"


def _of(link: str, who: str) -> str:
    return f"The {link} of {who} is"


def _where(who: str) -> str:
    return f"In which city was {who} born?"


def _who(link: str, who: str) -> str:
    return f"Who is the {link} of {who}?"


def _other(rng: random.Random, city: str) -> str:
    return rng.choice([c for c in CITIES if c != city])


def _in_time(told: list[Fact], rng: random.Random) -> list[Fact]:
    """In random order, but the values of one key as they came."""
    values: dict[str, list[str]] = {}
    for key, value in told:
        values.setdefault(key, []).append(value)
    return [(key, values[key].pop(0)) for key, _ in rng.sample(told, len(told))]


def _single(rng: random.Random, knobs: Knobs) -> tuple[str, Asked]:
    context, single, _ = _facts(rng, knobs)
    return context, single


def _chained(rng: random.Random, knobs: Knobs) -> tuple[str, Asked]:
    context, _, chained = _facts(rng, knobs)
    return context, chained


# --- documents, exemplars, events, a mystery ---


def _documents(rng: random.Random, knobs: Knobs) -> tuple[str, Asked]:
    """A document a person, of whom a building and its year are told."""
    count = knobs.facts + knobs.distractors
    found = [(who, rng.choice(PLACES), rng.randint(1700, 1999)) for who in _people(rng, count)]
    texts = [
        f"Document {n}:\n{who} was an architect of {rng.choice(CITIES)}. The {place} that {who} planned was opened in "
        f"{year}."
        for n, (who, place, year) in enumerate(found, 1)
    ]
    asked = rng.sample(found, knobs.facts)
    return "\n\n".join(texts), [(f"When was the {place} opened that {who} planned?", str(y)) for who, place, y in asked]


def _exemplars(rng: random.Random, knobs: Knobs) -> tuple[str, Asked]:
    """Utterances of five topics, each with the number of its label; new ones are asked."""
    numbers = dict(zip(TOPICS, rng.sample(range(len(TOPICS)), len(TOPICS)), strict=True))
    texts = []
    for _ in range(max(1, knobs.facts // 2)):
        for topic in rng.sample(list(TOPICS), len(TOPICS)):
            texts.append(f"{_utterance(topic, rng)}\nlabel: {numbers[topic]}")
    topics = list(TOPICS)
    asked = [rng.choice(topics) for _ in range(knobs.facts)]
    return "\n\n".join(texts), [(_utterance(topic, rng), str(numbers[topic])) for topic in asked]


def _utterance(topic: str, rng: random.Random) -> str:
    words = {"city": rng.choice(CITIES), "name": rng.choice(NAMES), "hour": f"{rng.randint(1, 12)} o'clock"}
    return rng.choice(TOPICS[topic]).format(**words)


def _events(rng: random.Random, knobs: Knobs) -> tuple[str, Asked]:
    """A story of one person's doings, in order; six doings are offered, one of which came next."""
    who, length = rng.choice(NAMES), max(2, min(knobs.facts + knobs.distractors, len(VERBS) * len(THINGS) // 2))
    doings = rng.sample([(verb, thing) for verb in VERBS for thing in THINGS], length)
    events = [_event(who, doing) for doing in doings]
    asked = []
    for at in sorted(rng.sample(range(1, length), min(knobs.facts, length - 1))):
        verb, thing = doings[at]
        others = [t for t in THINGS if t != thing and (verb, t) not in doings]
        options = [events[at], *(_event(who, (verb, t)) for t in rng.sample(others, min(5, len(others))))]
        before = "\n".join(f"{n + 1}. {events[n]}" for n in range(max(0, at - 5), at))
        offered = rng.sample(options, len(options))
        asked.append((f"So far:\n\n{before}\n\nOne of these happened next:\n\n{offered}", events[at]))
    return " ".join(events), asked


def _event(who: str, doing: tuple[str, str]) -> str:
    return f"{who} {doing[0]} the {doing[1]}."


def _mystery(rng: random.Random, knobs: Knobs) -> tuple[str, Asked]:
    """Four suspects, three of whom were seen elsewhere; who, what and where are asked, with four options each."""
    suspects, rooms, things = _people(rng, 4), rng.sample(ROOMS, 4), rng.sample(THINGS, 4)
    thief, where, what = rng.choice(suspects), rng.choice(rooms), rng.choice(things)
    seen = [f"{who} sat in the hall all evening, as the cook could tell." for who in suspects if who != thief]
    other = [f"The {thing} stood where it always stood." for thing in things if thing != what]
    empty = [f"Nothing was found in the {room}." for room in rooms if room != where]
    noise = [f"{who} came only the day after." for who in _people(rng, knobs.distractors) if who not in suspects]
    clues = [*seen, *other, *empty, *noise, f"{thief} was seen by nobody.", f"A candle burned in the {where}."]
    context = " ".join(["That night a thing was taken at the manor.", *rng.sample(clues, len(clues))])
    asked = [
        _choice("Who took what was missing?", suspects, thief),
        _choice("What was taken?", things, what),
        _choice("In which room was something to be found?", rooms, where),
    ]
    return context, asked[: knobs.facts]


def _choice(question: str, options: list[str], right: str) -> tuple[str, str]:
    lettered = [f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True)]
    return "\n".join([question, *lettered]), lettered[options.index(right)]


FORMS: dict[str, tuple[Callable[[random.Random, Knobs], tuple[str, Asked]], str]] = {
    "ruler_qa1_197K": (_documents, "documents"),
    "eventqa_full": (_events, "events"),
    "icl_trec_coarse_6600shot_balance": (_exemplars, "exemplars"),
    "detective_qa": (_mystery, "mystery"),
    "factconsolidation_sh_262k": (_single, "facts"),
    "factconsolidation_mh_262k": (_chained, "facts"),
}
"""What makes each sub-data set, and the name under which its chance is seeded: both kinds of facts share a context."""

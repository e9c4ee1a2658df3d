"""The rows that are made where no knob is set: short (about 300 tokens) and of one difficulty.

Published records and fits rest on them, so that a change here would make other data of them. Answers stand in the
histories, or follow from them as the benchmark's category has it.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Sequence
from typing import Any

from harness.data.names import NAMES

CITIES = {
    "Oslo": "Norway",
    "Lisbon": "Portugal",
    "Kyoto": "Japan",
    "Lima": "Peru",
    "Cairo": "Egypt",
    "Vienna": "Austria",
}
PETS = ("dog", "cat", "parrot", "rabbit", "turtle")
PET_NAMES = ("Biscuit", "Comet", "Maple", "Pepper", "Sunny", "Willow")
INSTRUMENTS = ("cello", "flute", "guitar", "piano", "trumpet", "violin")
JOBS = ("baker", "nurse", "pilot", "teacher", "lawyer", "farmer")
SURNAMES = ("Abbot", "Barlow", "Corrigan", "Dunmore", "Ellery", "Fenwick", "Galt", "Hollis", "Irving", "Jessop")
TITLE_STARTS = ("The Silent", "The Amber", "The Broken", "The Hidden", "The Last", "The Northern")
TITLE_ENDS = ("Harbour", "Orchard", "Lantern", "Bridge", "Winter", "Mirror")
TASKS = ("tagging", "parsing", "summarisation", "question answering", "dialogue")
CORPORA = ("Heron", "Juniper", "Kelp", "Larch", "Marble", "Nettle")
BASELINES = ("a bag-of-words model", "a majority vote", "a linear classifier", "a nearest-neighbour search")

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")

SESSIONS = (
    (
        ("{a}", "Hi {b}! Big news: I have a {pet} now. Its name is {pet_name}."),
        ("{b}", "How lovely, {a}! I flew to {city} {when}, so I am a bit tired."),
        ("{a}", "Enjoy it! I have been playing the {first} every evening."),
        ("{b}", "That sounds nice. Let us talk again soon."),
    ),
    (
        ("{b}", "Hello {a}! I have a new job: I work as a {job}."),
        ("{a}", "Congratulations, {b}! I took up a second instrument, the {second}."),
        ("{b}", "You will need a bigger flat for all that music."),
        ("{a}", "Ha, that may well be true!"),
    ),
)
ASKED = (
    (4, "What is the name of {a}'s {pet}?", "{pet_name}", ("D1:1",)),
    (2, "When did {b} fly to {city}?", "{flown}", ("D1:2",)),
    (1, "Which instruments does {a} play?", "{first}, {second}", ("D1:3", "D2:2")),
    (4, "What does {b} work as?", "{job}", ("D2:1",)),
    (3, "Which country did {b} fly to?", "{country}; {city} is a city there", ("D1:2",)),
)
"""Category, question, answer and evidence."""


def locomo(count: int, seed: int) -> list[dict[str, Any]]:
    """``count`` conversations of two sessions and eight turns, five questions each, of categories 1 to 4."""
    rng = random.Random(f"locomo/{seed}")
    return [_conversation(f"invented-{n}", rng) for n in range(count)]


def _conversation(name: str, rng: random.Random) -> dict[str, Any]:
    words = {"pet": rng.choice(PETS), "pet_name": rng.choice(PET_NAMES), "job": rng.choice(JOBS)}
    words["a"], words["b"] = rng.sample(NAMES, 2)
    words["first"], words["second"] = rng.sample(INSTRUMENTS, 2)
    words["city"], words["country"] = rng.choice(list(CITIES.items()))
    words["when"], days_ago = rng.choice((("today", 0), ("yesterday", 1)))
    day = dt.date(2023, rng.randint(1, 6), rng.randint(2, 28))
    words["flown"] = _date(day - dt.timedelta(days=days_ago))
    conversation: dict[str, Any] = {"speaker_a": words["a"], "speaker_b": words["b"]}
    for n, turns in enumerate(SESSIONS, 1):
        hour = f"{rng.randint(1, 11)}:{rng.randint(0, 59):02d} pm"
        conversation[f"session_{n}_date_time"] = f"{hour} on {_date(day, comma=True)}"
        conversation[f"session_{n}"] = [
            {"speaker": who.format(**words), "dia_id": f"D{n}:{i}", "text": text.format(**words)}
            for i, (who, text) in enumerate(turns, 1)
        ]
        day += dt.timedelta(days=rng.randint(20, 60))
    qa = [
        {"category": c, "question": q.format(**words), "answer": a.format(**words), "evidence": list(e)}
        for c, q, a, e in ASKED
    ]
    return {"sample_id": name, "conversation": conversation, "qa": qa}


def _date(day: dt.date, comma: bool = False) -> str:
    """As LoCoMo writes it: ``7 May 2023`` in answers, ``7 May, 2023`` in session dates; in English in any locale."""
    return f"{day.day} {MONTHS[day.month - 1]}{',' if comma else ''} {day.year}"


Asked = tuple[str, str, str, list[tuple[str, int]]]
"""Question, answer, type and supporting facts."""


def hotpotqa(count: int, seed: int) -> list[dict[str, Any]]:
    """``count`` questions over four short paragraphs: bridge, comparison by year, comparison by yes or no in turn."""
    rng = random.Random(f"hotpotqa/{seed}")
    kinds = (_bridge, _earlier, _same_city)
    return [_two_books(f"invented-{n}", kinds[n % len(kinds)], rng) for n in range(count)]


def _two_books(name: str, ask: Callable[..., Asked], rng: random.Random) -> dict[str, Any]:
    """Two novels and their writers, a paragraph each, in random order."""
    titles = [f"{start} {end}" for start, end in zip(_two(TITLE_STARTS, rng), _two(TITLE_ENDS, rng), strict=True)]
    writers = [f"{first} {last}" for first, last in zip(_two(NAMES, rng), _two(SURNAMES, rng), strict=True)]
    years = rng.sample(range(1901, 2000), 2)
    cities = _two(list(CITIES), rng) if rng.random() < 0.5 else [rng.choice(list(CITIES))] * 2
    paragraphs = {}
    for title, writer, year, city in zip(titles, writers, years, cities, strict=True):
        paragraphs[title] = [f"{title} is a novel by {writer}.", f" It was published in {year}."]
        paragraphs[writer] = [f"{writer} is a writer.", f" {writer.split()[0]} was born in {city}."]
    question, answer, kind, facts = ask(titles, writers, years, cities)
    order = rng.sample(list(paragraphs), len(paragraphs))
    return {
        "id": name,
        "question": question,
        "answer": answer,
        "type": kind,
        "level": "easy",
        "supporting_facts": {"title": [t for t, _ in facts], "sent_id": [n for _, n in facts]},
        "context": {"title": order, "sentences": [paragraphs[title] for title in order]},
    }


def _two(pool: Sequence[str], rng: random.Random) -> list[str]:
    return rng.sample(pool, 2)


def _bridge(titles: list[str], writers: list[str], years: list[int], cities: list[str]) -> Asked:
    facts = [(titles[0], 0), (writers[0], 1)]
    return f"In which city was the writer of the novel {titles[0]} born?", cities[0], "bridge", facts


def _earlier(titles: list[str], writers: list[str], years: list[int], cities: list[str]) -> Asked:
    question = f"Which novel was published first, {titles[0]} or {titles[1]}?"
    return question, titles[years.index(min(years))], "comparison", [(title, 1) for title in titles]


def _same_city(titles: list[str], writers: list[str], years: list[int], cities: list[str]) -> Asked:
    question = f"Were {writers[0]} and {writers[1]} born in the same city?"
    answer = "yes" if cities[0] == cities[1] else "no"
    return question, answer, "comparison", [(writer, 1) for writer in writers]


def qasper(count: int, seed: int) -> list[dict[str, Any]]:
    """As many papers, of four questions each, as it takes for ``count`` questions, in the hub's schema."""
    rng = random.Random(f"qasper/{seed}")
    return [_paper(f"invented.{n:04d}", rng) for n in range(-(-count // 4))]


def _paper(name: str, rng: random.Random) -> dict[str, Any]:
    task, corpus, baseline = rng.choice(TASKS), rng.choice(CORPORA), rng.choice(BASELINES)
    size, gain = f"{rng.randint(2, 90)},000", str(rng.randint(2, 9))
    pretrained = rng.random() < 0.5
    data = f"We use the {corpus} corpus, which has {size} sentences written by volunteers."
    origin = "pretrained on news" if pretrained else "trained from scratch"
    model = f"Our encoder is {origin}. We compare it with {baseline}."
    result = f"On the test set our model is {gain} points better than the baseline."
    asked = (
        ("Which corpus do they use?", given(data, extractive_spans=[f"{corpus} corpus"])),
        ("Is their encoder pretrained?", given(model, yes_no=pretrained)),
        ("Which baseline do they compare with?", given(model, free_form_answer=baseline)),
        ("How many languages do they cover?", given(unanswerable=True)),
    )
    return {
        "id": name,
        "title": f"A small study of {task}",
        "abstract": f"We study {task} with little data and report what helps.",
        "full_text": {"section_name": ["Data", "Model", "Results"], "paragraphs": [[data], [model], [result]]},
        "qas": {
            "question": [question for question, _ in asked],
            "question_id": [f"{name}-{n}" for n in range(len(asked))],
            "answers": [{"answer": [answer]} for _, answer in asked],
        },
    }


def given(*evidence: str, **answer: Any) -> dict[str, Any]:
    blank = {"unanswerable": False, "extractive_spans": [], "yes_no": None, "free_form_answer": ""}
    return {**blank, **answer, "evidence": list(evidence), "highlighted_evidence": list(evidence)}

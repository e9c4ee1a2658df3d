"""Papers in QASPER's schema, in the hub's columns: what "we" did, and, in related work, what others did.

A question that is unanswerable asks for what the paper tells of others at most.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from pydantic import Field

from harness.data.generated import short
from harness.data.generated.words import BASELINES, CORPORA, LANGUAGES, METRICS, OPTIMISERS, SURNAMES, TOPICS
from harness.data.settings import Knobs

QUESTIONS = 4
"""Questions a paper."""

Draw = Callable[[random.Random], str]


def _of(*values: str) -> Draw:
    return lambda rng: rng.choice(values)


def _between(least: int, most: int, form: str = "{}") -> Draw:
    return lambda rng: form.format(rng.randint(least, most))


ASPECTS: tuple[tuple[str, str, Draw], ...] = (
    ("{who} trained on the {v} corpus.", "Which corpus do they train on?", _of(*CORPORA)),
    ("{who} collected {v} sentences.", "How many sentences do they collect?", _between(2, 999, "{},000")),
    ("{who} compared the model with {v}.", "Which baseline do they compare with?", _of(*BASELINES)),
    ("{who} optimised with {v}.", "Which optimiser do they use?", _of(*OPTIMISERS)),
    ("{who} measured {v}.", "What do they measure?", _of(*METRICS)),
    ("{who} gained {v} points on the test set.", "How many points do they gain?", _between(10, 99)),
    ("{who} worked on {v} texts.", "Which language do they work on?", _of(*LANGUAGES)),
    ("{who} paid {v} annotators.", "How many annotators do they pay?", _between(3, 90)),
    ("{who} stopped after {v} epochs.", "After how many epochs do they stop?", _between(3, 90)),
    ("{who} {v} the code.", "Do they release the code?", _of("released", "withheld")),
    ("{who} {v} a pretrained encoder.", "Do they start from a pretrained encoder?", _of("started from", "did without")),
)
"""Telling, question and value of what a paper may say of a system."""
AFFIRMED = {"released": True, "withheld": False, "started from": True, "did without": False}
"""Values that are answered by yes or no."""
FILLERS = (
    "This setting has been studied for some time.",
    "Details stand in the appendix.",
    "The choice was made on held-out data.",
    "More work is needed to settle this point.",
    "Errors are discussed in the last section.",
    "Results were stable over several runs.",
)
SECTIONS = ("Data", "Model", "Results")


class Papers(Knobs):
    """Knobs of generated papers; none gives the short ones, of three paragraphs."""

    paragraphs: int | None = Field(
        None,
        ge=4,
        le=60,
        description="Paragraphs on the paper's own work, at most one a thing told; None: the short form.",
    )
    related: int = Field(
        0, ge=0, le=60, description="Paragraphs of related work, which tell of others what is asked of this paper."
    )
    unanswerable: float = Field(0.25, ge=0, le=1, description="Share of the questions that the paper has no answer to.")


def rows(count: int, seed: int, knobs: Papers | None = None) -> list[dict[str, Any]]:
    """As many papers, of four questions each, as it takes for ``count`` questions."""
    if knobs is None or not knobs.graded:
        return short.qasper(count, seed)
    rng = random.Random(f"qasper/graded/{seed}")
    return [_paper(f"invented.{n:04d}", knobs, rng) for n in range(-(-count // QUESTIONS))]


def _paper(name: str, knobs: Papers, rng: random.Random) -> dict[str, Any]:
    assert knobs.paragraphs is not None, "graded rows have a number of paragraphs"
    aspects = rng.sample(ASPECTS, len(ASPECTS))
    asked = aspects[:QUESTIONS]
    told = [aspect for aspect in asked if rng.random() >= knobs.unanswerable]
    own, qa = [], []
    for aspect in [*told, *aspects[QUESTIONS:]][: knobs.paragraphs]:
        value = aspect[2](rng)
        own.append(f"{aspect[0].format(who='We', v=value)} {rng.choice(FILLERS)}")
        if aspect in told:
            qa.append((aspect[1], _given(value, own[-1])))
    qa += [(aspect[1], short.given(unanswerable=True)) for aspect in asked if aspect not in told]
    rng.shuffle(qa)
    own += [" ".join(rng.sample(FILLERS, 2)) for _ in range(knobs.paragraphs - len(own))]
    rng.shuffle(own)
    related = [_other(asked[n % QUESTIONS], rng) for n in range(knobs.related)]
    rng.shuffle(related)
    parts = {section: own[n :: len(SECTIONS)] for n, section in enumerate(SECTIONS)}
    sections = {"Related work": related, **parts} if related else parts
    topic = rng.choice(TOPICS)
    return {
        "id": name,
        "title": f"A study of {topic}",
        "abstract": f"We study {topic} and report what helps.",
        "full_text": {"section_name": list(sections), "paragraphs": list(sections.values())},
        "qas": {
            "question": [question for question, _ in qa],
            "question_id": [f"{name}-{n}" for n in range(len(qa))],
            "answers": [{"answer": [answer]} for _, answer in qa],
        },
    }


def _other(aspect: tuple[str, str, Draw], rng: random.Random) -> str:
    """What a paper tells of somebody else's system."""
    who = f"{' and '.join(rng.sample(SURNAMES, 2))} ({rng.randint(1990, 2020)})"
    return f"{aspect[0].format(who=who, v=aspect[2](rng))} {rng.choice(FILLERS)}"


def _given(value: str, evidence: str) -> dict[str, Any]:
    if value in AFFIRMED:
        return short.given(evidence, yes_no=AFFIRMED[value])
    return short.given(evidence, extractive_spans=[value])

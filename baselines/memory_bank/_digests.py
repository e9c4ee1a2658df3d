"""MemoryBank's days and digests: dates as data sets write them, and summaries by the backbone or by extraction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.episodes import Message, Query
from harness.errors import HarnessError
from harness.method import Steering
from harness.segments import statement_starts

if TYPE_CHECKING:
    from harness.backbones import Backbone

FORMS = ("%I:%M %p on %d %B, %Y", "%Y/%m/%d (%a) %H:%M", "%Y/%m/%d")
"""LoCoMo's, LongMemEval's with and without the hour; ISO 8601 is tried first."""

EVENTS = "Summarise in a few sentences what happened and what was said in this conversation. Keep names and numbers."
TRAITS = (
    "Describe in a few sentences the character, mood and preferences of the people in this conversation, and how "
    "one should best reply to them."
)
OVERVIEW = "These are summaries of several days. Condense them into one short summary."
PORTRAIT = "These are notes about people, made on several days. Condense them into one short portrait of each."
ABOUT = "the character, feelings, relationships and preferences of a person"
"""What a sentence of an extracted portrait should be near to."""
DIVERSITY = 0.3
"""Weight of being unlike what was taken before; Carbonell and Goldstein's 1 - λ."""


@dataclass(frozen=True)
class Digests:
    """What was made of the days. Days are ordinals, in order."""

    events: Mapping[int, str] = field(default_factory=dict)
    traits: Mapping[int, str] = field(default_factory=dict)
    overview: str = ""
    portrait: str = ""

    def texts(self) -> list[str]:
        """All of it."""
        return [*self.events.values(), *self.traits.values(), self.overview, self.portrait]

    def of_days(self, left: set[int]) -> Digests:
        """Without the digests of the other days; what is global stays as it was."""
        events, traits = ({d: t for d, t in kept.items() if d in left} for kept in (self.events, self.traits))
        return Digests(events, traits, self.overview, self.portrait)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Digests:
        """From JSON, whose keys are texts."""
        days = ({int(d): t for d, t in facts[name].items()} for name in ("events", "traits"))
        return cls(*days, facts["overview"], facts["portrait"])


# --- dates ---


def days_of(messages: Sequence[Message], last: int | None = None) -> list[int]:
    """The day of each message; one without a date is of the day of the one before it, and where none has a date, all
    are of day 1.

    Args:
        last: The last day of what these messages continue.
    """
    known = [None if m.time is None else parsed(m.time).toordinal() for m in messages]
    day = last or next((d for d in known if d is not None), 1)
    found = []
    for given in known:
        day = day if given is None else given
        found.append(day)
    return found


def parsed(text: str) -> date:
    """The day that a data set's date means.

    Raises:
        HarnessError: it has no form that is known.
    """
    text = text.strip()
    try:
        return datetime.fromisoformat(text).date()
    except ValueError:
        pass
    for form in FORMS:
        try:
            return datetime.strptime(text, form).date()
        except ValueError:
            continue
    raise HarnessError(
        f"memory_bank cannot read the date '{text}'; write it as 2023-05-08, as 1:56 pm on 8 May, 2023, or as "
        "2023/05/08 (Mon) 13:56"
    )


def day_name(day: int) -> str:
    """As the index and the notes have it."""
    return date.fromordinal(day).isoformat() if day > 1 else "the one day"


# --- summaries ---


def by_backbone(method: Any, texts: Mapping[int, Sequence[str]], before: Digests) -> Digests:
    """Digests by the backbone: two generations a day, and two for all days; half of it without portraits."""
    portrait, days = method.config.include_portrait, list(texts)
    said = ["\n".join(texts[day]) for day in days]
    wanted = [(EVENTS, text) for text in said] + ([(TRAITS, text) for text in said] if portrait else [])
    told = _generated(method, wanted)
    events = _merged(before.events, zip(days, told, strict=False))
    traits = _merged(before.traits, zip(days, told[len(days) :], strict=False))
    wanted = [(OVERVIEW, "\n".join(events.values()))] + ([(PORTRAIT, "\n".join(traits.values()))] if portrait else [])
    overview, *rest = _generated(method, wanted)
    return Digests(events, traits, overview, *rest)


def _generated(method: Any, wanted: Sequence[tuple[str, str]]) -> list[str]:
    """Greedy answers to instructions over texts; of a text too long for the window the end is kept."""
    from harness import generation

    backbone, cap = method.backbone, method.config.summary_tokens
    prompts = [_prompt(backbone, asked, text, backbone.window - cap) for asked, text in wanted]
    answers, _ = generation.answer(backbone, prompts, Steering(), max_new_tokens=cap)
    method.effort.lm_calls += len(prompts)
    method.effort.tokens_read += sum(a.prompt_tokens for a in answers)
    method.effort.tokens_generated += sum(a.new_tokens for a in answers)
    return [a.text.strip() for a in answers]


def _prompt(backbone: Backbone, asked: str, text: str, limit: int) -> Any:
    from harness import generation

    spans = backbone.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    room = limit - len(backbone.encode([Message(f"{asked}\n\n")], answer_next=True)[0])
    while 0 < room < len(spans):
        cut = text[spans[-room][0] :]
        if len(backbone.encode([Message(f"{asked}\n\n{cut}")], answer_next=True)[0]) <= limit:
            text = cut
            break
        room -= 1  # where the text is cut, tokens may fall apart
    return generation.prompt(backbone, (), Query("", f"{asked}\n\n{text}"))


def by_extraction(method: Any, texts: Mapping[int, Sequence[str]], before: Digests) -> Digests:
    """Digests of the sentences nearest to the middle of a day, or to ``ABOUT``, and unlike one another."""
    about = method.embedder.encode([ABOUT])[0] if method.config.include_portrait else None
    events, traits = {}, {}
    for day, said in texts.items():
        found = sentences(said)
        events[day] = _chosen(method, found, None)
        if about is not None:
            traits[day] = _chosen(method, found, about)
    kept, known = _merged(before.events, events.items()), _merged(before.traits, traits.items())
    return Digests(
        kept,
        known,
        _chosen(method, sentences(kept.values()), None),
        _chosen(method, sentences(known.values()), about) if about is not None else "",
    )


def _merged(before: Mapping[int, str], new: Iterable[tuple[int, str]]) -> dict[int, str]:
    """In the order of the days; what is blank is left out."""
    both = {**before, **dict(new)}
    return {day: both[day] for day in sorted(both) if both[day]}


def sentences(texts: Iterable[str]) -> list[str]:
    """Every sentence once, in order."""
    found = []
    for text in texts:
        starts = statement_starts(text)
        found += [text[a:b].strip() for a, b in zip(starts, [*starts, len(text)][1:], strict=True)]
    return list(dict.fromkeys(found))


def _chosen(method: Any, sentences: Sequence[str], near: np.ndarray | None) -> str:
    """Some sentences by maximal marginal relevance to a vector, by default their mean, in their own order."""
    if len(sentences) <= method.config.summary_sentences:
        return " ".join(sentences)
    vectors = method.embedder.encode(sentences)
    taken = diverse(vectors, vectors.mean(0) if near is None else near, method.config.summary_sentences)
    return " ".join(sentences[n] for n in sorted(taken))


def diverse(vectors: np.ndarray, near: np.ndarray, count: int) -> list[int]:
    """Numbers of ``count`` unit vectors that are near to one and not to each other, as they are taken."""
    near = near / max(float(np.linalg.norm(near)), 1e-12)
    relevance, alike = vectors @ near, np.zeros(len(vectors))
    taken: list[int] = []
    for _ in range(count):
        score = (1 - DIVERSITY) * relevance - DIVERSITY * alike
        score[taken] = -np.inf
        best = int(score.argmax())
        taken.append(best)
        alike = np.maximum(alike, vectors @ vectors[best])
    return taken

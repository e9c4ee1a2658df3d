"""The plain table that every reader gives: an answer a line, and what the file says of them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.episodes import Question


@dataclass(frozen=True)
class Answer:
    """One answer of a file, whose text its task's rule reads."""

    where: str
    """File and line or row, for errors."""
    id: str
    prediction: str
    row: Mapping[str, Any]
    """What ``Task.question_of`` reads: ``gold``, ``category`` and whatever else the rule looks at."""
    root: str = ""
    """The source document that the file names; empty where it names none."""
    text: str = ""
    """The question, or the prompt that holds it; empty where the file has neither."""
    draw: int = 0
    claimed: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """The file's own scores: value from 0 to 1, and how often it counts in a mean."""
    tokens: int | None = None
    cap: int | None = None
    """Tokens of this answer at most."""
    hit_cap: bool | None = None
    """What the file says of how the answer ended."""
    whole: bool = False
    """The prediction is all the text that was generated, so that its bytes bound its tokens."""
    again: bool = False
    """The same answer, listed again for the scores of another filter: only ``claimed`` counts."""


@dataclass
class Found:
    """What a reader makes of a file; ``answers`` is read once, as a stream where the format is one of lines."""

    format: str
    task: str
    answers: Iterable[Answer]
    metrics: Mapping[str, str] = field(default_factory=dict)
    """The task's metric that a score of the file claims to be, by the file's name of it."""
    rule: str = "official"
    """Whose metrics a name that is none of ``metrics`` means."""
    totals: dict[str, float] = field(default_factory=dict)
    """Means that the file claims, 0 to 1, by its own names of them."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know; it grows while ``answers`` is read."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The task's settings under which its official data is read."""
    known: Mapping[str, Question] | None = None
    """The questions themselves by id, where the file's own record tells which they are."""
    roots: Mapping[str, str] = field(default_factory=dict)
    """The root of each of ``known``."""


def share(value: Any) -> tuple[float, float] | None:
    """A score as value and weight: a number or truth value, or a list of these, which counts as often as it is long.

    None where it is something else, or lies outside 0 to 1.
    """
    parts = value if isinstance(value, list) else [value]
    if not parts or not all(isinstance(part, bool | int | float) and 0 <= part <= 1 for part in parts):
        return None
    return sum(map(float, parts)) / len(parts), float(len(parts))


def name_of(value: Any) -> str:
    """An id as text; empty where it is none."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def first_name(row: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The first of these fields that is an id; empty where none is."""
    return next((name for key in keys if (name := name_of(row.get(key)))), "")


def count_of(value: Any) -> int | None:
    """A number of tokens; None where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

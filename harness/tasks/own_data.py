"""The user's own histories and questions, from one file of JSON lines; ``docs/own-data.md`` describes it.

Scored by generic rules, of which an experiment's ``metric`` picks the one of the main table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from harness.data import own
from harness.data.files import TaskData
from harness.data.own import LETTERS, Asked, Wording
from harness.episodes import Question
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.scoring import exact, f1, normalize
from harness.tasks.base import Metric, Split, Task, TaskSettings


class OwnFile(TaskSettings):
    """The file, and the words in which its questions are asked."""

    file: str = Field(min_length=1, description="File of JSON lines; a relative path starts where the command runs.")
    system: str | None = Field(None, description="Instruction of the episodes that bring none.")
    question: str | None = Field(None, description="User message with {question} in it, the history in sight.")
    question_removed: str | None = Field(None, description="The same where only the memory is left.")

    @field_validator("file")
    @classmethod
    def _nameable(cls, file: str) -> str:
        if "\0" in file:
            raise ValueError("no file has a NUL in its name; take it out")
        return file

    @field_validator("question", "question_removed")
    @classmethod
    def _asks(cls, wording: str | None) -> str | None:
        if wording is not None and "{question}" not in wording:
            raise ValueError("the question itself goes where {question} stands; put it in")
        return wording


class OwnData(Task):
    """Questions of a user's own file; for training, of another one."""

    name = "own_data"
    summary = "your own histories and questions, from a file of JSON lines (docs/own-data.md)"
    unit = "message"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("f1"), Metric("em"), Metric("contains"), Metric("choice"))
    primary_metric = "f1"
    max_new_tokens = 32
    splits = ("test", "train")
    Settings = OwnFile

    def _load(self, data: DataSpec, split: Split, settings: OwnFile, count: int | None) -> TaskData:
        wording = Wording(settings.system, settings.question, settings.question_removed)
        loaded = own.load(Path(settings.file), wording)
        return own.shortest(loaded, count) if split == "train" and count is not None else loaded

    def files(self, settings: Mapping[str, Any]) -> tuple[Path, ...]:
        return (Path(settings["file"]),) if settings.get("file") else ()

    def question(self, q: Question, *, removed: bool = False) -> str:
        """In the words of the experiment's settings, where it has some."""
        worded = (q.removed if removed else q.shown) if isinstance(q, Asked) else None
        return worded or super().question(q, removed=removed)

    @classmethod
    def question_of(cls, row: Mapping[str, Any]) -> Question:
        """As every task's; ``choices`` lists what there was to choose from."""
        q, choices = super().question_of(row), row.get("choices", [])
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise HarnessError(
                "the field 'choices' is no list of strings; list what there was to choose from, or leave it out"
            )
        return Asked(q.id, q.text, q.answers, q.category, choices=tuple(choices))

    def score(self, answer: str, q: Question) -> dict[str, float]:
        """Of the best gold answer: SQuAD's F1 and exact match; whether its words stand in the answer; the choice.

        ``choice`` is 1 where the answer names the right choice, by letter or by text, and no other; of a question
        without choices it is the exact match.
        """
        equal = max(_equal(answer, gold) for gold in q.answers)
        choices = q.choices if isinstance(q, Asked) else ()
        return {
            "f1": max(max(f1(answer, gold), _equal(answer, gold)) for gold in q.answers),
            "em": equal,
            "contains": max(_contains(answer, gold) for gold in q.answers),
            "choice": float(chosen(answer, choices) in q.answers) if choices else equal,
        }


def _equal(answer: str, gold: str) -> float:
    """Exact match; of an answer that is nothing but an article or a mark, as it is written."""
    if normalize(gold):
        return exact(answer, gold)
    return float(answer.strip().casefold() == gold.strip().casefold())


def _contains(answer: str, gold: str) -> float:
    """Whether the words of the gold answer stand in the answer, in a row."""
    if not normalize(gold):
        return float(gold.strip().casefold() in answer.casefold().split())
    return float(f" {normalize(gold)} " in f" {normalize(answer)} ")


def chosen(answer: str, choices: tuple[str, ...]) -> str:
    """The one choice that an answer names, by its text or its letter (``B``, ``(b)``, ``B. blue``); else empty."""
    if answer.strip() in choices:  # as it is written: marks and signs may be all that tells choices apart
        return answer.strip()
    whole = [c for c in choices if _equal(answer, c)]
    letter = re.match(r"\W*(?:answer\W+)?([A-Za-z])(?:\W*$|[.):])", answer, re.IGNORECASE)
    place = LETTERS.find(letter[1].upper()) if letter else -1
    if whole or not 0 <= place < len(choices):
        named = whole or [c for c in choices if _contains(answer, c)]
        return named[0] if len(named) == 1 else ""
    return choices[place]

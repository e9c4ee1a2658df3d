"""The benchmark's own gold answers beside those of a file: which question is which, and whether both say the same."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from harness.data.files import TaskData, folder
from harness.episodes import Question
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.others.table import Answer, Found
from harness.tasks.base import Task

SHOWN = 5
"""Ids named of those whose gold answers differ."""


@dataclass
class Golds:
    """Questions by id and by text, each with its root; and the count of what was met."""

    questions: dict[str, tuple[Question, str]]
    same: int = 0
    fewer: int = 0
    """The file has some of the official gold answers, and no other."""
    differ: list[str] = field(default_factory=list)
    """Ids."""
    unknown: int = 0

    def __post_init__(self) -> None:
        self._by_text: defaultdict[str, list[str]] = defaultdict(list)
        for name, (question, _) in self.questions.items():
            self._by_text[question.text.strip()].append(name)

    def find(self, answer: Answer) -> tuple[Question, str] | None:
        """The official question of an answer: by its id unless their texts differ, else by its text."""
        text = answer.text.strip()
        known = self.questions.get(answer.id)
        if known and (not text or known[0].text.strip() in text):
            return known
        names = self._by_text.get(text) or ([] if not text else self._held(text))
        if answer.root and len(names) > 1:
            names = [name for name in names if self.questions[name][1] == answer.root]
        return self.questions[names[0]] if len(names) == 1 else None

    def _held(self, prompt: str) -> list[str]:
        """The longest question that stands in a prompt as a whole; several where several have its text."""
        inside = [text for text in self._by_text if text and text in prompt]
        return self._by_text[max(inside, key=len)] if inside else []

    def compare(self, given: Question | None, official: Question | None) -> None:
        """Count one question."""
        if official is None:
            self.unknown += 1
        elif given is not None:
            mine, theirs = _facts(given), _facts(official)
            if mine == theirs:
                self.same += 1
            elif mine < theirs:
                self.fewer += 1
            else:
                self.differ.append(official.id)

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        differ = sorted(self.differ)
        return {"same": self.same, "fewer": self.fewer, "differ": differ, "unknown": self.unknown}

    def sentence(self) -> str:
        """What a reader must know of them."""
        told = [f"{self.same} are the official ones"]
        if self.fewer:
            told.append(f"{self.fewer} are some of the official ones")
        if self.differ:
            names = ", ".join(sorted(self.differ)[:SHOWN]) + (", ..." if len(self.differ) > SHOWN else "")
            told.append(f"{len(self.differ)} differ ({names})")
        if self.unknown:
            told.append(f"{self.unknown} are of questions that the data folder does not have")
        return f"of the file's gold answers, {', '.join(told)}"


def _facts(question: Question) -> frozenset[str]:
    """What makes a gold answer this one."""
    if question.doc is not None and "instruction_id_list" in question.doc:
        asked = (question.doc["instruction_id_list"], question.doc["kwargs"])
        return frozenset({json.dumps(asked, sort_keys=True, default=str)})
    return frozenset(answer.strip() for answer in question.answers)


def official(scored: Task, found: Found, needed: bool) -> Golds | None:
    """The golds of the data folder, or of the record that the answers belong to; None where there are none.

    Args:
        needed: They are to score the answers, so that their lack is an error.

    Raises:
        HarnessError: they are ``needed`` and cannot be had.
    """
    if found.known is not None:
        return Golds({name: (question, found.roots[name]) for name, question in found.known.items()})
    if scored.secret:
        if needed:
            raise HarnessError(
                f"'{scored.name}' is scored by the file's own order of options; leave --official-golds out"
            )
        found.notes.append("gold answers are not compared: the order of the options is the file's own")
        return None
    try:
        data = _loaded(scored, found)
    except HarnessError as error:
        if needed:
            raise
        found.notes.append(f"gold answers are the file's own, not compared with official ones ({error})")
        return None
    return Golds({q.id: (q, e.root) for e in data.episodes for q in e.questions})


def _loaded(scored: Task, found: Found) -> TaskData:
    if folder() is None:
        raise HarnessError("DELTA_MEM_DATA names no folder of official data; set it")
    data = scored.load(DataSpec(source="official"), "test", found.settings)
    if data.source == "generated":
        raise HarnessError(f"'{scored.name}' has no official data; leave --official-golds out")
    return data

"""LoCoMo: questions about a very long dated conversation of two people, categories 1 to 4, and the release's form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.data import locomo
from harness.data.files import TaskData, field
from harness.data.generated.locomo import Conversations
from harness.episodes import Decoding, Episode, Question
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.scoring import locomo_f1, locomo_f1_release
from harness.tasks.base import Metric, Prompts, Split, Task


class LoCoMo(Task):
    """Scored by LoCoMo's own F1 and, under ``f1_release``, with the rounding of the paper's release."""

    name = "locomo"
    summary = "questions about a very long dated conversation (LoCoMo, categories 1 to 4)"
    unit = "turn"
    licence = "CC BY-NC 4.0, Maharana et al. (ACL 2024)"
    metrics = (Metric("f1"), Metric("f1_release", "release"))
    primary_metric = "f1"
    max_new_tokens = 50
    Settings = Conversations

    def _load(self, data: DataSpec, split: Split, settings: Conversations, count: int | None) -> TaskData:
        return locomo.load(data, count, settings, self.form())

    def form(self) -> locomo.Form:
        """How the conversation is told."""
        return locomo.Form()

    def question(self, q: Question, *, removed: bool = False) -> str:
        """As every task's; a temporal question also says how to date its answer."""
        asked = super().question(q, removed=removed)
        return f"{asked} {self.prompts.render(self.name, 'temporal')}" if q.category == "temporal" else asked

    def answer(self, text: str) -> str:
        """The first line without a label before the answer: ``(a)``, ``b)``, ``Answer:``."""
        return re.sub(r"\(?\b[ab]\)|answer:", "", super().answer(text), flags=re.IGNORECASE).strip()

    def score(self, answer: str, q: Question) -> dict[str, float]:
        """F1 by the rule of the question's category."""
        return {
            "f1": max(locomo_f1(answer, gold, q.category) for gold in q.answers),
            "f1_release": max(locomo_f1_release(answer, gold, q.category) for gold in q.answers),
        }

    @classmethod
    def question_of(cls, row: Mapping[str, Any]) -> Question:
        """As every task's; the category, whose rule scores, must be there: its name, or LoCoMo's number of it."""
        category = row.get("category")
        name = locomo.CATEGORIES.get(category) if isinstance(category, int) else category
        if isinstance(category, bool) or name not in locomo.CATEGORIES.values():
            known = ", ".join(f"{number} ({name})" for number, name in locomo.CATEGORIES.items())
            found = f"is {category!r:.40}" if "category" in row else "is missing"
            raise HarnessError(f"the field 'category' {found}; give the number or the name of one of: {known}")
        return super().question_of({**row, "category": name})


class LoCoMoRelease(LoCoMo):
    """Asked and decoded as the paper's release does: one user message, newest session first, sampled answers."""

    name = "locomo@release"
    summary = "LoCoMo in the form of the paper's release: one user message, newest session first, sampled answers"
    primary_metric = "f1_release"
    # Of sessions that run from the newest to the oldest the end is kept: the release fills its window from the first
    # session on and, within the one that no longer fits, from its latest turn.
    truncate = "tail"
    temperature, top_p, top_k, seed = 0.4, 0.9, 10, 42

    def form(self) -> locomo.Form:
        return _Sessions(self.prompts)

    def _load(self, data: DataSpec, split: Split, settings: Conversations, count: int | None) -> TaskData:
        loaded = super()._load(data, split, settings, count)
        return replace(loaded, episodes=tuple(self._sampled(e) for e in loaded.episodes))

    def _sampled(self, episode: Episode) -> Episode:
        """Each question's seed counts on from 42, in the order of its conversation's questions that are asked."""
        return episode.with_questions(
            replace(q, decoding=Decoding(self.temperature, self.top_p, self.top_k, self.seed + n))
            for n, q in enumerate(episode.questions)
        )


class _Sessions(locomo.Form):
    """Sessions under their dates, below an opening that names the two speakers."""

    newest_first = True

    def __init__(self, prompts: Prompts) -> None:
        self.prompts = prompts

    def turn(self, speaker: str, text: str, picture: str) -> str:
        told = self.prompts.render(LoCoMoRelease.name, "turn", speaker=speaker, text=text)
        return f"{told} {self.prompts.render(LoCoMoRelease.name, 'picture', caption=picture)}" if picture else told

    def heading(self, date: str) -> str:
        return self.prompts.render(LoCoMoRelease.name, "session", date=date)

    def frame(self, conversation: dict, where: str) -> str:
        one, other = (field(conversation, f"speaker_{letter}", str, where) for letter in "ab")
        return self.prompts.render(LoCoMoRelease.name, "opening", one=one, other=other)

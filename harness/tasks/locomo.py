"""LoCoMo: questions about a very long dated conversation of two people, categories 1 to 4."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.data import locomo
from harness.data.files import TaskData
from harness.data.generated.locomo import Conversations
from harness.episodes import Question
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.scoring import locomo_f1
from harness.tasks.base import Metric, Split, Task


class LoCoMo(Task):
    """Scored by LoCoMo's own F1, which is also the rule of the paper's release."""

    name = "locomo"
    summary = "questions about a very long dated conversation (LoCoMo, categories 1 to 4)"
    unit = "turn"
    metrics = (Metric("f1"),)
    primary_metric = "f1"
    max_new_tokens = 50
    Settings = Conversations

    def _load(self, data: DataSpec, split: Split, settings: Conversations, count: int | None) -> TaskData:
        return locomo.load(data, count, settings)

    def question(self, q: Question, *, removed: bool = False) -> str:
        """As every task's; a temporal question also says how to date its answer."""
        asked = super().question(q, removed=removed)
        return f"{asked} {self.prompts.render(self.name, 'temporal')}" if q.category == "temporal" else asked

    def answer(self, text: str) -> str:
        """The first line without a label before the answer: ``(a)``, ``b)``, ``Answer:``."""
        return re.sub(r"\(?\b[ab]\)|answer:", "", super().answer(text), flags=re.IGNORECASE).strip()

    def score(self, answer: str, q: Question) -> dict[str, float]:
        """``f1`` by the rule of the question's category."""
        return {"f1": max(locomo_f1(answer, gold, q.category) for gold in q.answers)}

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

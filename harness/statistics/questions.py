"""From samples to one score a question: draws averaged, categories picked, and the score of a whole cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.episodes import CLEAN, widening
from harness.errors import HarnessError
from harness.statistics.estimates import Estimate, mean

if TYPE_CHECKING:
    import pandas as pd

QUESTION = ["history_id", "question_id"]
"""The columns that name a question within a task."""


def by_question(samples: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row a question (index ``QUESTION``): its score, averaged over donor draws, its root and its category.

    Args:
        samples: Columns of ``harness.records.SAMPLE_COLUMNS``; ``score.<metric>`` lies in [0, 1].
        metric: Name of the metric.

    Returns:
        Columns ``score``, ``root``, ``category``, and ``clean`` and the metric's ``weight`` where the samples have it.

    Raises:
        HarnessError: the samples have no such metric.
    """
    column = f"score.{metric}"
    if column not in samples:
        raise HarnessError(f"the samples have no column '{column}'; name a metric of the task, or evaluate again")
    questions = samples.groupby(QUESTION, sort=True)
    kept = {name: (name, "first") for name in ("root", "category", CLEAN) if name in samples}
    if (weight := f"weight.{metric}") in samples:
        kept["weight"] = (weight, "first")
    return questions.agg(score=(column, "mean"), **kept)


def average(questions: pd.DataFrame) -> float:
    """The mean score of questions, each counted as often as its ``weight`` says, where it has one."""
    return float(np.average(questions["score"], weights=questions.get("weight")))


def within(questions: pd.DataFrame, wide: str) -> pd.DataFrame:
    """The questions of a category: those of its own name, and of the narrower ones (``AR/...`` in ``AR``).

    Where an overlay names wrong gold answers, ``clean`` is the category of all others.
    """
    if wide == CLEAN and CLEAN in questions:
        return questions[questions[CLEAN]]
    categories = questions["category"]
    return questions[(categories == wide) | categories.str.startswith(f"{wide}/")] if wide else questions


def categories(samples: pd.DataFrame) -> list[str]:
    """Every category that some question counts in, sorted; ``clean`` last, where an overlay names wrong answers."""
    found = sorted({wide for category in set(samples["category"]) for wide in widening(category)})
    return [*found, CLEAN] if CLEAN in samples and samples[CLEAN].any() else found


def score(samples: pd.DataFrame, metric: str, category: str = "") -> Estimate:
    """The score of one cell, or of one category of its questions: what its record and every table say.

    Raises:
        HarnessError: the samples have no such metric or category.
    """
    scores = within(by_question(samples, metric), category)
    return mean(scores["score"], scores["root"], scores.get("weight"))

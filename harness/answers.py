"""Scores of answers that any system gave: JSON lines of prediction and gold in, a line of scores out, without a model.

``docs/scoring.md`` describes the lines.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from harness import scoring
from harness.data.files import unrepeated
from harness.episodes import Question, widening
from harness.errors import HarnessError, nearest
from harness.tasks.base import Task, text_of


@dataclass(frozen=True)
class Scored:
    """What one line earned."""

    scores: dict[str, float]
    category: str = ""
    id: str | int | None = None
    """As the line has it; None where it has none."""

    def line(self) -> str:
        """As JSON, without an end of line."""
        return json.dumps({**({} if self.id is None else {"id": self.id}), **self.scores})


def score(
    scored: Task,
    lines: Iterable[bytes],
    source: str,
    rule: str = "official",
    metric: str | None = None,
    raw: bool = False,
) -> list[Scored]:
    """One result a line, in order; empty lines are passed over.

    Args:
        lines: UTF-8 JSON objects ``{prediction, gold, category?, id?}`` and what else the task asks for.
        source: What errors call the file.
        rule: Whose metrics: ``official`` or ``release``; see :func:`metrics_of`.
        metric: Only this one of them.
        raw: Score the predictions as they stand, without the task's clean-up of a generation.

    Raises:
        HarnessError: the task has no such metric, a line is wrong, or there is none.
    """
    names = metrics_of(scored, rule, metric)
    found = [_one(scored, row, names, where, raw) for where, row in rows(lines, source)]
    if not found:
        raise HarnessError(f"{source} holds no line to score; give JSON lines of prediction and gold")
    return found


def metrics_of(scored: Task, rule: str, metric: str | None = None) -> list[str]:
    """A task's metrics by the benchmark's rule, or by the release's where that scores otherwise.

    Raises:
        HarnessError: ``metric`` is none of them.
    """
    names = [m.name for m in scored.metrics if m.rule == rule] or [m.name for m in scored.metrics]
    if metric is not None and metric not in names:
        raise HarnessError(f"the task '{scored.name}' has no {rule} metric '{metric}'; {nearest(metric, names)}")
    return names if metric is None else [metric]


def has_rule(scored: Task, rule: str) -> bool:
    """Whether the task has metrics of its own for a rule."""
    return any(m.rule == rule for m in scored.metrics)


def means(found: Iterable[Scored]) -> Iterator[tuple[str, float, int]]:
    """Name, mean and number of lines: of each metric over all lines, then by category (``f1/temporal``)."""
    pools: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in found:
        for category in ["", *widening(one.category)]:
            for name, value in one.scores.items():
                pools[category, name].append(value)
    for (category, name), values in sorted(pools.items()):
        yield f"{name}/{category}" if category else name, scoring.mean(values), len(values)


def rows(lines: Iterable[bytes], source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of JSON lines, each with file and line; empty lines are passed over.

    Raises:
        HarnessError: a line is no UTF-8, no JSON or no object.
    """
    for number, line in enumerate(lines, 1):
        where = f"{source}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if not text.strip():
                continue
            row = json.loads(text, object_pairs_hook=partial(unrepeated, where=where), parse_constant=refuse)
        except UnicodeDecodeError as error:
            raise HarnessError(f"{where}: no UTF-8 (byte {error.start}); save the file as UTF-8") from error
        except (ValueError, RecursionError) as error:
            raise HarnessError(f"{where}: no JSON ({error}); write one JSON object a line") from error
        if not isinstance(row, dict):
            raise HarnessError(f"{where}: {type(row).__name__} and no object; write one JSON object a line")
        yield where, row


def refuse(constant: str) -> None:
    """For ``parse_constant``: NaN and the infinities are no JSON."""
    raise ValueError(f"{constant} is none of its numbers")


def _one(scored: Task, row: dict[str, Any], names: list[str], where: str, raw: bool) -> Scored:
    try:
        question = scored.question_of(row)
        prediction = text_of(row, "prediction")
        name = row.get("id")
        if isinstance(name, bool) or not isinstance(name, str | int | None):
            raise HarnessError(f"the field 'id' is {type(name).__name__}, not str or int; give one of these or none")
    except HarnessError as error:
        raise HarnessError(f"{where}: {error}") from error
    scores = scores_of(scored, prediction if raw else scored.answer(prediction), question, where)
    return Scored({m: scores[m] for m in names}, question.category, name)


def scores_of(scored: Task, answer: str, question: Question, where: str) -> dict[str, float]:
    """Every metric of an answer to a question that came from a file; ``where`` names file and line.

    Raises:
        HarnessError: the task's rule cannot be applied to the question's values.
    """
    try:
        return scored.score(answer, question)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, re.error) as error:
        # Some rules are lm-eval's, which ask of their fields more than a type: a known relation, a pattern.
        reason = type(error).__name__ if scored.secret else " ".join(f"{type(error).__name__}: {error}".split())
        raise HarnessError(
            f"{where}: the rule of '{scored.name}' cannot be applied to its values ({reason}); compare the fields "
            "beside 'prediction' with the benchmark's file"
        ) from error

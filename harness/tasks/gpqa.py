"""GPQA-Diamond: questions of graduate level with four options, in lm-eval's form and in that of the paper's release."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from harness.data import gpqa
from harness.data.files import TaskData
from harness.data.settings import TaskSettings
from harness.episodes import Question
from harness.experiment import DataSpec
from harness.tasks._lm_eval import Borrowed
from harness.tasks.base import Metric, Split

_LETTER = r"[*_(\[\"']*([A-D])\b"
_RULES = tuple(
    re.compile(rule, re.IGNORECASE | re.DOTALL)
    for rule in (
        r"```(?:json)?\s*\{[^{}]*\"answer\"\s*:\s*\"\s*([A-D])\s*\"[^{}]*\}\s*```",
        r"\"answer\"\s*:\s*\"\s*([A-D])\s*\"",
        r"\\boxed\{\s*([A-D])\s*\}",
        rf"\b(?:final|correct)\s+answer\s*:\s*{_LETTER}",
        rf"\b(?:final|correct)\s+answer\s+is\s*:?\s*{_LETTER}",
    )
)
_LINE = re.compile(r"([A-D])(?:$|[.):,])", re.IGNORECASE)


def extract(answer: str) -> str:
    """The letter that the release's rule finds in an answer, A to D, or nothing.

    The last match of the first form that is there at all: an answer in fenced JSON, an ``"answer"`` key, a box, a
    named answer with a colon, one with "is"; else the first, then the last non-empty line that is a letter, or starts
    with one and a mark.
    """
    for rule in _RULES:
        if found := rule.findall(answer):
            return str(found[-1]).upper()
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    for line in (*lines[:1], *lines[-1:]):
        if match := _LINE.match(line):
            return match[1].upper()
    return ""


class GPQA(Borrowed):
    """lm-eval's ``gpqa_diamond_cot_zeroshot``; ``acc_release`` scores the same answers by the release's rule."""

    name = "gpqa"
    summary = "questions of graduate level with four options (GPQA-Diamond, lm-eval's zero-shot form)"
    yaml = "gpqa/cot_zeroshot/gpqa_diamond_cot_zeroshot.yaml"
    metrics = (Metric("acc"), Metric("acc_strict"), Metric("acc_release", "release"))
    primary_metric = "acc"
    max_new_tokens = 8192  # the release's: lm-eval's task names no number
    stop: ClassVar[tuple[str, ...]] = ("</s>",)
    secret = True

    def _load(self, data: DataSpec, split: Split, settings: TaskSettings, count: int | None) -> TaskData:
        return gpqa.load(data, count)

    def document(self, q: Question) -> dict[str, Any]:
        """With the options in lm-eval's columns, cleaned by its own function; their order is ours, of the record."""
        from lm_eval.tasks.gpqa.cot_zeroshot.utils import preprocess

        doc = super().document(q)
        options = [preprocess(text) for text in doc["choices"]]
        return {**doc, "choices": options, **{f"choice{n}": text for n, text in enumerate(options, 1)}}

    def score(self, answer: str, q: Question) -> dict[str, float]:
        """``acc`` is lm-eval's flexible extraction, ``acc_strict`` its strict one; ``acc_release`` the release's."""
        found = self.official(answer, q)
        return {
            "acc": float(found["flexible-extract"]["exact_match"]),
            "acc_strict": float(found["strict-match"]["exact_match"]),
            "acc_release": float(f"({extract(answer)})" == q.answers[0]),
        }

    @classmethod
    def question_of(cls, row: Mapping[str, Any]) -> Question:
        """A line of ``harness score`` gives the correct letter and the four options in order."""
        doc = gpqa.document(row)
        return Question("", "", (doc["answer"],), doc=doc)


class GPQARelease(GPQA):
    """Asked as the paper's release does, for an answer in JSON."""

    name = "gpqa@release"
    summary = "GPQA-Diamond in the form of the paper's release: an answer in JSON"
    primary_metric = "acc_release"
    stop = ()

    def question(self, q: Question, *, removed: bool = False) -> str:
        assert q.doc is not None, "a question of GPQA has its row"
        options = "\n".join(f"{a}. {text.strip()}" for a, text in zip(gpqa.LETTERS, q.doc["choices"], strict=True))
        return self.prompts.render(self.name, "question", question=q.text.strip(), options=options)

"""IFEval: prompts with instructions whose following a program can check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.data import ifeval
from harness.data.files import TaskData
from harness.data.settings import TaskSettings
from harness.episodes import Question
from harness.experiment import DataSpec
from harness.scoring import Share
from harness.tasks._lm_eval import STAND_IN, Borrowed, has_punkt, prepare_ifeval
from harness.tasks.base import Metric, Split


class IFEval(Borrowed):
    """lm-eval's ``ifeval``: strict and loose, by prompt and by instruction."""

    name = "ifeval"
    summary = "prompts with instructions that can be checked (IFEval, lm-eval's own rules)"
    yaml = "ifeval/ifeval.yaml"
    licence = "Apache-2.0, Zhou et al. (2023)"
    metrics = (
        Metric("prompt_level_strict_acc"),
        Metric("prompt_level_loose_acc"),
        Metric("inst_level_strict_acc"),
        Metric("inst_level_loose_acc"),
    )
    primary_metric = "prompt_level_strict_acc"
    max_new_tokens = 1280
    stop = ()

    def _load(self, data: DataSpec, split: Split, settings: TaskSettings, count: int | None) -> TaskData:
        return ifeval.load(data, count)

    def note(self) -> str:
        return "" if has_punkt() else STAND_IN

    @classmethod
    def prepare(cls) -> None:
        prepare_ifeval()

    def score(self, answer: str, q: Question) -> dict[str, float]:
        """A prompt is followed where all its instructions are; by instruction, it counts as often as it has some."""
        found = self.official(answer, q)["none"]
        followed = {name: found[name] for name in ("inst_level_strict_acc", "inst_level_loose_acc")}
        return {
            "prompt_level_strict_acc": float(found["prompt_level_strict_acc"]),
            "prompt_level_loose_acc": float(found["prompt_level_loose_acc"]),
            **{name: Share(sum(each), len(each)) for name, each in followed.items()},
        }

    @classmethod
    def question_of(cls, row: Mapping[str, Any]) -> Question:
        """A line of ``harness score`` needs no gold: it has the fields of IFEval's file beside its prediction."""
        doc = ifeval.document(row, "the line")
        return Question(str(doc["key"]), doc["prompt"], (", ".join(doc["instruction_id_list"]),), doc=doc)

"""HotpotQA, distractor setting: questions that need two of ten paragraphs."""

from __future__ import annotations

from harness.data import hotpotqa
from harness.data.files import TaskData
from harness.data.generated.hotpotqa import Chains
from harness.episodes import Episode, Question
from harness.experiment import DataSpec
from harness.scoring import exact, f1, hotpotqa_f1, normalize_release
from harness.tasks.base import Metric, Prompts, Split, Task


class HotpotQA(Task):
    """Scored by HotpotQA's own rule and, under ``*_release``, by that of the paper's release."""

    name = "hotpotqa"
    summary = "questions that need two of ten paragraphs (HotpotQA, distractor setting)"
    unit = "paragraph"
    licence = "CC BY-SA 4.0, Yang et al. (EMNLP 2018)"
    metrics = (Metric("em"), Metric("f1"), Metric("em_release", "release"), Metric("f1_release", "release"))
    primary_metric = "f1"
    max_new_tokens = 32
    Settings = Chains

    def _load(self, data: DataSpec, split: Split, settings: Chains, count: int | None) -> TaskData:
        return hotpotqa.load(data, count, settings, self.form())

    def form(self) -> hotpotqa.Form:
        """How the paragraphs are told."""
        return hotpotqa.Form()

    def score(self, answer: str, q: Question) -> dict[str, float]:
        """Exact match and F1 of the best gold answer, by either rule."""
        return {
            "em": max(exact(answer, gold) for gold in q.answers),
            "f1": max(hotpotqa_f1(answer, gold) for gold in q.answers),
            "em_release": max(exact(answer, gold, normalize_release) for gold in q.answers),
            "f1_release": max(f1(answer, gold, normalize_release) for gold in q.answers),
        }

    def titles(self, episode: Episode) -> tuple[str, ...]:
        """Each paragraph's."""
        return tuple(str(m.id) for m in episode.history.messages)


class HotpotQARelease(HotpotQA):
    """Asked as the paper's release asks: instruction, passages and question in one user message, no system message."""

    name = "hotpotqa@release"
    summary = "HotpotQA in the form of the paper's release: all in one user message"
    primary_metric = "f1_release"

    def form(self) -> hotpotqa.Form:
        return _Passages(self.prompts)

    def empty(self) -> str:
        return self.prompts.render(self.name, "empty")


class _Passages(hotpotqa.Form):
    """Numbered passages below an instruction; the numbers count empty paragraphs too, which are left out."""

    def __init__(self, prompts: Prompts) -> None:
        self.prompts = prompts

    def paragraph(self, number: int, title: str, text: str) -> str:
        return self.prompts.render(HotpotQARelease.name, "passage", number=str(number), title=title, text=text)

    def frame(self) -> str:
        return self.prompts.render(HotpotQARelease.name, "instruction")

"""QASPER: questions about a research paper; what the trained methods learn from."""

from __future__ import annotations

from harness.data import qasper
from harness.data.files import TaskData
from harness.data.generated.qasper import Papers
from harness.episodes import Episode, Question
from harness.experiment import DataSpec
from harness.scoring import f1
from harness.tasks.base import Metric, Split, Task


class QASPER(Task):
    """A training task: one question an episode, shortest first. Scored by QASPER's answer F1."""

    name = "qasper"
    summary = "questions about a research paper (QASPER); the training episodes of the paper"
    unit = "paragraph"
    licence = "CC BY 4.0, Dasigi et al. (NAACL 2021)"
    metrics = (Metric("f1"),)
    primary_metric = "f1"
    max_new_tokens = 64
    splits = ("train",)
    Settings = Papers

    def _load(self, data: DataSpec, split: Split, settings: Papers, count: int | None) -> TaskData:
        return qasper.load(data, count, settings)

    def score(self, answer: str, q: Question) -> dict[str, float]:
        """``f1`` of the best annotator's answer."""
        return {"f1": max(f1(answer, gold) for gold in q.answers)}

    def titles(self, episode: Episode) -> tuple[str, ...]:
        """The paper's, where its text is there and not only the evidence."""
        opening = episode.history.messages[0].content if episode.source != "rebuilt" else ""
        return (opening.split("\n", 1)[0],) if opening else ()

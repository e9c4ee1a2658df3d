"""Scores of answers: of those just given, and again of those that are stored, without a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness import manifest, records, statistics
from harness import overlay as overlays
from harness.episodes import CLEAN
from harness.errors import HarnessError
from harness.experiment import Experiment
from harness.overlay import Overlay
from harness.reporting.summary import collect
from harness.scoring import weight
from harness.tasks import Prompts, task
from harness.tasks.base import Task

CAP_SHARE = 0.01
"""Share of answers at the token cap above which a record warns (docs/validity.md)."""
SAME_SHARE = 0.05
"""Share of empty answers, and of equal ones beyond what the gold answers have, above which it does."""
FEW_CLUSTERS = 20


def scores(scored: Task, answers: pd.DataFrame) -> dict[str, records.Score]:
    """Every metric over all questions, and by category where the task has some."""
    found = {}
    for metric in scored.metrics:
        for category in ["", *statistics.categories(answers)]:
            e = statistics.score(answers, metric.name, category)
            name = f"{metric.name}/{category}" if category else metric.name
            found[name] = records.Score(
                value=e.value, low=e.low, high=e.high, n=e.n, clusters=e.clusters, rule=metric.rule
            )
    return found


def columns(metric: str, found: Sequence[float]) -> dict[str, list[float]]:
    """A metric's columns of the samples: its scores and, where some count more than once, their weights."""
    weights = [float(weight(value)) for value in found]
    told = {f"score.{metric}": [float(value) for value in found]}
    return told if all(w == 1 for w in weights) else {**told, f"weight.{metric}": weights}


def mark(answers: pd.DataFrame, overlay: Overlay | None) -> pd.DataFrame:
    """Answers with the column ``clean``: whether the overlay leaves their gold alone; without one, without it."""
    if overlay is None:
        return answers.drop(columns=CLEAN, errors="ignore")
    return answers.assign(**{CLEAN: ~answers["question_id"].isin(overlay.wrong)})


def follow(record: records.Record, scored: Task, folder: Path, overlay: Overlay | None) -> None:
    """Bring a standing record up to another overlay: the same scores of the same answers, others left out."""
    known = record.configs.get(record.task, {})
    facts = overlay.facts() if overlay else None
    if known.get("overlay") == facts or record.status != "ok":
        return
    answers = mark(records.samples(record, folder), overlay)
    record.scores = scores(scored, answers)
    record.configs[record.task] = told(known, overlay)
    records.save(record, answers, folder)


def told(config: dict[str, Any], overlay: Overlay | None) -> dict[str, Any]:
    """A record's configuration of its task with what it says of the overlay."""
    rest = {key: value for key, value in config.items() if key != "overlay"}
    return {**rest, "overlay": overlay.facts()} if overlay else rest


def rescore(experiment: Experiment, results: Path, commit: str) -> Iterator[Path]:
    """Score an experiment's stored answers by its tasks' rules as they are now; yields each record rewritten.

    Answers to a secret task are stored nowhere, so its records stay as they are.

    Args:
        commit: Whose rules these are, for the record.

    Raises:
        HarnessError: answers are not stored (those to official data are not published), or are to other questions.
    """
    prompts = Prompts(Path(experiment.prompts) if experiment.prompts else None)
    manifest.void(results, experiment.name)
    for cell, record in collect(experiment, results).items():
        if record.status != "ok":
            continue
        spec = next(t for t in experiment.tasks if t.name == cell.task)
        scored = task(spec.task, prompts)
        if scored.secret:
            continue
        episodes = scored.load(experiment.data_of(spec), "test", spec.settings, spec.episodes).episodes
        asked = {q.id: q for e in episodes for q in e.questions}
        overlay = overlays.of(spec, asked)
        answers = records.samples(record, results / cell.path)
        if "answer" not in answers or not set(answers["question_id"]) <= asked.keys():
            raise HarnessError(
                f"{cell.id} has no answers to this experiment's questions; score the run that gave them, on its data"
            )
        rows = [
            scored.score(scored.answer(text), asked[name])
            for name, text in zip(answers["question_id"], answers["answer"], strict=True)
        ]
        for metric in scored.metrics:
            answers = answers.assign(**columns(metric.name, [row[metric.name] for row in rows]))
        answers = mark(answers, overlay)
        record.scores, record.scored_by = scores(scored, answers), commit
        record.configs[cell.task] = told(record.configs.get(cell.task, {}), overlay)
        record.primary_metric = spec.metric or scored.primary_metric
        means = {f"{name},none": score.value for name, score in record.scores.items() if "/" not in name}
        record.results[cell.task] = {**record.results.get(cell.task, {}), **means}
        records.save(record, answers, results / cell.path)
        yield results / cell.path / "record.json"

"""What a worker does: prepare a backbone, fit a method, evaluate a job's cells, measure. JSON in, JSON out.

A worker keeps the last backbone warm. Everything is resumable: fits from checkpoints, cells from their records,
a cell that was cut off from its journal.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval's bars would fill the logs

import torch

from harness import (
    backbones,
    cells,
    certificate,
    efficiency,
    efficiency_records,
    fits,
    manifest,
    overlay,
    records,
    tuning,
)
from harness.allowance import Allowance, Limit, SpentError
from harness.backbones import Backbone
from harness.episodes import Episode, Message, cap_of
from harness.errors import HarnessError
from harness.experiment import BackboneSpec, Budget, Cell, Experiment, Job, RunSpec, row_of
from harness.experiment import cells as cells_of
from harness.gates import GateError
from harness.method import MemoryMethod
from harness.progress import Progress
from harness.registry import plug, resolve
from harness.tasks import Prompts, task
from harness.tasks.base import Task, TaskData, select
from harness.truncation import views_of

ROOM = 256
"""Tokens of the window that a history leaves to the question and its template, beside the answer's."""
PROBED = ("removed", "own_text", "windowed", "replayed")
"""Conditions in the order in which gates prefer them: where the memory alone speaks, it shows most."""


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Do one job.

    Args:
        request: ``kind`` (prepare, fit, evaluate, measure, doctor), ``experiment`` (resolved), ``backbone``, ``row``,
            ``seed``, ``results`` (folder), ``retrain``, ``progress`` (file), ``limit`` (hours that may be used in all,
            and their unit), ``predicted`` (seconds by step).

    Raises:
        HarnessError: the input is refused, a gate failed, or more hours would be used than are allowed.
    """
    experiment = Experiment.model_validate(request["experiment"])
    allowance = _allowance(request, experiment) if request["kind"] != "doctor" else None
    work = _Work(
        experiment=experiment,
        backbone=request["backbone"],
        row=request.get("row", ""),
        seed=request.get("seed", 0),
        results=Path(request["results"]),
        retrain=bool(request.get("retrain")),
        progress=Progress(request.get("progress"), allowance),
    )
    plug(work.experiment.plugins)
    if request["kind"] != "doctor":
        manifest.void(work.results, work.experiment.name)  # until all is whole again
    kinds = {"prepare": _prepare, "fit": _fit, "evaluate": _evaluate, "measure": _measure, "doctor": _doctor}
    try:
        if allowance:
            allowance.begin()
        return kinds[request["kind"]](work)
    finally:
        if allowance:
            allowance.close()


def _allowance(request: dict[str, Any], experiment: Experiment) -> Allowance:
    parts = (request["backbone"], request.get("row"), f"{request['kind']}-{request.get('seed', 0)}")
    return Allowance(
        Path(request["results"]) / experiment.name,
        "/".join(part for part in parts if part),
        experiment.run.gpus_per_worker,
        Limit(**request["limit"]) if request.get("limit") else None,
        request.get("predicted"),
        experiment.run.workers,
    )


@dataclass(frozen=True)
class _Work:
    experiment: Experiment
    backbone: str
    row: str
    seed: int
    results: Path
    retrain: bool
    progress: Progress

    @property
    def job(self) -> Job:
        return Job(self.experiment.name, self.backbone, self.row, self.seed)

    @property
    def folder(self) -> Path:
        return self.results / self.job.path

    def open(self) -> Backbone:
        self.progress.update("open", 0, 1)
        spec, run = self.experiment.backbones[self.backbone], self.experiment.run
        return _open(spec.model_dump_json(), run.model_dump_json())

    @contextmanager
    def method(self) -> Iterator[MemoryMethod]:
        """The row's method on the warm backbone, taken off again at the end."""
        row = row_of(self.experiment, self.job)
        cls, config = resolve(row.method, row.with_)
        method = cls(config, self.open(), self.seed)
        try:
            yield method
        finally:
            method.close()


@lru_cache(maxsize=1)
def _open(spec: str, run: str) -> Backbone:
    settings = RunSpec.model_validate_json(run)
    backbones.threads(settings.cpus_per_worker)
    return backbones.open_backbone(BackboneSpec.model_validate_json(spec), settings)


# --- prepare ---


def _prepare(work: _Work) -> dict[str, Any]:
    """Convert or fetch the backbone once, before jobs want it at the same time."""
    backbones.prepare(work.experiment.backbones[work.backbone], work.progress)
    facts = work.open().describe()
    records.write_json(work.results / work.experiment.name / work.backbone / "backbone.json", facts)
    return facts


# --- fit ---


def _fit(work: _Work) -> dict[str, Any]:
    """Restore or learn the row's parameters, with the best of the experiment's learning rates."""
    spec, budget = work.experiment.training, work.experiment.budget
    row = row_of(work.experiment, work.job)
    cls, _ = resolve(row.method, row.with_)
    if cls.capabilities.fits is None:
        raise HarnessError(f"row '{work.row}' learns nothing, so there is nothing to fit; evaluate it directly")
    every, data = training_episodes(work.experiment, cls)
    episodes, dev = tuning.split(every, spec)

    def fit(method: MemoryMethod, budget: Budget) -> dict[str, Any]:
        found = fits.obtain(
            method, method.backbone, episodes, budget, work.results, work.progress, retrain=work.retrain
        )
        return found.facts()

    tuned = {}
    if spec.learning_rates:
        budget, tuned["trials"] = tuning.best(work.method, fit, dev, budget, spec.learning_rates)
    with work.method() as method:
        facts = {**fit(method, budget), **tuned, "data": data, "budget": budget.model_dump(mode="json")}
    records.write_json(work.folder / "fit.json", facts)
    return facts


def training_episodes(
    experiment: Experiment, method: MemoryMethod | type[MemoryMethod]
) -> tuple[list[Episode], dict[str, Any]]:
    """Episodes whose questions are worded as the method is trained, and where they came from."""
    spec = experiment.training
    found = _task(experiment, spec.task)
    data = found.load(experiment.data, "train", spec.settings, spec.episodes)
    removed = method.capabilities.fits == "removed"
    episodes = [
        e.with_questions(replace(q, text=found.question(q, removed=removed)) for q in e.questions)
        for e in data.episodes
        if e.questions
    ]
    return episodes, _data_facts(spec.task, data, episodes)


def _data_facts(name: str, data: TaskData, episodes: Sequence[Episode]) -> dict[str, Any]:
    return {
        "task": name,
        "source": data.source,
        "file": data.file,
        "hash": data.hash,
        "note": data.note,
        "episodes": len(episodes),
        "questions": sum(len(e.questions) for e in episodes),
    }


def _task(experiment: Experiment, name: str) -> Task:
    return task(name, Prompts(Path(experiment.prompts) if experiment.prompts else None))


# --- evaluate ---


def _evaluate(work: _Work) -> dict[str, Any]:
    """Leave a record a cell: those that stand already are kept, the rest are answered."""
    start = time.perf_counter()
    wanted = cells_of(work.experiment, work.job)
    with work.method() as method:
        fit = _restored(work, method)
        job = cells.JobContext(work.experiment, work.job, method, work.results, fit)
        plans = [plan for name in _named(wanted) for plan in _planned(work, method, job, name, wanted)]
        missing = []
        for plan in plans:
            if not plan.stands():
                missing.append(plan)
            elif plan.writes:
                plan.material.written = True
        for plan in missing:
            _ = plan.donors  # episodes that cannot serve an arm are refused before the first answer
        opened = time.perf_counter()
        if missing:
            work.progress.update("gates", 0, 1)
            _prove(job, missing)
        gated = time.perf_counter()
        _answer(missing, work.progress)
    facts = {
        "cells": [str(cell.path) for cell in wanted],
        "answered": len(missing),
        "seconds": round(time.perf_counter() - start, 3),
        "opening_seconds": round(opened - start, 3),
        "gates_seconds": round(gated - opened, 3),
        "model_seconds": round(sum(plan.model_seconds for plan in missing), 3),
    }
    records.write_json(work.folder / "evaluated.json", facts)
    return facts


def _prove(job: cells.JobContext, plans: Sequence[cells.Plan]) -> None:
    """Let the job's gates be passed on a probe of its own episodes, under a condition in which its memory acts."""
    asked = {plan.cell.condition for plan in plans}
    condition = next(c for c in PROBED if c in asked)
    job.gates = certificate.run(job.method, _probe(plans), condition)
    fit = (job.fit or {}).get("address", "")
    job.certificate = certificate.certify(job.method, job.gates, fit, job.experiment.run.batch_size)


def _doctor(work: _Work) -> dict[str, Any]:
    """The gates alone: what each measured, and the certificate that the job's records would carry."""
    wanted = cells_of(work.experiment, work.job)
    with work.method() as method:
        job = cells.JobContext(work.experiment, work.job, method, work.results, _restored(work, method))
        _prove(job, [plan for name in _named(wanted) for plan in _planned(work, method, job, name, wanted)])
    assert job.certificate is not None
    return {
        "gates": [gate.model_dump(mode="json") for gate in job.gates],
        "certificate": job.certificate.model_dump(mode="json"),
    }


def _answer(plans: Sequence[cells.Plan], progress: Progress) -> None:
    """Answer every cell.

    Raises:
        Exception: one had no answer but errors; the others have their records.
    """
    total, done, broken = sum(plan.questions for plan in plans), 0, None
    for plan in plans:
        try:
            done = cells.answer(plan, progress, done, total)
        except (GateError, SpentError):
            raise
        except Exception as error:
            broken = broken or error
    if broken:
        raise broken


def _named(wanted: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.task for cell in wanted))


def _restored(work: _Work, method: MemoryMethod) -> dict[str, Any] | None:
    """Load the parameters that the fit of this job left."""
    if method.capabilities.fits is None:
        return None
    path = work.folder / "fit.json"
    if not path.is_file():
        raise HarnessError(f"there is no fit for {work.job.path} ({path}); run `harness fit` for this row first")
    facts = json.loads(path.read_text())
    stored = fits.find(work.results, facts["address"])
    if stored is None:
        raise HarnessError(f"the fit that {path} names is no longer stored; delete that file and run again")
    fits.restore(method, stored, facts["address"])
    return facts


def _planned(
    work: _Work, method: MemoryMethod, job: cells.JobContext, name: str, wanted: Sequence[Cell]
) -> list[cells.Plan]:
    """The cells of one task, with its episodes read, drawn and cut once."""
    spec = next(t for t in work.experiment.tasks if t.name == name)
    found = _task(work.experiment, spec.task)
    data = found.load(work.experiment.data_of(spec), "test", spec.settings, spec.episodes)
    chosen = select(data, spec, work.experiment.data.seed)
    cap = spec.max_new_tokens or found.max_new_tokens
    longest = max(cap_of(q, cap) for e in chosen for q in e.questions)
    sight = method.backbone.window - longest - ROOM
    views = views_of(chosen, spec, method.backbone, spec.truncate or found.truncate, sight)
    facts = _data_facts(spec.task, data, views.written)
    wrong = overlay.of(spec, {q.id for e in data.episodes for q in e.questions})
    material = cells.Material(found, spec, data, views.written, facts, cap, views, wrong)
    return [cells.Plan(job, cell, material) for cell in wanted if cell.task == name]


def _probe(plans: Sequence[cells.Plan]) -> list[Episode]:
    """Two episodes of the first task with histories for the gates, questions worded as they will be asked.

    The second one has another history; none where all are equal. Where no task has histories, the question itself is
    what is read.
    """
    material = next((p.material for p in plans if p.material.task.has_history), plans[0].material)
    first = material.episodes[0]
    apart = [e for e in material.episodes if not material.task.has_history or e.history != first.history]
    other = next((e for e in apart if e.root != first.root), apart[0] if apart else None)
    asked = [
        e.with_questions(replace(q, text=material.task.question(q, removed=True)) for q in e.questions)
        for e in (first, other)
        if e is not None
    ]
    if material.task.has_history:
        return asked
    return [replace(e, history=replace(e.history, messages=(Message(e.questions[0].text),))) for e in asked]


# --- measure ---


def _measure(work: _Work) -> dict[str, Any]:
    """Leave the record of the row's speed and memory; a later call measures anew."""
    with work.progress.piece("measure"):
        record = efficiency.measure(work.experiment, work.job, work.open(), work.progress)
    path = efficiency_records.save(record, work.results)
    return {"record": str(path), "points": len(record.points)}


def reset() -> None:
    """Forget the warm backbone (for tests)."""
    _open.cache_clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""What a worker does: prepare a backbone, fit a method, evaluate a job's cells, measure. JSON in, JSON out.

A worker keeps the last backbone warm. Everything is resumable: fits from checkpoints, cells from their records,
a cell that was cut off from its journal.
"""

from __future__ import annotations

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
from filelock import FileLock, Timeout

from harness import (
    backbones,
    cells,
    certificate,
    disk,
    efficiency,
    efficiency_records,
    fits,
    manifest,
    overlay,
    ranks,
    records,
    seals,
    shortage,
    tuning,
)
from harness.allowance import Allowance, Limit, SpentError
from harness.backbones import Backbone
from harness.cache import Shelf
from harness.episodes import Episode, Message, cap_of, digest
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

TRAIL = ".trail.json"
"""File of a job's :class:`harness.shortage.Trail`."""
ROOM = 256
"""Tokens of the window that a history leaves to the question and its template, beside the answer's."""
PROBED = ("removed", "own_text", "windowed", "replayed")
"""Conditions in the order in which gates prefer them: where the memory alone speaks, it shows most."""


def run(request: dict[str, Any], shelf: Shelf | None = None) -> dict[str, Any]:
    """Do one job.

    Args:
        request: ``kind`` (prepare, fit, evaluate, measure, doctor), ``experiment`` (resolved), ``backbone``, ``row``,
            ``seed``, ``results`` (folder), ``retrain``, ``progress`` (file), ``digest`` (of the backbone that the run
            was prepared with), ``killed`` (workers that it has cost for want of memory), ``helps`` (an evaluation,
            beside whoever has it), ``limit`` (hours that may be used in all, and their unit), ``predicted`` (seconds by
            step).
        shelf: What the pipeline's machine holds of backbones, where that is another one.

    Raises:
        HarnessError: the input is refused, a gate failed, memory does not suffice, or more hours would be used than are
            allowed.
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
        progress=Progress(None if request.get("helps") else request.get("progress"), allowance),
        digest=request.get("digest"),
        shelf=shelf,
        killed=int(request.get("killed", 0)),
        helps=bool(request.get("helps")),
    )
    plug(work.experiment.plugins)
    kinds = {"prepare": _prepare, "fit": _fit, "evaluate": _evaluate, "measure": _measure, "doctor": _doctor}
    what = "/".join(filter(None, (work.backbone, work.row)))
    with disk.sentences(work.results), shortage.named(f"the {request['kind']} of {what}", request["kind"]):
        if allowance is None:
            return kinds[request["kind"]](work)
        manifest.void(work.results, work.experiment.name)  # until all is whole again
        try:
            allowance.begin()
            return kinds[request["kind"]](work)
        finally:
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
    digest: str | None
    shelf: Shelf | None
    killed: int
    helps: bool
    """Another worker has the job and leaves the mark of its end."""

    @property
    def job(self) -> Job:
        return Job(self.experiment.name, self.backbone, self.row, self.seed)

    @property
    def folder(self) -> Path:
        return self.results / self.job.path

    def open(self) -> Backbone:
        self.progress.update("open", 0, 1)
        spec, run = self.experiment.backbones[self.backbone], self.experiment.run
        found = _open(spec.model_dump_json(), run.model_dump_json(), self.shelf)
        if self.digest not in (None, found.digest):
            file = self.results / self.experiment.name / self.backbone / "backbone.json"
            raise HarnessError(
                f"the backbone '{self.backbone}' is {found.digest[:12]} here and was {self.digest[:12]} when the run "
                f"was prepared; restore it, or delete {file} to take it as it is, and run again"
            )
        return found

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
def _open(spec: str, run: str, shelf: Shelf | None) -> Backbone:
    settings = RunSpec.model_validate_json(run)
    backbones.threads(settings.cpus_per_worker)
    return backbones.open_backbone(BackboneSpec.model_validate_json(spec), settings, shelf)


# --- prepare ---


def _prepare(work: _Work) -> dict[str, Any]:
    """Convert or fetch the backbone once, before jobs want it at the same time."""
    backbones.prepare(work.experiment.backbones[work.backbone], work.progress, work.shelf)
    facts = work.open().describe()
    records.write_sealed(work.results / work.experiment.name / work.backbone / "backbone.json", facts)
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
        found = tuning.best(work.method, fit, dev, budget, spec.learning_rates)
        budget, tuned["trials"] = ranks.told(found)  # losses may differ in the last bits between machines
    with work.method() as method:
        facts = {**fit(method, budget), **tuned, "data": data, "budget": budget.model_dump(mode="json")}
    if ranks.leads():
        records.write_sealed(work.folder / "fit.json", facts)
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
    """Leave a record a cell: those that stand already are kept, the rest are answered.

    Workers that are free may help. Each takes whole tasks that nobody is at, from the last one on, for the histories
    of a task are written once for all of its cells; whoever has the job itself waits for them.
    """
    start = time.perf_counter()
    wanted = cells_of(work.experiment, work.job)
    if work.helps and not any(_free(work, name, wanted) for name in _named(wanted)):
        return {}
    with work.method() as method:
        fit, trail = _restored(work, method), shortage.Trail(None if work.helps else work.folder / TRAIL, work.killed)
        job = cells.JobContext(work.experiment, work.job, method, work.results, fit, trail=trail)
        plans = [plan for name in _named(wanted) for plan in _planned(work, method, job, name, wanted)]
        missing = [plan for plan in plans if not _stands(plan)]
        for plan in missing:
            _ = plan.donors  # episodes that cannot serve an arm are refused before the first answer
        opened = time.perf_counter()
        if missing:
            work.progress.update("gates", 0, 1)
            _prove(job, missing)
        gated = time.perf_counter()
        answered, waited = _answer(work, missing)
    trail.remove()
    facts = {
        "cells": [str(cell.path) for cell in wanted],
        "answered": len(answered),
        "seconds": round(time.perf_counter() - start, 3),
        "opening_seconds": round(opened - start, 3),
        "gates_seconds": round(gated - opened, 3),
        "model_seconds": round(sum(plan.model_seconds for plan in answered), 3),
        "waited_seconds": round(waited, 3),
    }
    if not work.helps:
        records.write_sealed(work.folder / "evaluated.json", facts)
    return facts


def _free(work: _Work, name: str, wanted: Sequence[Cell]) -> bool:
    """Whether cells of a task have no record and nobody is at it."""
    if all((work.results / cell.path / "record.json").is_file() for cell in wanted if cell.task == name):
        return False
    with _alone(work, name) as alone:
        return alone


def _stands(plan: cells.Plan) -> bool:
    if not plan.stands():
        return False
    plan.material.written |= plan.writes
    return True


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


def _answer(work: _Work, plans: Sequence[cells.Plan]) -> tuple[list[cells.Plan], float]:
    """Answer every cell, or as a helper those of tasks that are free.

    Returns:
        The cells that were answered here, and the seconds waited for others to answer theirs.

    Raises:
        Exception: one had no answer but errors; the others have their records.
    """
    tasks = {name: [plan for plan in plans if plan.cell.task == name] for name in _named([p.cell for p in plans])}
    total, done, waited, broken = sum(plan.questions for plan in plans), 0, 0.0, None
    answered = []
    turns = [(name, False) for name in (reversed(tasks) if work.helps else tasks)]
    for name, wait in turns:
        begun = time.perf_counter()
        with _alone(work, name, wait) as alone:
            waited += time.perf_counter() - begun
            if not alone:
                turns += [] if work.helps else [(name, True)]
                continue
            for plan in tasks[name]:
                if _stands(plan):  # by now
                    done += plan.questions
                    continue
                try:
                    done = cells.answer(plan, work.progress, done, total)
                    answered.append(plan)
                except (GateError, SpentError, OSError):  # a disk that is full will not take the next record either
                    raise
                except Exception as error:
                    broken = broken or error
    if broken:
        raise broken
    return answered, waited


@contextmanager
def _alone(work: _Work, name: str, wait: bool = False) -> Iterator[bool]:
    """Keep other workers from a task of the job for the length of a block; False where one is at it."""
    file = work.results / ".locks" / f"{digest([str(work.job.path), name])[:16]}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(file).acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    with held:
        yield True


def _named(wanted: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.task for cell in wanted))


def _restored(work: _Work, method: MemoryMethod) -> dict[str, Any] | None:
    """Load the parameters that the fit of this job left."""
    if method.capabilities.fits is None:
        return None
    path = work.folder / "fit.json"
    if not path.is_file():
        raise HarnessError(f"there is no fit for {work.job.path} ({path}); run `harness fit` for this row first")
    facts = seals.read(path)
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

"""A plan, told by row and task, and kept beside the results before they are made.

``plan.json`` holds what each step was predicted to take. A prediction is made when a pipeline begins and the step has
no result; it stays until the step's inputs change, so that it cannot be made to fit afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import efficiency_records, manifest, records
from harness.errors import HarnessError
from harness.experiment import Experiment, Job
from harness.inputs import fingerprint
from harness.pilot import UNMEASURED, Pilot
from harness.plan import SUMMED, Estimate, plan

FILE = "plan.json"
MARKS = {"pilot": "", "near": " *", "constants": " †"}
"""What stands behind seconds that were not measured for the row and the task."""


# --- telling -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """What hours of a plan are called, and what one costs."""

    name: str
    gpus: float
    """A worker's; worker-hours where it has none."""
    price: float | None = None

    @classmethod
    def of(cls, experiment: Experiment, price: float | None = None) -> Unit:
        gpus = experiment.run.gpus_per_worker
        return cls("GPU-hours" if gpus else "worker-hours", gpus or 1.0, price)

    def hours(self, estimates: Sequence[Estimate]) -> float:
        return sum(e.seconds for e in estimates) * self.gpus / 3600

    def cost(self, estimates: Sequence[Estimate]) -> float | None:
        return None if self.price is None else self.price * self.hours(estimates)


def by_row(estimates: Sequence[Estimate], unit: Unit) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of a table: hours of each row and task, and in the last columns and line their sums."""
    tasks = list(dict.fromkeys(e.task for e in estimates))
    rows = list(dict.fromkeys((e.job.backbone, e.job.row) for e in estimates))
    several = len({backbone for backbone, _ in rows}) > 1
    heads = ["row", *tasks, "all", *(["cost"] if unit.price is not None else [])]
    lines = []
    for backbone, row in rows:
        own = [e for e in estimates if (e.job.backbone, e.job.row) == (backbone, row)]
        lines.append([f"{row} on {backbone}" if several else row, *_told(own, tasks, unit)])
    return heads, [*lines, ["all", *_told(estimates, tasks, unit)]]


def _told(estimates: Sequence[Estimate], tasks: Sequence[str], unit: Unit) -> list[str]:
    each = [[e for e in estimates if e.task == task] for task in tasks]
    cost = unit.cost(estimates)
    return [*(_hours(own, unit) for own in each), _hours(estimates, unit), *([] if cost is None else [f"{cost:,.2f}"])]


def _hours(estimates: Sequence[Estimate], unit: Unit) -> str:
    """With the mark of what is least known of it."""
    if not estimates:
        return ""
    worst = max((e.basis for e in estimates), key=list(MARKS).index)
    return f"{unit.hours(estimates):,.3g}{MARKS[worst]}"


def by_step(estimates: Sequence[Estimate], unit: Unit) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of a table: fits, gates, answers and measurements, and their sum."""
    heads = ["step", "steps", "questions", "tokens", "seconds", unit.name, "MB on disk"]
    heads += ["cost"] if unit.price is not None else []
    kinds = {"fit": "fits", "gates": "gates", "measure": "measurements"}
    groups: dict[str, list[Estimate]] = {}
    for e in estimates:
        groups.setdefault(kinds.get(e.step, "cells"), []).append(e)
    return heads, [_step(name, own, unit) for name, own in [*groups.items(), ("all", list(estimates))]]


def _step(name: str, estimates: Sequence[Estimate], unit: Unit) -> list[str]:
    total = {key: sum(getattr(e, key) for e in estimates) for key in SUMMED}
    cost = unit.cost(estimates)
    return [
        name,
        f"{len(estimates):,}",
        f"{total['questions']:,}",
        f"{total['tokens']:,}",
        f"{total['seconds']:,.0f}",
        f"{unit.hours(estimates):,.3g}",
        f"{total['bytes'] / 1e6:,.1f}",
        *([] if cost is None else [f"{cost:,.2f}"]),
    ]


def sentences(experiment: Experiment, estimates: Sequence[Estimate], unit: Unit, rates: Pilot) -> Iterator[str]:
    """What must be known to read the tables."""
    workers, seconds = experiment.run.workers, sum(e.seconds for e in estimates)
    yield (
        f"{unit.hours(estimates):,.3g} {unit.name} in all, which {workers} worker{'s' * (workers > 1)} "
        f"need{'s' * (workers == 1)} {seconds / 3600 / workers:,.3g} hours for, if none ever waits."
    )
    if unit.price is None:
        yield f"What it costs is told with --price, the price of one of the {unit.name}."
    else:
        yield f"Cost at the {unit.price:g} given for one of the {unit.name}, in its currency."
    if not rates.cells:
        yield "No pilot: seconds come from constants, and may be off by a factor of three; --pilot names results."
        return
    yield f"Pilot: {rates.source}."
    if any(e.basis == "near" for e in estimates):
        yield "* the method, or the task, was measured elsewhere in the pilot."
    if any(e.basis == "constants" for e in estimates):
        yield "† constants: the pilot ran on another kind of device, and tells only how long questions and answers are."


def plain(experiment: Experiment, estimates: Sequence[Estimate], unit: Unit, rates: Pilot) -> dict[str, Any]:
    """All of it as JSON values."""
    each = [
        {**asdict(e), **asdict(e.job), "job": str(e.job.path), "task": e.task, "cost": unit.cost([e])}
        for e in estimates
    ]
    total = {key: sum(getattr(e, key) for e in estimates) for key in SUMMED}
    return {
        "experiment": experiment.name,
        "workers": experiment.run.workers,
        "gpus_per_worker": experiment.run.gpus_per_worker,
        "price": unit.price,
        "pilot": rates.source,
        "estimates": each,
        "total": {**total, "cost": unit.cost(estimates)},
    }


# --- keeping -----------------------------------------------------------------------------------------------------


def keep(experiment: Experiment, results: Path, rates: Pilot = UNMEASURED) -> Path:
    """Write down what each step that has no result yet is predicted to take, and tell where.

    A step keeps the prediction that it has, while its inputs are the same.

    Raises:
        HarnessError: what is to be predicted cannot be counted.
    """
    path = results / experiment.name / FILE
    known = steps(path)
    estimates = plan(experiment, rates)
    kinds = {(e.job, _kind(e.step)) for e in estimates}
    inputs = {(str(job.path), kind): fingerprint(experiment, job, kind) for job, kind in kinds}
    found = {key: old for key, old in known.items() if inputs.get(_of(key), old["inputs"]) == old["inputs"]}
    for e in estimates:
        key = f"{e.job.path}/{e.step}"
        if key not in found and not _done(results, e):
            now = inputs[_of(key)]
            found[key] = {"seconds": round(e.seconds, 3), "basis": e.basis, "inputs": now, "pilot": rates.source}
    if found != known:
        manifest.void(results, experiment.name)  # which lists this file too
        records.write_json(path, {"schema_version": 1, "steps": found})
    return path


def _of(key: str) -> tuple[str, str]:
    """Path of a step's job, and the kind of work that the step belongs to."""
    parts = key.split("/")
    return "/".join(parts[:4]), _kind("/".join(parts[4:]))


def _kind(step: str) -> str:
    return step if step in ("fit", "measure") else "evaluate"


def _done(results: Path, estimate: Estimate) -> bool:
    """Whether a step has a result, of which nothing can be predicted any more."""
    job, folder = estimate.job, results / estimate.job.path
    if estimate.step == "measure":
        return efficiency_records.path_of(results, job.experiment, job.backbone, job.row).exists()
    names = {"fit": "fit.json", "gates": "evaluated.json"}
    return (folder / names.get(estimate.step, f"{estimate.step}/record.json")).exists()


def steps(path: Path) -> dict[str, dict[str, Any]]:
    """The predictions that a file holds, by the path of their step; none where there is no file.

    Raises:
        HarnessError: it is torn.
    """
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))["steps"]
    except (OSError, ValueError, KeyError) as error:
        raise HarnessError(f"{path} is not a whole plan; delete it, and what has a result stays without one") from error


def predicted(experiment: Experiment, job: Job, results: Path) -> Mapping[str, float]:
    """Seconds of each step of a job: as they were kept, else as the constants have it."""
    kept = steps(results / experiment.name / FILE)
    own = {e.step: e.seconds for e in plan(experiment) if e.job == job}
    told = {step: kept.get(f"{job.path}/{step}", {}).get("seconds", seconds) for step, seconds in own.items()}
    trials = max(1, len(experiment.training.learning_rates))
    return {step: seconds / trials if step == "fit" else seconds for step, seconds in told.items()}

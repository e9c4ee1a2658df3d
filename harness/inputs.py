"""What a step of an experiment follows from: its settings, the files they name, the code of its methods and tasks."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.episodes import digest
from harness.errors import HarnessError
from harness.experiment import Experiment, Job, jobs, row_of
from harness.plan import learns
from harness.registry import ROOMS, resolve, source_file
from harness.tasks import Prompts, Split, Task, task


def fingerprint(experiment: Experiment, job: Job, step: str) -> str:
    """Digest of all that a step's result follows from; a step is done again when it changes.

    Args:
        step: ``fit``, ``evaluate`` or ``measure``.
    """
    row = row_of(experiment, job)
    if step == "measure":
        return digest(
            [
                experiment.backbones[job.backbone].model_dump(mode="json"),
                row.model_dump(mode="json"),
                sources(resolve(row.method, row.with_)[0].name),
                experiment.efficiency and experiment.efficiency.model_dump(mode="json"),
                experiment.run.model_dump(mode="json", exclude={"executor", "workers", "batch_size"}),
            ]
        )[:16]
    parts: list[Any] = [
        experiment.backbones[job.backbone].model_dump(mode="json"),
        row.model_dump(mode="json"),
        sources(resolve(row.method, row.with_)[0].name),
        Prompts(Path(experiment.prompts) if experiment.prompts else None).hash,
        experiment.data.model_dump(mode="json"),
        experiment.training.model_dump(mode="json"),
        experiment.budget.model_dump(mode="json"),
        [experiment.run.dtype, experiment.run.attention],
    ]
    if step == "evaluate":
        parts += [[spec.model_dump(mode="json") for spec in experiment.tasks], experiment.donors]
        parts += [_sources(Path(inspect.getfile(type(task(spec.task))))) for spec in experiment.tasks]
        parts += [_sha256(Path(spec.overlay)) for spec in experiment.tasks if spec.overlay]
    for found, split, settings in _with_files(experiment):
        if step == "evaluate" or split == "train":
            parts += [_sha256(file) for file in found.files(settings)]
    return digest(parts)[:16]


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def check_files(experiment: Experiment) -> None:
    """Read every file that the experiment's settings name, so that a wrong one is told before anything runs.

    Raises:
        HarnessError: one is missing or wrong, or what is asked would be trained on too.
    """
    trained: set[Path] = set()
    for found, split, settings in _with_files(experiment):
        files = {file.resolve() for file in found.files(settings)}
        if split == "train":
            trained = files
        elif both := files & trained:
            raise HarnessError(f"{min(both)} would be trained on and asked; name another file under 'training'")
        found.load(experiment.data, split, settings)


def _with_files(experiment: Experiment) -> Iterator[tuple[Task, Split, dict[str, Any]]]:
    """Uses of tasks whose settings name files: the training's first, where a row learns."""
    training = experiment.training
    uses: list[tuple[str, Split, dict[str, Any]]] = [(spec.task, "test", spec.settings) for spec in experiment.tasks]
    if any(learns(experiment, job) for job in jobs(experiment)):
        uses.insert(0, (training.task, "train", training.settings))
    for name, split, settings in uses:
        if (found := task(name)).files(settings):
            yield found, split, settings


def sources(method: str) -> list[str]:
    """Digests of all files that a method is made of."""
    return _sources(source_file(method))


def _sources(file: Path) -> list[str]:
    """Digests of a method's file, or of its package's files, and of the ``_*.py`` that the files of its room share."""
    package = (file.parent / "__init__.py").is_file() and file.parent.name not in ROOMS
    files: Iterable[Path] = sorted(file.parent.rglob("*.py")) if package else [file]
    room = file.parent.parent if package else file.parent
    files = [*files, *sorted(f for f in room.glob("_*.py") if f.name != "__init__.py")]
    return [digest(path.read_text(encoding="utf-8")) for path in files]

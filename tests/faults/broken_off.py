"""A small run that was broken off, with one of every file that the next one reads again, to be damaged and run again.

All of it happens in this process, for a damaged file needs no kill: the steps are those of the Snakefile, done where
their mark is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from harness import efficiency_records, jobs, manifest, trained
from harness.experiment import jobs as jobs_of
from harness.experiment import measurements
from harness.pipeline import Pipeline
from harness.plan import learns
from harness.progress import SAID, Progress
from harness.reporting import tables
from tests.faults.pipeline import TABLES

SHAPE = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 8}
"""Of the published recipe's shape, made small enough to be trained in seconds."""
CHANGES = (
    "backbones={tiny_llama: {trained: small}}",
    "rows=[frozen,lora]",
    "seeds=[1,2,3]",
    "primary=write_clear_read",
    "tasks=[{task: write_clear_read, episodes: 3, max_new_tokens: 2, conditions: {replayed: [own]}}, "
    "{task: recall, episodes: 3, max_new_tokens: 1, conditions: {replayed: [own]}}]",
    "training.episodes=4",
    "budget={steps: 3, batch_size: 2, accumulation: 1, save_every: 1}",
    "efficiency={prompt_lengths: [100], decode_lengths: [2], repeats: 1, warm_up: 0}",
    "run={executor: inline, device: cpu, workers: 1}",
)


class Cut(BaseException):
    """Where a run is broken off."""


@dataclass(frozen=True)
class Run:
    """A folder with results, tables and the cache of backbones."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def progress(self) -> Path:
        return self.folder / "progress.jsonl"

    def pipeline(self) -> Pipeline:
        """What the Snakefile knows of it."""
        return Pipeline({"experiment": "smoke", "set": list(CHANGES)}, self.results, self.folder / "tables")

    def again(self, cut: tuple[str, str, int] | None = None) -> None:
        """The same command.

        Args:
            cut: A job (``lora/seed2``), a phase of it and how much of that is done when the run is broken off.

        Raises:
            Cut: at that point.
            HarnessError: the run is refused.
        """
        jobs.reset()  # a process of its own would open the backbone
        run = self.pipeline()
        run.forget()
        if not (run.folder / "tiny_llama" / "backbone.json").exists():
            self._do(run, "prepare")
        for job in measurements(run.experiment):
            if not efficiency_records.path_of(self.results, job.experiment, job.backbone, job.row).exists():
                self._do(run, "measure", job.row)
        for job in jobs_of(run.experiment):
            at = cut[1:] if cut and job.path.match(f"*/{cut[0]}") else None
            if learns(run.experiment, job) and not (self.results / job.path / "fit.json").exists():
                self._do(run, "fit", job.row, job.seed, at)
            if not (self.results / job.path / "evaluated.json").exists():
                self._do(run, "evaluate", job.row, job.seed, at)
        tables.write(run.experiment, self.results, run.folder / "tables")
        manifest.write(run.experiment, self.results)  # which reads the fits that no job has read

    def _do(self, run: Pipeline, kind: str, row: str = "", seed: int = 0, at: tuple[str, int] | None = None) -> None:
        experiment = run.experiment.model_dump(mode="json", by_alias=True)
        names = {"kind": kind, "backbone": "tiny_llama", "row": row, "seed": seed, "progress": str(self.progress)}
        with _cut(at):
            jobs.run({**names, "experiment": experiment, "results": str(self.results)})

    def tables(self) -> dict[str, bytes]:
        """The bytes of its tables."""
        return {name: (self.results / "smoke" / "tables" / name).read_bytes() for name in TABLES}

    def said(self) -> list[str]:
        """What its jobs told on the way."""
        lines = self.progress.read_text(encoding="utf-8").splitlines() if self.progress.exists() else []
        return [told[SAID] for told in map(json.loads, lines) if SAID in told]

    @contextmanager
    def copy(self) -> Iterator[Run]:
        """One to be damaged."""
        with tempfile.TemporaryDirectory(prefix="damaged-") as folder:
            shutil.copytree(self.folder, folder, dirs_exist_ok=True)
            other = Run(Path(folder))
            other.progress.unlink(missing_ok=True)
            with other.at_home():
                yield other

    @contextmanager
    def at_home(self) -> Iterator[None]:
        """Its own cache is the one that is looked into."""
        with patch.dict(os.environ, DELTA_MEM_CACHE=str(self.folder / "cache")):
            yield


@contextmanager
def _cut(at: tuple[str, int] | None) -> Iterator[None]:
    plain = Progress.update

    def update(self: Progress, phase: str, done: float, total: float, **facts: object) -> None:
        plain(self, phase, done, total, **facts)
        if (phase, done) == at:
            raise Cut

    with patch.object(Progress, "update", update):
        yield


@contextmanager
def broken_off() -> Iterator[tuple[Run, dict[str, bytes]]]:
    """A run that was broken off, and the tables of one that was not.

    Of its four jobs the first was cut while it answered, the second is done, the third lacks a record, so that its fit
    is read again, and the fourth was cut while it learned.
    """
    with tempfile.TemporaryDirectory(prefix="broken-off-") as root, _small_recipe(Path(root)):
        whole, run = (Run(Path(root) / name) for name in ("whole", "run"))
        with whole.at_home():
            whole.again()
        shutil.copytree(whole.folder / "cache", run.folder / "cache")
        rows, answering = run.results / "smoke" / "tiny_llama", Path(root) / "answering"
        with run.at_home():
            _break(run, "frozen/seed1", "evaluate", 10)
            shutil.copytree(rows / "frozen" / "seed1", answering)
            _break(run, "lora/seed3", "fit", 3)
        shutil.rmtree(rows / "frozen" / "seed1")
        answering.rename(rows / "frozen" / "seed1")
        shutil.rmtree(rows / "lora" / "seed2" / "recall")
        (rows / "lora" / "seed2" / "evaluated.json").unlink()
        yield run, whole.tables()


def _break(run: Run, *cut: Any) -> None:
    try:
        run.again(cut)
    except Cut:
        return
    raise AssertionError(f"there was nothing to cut at {cut}")


@contextmanager
def _small_recipe(folder: Path) -> Iterator[None]:
    """A backbone that this machine trains and caches."""
    recipe = trained.recipe("recall").model_dump(mode="json")
    recipe["shape"] |= SHAPE
    recipe["budget"] |= {"steps": 2, "batch_size": 4}
    recipe |= {"settings": {"mixed": [8]}, "episodes": 64}
    (folder / "recipes").mkdir()
    (folder / "recipes" / "small.json").write_text(json.dumps(recipe))
    with (
        patch.object(trained, "RECIPES", folder / "recipes"),
        patch.object(trained, "REFERENCE", folder / "none"),
    ):
        yield

"""What the runs of an experiment have used of their machines, and what they may use in all.

Every job keeps a log of its own below ``results/<experiment>/spent``: the seconds that it has held its worker, and
what the piece of work at hand is predicted to take yet. The sum over all logs, of this run and of those before it, is
what is spent; a piece that would take more than is allowed is not begun. What a kill lost, or a record no longer tells,
is counted too. GPU-hours are seconds times the GPUs reserved for the worker, worker-hours the seconds alone.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock

from harness.errors import HarnessError

FOLDER = "spent"
EVERY = 5.0
"""Seconds between two lines of a log, and at most lost to a kill."""

Unit = Literal["gpu", "worker"]


class SpentError(HarnessError):
    """A piece of work would take more than is allowed; what is finished is kept."""


@dataclass(frozen=True)
class Limit:
    """What may be used in all, this run's and earlier ones' together."""

    hours: float
    unit: Unit

    @classmethod
    def given(cls, max_gpu_hours: float | None, max_worker_hours: float | None, gpus: float) -> Limit | None:
        """From the two ways to say it; None where neither is given.

        Args:
            gpus: Reserved for each worker.

        Raises:
            HarnessError: both are, or one that is not positive, or GPU-hours of a run without GPUs.
        """
        if max_gpu_hours is not None and max_worker_hours is not None:
            raise HarnessError("max_gpu_hours and max_worker_hours are two limits; give one")
        hours = max_worker_hours if max_gpu_hours is None else max_gpu_hours
        if hours is None:
            return None
        if not 0 < hours < math.inf:
            raise HarnessError(f"a limit of {hours:g} hours is none; give a positive number")
        if max_gpu_hours is not None and not gpus:
            raise HarnessError("a run that reserves no GPU for its workers uses no GPU-hours; give max_worker_hours")
        return cls(hours, "worker" if max_gpu_hours is None else "gpu")

    def of(self, seconds: float, gpus: float) -> float:
        """Hours, in the limit's unit."""
        return seconds / 3600 * (gpus if self.unit == "gpu" else 1.0)

    def __str__(self) -> str:
        return f"{self.hours:g} {self.name}"

    @property
    def name(self) -> str:
        return "GPU-hours" if self.unit == "gpu" else "worker-hours"


@dataclass(frozen=True)
class Note:
    """A line of a log; the last one of a run says all of it."""

    run: str
    gpus: float
    time: float = 0.0
    seconds: float = 0.0
    """Held so far."""
    ahead: float = 0.0
    """What the piece at hand will still take, as predicted."""
    predicted: float = 0.0
    """What was predicted of pieces that are finished, and what they took."""
    took: float = 0.0
    stopped: bool = False
    """A piece was not begun, or broken off, for want of hours."""


class Allowance:
    """The hours of an experiment, as one job sees them.

    Args:
        folder: The experiment's results.
        job: Path of the job's log below ``spent``, without a suffix.
        gpus: Reserved for the job's worker.
        limit: None only keeps the log.
        predicted: Seconds of each piece of the job, by its step in the plan.
        workers: That use hours at the same time.
    """

    def __init__(
        self,
        folder: Path,
        job: str,
        gpus: float = 0.0,
        limit: Limit | None = None,
        predicted: Mapping[str, float] | None = None,
        workers: int = 1,
    ) -> None:
        self.folder, self.limit, self.workers = folder, limit, workers
        self.predicted = predicted or {}
        self.path = folder / FOLDER / f"{job}.jsonl"
        self.note = Note(uuid.uuid4().hex[:12], gpus)
        self.begun = time.monotonic()
        self.noted = self.next_look = self.ends = 0.0

    def begin(self) -> None:
        """Called before anything is opened.

        Raises:
            SpentError: all that is allowed is used.
        """
        if self.limit and self._hours(notes := spent(self.folder)) >= self.limit.hours:
            self._write(stopped=True)
            raise SpentError(self._refusal("no more may be used", notes))

    @contextmanager
    def piece(self, step: str, left: float = 1.0) -> Iterator[None]:
        """A piece of work that is begun only where it fits.

        Args:
            step: As the plan calls it.
            left: Share of it that an earlier run has not done.

        Raises:
            SpentError: it would take more than is allowed.
        """
        said, start = self.predicted.get(step, 0.0) * left, time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".spent.lock"):
            notes = spent(self.folder)
            ahead = said * _pace(notes)
            if self.limit and self._hours(notes) + self.limit.of(ahead, self.note.gpus) > self.limit.hours:
                self._write(stopped=True)
                raise SpentError(self._refusal(f"{step} is predicted to take {self._told(ahead)}", notes))
            self._write(ahead=ahead)
        self.ends = start + ahead
        yield
        took = time.monotonic() - start
        self._write(ahead=0.0, predicted=self.note.predicted + said, took=self.note.took + took * bool(said))

    def kept(self) -> None:
        """Called where all that was done is on disk, so that work may end here.

        Raises:
            SpentError: all that is allowed is used.
        """
        now = time.monotonic()
        if now - self.noted < EVERY:
            return
        self._write(ahead=max(0.0, self.ends - now))
        if self.limit is None or now < self.next_look:
            return
        notes = spent(self.folder)
        free = self.limit.hours - self._hours(notes)
        if free < 0:
            self._write(stopped=True, ahead=0.0)
            raise SpentError(self._refusal("no more may be used", notes))
        each = self.limit.of(1.0, self.note.gpus) * self.workers or 1.0
        self.next_look = now + free / each / 2  # before all workers together could use half of what is free

    def close(self) -> None:
        """The job has ended, or was broken off."""
        self._write(ahead=0.0)

    def _write(self, **changes: float | bool) -> None:
        self.noted = time.monotonic()
        self.note = replace(self.note, time=time.time(), seconds=self.noted - self.begun, **changes)  # type: ignore[arg-type]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(self.note))

    def _hours(self, notes: Mapping[str, Note]) -> float:
        """Used by all, and promised to others; of this job what it has used up to now."""
        assert self.limit is not None
        others = sum(self.limit.of(n.seconds + n.ahead, n.gpus) for run, n in notes.items() if run != self.note.run)
        return others + self.limit.of(time.monotonic() - self.begun, self.note.gpus)

    def _told(self, seconds: float) -> str:
        assert self.limit is not None
        return f"{self.limit.of(seconds, self.note.gpus):.3g} {self.limit.name}"

    def _refusal(self, why: str, notes: Mapping[str, Note]) -> str:
        return (
            f"{why}, and {self._hours(notes):.3g} of {self.limit} are used or promised; "
            "what is finished is kept, and a larger limit goes on from there"
        )


def _pace(notes: Mapping[str, Note]) -> float:
    """How much longer finished pieces took than was predicted."""
    predicted = sum(n.predicted for n in notes.values())
    return sum(n.took for n in notes.values()) / predicted if predicted else 1.0


def spent(folder: Path) -> dict[str, Note]:
    """The last note of every run of every job of an experiment."""
    logs = sorted((folder / FOLDER).rglob("*.jsonl"))
    return {run: note for log in logs for run, note in _read(log).items()}


def _read(log: Path) -> dict[str, Note]:
    """The last note of every run of a job; a line that a kill cut off is left out."""
    found = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError, TypeError):
            note = Note(**json.loads(line))
            found[note.run] = note
    return found


def hours(folder: Path, limit: Limit) -> float:
    """What is used, in the limit's unit."""
    return sum(limit.of(note.seconds, note.gpus) for note in spent(folder).values())


def release(folder: Path) -> None:
    """Take back what was promised to jobs that were killed; only where no job of the experiment runs."""
    for path in sorted((folder / FOLDER).rglob("*.jsonl")):
        ending = {run: note for run, note in _read(path).items() if note.ahead}
        with path.open("a", encoding="utf-8") as file:
            file.writelines(_line(replace(note, ahead=0.0)) for note in ending.values())


def charge(folder: Path, job: str, seconds: float, gpus: float) -> None:
    """Note what a job took of which there is no log, for it ran before there were any; once."""
    log = folder / FOLDER / f"{job}.jsonl"
    if seconds and not log.exists():
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(_line(Note(f"before {job}", gpus, seconds=seconds)), encoding="utf-8")


def _line(note: Note) -> str:
    """Begins with the end of a line, so that one that a kill cut off spoils none but itself."""
    return "\n" + json.dumps(asdict(note))

"""What the Snakefile knows of an experiment, and what it holds while it runs: the results' lock and the cluster."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from harness import allowance, cluster, config, efficiency_records, leftovers, manifest, pilot, planned, seals
from harness.allowance import Limit
from harness.episodes import digest
from harness.errors import RETRIED, HarnessError, nearest
from harness.experiment import Job, cells, jobs, measurements
from harness.inputs import check_files, fingerprint
from harness.plan import learns, lines, plan

LIMITS = ("max_gpu_hours", "max_worker_hours")
KEYS = ("experiment", "methods", "plugin", "set", "retrain", "pilot", *LIMITS)
STOPPED = 3
"""Exit code of a run that ended because its hours are used."""

ORDERLY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, what a batch system sends before it kills, and a terminal that is closed."""


class Pipeline:
    """One run of one experiment.

    Args:
        settings: Snakemake's ``--config``: ``experiment`` (default ``embedded``), ``methods`` (rows to add),
            ``plugin`` (files that define methods), ``set`` (changes such as ``run.executor=inline``), ``retrain``,
            ``pilot`` (results by which the plan is made) and ``max_gpu_hours`` or ``max_worker_hours``, which all runs
            in these results may use together; each list may be a single value.
        results: Folder of all results.
        published: Folder of the chosen experiment's tables.

    Raises:
        HarnessError: a wrong key, or a wrong experiment.
    """

    def __init__(
        self, settings: Mapping[str, Any], results: Path = Path("results"), published: Path = Path("tables")
    ) -> None:
        for key in settings:
            if key not in KEYS:
                raise HarnessError(f"unknown key '{key}' after --config; {nearest(key, KEYS)}")
        plugins = [f"plugins+={json.dumps(file)}" for file in _many(settings.get("plugin"))]
        added = [f"methods+={name}" for name in _many(settings.get("methods"))]
        changes = [*plugins, *added, *_many(settings.get("set"))]
        name = str(settings.get("experiment") or "embedded")
        self.results, self.published = results, published
        with contextlib.suppress(FileNotFoundError):
            os.listdir(results)  # what is wrong with it is told here, and not by Snakemake's look around
        self.experiment = config.load(name, changes)
        check_files(self.experiment)
        self.arguments = [name, *(word for change in changes for word in ("--set", change))]
        retrain = settings.get("retrain") or os.environ.get("RETRAIN") or "0"
        self.retrain = str(retrain).lower() not in ("0", "false", "no")
        if self.retrain:
            os.environ["RETRAIN"] = "1"  # read by `harness fit`; no parameter, which would undo fits on the next run
        self.pilot = Path(settings["pilot"]) if settings.get("pilot") else None
        self.limit = self._limit(settings)
        self._address: Path | None = None
        self._handlers: dict[int, Any] = {}
        self._begun = 0.0
        self._lock = FileLock(self.folder / ".lock")

    def _limit(self, settings: Mapping[str, Any]) -> Limit | None:
        """The hours that are allowed."""
        gpu, worker = (_hours(key, settings.get(key, os.environ.get(key.upper()))) for key in LIMITS)
        return Limit.given(gpu, worker, self.experiment.run.gpus_per_worker)

    @property
    def folder(self) -> Path:
        """Where this experiment's results lie."""
        return self.results / self.experiment.name

    @property
    def evaluated(self) -> list[Path]:
        """The mark that each job's evaluation leaves."""
        return [self.results / job.path / "evaluated.json" for job in jobs(self.experiment)]

    @property
    def measured(self) -> list[Path]:
        """The record that each measurement leaves."""
        return [
            efficiency_records.path_of(self.results, job.experiment, job.backbone, job.row)
            for job in measurements(self.experiment)
        ]

    @property
    def tables(self) -> list[str]:
        """The tables that the experiment has: of answers and the paper's beside them, and of what they cost."""
        speed = ["efficiency.csv"] if self.experiment.efficiency else []
        return ["main.tex", "main.md", "main.csv", "paper.csv", "costs.tex", "costs.md", *speed]

    @property
    def figures(self) -> list[str]:
        """Its figures, each as PDF and PNG."""
        from harness.reporting import figures

        return [f"{name}.{kind}" for name in figures.names(self.experiment) for kind in ("pdf", "png")]

    @property
    def reporting(self) -> str:
        """Digest of all files that tables, figures and report are made by, beside the records."""
        code = (Path(__file__).with_name(name) for name in ("reporting", "statistics"))
        folders = (*code, Path("tables/templates"), Path("tables/reported"))
        kinds = (".py", ".j2", ".css", ".js", ".csv")
        files = sorted(f for folder in folders for f in folder.rglob("*.*") if f.suffix in kinds)
        return digest([file.read_text(encoding="utf-8") for file in files])[:16]

    def before_evaluation(self, backbone: str, row: str, seed: str) -> Path:
        """What an evaluation waits for: the fit, or the backbone where nothing is fitted."""
        job = self.job(backbone, row, seed)
        fitted = self.results / job.path / "fit.json"
        return fitted if learns(self.experiment, job) else self.folder / backbone / "backbone.json"

    def job(self, backbone: str, row: str, seed: str | int) -> Job:
        return Job(self.experiment.name, backbone, row, int(seed))

    def fingerprint(self, backbone: str, row: str, seed: str | int, step: str) -> str:
        """As :func:`harness.inputs.fingerprint`."""
        return fingerprint(self.experiment, self.job(backbone, row, seed), step)

    def priority(self, backbone: str, row: str, seed: str, step: str) -> float:
        """Seconds from a step to the end of its job by the plan: what takes longest begins first, or all wait for it.

        Args:
            step: ``fit`` or ``evaluate``.
        """
        fit, evaluation = self._planned.get(self.job(backbone, row, seed), (0.0, 0.0))
        return evaluation + (fit if step == "fit" else 0.0)

    @cached_property
    def _planned(self) -> dict[Job, tuple[float, float]]:
        """Seconds of each job's fit and of all its cells; none where there is no plan, as the job itself will tell."""
        found: dict[Job, tuple[float, float]] = {}
        with contextlib.suppress(HarnessError):
            for each in plan(self.experiment):
                fit, evaluation = found.get(each.job, (0.0, 0.0))
                if each.step == "fit":
                    found[each.job] = fit + each.seconds, evaluation
                elif each.cells:
                    found[each.job] = fit, evaluation + each.seconds
        return found

    def forget(self) -> None:
        """Take away marks that do not hold, so that their steps are done again.

        They are those that are not as they were written, those of an evaluation some of whose records are gone, or tell
        of questions that met an error or were skipped for want of something, the record of a measurement that tells the
        same of a point, and, where fits are to be learned anew, the mark of a fit that was restored from elsewhere. A
        table of theirs goes too: Snakemake makes a missing file again only where something that is missing needs it,
        and no table may hold a number that no record holds. Tables, figures and report go where there is no manifest,
        for such a run is not complete.

        Raises:
            HarnessError: an output that cannot be made again from others has changed since it was listed, or a record
                since it was written.
        """
        broken, listed = self._changed(), manifest.path_of(self.results, self.experiment.name)
        for job in jobs(self.experiment):
            fitted, evaluated = (self.results / job.path / name for name in ("fit.json", "evaluated.json"))
            records = [self.results / cell.path / "record.json" for cell in cells(self.experiment, job)]
            if evaluated.exists() and any(not record.exists() or _unanswered(record) for record in records):
                broken.append(evaluated)
            broken += [mark for mark in (fitted, evaluated) if mark.exists() and not _holds(mark)]
            if self.retrain and fitted.exists() and not self._learned_here(fitted):
                broken += [fitted, evaluated]
        broken += [record for record in self.measured if record.exists() and _unmeasured(record)]
        if not broken and not listed.exists():  # what the records say now may not be what tables were made of
            made = [self.folder / "tables" / name for name in (*self.tables, "audit.md")]
            made += [self.folder / "figures" / name for name in self.figures]
            made.append(self.folder / "report" / "index.html")
            broken = [path for path in made if path.exists()]
        if broken and self._take():  # else another pipeline works here, and this one will be refused
            for path in [*broken, self.folder / "tables" / "main.tex", self.published / "main.tex", listed]:
                path.unlink(missing_ok=True)
            self._lock.release()

    def _changed(self) -> list[Path]:
        """Tables, figures and the like that are not as the manifest lists them."""
        listed = manifest.read(self.results, self.experiment.name)
        if listed is None:
            return []
        found = []
        for name, problem in manifest.changed(listed, self.results).items():
            path = self.results / name
            if path.exists() and not manifest.remade(self.experiment.name, name):
                where = manifest.path_of(self.results, self.experiment.name)
                raise HarnessError(
                    f"{path} {problem}; delete its folder and run again, or delete {where} if the change was meant"
                )
            found.append(path)
        return found

    def _learned_here(self, fitted: Path) -> bool:
        address = seals.read(fitted)["address"]
        return (self.results / "fits" / address[:16]).is_dir()

    def show_plan(self) -> None:
        """Print what each fit and cell is predicted to take, for a dry run."""
        for line in lines(self.experiment, plan(self.experiment)):
            print("\t".join(line), file=sys.stderr)

    def _take(self) -> bool:
        """Lock the results, unless another process has. The kernel lets go of the lock of a killed one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def begin(self) -> None:
        """Lock the results and start the cluster, of which jobs learn through the environment.

        Raises:
            HarnessError: another pipeline works in the same folder.
        """
        if not self._take():
            raise HarnessError(f"another pipeline works in {self.folder}; wait for its end and run again")
        os.environ[cluster.OWNER] = str(os.getpid())
        for number in ORDERLY:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a script, or under nohup
                self._handlers[number] = signal.signal(number, self._interrupt)
        leftovers.sweep_results(self.results, self.folder)
        leftovers.keep_newest(Path(".snakemake/log"))
        if self.limit:  # read by `harness fit` and its like
            os.environ[f"MAX_{self.limit.unit.upper()}_HOURS"] = str(self.limit.hours)
        self._account()
        planned.keep(self.experiment, self.results, pilot.read(self.pilot) if self.pilot else pilot.UNMEASURED)
        if self.experiment.run.executor == "ray":
            self._address = cluster.start(self.experiment.run, self.folder / "logs" / "cluster.log")
            os.environ[cluster.ADDRESS] = str(self._address)

    def _account(self) -> None:
        """Begin to count hours: promises of killed jobs are void, and results older than all logs are charged."""
        self._begun = time.time()
        allowance.release(self.folder)
        for job in jobs(self.experiment):
            records = (self.results / cell.path / "record.json" for cell in cells(self.experiment, job))
            answered = sum(seals.read(record)["costs"]["wall_seconds"] for record in records if record.exists())
            fitted = self.results / job.path / "fit.json"
            learned = seals.read(fitted) if fitted.exists() else {}
            before = {
                "evaluate": answered,
                "fit": 0.0 if learned.get("restored", True) else learned.get("seconds", 0.0),
            }
            for kind, seconds in before.items():
                log = f"{job.backbone}/{job.row}/{kind}-{job.seed}"
                allowance.charge(self.folder, log, seconds, self.experiment.run.gpus_per_worker)

    @property
    def stopped(self) -> bool:
        """Whether a job of this run was not begun, or broken off, because its hours are used."""
        return any(note.stopped and note.time >= self._begun for note in allowance.spent(self.folder).values())

    def _left(self) -> str:
        """What is not done yet, in words."""
        wanted = [cell for job in jobs(self.experiment) for cell in cells(self.experiment, job)]
        left = sum(not (self.results / cell.path / "record.json").exists() for cell in wanted)
        fits = [job for job in jobs(self.experiment) if learns(self.experiment, job)]
        unfit = sum(not (self.results / job.path / "fit.json").exists() for job in fits)
        unmeasured = sum(not path.exists() for path in self.measured)
        parts = [f"{left} of {len(wanted)} cells"] * bool(wanted) + [f"{unfit} of {len(fits)} fits"] * bool(fits)
        return ", ".join(parts + [f"{unmeasured} of {len(self.measured)} measurements"] * bool(self.measured))

    def _interrupt(self, number: int, frame: Any) -> None:
        """End the jobs, so that Snakemake, which waits for them, ends in order; a second Ctrl-C ends all at once.

        Snakemake itself would answer SIGTERM by waiting for the jobs, however long they take.

        Raises:
            KeyboardInterrupt: as ever; Snakemake then starts no other job.
        """
        for each in self._handlers:  # a shell, too, passes SIGHUP on, so that it comes twice
            signal.signal(each, _abort if each == signal.SIGINT else signal.SIG_IGN)
        with contextlib.suppress(OSError):  # the terminal is closed
            print(
                "snakemake: interrupted; what is finished is kept, the same command goes on from there", file=sys.stderr
            )
        _signal_jobs(signal.SIGINT)
        if self._address:
            cluster.ask(self._address)
        raise KeyboardInterrupt

    def end(self) -> None:
        """Stop the cluster and let the results go."""
        if self._address:
            cluster.stop(self._address)
            del os.environ[cluster.ADDRESS]
            self._address = None
        while self._handlers:
            signal.signal(*self._handlers.popitem())
        stopped = self.limit if self.limit and self.stopped else None
        self._lock.release()
        if stopped:
            used = allowance.hours(self.folder, stopped)
            print(
                f"snakemake: stopped, for {used:.3g} of {stopped} are used and what comes next would take more; undone "
                f"are {self._left()}, what is finished is kept, and the same command with a larger limit goes on from "
                "there",
                file=sys.stderr,
            )
            sys.exit(STOPPED)


def _abort(number: int, frame: Any) -> None:
    """Leave without a farewell; the cluster sees that its owner is gone."""
    _signal_jobs(signal.SIGKILL)
    os._exit(128 + number)


def _signal_jobs(number: signal.Signals) -> None:
    """Signal the jobs' processes: those of this process group, which the cluster does not belong to."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == os.getpgrp():
                process.send_signal(number)


def _holds(mark: Path) -> bool:
    """Whether a job's mark is as it was written."""
    try:
        seals.read(mark)
    except HarnessError:
        return False
    return True


def _hours(key: str, given: Any) -> float | None:
    try:
        return float(given) if given not in (None, "") else None
    except (TypeError, ValueError) as error:
        raise HarnessError(f"{key}={given} is no number of hours; give one, as in {key}=8") from error


def _unanswered(record: Path) -> bool:
    """Whether another run may answer more of a record's questions. Read as JSON: Snakemake's process stays light."""
    failures = seals.read(record).get("failures", ())
    return any(failure["status"] in RETRIED for failure in failures)


def _unmeasured(record: Path) -> bool:
    """Whether another run may measure more of a record's points."""
    return any(point["status"] in RETRIED for point in seals.read(record)["points"])


def dry(words: Iterable[str]) -> bool:
    """Whether a command line asks Snakemake for a dry run, which a Snakefile cannot learn from Snakemake itself."""
    return any(re.fullmatch(r"-[a-zA-Z]*n[a-zA-Z]*|--dry-?run", word) for word in words)


def _many(value: Any) -> Iterable[str]:
    if value is None:
        return []
    return [str(item) for item in (value if isinstance(value, list) else [value])]

"""What the Snakefile knows of an experiment, and what it holds while it runs: the results' lock and the cluster."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness import cluster, config, efficiency_records, leftovers
from harness.episodes import digest
from harness.errors import RETRIED, HarnessError, nearest
from harness.experiment import Job, cells, jobs, measurements
from harness.inputs import check_files, fingerprint
from harness.plan import learns, lines, plan

KEYS = ("experiment", "methods", "plugin", "set", "retrain")


class Pipeline:
    """One run of one experiment.

    Args:
        settings: Snakemake's ``--config``: ``experiment`` (default ``embedded``), ``methods`` (rows to add),
            ``plugin`` (files that define methods), ``set`` (changes such as ``run.executor=inline``) and ``retrain``;
            each list may be a single value.
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
        self.experiment = config.load(name, changes)
        check_files(self.experiment)
        self.arguments = [name, *(word for change in changes for word in ("--set", change))]
        retrain = settings.get("retrain") or os.environ.get("RETRAIN") or "0"
        self.retrain = str(retrain).lower() not in ("0", "false", "no")
        if self.retrain:
            os.environ["RETRAIN"] = "1"  # read by `harness fit`; no parameter, which would undo fits on the next run
        self._address: Path | None = None
        self._lock = FileLock(self.folder / ".lock")

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
        """The tables that the experiment has: of answers and what they cost, of speed and memory."""
        costs = ["costs.tex", "costs.md"] if self.experiment.tasks else []
        speed = ["efficiency.tex", "efficiency.md", "efficiency.csv"] if self.experiment.efficiency else []
        return ["main.tex", "main.md", "main.csv", *costs, *speed]

    @property
    def figures(self) -> list[str]:
        """Its figures, each as PDF and PNG."""
        from harness.reporting import figures

        return [f"{name}.{kind}" for name in figures.names(self.experiment) for kind in ("pdf", "png")]

    @property
    def reporting(self) -> str:
        """Digest of all files that tables and figures are made by, beside the records."""
        folders = (Path(__file__).with_name("reporting"), Path("tables/templates"), Path("tables/reported"))
        files = sorted(f for folder in folders for f in folder.rglob("*.*") if f.suffix in (".py", ".j2", ".csv"))
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

    def forget(self) -> None:
        """Take away marks that do not hold, so that their steps are done again.

        They are those of an evaluation some of whose records are gone, or tell of questions that met an error or were
        skipped for want of something, the record of a measurement that tells the same of a point, and, where fits are
        to be learned anew, the mark of a fit that was restored from elsewhere. A table of theirs goes too: Snakemake
        makes a missing file again only where something that is missing needs it, and no table may hold a number that no
        record holds.
        """
        broken = []
        for job in jobs(self.experiment):
            fitted, evaluated = (self.results / job.path / name for name in ("fit.json", "evaluated.json"))
            records = [self.results / cell.path / "record.json" for cell in cells(self.experiment, job)]
            if evaluated.exists() and any(not record.exists() or _unanswered(record) for record in records):
                broken.append(evaluated)
            if self.retrain and fitted.exists() and not self._learned_here(fitted):
                broken += [fitted, evaluated]
        broken += [record for record in self.measured if record.exists() and _unmeasured(record)]
        if broken:
            for path in [*broken, self.folder / "tables" / "main.tex", self.published / "main.tex"]:
                path.unlink(missing_ok=True)

    def _learned_here(self, fitted: Path) -> bool:
        address = json.loads(fitted.read_text(encoding="utf-8"))["address"]
        return (self.results / "fits" / address[:16]).is_dir()

    def show_plan(self) -> None:
        """Print what each fit and cell is predicted to take, for a dry run."""
        for line in lines(self.experiment, plan(self.experiment)):
            print("\t".join(line), file=sys.stderr)

    def begin(self) -> None:
        """Lock the results and start the cluster, of which jobs learn through the environment.

        Raises:
            HarnessError: another pipeline works in the same folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise HarnessError(f"another pipeline works in {self.folder}; wait for its end and run again") from error
        leftovers.sweep_results(self.results, self.folder)
        leftovers.keep_newest(Path(".snakemake/log"))
        if self.experiment.run.executor == "ray":
            self._address = cluster.start(self.experiment.run, self.folder / "logs" / "cluster.log")
            os.environ[cluster.ADDRESS] = str(self._address)

    def end(self) -> None:
        """Stop the cluster and let the results go."""
        if self._address:
            cluster.stop(self._address)
            del os.environ[cluster.ADDRESS]
            self._address = None
        self._lock.release()


def _unanswered(record: Path) -> bool:
    """Whether another run may answer more of a record's questions. Read as JSON: Snakemake's process stays light."""
    failures = json.loads(record.read_text(encoding="utf-8")).get("failures", ())
    return any(failure["status"] in RETRIED for failure in failures)


def _unmeasured(record: Path) -> bool:
    """Whether another run may measure more of a record's points."""
    return any(point["status"] in RETRIED for point in json.loads(record.read_text(encoding="utf-8"))["points"])


def dry(words: Iterable[str]) -> bool:
    """Whether a command line asks Snakemake for a dry run, which a Snakefile cannot learn from Snakemake itself."""
    return any(re.fullmatch(r"-[a-zA-Z]*n[a-zA-Z]*|--dry-?run", word) for word in words)


def _many(value: Any) -> Iterable[str]:
    if value is None:
        return []
    return [str(item) for item in (value if isinstance(value, list) else [value])]

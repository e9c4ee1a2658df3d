"""Joins the records of several runs, of other machines say, into one experiment: verified, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from harness import definition, fits, leftovers, records, seals
from harness.definition import FILE
from harness.errors import HarnessError
from harness.experiment import Cell, Experiment, Job, is_slug
from harness.records import Record
from harness.verify import KINDS, Run, experiments
from harness.verify.run import cell_of

DEMANDED = tuple(kind for kind in KINDS if kind not in ("data", "backbones", "tables", "figures", "report"))
"""Kinds of check that a run must pass: those of what is taken over. Tables are made anew."""


class RefusedError(HarnessError):
    """Runs that cannot be joined: every reason, a line each."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("nothing was merged")
        self.reasons = [str(HarnessError(reason)) for reason in reasons]

    def __str__(self) -> str:
        return "\n".join([*map(str, self.args), *(f"refused: {reason}" for reason in self.reasons)])


@dataclass(frozen=True)
class Taken:
    """A cell and the run that it is taken from."""

    cell: Cell
    """As it is called where it comes from."""
    run: Run
    path: Path
    record: Record

    @property
    def key(self) -> tuple:
        """The cell without the name of its experiment."""
        job = self.cell.job
        return job.backbone, job.row, job.seed, self.cell.task, self.cell.condition, self.cell.arm


def merge(out: Path, folders: Sequence[Path], *, prefer: Path | None = None, mixed: Sequence[str] = ()) -> Path:
    """Join the records of runs into the experiment folder ``out``, and tell where its experiment file is.

    Measurements of speed are of one machine and stay where they are.

    Args:
        out: ``RESULTS/NAME``, a folder that is not there yet.
        folders: Experiment folders; the first one's settings are the merged experiment's.
        prefer: The one of ``folders`` whose record stands where two are of one cell and differ.
        mixed: Tasks whose data or prompts may differ between records.

    Raises:
        RefusedError: a run does not verify, or runs contradict each other; nothing is written then.
        HarnessError: a folder is not there, or ``out`` is.
    """
    if not is_slug(out.name):
        raise HarnessError(f"'{out.name}' must be a name of letters, digits and _ . @ -, at most 64; rename it")
    if out.exists():
        raise HarnessError(f"{out} is there already; name a folder that is not")
    if prefer is not None and prefer.resolve() not in {folder.resolve() for folder in folders}:
        raise HarnessError(f"{prefer} is none of the runs to merge; name one of them after --prefer")
    runs = [_opened(folder) for folder in folders]
    if wrong := [reason for run in runs for reason in _unverified(run)]:
        raise RefusedError(wrong)
    parts = [part for run in runs for part in definition.parts(run.records.values(), str(run.folder))]
    try:
        experiment = definition.union(parts, out.name)
    except HarnessError as error:
        raise RefusedError([str(error)]) from error
    taken, twice = _taken(runs, prefer)
    if wrong := [*twice, *_mixed(taken, mixed)]:
        raise RefusedError(wrong)
    told = tuple(_origin(run, [one for one in taken if one.run is run]) for run in runs)
    _write(out, experiment.model_copy(update={"merged": told, "efficiency": None}), taken)
    return out / FILE


def _opened(folder: Path) -> Run:
    """A run with records.

    Raises:
        HarnessError: there is none.
    """
    folder = folder if folder.name else folder.resolve()
    experiments(folder.parent, folder.name)
    run = Run(folder.parent, folder.name)
    if not run.records and not run.torn:
        raise HarnessError(f"{folder} holds no record of a cell; name a run that has answered questions")
    return run


def _unverified(run: Run) -> Iterator[str]:
    for kind in DEMANDED:
        yield from (f"{run.folder} ({kind}): {sentence}" for sentence in KINDS[kind](run).wrong)


def _taken(runs: Sequence[Run], prefer: Path | None) -> tuple[list[Taken], list[str]]:
    """A record a cell, and a sentence for each cell of which two differ."""
    found: dict[tuple, Taken] = {}
    twice = []
    for run in runs:
        for path, record in run.records.items():
            one = Taken(cell_of(record), run, path, record)
            known = found.setdefault(one.key, one)
            if known is one:
                continue
            if prefer is not None and run.folder.resolve() == prefer.resolve():
                found[one.key] = one
            elif not _preferred(known, prefer) and not _equal(known, one):
                twice.append(f"{known.path} and {path} are of one cell and differ; name one's run after --prefer")
    return list(found.values()), twice


def _preferred(one: Taken, prefer: Path | None) -> bool:
    return prefer is not None and one.run.folder.resolve() == prefer.resolve()


def _equal(one: Taken, other: Taken) -> bool:
    """Two records tell the same answers to the same questions, whatever they cost."""
    if (one.record.address, one.record.scores) != (other.record.address, other.record.scores):
        return False
    ours, theirs = one.run.samples(one.path), other.run.samples(other.path)
    if isinstance(ours, str) or isinstance(theirs, str):
        return one.record.status == other.record.status != "ok"
    named = ["history_id", "question_id", "draw"]
    columns = [*named, "answer_sha256", "prompt_sha256"]
    if not set(columns) <= set(ours.columns) & set(theirs.columns):
        return False
    return (
        ours[columns]
        .sort_values(named, ignore_index=True)
        .equals(theirs[columns].sort_values(named, ignore_index=True))
    )


def _mixed(taken: Sequence[Taken], allowed: Sequence[str]) -> Iterator[str]:
    """Names that stand for two things: a backbone for two sets of weights, a task for two data sets or prompts."""
    facts: dict[tuple[str, str], dict[str, Taken]] = {}
    for one in taken:
        made = one.record.provenance
        facts.setdefault(("weights of the backbone", one.record.backbone), {}).setdefault(
            str(made.backbone.get("digest")), one
        )
        if made.fit:
            job = f"{one.record.row} on {one.record.backbone}, seed {one.record.seed}"
            facts.setdefault(("fit of the row", job), {}).setdefault(str(made.fit.get("adapter_hash")), one)
        if one.record.task not in allowed:
            facts.setdefault(("data of the task", one.record.task), {}).setdefault(str(made.data.get("hash")), one)
            wording = made.wording_hash or f"set {made.prompt_hash}"
            facts.setdefault(("prompts of the task", one.record.task), {}).setdefault(wording, one)
    for (what, name), found in facts.items():
        if len(found) < 2:
            continue
        if what.startswith("prompts") and not _worded_apart([one.record for one in found.values()]):
            continue
        first, second = list(found.values())[:2]
        mend = f"allow it with --mixed {name}" if "task" in what else "rename one"
        yield f"the {what} '{name}' are not the same in {first.path} and {second.path}; {mend}"


def _worded_apart(found: Sequence[Record]) -> bool:
    """Prompts differ: by the task's own wording where both tell it, else by the set that it is from."""
    words = {record.provenance.wording_hash for record in found}
    sets = {record.provenance.prompt_hash for record in found}
    return len(words) > 1 if "" not in words else len(sets) > 1


def _origin(run: Run, taken: Sequence[Taken]) -> str:
    """One line on what was taken of a run."""
    made = [one.record.provenance for one in taken]
    commits = ", ".join(sorted({m.commit[:12] for m in made}))
    devices = " and ".join(sorted({m.device for m in made}))
    count = f"{len(taken):,} cell{'s' * (len(taken) != 1)}"
    return f"{run.name}: {count}" + (f" of commit {commits}, on {devices}." if made else ".")


def _write(out: Path, experiment: Experiment, taken: Sequence[Taken]) -> None:
    """Everything beside ``out`` first, under its name last."""
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=out.parent, prefix=leftovers.prefix(out)))
    try:
        for one in taken:
            _cell(one, out.name, work)
        for job in {one.cell.job: one for one in taken}.values():
            _job(job, taken, out, work)
        text = yaml.safe_dump(experiment.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)
        (work / FILE).write_text(text, encoding="utf-8")
        work.chmod(0o755)
        os.rename(work, out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _renamed(job: Job, name: str) -> Job:
    return Job(name, job.backbone, job.row, job.seed)


def _cell(one: Taken, name: str, work: Path) -> None:
    """The record under its new experiment's name, and its samples byte for byte."""
    moved = Cell(_renamed(one.cell.job, name), one.cell.task, one.cell.condition, one.cell.arm)
    folder = work / moved.path.relative_to(name)
    folder.mkdir(parents=True)
    samples = one.path.with_name("samples.parquet")
    if samples.is_file():
        shutil.copyfile(samples, folder / samples.name)
    record = one.record.model_copy(update={"experiment": name})
    records.write_sealed(folder / "record.json", record.model_dump(mode="json", by_alias=True))


def _job(one: Taken, taken: Sequence[Taken], out: Path, work: Path) -> None:
    """A job's facts: the cells that were taken of it, its fit, and the fit's parameters where they are stored."""
    job = _renamed(one.cell.job, out.name)
    folder = work / job.path.relative_to(out.name)
    mine = [t for t in taken if _renamed(t.cell.job, out.name) == job]
    cells = [str(Cell(job, t.cell.task, t.cell.condition, t.cell.arm).path) for t in mine]
    records.write_sealed(folder / "evaluated.json", {"cells": cells, "answered": 0})
    fitted = one.run.results / one.cell.job.path / "fit.json"
    if not fitted.is_file():
        return
    shutil.copyfile(fitted, folder / "fit.json")
    address = seals.read(fitted)["address"]
    stored = fits.find(one.run.results, address)
    target = out.parent / fits.LEARNED / address[:16]
    if stored is None or fits.find(out.parent, address) is not None:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = Path(tempfile.mkdtemp(dir=target.parent, prefix=leftovers.prefix(target)))
    shutil.copytree(stored, copy, dirs_exist_ok=True)
    copy.chmod(0o755)
    os.rename(copy, target)

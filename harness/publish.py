"""Copies an experiment's records and fits to where they are committed, without any benchmark's text."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness import efficiency_records, fits, manifest, planned, records, seals
from harness.errors import HarnessError
from harness.experiment import Experiment, Job, cells, jobs, measurements
from harness.records import TEXT

REFERENCE = Path("reference")
"""Below the results folder; the only part of it that is committed."""


def publish(experiment: Experiment, results: Path) -> Path:
    """Copy what a table needs: records, samples without text, measurements, fits and the facts of each job.

    Answers to generated episodes are ours and stay; those to official data go, their digests remain.

    Returns:
        The folder of the published experiment.

    Raises:
        HarnessError: a record is missing; nothing is published of a run that is not whole.
    """
    reference = results / REFERENCE
    found = [
        (cell, records.load(results / cell.path / "record.json"))
        for job in jobs(experiment)
        for cell in cells(experiment, job)
    ]
    measured = [
        efficiency_records.load(efficiency_records.path_of(results, job.experiment, job.backbone, job.row))
        for job in measurements(experiment)
    ]
    made = [(cell.id, record.provenance) for cell, record in found]
    made += [(f"{record.backbone}/{record.row}/{efficiency_records.FILE}", record.provenance) for record in measured]
    for name, provenance in made:
        if provenance.dirty:
            raise HarnessError(f"{name} was made with uncommitted changes; commit, run again, then publish")
    manifest.void(reference, experiment.name)  # until all is whole again
    for cell, record in found:
        answers = records.samples(record, results / cell.path)
        if record.provenance.data["source"] != "generated":
            answers = answers.drop(columns=TEXT, errors="ignore")
        records.save(record, answers, reference / cell.path)
    for measurement in measured:
        efficiency_records.save(measurement, reference)
    for job in jobs(experiment):
        _job(job, results, reference)
    if (predictions := results / experiment.name / planned.FILE).is_file():
        shutil.copyfile(predictions, reference / experiment.name / planned.FILE)
    return reference / experiment.name


def _job(job: Job, results: Path, reference: Path) -> None:
    """The job's own facts, and the fit that it used."""
    for name in ("evaluated.json", "fit.json"):
        if (results / job.path / name).is_file():
            shutil.copyfile(results / job.path / name, reference / job.path / name)
    fitted = results / job.path / "fit.json"
    if not fitted.is_file():
        return
    address = seals.read(fitted)["address"]
    stored = fits.find(results, address)
    if stored is None:
        raise HarnessError(f"the fit that {fitted} names is no longer stored; run again, then publish")
    target = results / fits.REFERENCE / address[:16]
    if stored != target:
        shutil.copytree(stored, target, dirs_exist_ok=True)

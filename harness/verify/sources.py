"""What a record says it was made of: the parts of its address, its fit, its backbone, its data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import fits as stored_fits
from harness import manifest, seals
from harness.data.files import folder
from harness.episodes import digest
from harness.errors import HarnessError
from harness.experiment import DataSpec, TaskSpec
from harness.records import Record
from harness.tasks import task
from harness.verify.run import Check, Run


def addresses(run: Run) -> Check:
    """Each address is the digest of the parts that the record tells, and these are what the record says elsewhere."""
    check = Check("addresses")
    for path, record in run.records.items():
        if not record.addressed:
            check.unchecked["their records are older than the field `addressed`"] += 1
            continue
        found = [] if record.address == digest(record.addressed) else ["its address is not the digest of its parts"]
        made, fit = record.provenance, record.provenance.fit or {}
        run_of = made.config.get("run", {})
        elsewhere = {
            "backbone": made.backbone.get("digest"),
            "method": record.method,
            "fit": fit.get("adapter_hash"),
            "task": record.task,
            "data": made.data.get("hash"),
            "run": [run_of.get("dtype"), run_of.get("attention"), run_of.get("batch_size")],
            "prompts": made.wording_hash,
        }
        for name, value in elsewhere.items():
            if record.addressed.get(name) != value:
                found.append(f"'{name}' is another in its address than in the record")
        if record.addressed.get("cell", [])[:2] != [record.condition, record.arm]:
            found.append("its address is of another condition or arm")
        check.need([f"{path}: {problem}" for problem in found])
    return check


def fits(run: Run) -> Check:
    """Each fit's parameters have the digest that its report, its job and its records tell."""
    check = Check("fits")
    told: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path, facts in _fits_told(run, check):
        told.setdefault(str(facts.get("address")), []).append((path, facts))
    for address, places in told.items():
        found = [
            f"{path}: it tells another adapter hash of fit {address[:16]} than {places[0][0]}"
            for path, facts in places[1:]
            if facts.get("adapter_hash") != places[0][1].get("adapter_hash")
        ]
        folder = stored_fits.find(run.results, address)
        if folder is not None:
            found += [f"{folder}: {problem}" for problem in _fit(folder, address, places[0][1])]
        elif not found:
            check.unchecked["they are not stored here"] += 1
            continue
        check.need(found)
    return check


def _fits_told(run: Run, check: Check) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Where a fit is told of, and what."""
    for path in sorted(run.folder.rglob("fit.json")):
        try:
            yield path, seals.read(path)
        except HarnessError as error:
            check.wrong.append(str(error))
    for path, record in run.records.items():
        if record.provenance.fit:
            yield path, record.provenance.fit


def _fit(folder: Path, address: str, told: dict[str, Any]) -> Iterator[str]:
    try:
        report = seals.read(folder / "fit.json", "learn it again")
        kept = stored_fits.adapter_hash(folder)
        others = [name for name in stored_fits.changed(folder, report) if name != stored_fits.PARAMETERS]
    except (OSError, HarnessError) as error:
        yield f"it cannot be read ({error})"
        return
    yield from (f"its {name} is not what its report tells the digest of" for name in others)
    if report.get("address") != address:
        yield f"it is the fit of another address, {str(report.get('address'))[:16]}"
    if report.get("adapter_hash") != kept:
        yield "its parameters are not those that its report tells the digest of"
    if told.get("adapter_hash") != kept:
        yield "its parameters are not those that were used"
    for name, value in report.items():
        if name in told and told[name] != value:
            yield f"its report tells another '{name}' than its job"


def backbones(run: Run) -> Check:
    """Weights and vocabulary of each trained backbone that is stored beside the results."""
    check = Check("backbones")
    for stored in sorted(set(manifest.backbones_of(run.results, [*run.records, *run.measurements]))):
        from harness.trained import identity

        try:
            right = identity(stored) == json.loads((stored / "digest.json").read_text(encoding="utf-8"))["source"]
        except Exception as error:  # damaged bytes end in errors of many kinds in safetensors
            check.wrong.append(f"{stored}: it cannot be read ({error})")
            continue
        check.need([] if right else [f"{stored}: its weights or its vocabulary are not those of its digest"])
    return check


def data(run: Run) -> Check:
    """The digest of the data of each task: generated again, or read from the data folder where it is there."""
    check = Check("data")
    seen: set[str] = set()
    for path, record in run.records.items():
        asked = _asked(record)
        told = record.provenance.data
        key = digest([asked and [part if isinstance(part, str) else part.model_dump() for part in asked], told])
        if asked is None or key in seen:
            continue
        seen.add(key)
        spec, source = asked
        if told.get("source") in ("official", "rebuilt") and folder() is None:
            check.unchecked["no data folder is named by DELTA_MEM_DATA"] += 1
            continue
        try:
            loaded = task(spec.task).load(source, "test", spec.settings, spec.episodes)
        except HarnessError as error:
            check.unchecked[f"{spec.task} cannot be read: {error}"] += 1
            continue
        if (loaded.source, loaded.file) != (told.get("source"), told.get("file")):
            check.unchecked["another file, or another version of the generator, is here"] += 1
        else:
            right = loaded.hash == told.get("hash")
            check.need([] if right else [f"{path}: {loaded.file} holds other data of {record.task} than were asked"])
    return check


def _asked(record: Record) -> tuple[TaskSpec, DataSpec] | None:
    """The task of a record and where its data came from, as its configuration has them; none where it names no task."""
    config = record.provenance.config
    for known in config.get("tasks", ()):
        if (known.get("as") or known["task"]) == record.task:
            spec, source = TaskSpec.model_validate(known), DataSpec.model_validate(config.get("data", {}))
            generated = record.provenance.data.get("source") == "generated"
            return spec, source.model_copy(
                update={"source": "generated" if generated else spec.source or source.source}
            )
    return None

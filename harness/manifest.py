"""The manifest of an experiment: every output with its digest, written when all else is whole.

A run is complete when its manifest is there and holds. It is a function of the outputs and of the experiment alone:
sorted, without a clock, and it carries a digest of itself, so that no bit of it can change unseen either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness import efficiency_records, fits, records, seals
from harness.errors import HarnessError
from harness.experiment import Experiment, cells, jobs, measurements
from harness.seals import sha256

FILE = "manifest.json"
SCHEMA_VERSION = 1
MADE_ON_THE_WAY = (".log", ".tsv", ".jsonl")
"""Logs, Snakemake's benchmarks and journals: no outputs."""
TABLES = ("tables/main.tex", "tables/main.md", "tables/main.csv")
"""What no whole run lacks, beside its records."""
REBUILT = ("tables", "figures", "report", "audit")
"""Rooms of an experiment's folder whose files follow from the records, so that they can be made again."""


class Output(BaseModel):
    """One file."""

    model_config = ConfigDict(extra="forbid")

    sha256: str
    bytes: int


class Manifest(BaseModel):
    """Every output of an experiment."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    experiment: dict[str, Any] = Field(description="Resolved experiment that the tables were made for.")
    missing: list[str] = Field([], description="What the experiment names and no record holds; empty in a whole run.")
    files: dict[str, Output] = Field(description="By path below the results folder, stored fits and backbones too.")
    digest: str = Field("", description="sha256 of this file's text with nothing in this place.")

    def text(self) -> str:
        """The file's text; the experiment keeps the order in which it names things, for tables follow it."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"

    def sealed(self) -> Manifest:
        """With the digest of the rest."""
        bare = self.model_copy(update={"digest": ""})
        return self.model_copy(update={"digest": hashlib.sha256(bare.text().encode()).hexdigest()})


def path_of(results: Path, name: str) -> Path:
    """Where the manifest of an experiment lies."""
    return results / name / FILE


def write(experiment: Experiment, results: Path, *, partial: bool = False) -> Path:
    """List every output of an experiment, and tell where the list is.

    Args:
        partial: Name what did not run in the manifest, where a run that is not whole would be refused.

    Raises:
        HarnessError: something that the experiment names is not there, or a stored fit is not as it was written.
    """
    missing = list(lacking(experiment, results))
    if missing and not partial:
        raise HarnessError(
            f"{results / experiment.name} is not whole ({len(missing)} missing, first {missing[0]}); run the pipeline "
            "to its end, or ask for a partial manifest"
        )
    listed = outputs(results, experiment.name)
    for stored in sorted(set(fits_of(results, listed))):  # a list must not bless what no job has read since
        if damaged := fits.changed(stored, seals.read(stored / "fit.json")):
            raise HarnessError(f"{stored / damaged[0]} is not as it was written; delete its folder and run again")
    found = Manifest(
        experiment=experiment.model_dump(mode="json", by_alias=True),
        missing=missing,
        files={
            str(path.relative_to(results)): Output(sha256=sha256(path), bytes=path.stat().st_size) for path in listed
        },
    )
    path = path_of(results, experiment.name)
    with records.atomic(path) as temporary:
        temporary.write_text(found.sealed().text(), encoding="utf-8")
    return path


def lacking(experiment: Experiment, results: Path) -> Iterator[str]:
    """What the experiment names that is not there: cells, measurements, the main table."""
    for job in jobs(experiment):
        yield from (cell.id for cell in cells(experiment, job) if not (results / cell.path / "record.json").is_file())
    for job in measurements(experiment):
        measured = efficiency_records.path_of(results, job.experiment, job.backbone, job.row)
        if not measured.is_file():
            yield str(measured.relative_to(results))
    yield from (f"{experiment.name}/{table}" for table in TABLES if not (results / experiment.name / table).is_file())


def outputs(results: Path, name: str) -> list[Path]:
    """The outputs of an experiment: files of its folder, stored fits and trained backbones that its records name."""
    folder = results / name
    own = [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_output(path.relative_to(folder))]
    shared = {*fits_of(results, own), *backbones_of(results, own)}
    return sorted([*own, *(path for stored in shared for path in stored.iterdir() if path.is_file())])


def _is_output(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.parts[0] != "logs" and path.suffix not in MADE_ON_THE_WAY and path != Path(FILE)


def fits_of(results: Path, files: list[Path]) -> Iterator[Path]:
    """Folders of the stored fits that jobs name."""
    for path in files:
        if path.name == "fit.json":
            stored = fits.find(results, str(_facts(path).get("address", "")))
            if stored:
                yield stored


def backbones_of(results: Path, files: list[Path]) -> Iterator[Path]:
    """Folders of the trained backbones that records name, where they are stored beside the results."""
    stored = {
        str(_facts(path).get("source")): path.parent
        for store in ("backbones", "reference/backbones")
        for path in (results / store).glob("*/digest.json")
    }
    if not stored:
        return
    for path in files:
        if path.name in ("record.json", efficiency_records.FILE):
            named = _facts(path).get("provenance", {}).get("backbone", {}).get("digest")
            if named in stored:
                yield stored[named]


def _facts(path: Path) -> dict[str, Any]:
    """A JSON file's object; one that cannot be read names nothing, which `harness verify` tells of its own."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def read(results: Path, name: str) -> Manifest | None:
    """The manifest of an experiment; None where there is none.

    Raises:
        HarnessError: it is torn, of another schema, or not as it was written.
    """
    path = path_of(results, name)
    if not path.is_file():
        return None
    mend = "delete it, and write it again once all files are known to be right"
    try:
        text = path.read_bytes()
        found = Manifest.model_validate_json(text)
    except (OSError, ValueError) as error:
        raise HarnessError(f"{path} is not a whole manifest; {mend}") from error
    if found.schema_version != SCHEMA_VERSION:
        raise HarnessError(f"{path} has schema {found.schema_version}, this version reads {SCHEMA_VERSION}; {mend}")
    if text != found.sealed().text().encode():
        raise HarnessError(f"{path} is not as it was written (its own digest does not hold); {mend}")
    return found


def changed(manifest: Manifest, results: Path) -> dict[str, str]:
    """Listed files that are not as listed, and what is wrong with each: missing, another size, other bytes."""
    found = {}
    for name, output in manifest.files.items():
        path = results / name
        if not path.is_file():
            found[name] = "is missing"
        elif (size := path.stat().st_size) != output.bytes:
            found[name] = f"has {size:,} bytes, not {output.bytes:,}"
        elif sha256(path) != output.sha256:
            found[name] = "has other bytes than were listed"
    return found


def remade(name: str, path: str) -> bool:
    """Whether a listed file of the experiment ``name`` follows from others, so that it can simply be made again."""
    parts = Path(path).parts
    return len(parts) > 1 and parts[0] == name and parts[1] in REBUILT


def void(results: Path, name: str) -> None:
    """Take the manifest away, because what it lists is about to change."""
    path_of(results, name).unlink(missing_ok=True)

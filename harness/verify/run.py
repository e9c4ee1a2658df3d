"""What every check reads: an experiment's records, once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness import config, definition, efficiency_records, manifest, records
from harness.efficiency_records import EfficiencyRecord
from harness.errors import HarnessError
from harness.experiment import Cell, Experiment, Job
from harness.manifest import Manifest
from harness.records import Record

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Check:
    """What one kind of check found."""

    kind: str
    held: int = 0
    wrong: list[str] = field(default_factory=list)
    """A sentence a mismatch."""
    unchecked: Counter[str] = field(default_factory=Counter)
    """How many could not be checked, by reason."""

    def need(self, problems: list[str]) -> None:
        """Count a thing as holding, or tell what is wrong with it."""
        self.wrong += problems
        self.held += not problems

    def line(self) -> str:
        """``45 hold; 2 wrong; 10 not checked (their text is not kept)``; empty where there is nothing of the kind."""
        parts = [f"{self.held:,} hold{'s' * (self.held == 1)}"] if self.held else []
        parts += [f"{len(self.wrong):,} wrong"] if self.wrong else []
        parts += [f"{count:,} not checked ({reason})" for reason, count in sorted(self.unchecked.items())]
        return "; ".join(parts)


class Run:
    """An experiment's folder, with what could be read of it."""

    def __init__(self, results: Path, name: str) -> None:
        self.results, self.name = results, name
        self.folder = results / name
        self.torn: list[str] = []
        """A sentence for each record that cannot be read."""
        self.records: dict[Path, Record] = {}
        self.measurements: dict[Path, EfficiencyRecord] = {}
        self._samples: dict[Path, pd.DataFrame | str] = {}
        for path in sorted(self.folder.rglob("record.json")):
            self._keep(path, self.records, records.load)
        for path in sorted(self.folder.rglob(efficiency_records.FILE)):
            self._keep(path, self.measurements, efficiency_records.load)

    def _keep(self, path: Path, into: dict, load) -> None:
        try:
            into[path] = load(path)
        except HarnessError as error:
            self.torn.append(str(error))

    @cached_property
    def manifest(self) -> Manifest | None:
        """None where there is none.

        Raises:
            HarnessError: it is torn, or not as it was written.
        """
        return manifest.read(self.results, self.name)

    @cached_property
    def experiment(self) -> Experiment:
        """What the tables are of: the manifest's experiment, else that of a merged folder, else what the records' own
        configurations say together.

        Raises:
            HarnessError: neither can be had.
        """
        if self.manifest is not None:
            return Experiment.model_validate(self.manifest.experiment)
        if (merged := self.folder / definition.FILE).is_file():
            return config.load(str(merged))
        return definition.union(definition.parts(self.everything), self.name)

    @property
    def everything(self) -> list[Record | EfficiencyRecord]:
        """Every record that could be read."""
        return [*self.records.values(), *self.measurements.values()]

    @property
    def answered(self) -> dict[Path, Record]:
        """Records of cells with answers."""
        return {path: record for path, record in self.records.items() if record.status == "ok"}

    def samples(self, path: Path) -> pd.DataFrame | str:
        """The samples beside a record, or a sentence that says why they cannot be read."""
        if path not in self._samples:
            self._samples[path] = _samples(path.with_name("samples.parquet"))
        return self._samples[path]


def _samples(path: Path) -> pd.DataFrame | str:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except Exception as error:  # damaged bytes end in errors of many kinds in pyarrow
        return f"{path} cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})"


def cell_of(record: Record) -> Cell:
    """The cell that a record says it is of."""
    job = Job(record.experiment, record.backbone, record.row, record.seed)
    return Cell(job, record.task, record.condition, record.arm)

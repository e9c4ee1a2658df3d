"""How well a plan predicts: one published experiment's seconds from another's records, or from constants."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks._measured import Measured
from harness import config
from harness.errors import HarnessError
from harness.experiment import cells, jobs
from harness.pilot import UNMEASURED, read
from harness.plan import plan
from harness.records import load

FACTOR = 2.0
QUIET = 0.9
"""Share of its processor that a cell had, where nothing else slowed it."""


def measure(name: str, pilot: Path | None, results: Path) -> list[Measured]:
    """Predicted over taken seconds of an experiment's cells: median, spread, sum, and the share within a factor of two.

    Args:
        pilot: Folder of other records; None predicts by the constants alone.

    Raises:
        HarnessError: the experiment has no records there, or the pilot's folder none.
    """
    experiment = config.load(name)
    said = {(e.job, e.step): e for e in plan(experiment, read(pilot) if pilot else UNMEASURED)}
    taken, quiet = {}, set()
    for job in jobs(experiment):
        for cell in cells(experiment, job):
            path = results / cell.path / "record.json"
            if not path.exists():
                continue
            record = load(path)
            if record.status == "ok" and not record.failures:
                taken[job, cell.step] = record.costs.wall_seconds
                if record.costs.cpu_seconds > QUIET * record.costs.wall_seconds:
                    quiet.add((job, cell.step))
    if not taken:
        raise HarnessError(f"there is no answered cell of '{name}' under {results}; run the experiment first")
    groups = {"all": list(taken), "same row and task": [k for k in taken if said[k].basis == "pilot"]}
    groups["same row and task, undisturbed"] = [k for k in groups["same row and task"] if k in quiet]
    found = []
    for group, keys in groups.items():
        if len(keys) > 1:
            ratios = [said[k].seconds / taken[k] for k in keys]
            tenths = statistics.quantiles(ratios, n=10, method="inclusive")
            total = sum(said[k].seconds for k in keys) / sum(taken[k] for k in keys)
            within = sum(1 / FACTOR <= ratio <= FACTOR for ratio in ratios) / len(ratios)
            found += [
                Measured(f"{group}.cells", len(keys)),
                Measured(f"{group}.median", statistics.median(ratios)),
                Measured(f"{group}.lowest_tenth_ends", tenths[0]),
                Measured(f"{group}.highest_tenth_begins", tenths[-1]),
                Measured(f"{group}.sum", total),
                Measured(f"{group}.within_a_factor_of_two", within),
            ]
    return found

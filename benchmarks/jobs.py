"""What the harness costs beside the model, from what the jobs of an experiment left behind."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks._measured import Measured

JOB_GOAL, CELL_GOAL = 5.0, 0.3
"""Seconds over its model time that a job, and a cell in it, may cost."""


def measure(name: str, results: Path) -> list[Measured]:
    """The dearest job's and cell's seconds beside the model, over all jobs that answered something.

    A job's are those of its evaluation without reading and answering, and without the gates, whose seconds are the
    model's too and stand apart, and without waiting for a worker that helped; its cells' own are among them, the rest
    opens the backbone and reads the data.

    Raises:
        HarnessError: no job of the experiment has answered anything there.
    """
    from harness.config import load
    from harness.errors import HarnessError
    from harness.experiment import cells, jobs
    from harness.records import load as record

    experiment = load(name)
    found = []
    for job in jobs(experiment):
        mark = results / job.path / "evaluated.json"
        facts = json.loads(mark.read_text(encoding="utf-8")) if mark.is_file() else {"answered": 0}
        if not facts["answered"]:
            continue
        over = [record(results / c.path / "record.json").costs.overhead_seconds for c in cells(experiment, job)]
        beside = facts["seconds"] - facts["model_seconds"] - facts["gates_seconds"] - facts.get("waited_seconds", 0.0)
        label = f"{job.backbone}.{job.row}.seed{job.seed}"
        found += [
            Measured(f"{label}.job", beside, "s", at_most=JOB_GOAL),
            Measured(f"{label}.opening", facts["opening_seconds"], "s"),
            Measured(f"{label}.gates", facts["gates_seconds"], "s"),
            Measured(f"{label}.dearest_cell", max(over), "s", at_most=CELL_GOAL),
        ]
    if not found:
        raise HarnessError(f"no job of '{name}' has answered anything under {results}; run the experiment first")
    return found

"""The command that measures speed and memory."""

from __future__ import annotations

from harness.cli._common import (
    RESULTS,
    Backbone,
    Changes,
    MaxGpuHours,
    MaxWorkerHours,
    Name,
    Results,
    Row,
    app,
    hand_in,
    load,
)
from harness.errors import HarnessError


@app.command()
def measure(
    name: Name,
    backbone: Backbone,
    row: Row,
    changes: Changes = [],  # noqa: B006
    results: Results = RESULTS,
    max_gpu_hours: MaxGpuHours = None,
    max_worker_hours: MaxWorkerHours = None,
) -> None:
    """Measure a row's speed and memory beside the bare backbone's, at the lengths of the experiment's `efficiency`."""
    experiment = load(name, changes)
    if experiment.efficiency is None:
        raise HarnessError(f"the experiment '{experiment.name}' measures nothing; give it the key 'efficiency'")
    hours = max_gpu_hours, max_worker_hours
    hand_in("measure", experiment, backbone, row, experiment.efficiency.seed, results, hours=hours)

"""The command that measures speed and memory."""

from __future__ import annotations

from harness.cli._common import RESULTS, Backbone, Changes, Name, Results, Row, app, hand_in, load
from harness.errors import HarnessError


@app.command()
def measure(name: Name, backbone: Backbone, row: Row, changes: Changes = [], results: Results = RESULTS) -> None:  # noqa: B006
    """Measure a row's speed and memory beside the bare backbone's, at the lengths of the experiment's `efficiency`."""
    experiment = load(name, changes)
    if experiment.efficiency is None:
        raise HarnessError(f"the experiment '{experiment.name}' measures nothing; give it the key 'efficiency'")
    hand_in("measure", experiment, backbone, row, experiment.efficiency.seed, results, False)

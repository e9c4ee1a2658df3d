"""Commands that run an experiment, or tell what it would take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli._common import (
    DEFAULT,
    RESULTS,
    Backbone,
    Changes,
    MaxGpuHours,
    MaxWorkerHours,
    Name,
    Results,
    Row,
    Seed,
    app,
    hand_in,
    load,
    table,
)

CELLS = ["job", "step", "cells", "questions", "tokens", "seconds", "GPU-hours", "MB on disk", "from"]


@app.command()
def plan(
    name: Name = DEFAULT,
    changes: Changes = [],  # noqa: B006 - typer reads the default
    pilot: Annotated[
        Path | None, typer.Option(help="Folder of results whose records say how fast methods and tasks are.")
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Of a GPU-hour; of a worker-hour where the run has no GPU.")
    ] = None,
    cells: Annotated[bool, typer.Option("--cells", help="List every fit and cell.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell beforehand what an experiment takes: hours and cost by row and task, and by step; tokens and disk."""
    from harness import plan as planning
    from harness import planned
    from harness.pilot import UNMEASURED, read

    experiment = load(name, changes)
    rates = read(pilot) if pilot else UNMEASURED
    estimates, unit = planning.plan(experiment, rates), planned.Unit.of(experiment, price)
    if as_json:
        typer.echo(json.dumps(planned.plain(experiment, estimates, unit, rates), indent=1))
        return
    if cells:
        table(f"Plan of {experiment.name}", CELLS, list(planning.lines(experiment, estimates)), numbers_from=2)
        return
    for title, (heads, lines) in (
        (f"Plan of {experiment.name}: {unit.name} by row and task", planned.by_row(estimates, unit)),
        ("By step", planned.by_step(estimates, unit)),
    ):
        table(title, heads, lines, numbers_from=1)
        typer.echo()
    for sentence in planned.sentences(experiment, estimates, unit, rates):
        typer.echo(sentence)


@app.command()
def validate(name: Name = DEFAULT, changes: Changes = []) -> None:  # noqa: B006
    """Check an experiment file; say nothing was wrong, or what, where and the mend."""
    from harness.experiment import cells, jobs, measurements
    from harness.inputs import check_files

    experiment = load(name, changes)
    check_files(experiment)
    found, measured = jobs(experiment), len(measurements(experiment))
    count = sum(len(cells(experiment, job)) for job in found)
    typer.echo(f"{experiment.name}: {len(found)} jobs, {count} cells" + (f", {measured} measured" if measured else ""))


@app.command()
def prepare(name: Name, backbone: Backbone, changes: Changes = [], results: Results = RESULTS) -> None:  # noqa: B006
    """Fetch or convert a backbone and write its description."""
    hand_in("prepare", load(name, changes), backbone, "", 0, results)


@app.command()
def fit(
    name: Name,
    backbone: Backbone,
    row: Row,
    seed: Seed = 42,
    changes: Changes = [],  # noqa: B006
    retrain: Annotated[
        bool, typer.Option(envvar="RETRAIN", help="Fit anew, even where a reference fit could be restored.")
    ] = False,
    results: Results = RESULTS,
    max_gpu_hours: MaxGpuHours = None,
    max_worker_hours: MaxWorkerHours = None,
) -> None:
    """Fit a row on a backbone, or restore the fit that its address names."""
    hours = max_gpu_hours, max_worker_hours
    hand_in("fit", load(name, changes), backbone, row, seed, results, retrain, hours)

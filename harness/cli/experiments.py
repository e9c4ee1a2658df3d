"""Commands that run an experiment, or tell what it would take."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli._common import DEFAULT, RESULTS, Backbone, Changes, Name, Results, Row, Seed, app, hand_in, load, table


@app.command()
def plan(name: Name = DEFAULT, changes: Changes = []) -> None:  # noqa: B006 - typer reads the default
    """List jobs and cells with predicted tokens, seconds, GPU-hours and disk."""
    from harness import plan as planning

    experiment = load(name, changes)
    estimates = planning.plan(experiment)
    table(
        f"Plan of {experiment.name}",
        ["job", "fit or cell", "cells", "questions", "tokens", "seconds", "GPU-hours", "MB on disk"],
        list(planning.lines(experiment, estimates)),
        numbers_from=2,
    )


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
    hand_in("prepare", load(name, changes), backbone, "", 0, results, False)


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
) -> None:
    """Fit a row on a backbone, or restore the fit that its address names."""
    hand_in("fit", load(name, changes), backbone, row, seed, results, retrain)

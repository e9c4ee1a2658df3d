"""Commands that read records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli._common import DEFAULT, RESULTS, Changes, Name, Results, app, load


@app.command()
def tables(
    name: Name = DEFAULT,
    changes: Changes = [],  # noqa: B006
    results: Results = RESULTS,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default RESULTS/EXPERIMENT/tables.")] = None,
) -> None:
    """Write the tables of an experiment from its records."""
    from harness.reporting import tables as reporting

    experiment = load(name, changes)
    for path in reporting.write(experiment, results, out or results / experiment.name / "tables"):
        typer.echo(path)


@app.command()
def figures(
    name: Name = DEFAULT,
    changes: Changes = [],  # noqa: B006
    results: Results = RESULTS,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default RESULTS/EXPERIMENT/figures.")] = None,
) -> None:
    """Draw the figures of an experiment from its records."""
    from harness.reporting import figures as reporting

    experiment = load(name, changes)
    for path in reporting.write(experiment, results, out or results / experiment.name / "figures"):
        typer.echo(path)


@app.command()
def report(
    name: Name = DEFAULT,
    changes: Changes = [],  # noqa: B006
    results: Results = RESULTS,
    out: Annotated[
        Path | None, typer.Option(help="File to write; default RESULTS/EXPERIMENT/report/index.html.")
    ] = None,
) -> None:
    """Write the report of an experiment: one HTML file with its numbers, cells, samples and faults."""
    from harness.reporting import report as reporting

    experiment = load(name, changes)
    file = out or results / experiment.name / "report" / reporting.FILE
    typer.echo(reporting.write(experiment, results, file))


@app.command()
def show(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="BACKBONE/ROW/seedN/TASK/CONDITION/ARM.")],
    experiment: Annotated[str, typer.Option(help="Name of the experiment.")] = DEFAULT,
    results: Results = RESULTS,
) -> None:
    """Show a cell: its record and some of its samples."""
    from harness.reporting.show import show as showing

    showing(results, cell if cell.startswith(f"{experiment}/") else f"{experiment}/{cell}")


@app.command()
def publish(name: Name, changes: Changes = [], results: Results = RESULTS) -> None:  # noqa: B006
    """Copy an experiment's records, tables and fits to results/reference, without benchmark text."""
    from harness import manifest
    from harness.publish import publish as copy
    from harness.reporting import figures, tables

    experiment = load(name, changes)
    folder = copy(experiment, results)
    for room in (tables, figures):
        for path in room.write(experiment, folder.parent, folder / room.__name__.rsplit(".", 1)[-1]):
            typer.echo(path)
    typer.echo(manifest.write(experiment, folder.parent))

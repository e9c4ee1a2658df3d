"""Commands on what was made of what: the manifest, checking, comparing and joining runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli._common import DEFAULT, RESULTS, Changes, Name, Results, app, load


@app.command()
def manifest(
    name: Name = DEFAULT,
    changes: Changes = [],  # noqa: B006
    results: Results = RESULTS,
    partial: Annotated[
        bool, typer.Option("--partial", help="List what is there, and name what the experiment asks for and lacks.")
    ] = False,
) -> None:
    """List every output of a whole run with its digest, in results/EXPERIMENT/manifest.json."""
    from harness import manifest as listing

    typer.echo(listing.write(load(name, changes), results, partial=partial))


@app.command()
def verify(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder of all results.")] = RESULTS,
    name: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="One of its experiments; none is all.")] = "",
    only: Annotated[list[str], typer.Option("--only", metavar="KIND", help="Check this kind only. Repeatable.")] = [],  # noqa: B006
) -> None:
    """Compute every digest, score, table and figure again; a line a kind, and a sentence a mismatch (exit code 1)."""
    from harness import verify as checking

    wrong = 0
    for experiment in checking.experiments(results, name):
        for check in checking.verify(results, experiment, only):
            if line := check.line():
                typer.echo(f"{experiment}\t{check.kind}\t{line}")
            for sentence in check.wrong:
                typer.echo(f"{experiment}\t{check.kind}\twrong: {sentence}")
            wrong += len(check.wrong)
    if wrong:
        typer.echo(f"{wrong:,} mismatch{'es' * (wrong > 1)}", err=True)
        raise typer.Exit(1)

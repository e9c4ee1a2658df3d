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


Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a record, of a job (seedN), or of an experiment.")]


@app.command()
def diff(
    left: Run,
    right: Run,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Leave with 1 where something that matters differs.")
    ] = False,
) -> None:
    """Say what changed between two runs: what they were made of, and then their answers and scores."""
    import json

    from harness import diff as comparing

    found = comparing.diff(left, right)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=1, ensure_ascii=False))
    else:
        for line in comparing.lines(found):
            typer.echo(line)
    if exit_code and not found.equal:
        raise typer.Exit(1)


@app.command()
def merge(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="RESULTS/NAME, the experiment folder to make.")],
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Experiment folders to take records from.")],
    prefer: Annotated[
        Path | None, typer.Option(help="The run whose record stands where two of one cell differ.")
    ] = None,
    mixed: Annotated[
        list[str], typer.Option("--mixed", metavar="TASK", help="Its data or prompts may differ. Repeatable.")
    ] = [],  # noqa: B006
) -> None:
    """Join verified records of several runs into one experiment, with an experiment file for `harness tables`."""
    from harness import merge as joining

    file = joining.merge(out, runs, prefer=prefer, mixed=mixed)
    typer.echo(file)
    typer.echo(f"note: `harness tables {file} --results {out.parent}` makes its tables", err=True)

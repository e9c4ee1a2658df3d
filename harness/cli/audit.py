"""The command that audits the paper's own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli._common import RESULTS, Changes, Results, app, load
from harness.errors import HarnessError


@app.command()
def audit(
    name: Annotated[
        str, typer.Argument(metavar="[EXPERIMENT]", help="Whose runs to set beside the paper's claims.")
    ] = "",
    changes: Changes = [],  # noqa: B006
    results: Results = RESULTS,
    out: Annotated[Path | None, typer.Option(help="File to write; else standard output.")] = None,
) -> None:
    """Recompute the paper's printed claims: what holds, what does not, and what our runs give."""
    from harness.records import atomic
    from harness.reporting.audit import markdown

    if name:
        from harness.reporting.summary import Summary

        experiment = load(name, changes)
        text = markdown(experiment, Summary(experiment, results))
    else:
        text = markdown()
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        with atomic(out) as whole:
            whole.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise HarnessError(f"{out} cannot be written ({error.strerror}); name another file") from error
    typer.echo(out)

"""The command that compares training episodes with the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli._common import DEFAULT, RESULTS, Changes, Name, Results, app, load
from harness.errors import HarnessError


@app.command()
def contamination(
    name: Name = DEFAULT,
    changes: Changes = [],  # noqa: B006
    results: Results = RESULTS,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default RESULTS/EXPERIMENT.")] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave with exit code 1 where a test shares more than this part (0 to 1)."),
    ] = None,
) -> None:
    """What the training episodes share with each test: ids, titles, whole texts, runs of 13 and of 8 words."""
    from harness import contamination as compared

    experiment = load(name, changes)
    found = compared.report(experiment)
    folder = out or results / experiment.name
    try:
        written = compared.write(found, folder)
    except OSError as error:
        raise HarnessError(f"{folder} cannot be written to ({error.strerror}); name another folder") from error
    typer.echo(compared.markdown(found))
    for path in written:
        typer.echo(path)
    if fail_above is not None and found.share > fail_above:
        worst = max(found.tests, key=lambda test: test.share)
        typer.echo(
            f"harness: {100 * worst.share:.2f}% of '{worst.task}' is in the training episodes, more than "
            f"{100 * fail_above:g}%; leave out the episodes that {written[0]} names, or raise --fail-above",
            err=True,
        )
        raise typer.Exit(1)

"""The command that runs the validity gates alone."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli._common import DEFAULT, RESULTS, Changes, Name, Results, app, hand_in, load, table
from harness.errors import HarnessError


@app.command()
def doctor(
    name: Name = DEFAULT,
    changes: Changes = [],  # noqa: B006 - typer reads the default
    backbone: Annotated[str | None, typer.Option(help="Only this backbone.")] = None,
    row: Annotated[str | None, typer.Option(help="Only this row.")] = None,
    results: Results = RESULTS,
) -> None:
    """Run the gates of an experiment's jobs and print each one's certificate; nothing is answered or written."""
    from harness.executor import JobError
    from harness.experiment import jobs

    experiment = load(name, changes)
    chosen = [j for j in jobs(experiment) if backbone in (None, j.backbone) and row in (None, j.row)]
    if not chosen:
        raise HarnessError(f"'{experiment.name}' has no job of backbone '{backbone}' and row '{row}'; see harness plan")
    broken = 0
    for job in chosen:
        label = f"{job.backbone}/{job.row}/seed{job.seed}"
        try:
            found = hand_in("doctor", experiment, job.backbone, job.row, job.seed, results, False)
        except (HarnessError, JobError) as error:
            broken += 1
            typer.echo(f"{label}: {error}")
            continue
        lines = [[g["name"], g["status"], _figure(g["value"]), _figure(g["limit"]), g["note"]] for g in found["gates"]]
        table(label, ["gate", "outcome", "measured", "limit", "note"], lines, numbers_from=None)
        told = found["certificate"]
        typer.echo(
            f"{label}: certificate {told['digest'][:16]}, {told['dtype']}, {told['attention']} attention; "
            f"{len(told['passed'])} gates passed, {len(told['warned'])} warned"
        )
    if broken:
        raise HarnessError(f"{broken} of {len(chosen)} jobs have no certificate; mend what is said above")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"

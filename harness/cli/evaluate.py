"""The command that evaluates: every cell of an experiment's job, or one of lm-eval's tasks under a method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.cli._common import (
    RESULTS,
    Changes,
    MaxGpuHours,
    MaxWorkerHours,
    Results,
    Seed,
    app,
    hand_in,
    load,
    table,
)
from harness.errors import HarnessError

Shown = Literal["replayed", "removed", "own_text"]
SEED = 42
FOREIGN = ("task", "method", "fit", "condition", "limit", "include_path", "out")
"""Options of the form with --task."""


@app.command()
def evaluate(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[EXPERIMENT]", help="Name of a file in config/, or a path to one.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Of the experiment; with --task a folder, hub id, package with a GGUF file, or random:SHAPE."
        ),
    ] = None,
    row: Annotated[str | None, typer.Option(help="Name of a row of the experiment.")] = None,
    seed: Seed = SEED,
    changes: Changes = [],  # noqa: B006
    results: Results = RESULTS,
    max_gpu_hours: MaxGpuHours = None,
    max_worker_hours: MaxWorkerHours = None,
    task: Annotated[list[str], typer.Option(help="A task of lm-eval, in the place of an experiment. Repeatable.")] = [],  # noqa: B006
    method: Annotated[str | None, typer.Option(help="With --task: a method, or a preset of one.")] = None,
    fit: Annotated[Path | None, typer.Option(help="With --task: folder of a stored fit, or of a job.")] = None,
    condition: Annotated[
        Shown | None, typer.Option(help="With --task; default replayed, else the first that the method serves.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="With --task: documents at most.")] = None,
    include_path: Annotated[
        list[Path], typer.Option("--include-path", help="With --task: a folder of lm-eval's YAML files. Repeatable.")
    ] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="With --task: a JSON file to write, with provenance.")] = None,
) -> None:
    """Run every cell of a job (EXPERIMENT --backbone --row), or any lm-eval task (--task --method --backbone)."""
    given = {key for key, value in context.params.items() if value and value not in (RESULTS, SEED)}
    if name is not None:
        own = {"name", "backbone", "row", "seed", "changes", "results", "max_gpu_hours", "max_worker_hours"}
        _only(given, own, "an experiment")
        hours = max_gpu_hours, max_worker_hours
        at, which = _need(backbone, "backbone"), _need(row, "row")
        hand_in("evaluate", load(name, changes), at, which, seed, results, hours=hours)
        return
    if not task:
        raise HarnessError("nothing to evaluate was named; give an EXPERIMENT, or --task with a task of lm-eval")
    _only(given, {*FOREIGN, "backbone", "seed"}, "--task")
    found = _foreign(
        task, _need(backbone, "backbone"), _need(method, "method"), fit, condition, seed, limit, include_path
    )
    if out is not None:
        from harness.records import write_json

        try:
            write_json(out, found)
        except OSError as error:
            raise HarnessError(f"{out} cannot be written ({error.strerror}); name another file") from error
    from harness.foreign import lines

    table(", ".join(task), ["task", "metric", "filter", "value", "stderr"], lines(found), numbers_from=3)


def _foreign(
    names: list[str],
    backbone: str,
    method: str,
    fit: Path | None,
    condition: Shown | None,
    seed: int,
    limit: int | None,
    include: list[Path],
) -> dict[str, Any]:
    from harness import foreign
    from harness.registry import resolve
    from harness.session import Session

    served = resolve(method)[0].capabilities.arms
    # A document has no history: it is read as a prompt, and a memory that is written while reading keeps of that.
    chosen: Shown | None = condition or ("replayed" if "replayed" in served else None)
    with Session.open(backbone, method, fit=fit, condition=chosen, seed=seed) as session:
        return foreign.evaluate(names, session, limit=limit, include=include)


def _need(value: str | None, option: str) -> str:
    if value is None:
        raise HarnessError(f"--{option} is missing; name one")
    return value


def _only(given: set[str], allowed: set[str], form: str) -> None:
    """Refuse options of the other form."""
    options = {"changes": "--set", "name": "EXPERIMENT"}
    for key in sorted(given - allowed):
        option = options.get(key, f"--{key.replace('_', '-')}")
        raise HarnessError(f"{option} does not go with {form}; give an EXPERIMENT --row, or --task --method")

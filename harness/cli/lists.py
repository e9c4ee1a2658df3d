"""Commands that list what there is: methods, tasks, the schema of an experiment, the cache."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli._common import app, table

cache_app = typer.Typer(help="Converted backbones: what can be made again.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")


@app.command()
def methods(
    backbone: Annotated[
        str, typer.Option(help="Count on this (else qwen3-4b): a shape, a local folder, or EXPERIMENT/BACKBONE.")
    ] = "",
    parameters: Annotated[
        bool, typer.Option("--parameters", help="Print trainable parameters, counted without weights.")
    ] = False,
) -> None:
    """List the methods: family, conditions with their arms, and what each is; or what each trains on a backbone."""
    from harness.registry import methods as known

    if parameters or backbone:
        return _parameters(backbone or "qwen3-4b")
    rows = []
    for name, cls in known().items():
        served = "; ".join(f"{c}: {' '.join(arms)}" for c, arms in cls.capabilities.arms.items())
        rows.append([name, cls.capabilities.family, ", ".join(cls.presets), served, cls.summary])
    table("Methods", ["name", "family", "presets", "conditions and arms", "summary"], rows)


@app.command()
def tasks() -> None:
    """List the tasks: unit of a message, metric, splits, and what each asks."""
    from harness.tasks import tasks as known

    rows = [[name, cls.unit, cls.primary_metric, ", ".join(cls.splits), cls.summary] for name, cls in known().items()]
    table("Tasks", ["name", "unit", "metric", "splits", "summary"], rows)


@app.command()
def schema() -> None:
    """Write the JSON Schema of experiment files, for editors."""
    from harness.config import write_schema

    typer.echo(write_schema())


@cache_app.command("list")
def cache_list() -> None:
    """List what the cache holds, with sizes."""
    from harness import cache

    rows = [[entry.name, f"{size / 1e6:,.1f}"] for entry, size in cache.entries().items()]
    table(f"Cache at {cache.folder()}", ["entry", "MB"], rows, numbers_from=1)


@cache_app.command("clear")
def cache_clear() -> None:
    """Delete all that the cache holds; it is made again when needed."""
    from harness import cache

    typer.echo(f"{cache.clear() / 1e6:,.1f} MB freed in {cache.folder()}")


def _parameters(name: str) -> None:
    from harness import parameters

    outline = parameters.outline(parameters.named(name))
    rows = [[name, f"{parameters.size(outline):,}", "100%"]]
    rows += [[c.row, f"{c.trainable:,}", f"{100 * c.share:.4f}%"] for c in parameters.counts(outline)]
    table(f"Trainable parameters on {name}", ["name", "parameters", "of the backbone"], rows, numbers_from=1)

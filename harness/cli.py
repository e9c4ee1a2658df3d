"""The command line: ``harness COMMAND``. Thin; nothing imports it, and it imports no torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.errors import HarnessError
from harness.executor import JobError, submit
from harness.experiment import Experiment

EPILOG = """
Examples:

  harness plan                          what the default experiment will cost

  harness validate my.yaml              check a file without running it

  harness plan smoke --set methods+=my_memory --set run.executor=inline

  snakemake --cores all tables/main.tex run the default experiment

  harness show smollm2/delta_mem_tsw/seed42/write_clear_read/removed/own --experiment embedded
"""


class _Group(typer.core.TyperGroup):
    """Turns a mistake in the input into its one sentence and exit code 2."""

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except HarnessError as error:
            typer.echo(f"harness: {error}", err=True)
            raise typer.Exit(2) from error
        except JobError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error


app = typer.Typer(cls=_Group, help="δ-mem, measured: fit and compare memory methods.", epilog=EPILOG,
                  no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  rich_markup_mode=None)  # fmt: skip
cache_app = typer.Typer(help="Converted backbones: what can be made again.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
adapter_app = typer.Typer(help="Adapter files: look at one, convert, verify, trace.", no_args_is_help=True)
app.add_typer(adapter_app, name="adapter")

Name = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Name of a file in config/, or a path to one.")]
Changes = Annotated[
    list[str], typer.Option("--set", help="Change a value: run.executor=inline, methods+=my_memory. Repeatable.")
]
Backbone = Annotated[str, typer.Option(help="Name of a backbone of the experiment.")]
Row = Annotated[str, typer.Option(help="Name of a row of the experiment.")]
Seed = Annotated[int, typer.Option(help="One of its training seeds.")]
Results = Annotated[Path, typer.Option(help="Folder of all results.")]
Method = Annotated[str, typer.Option(help="Method that the adapter is of.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of an adapter, in PEFT's format or the authors'.")]
Weights = Annotated[str, typer.Option("--backbone", help="A local model folder, or EXPERIMENT/BACKBONE.")]

Plugins = Annotated[
    list[Path],
    typer.Option("--plugin", metavar="PATH", help="A Python file or package of methods. Repeatable."),
]

DEFAULT = "embedded"
ADAPTERS_OF = "delta_mem"
RESULTS = Path("results")
PLUGINS: list[Path] = []
"""Given before the command; every experiment that the command loads names them, so that its workers know them."""


@app.callback()
def main(plugins: Plugins = []) -> None:  # noqa: B006
    """δ-mem, measured: fit and compare memory methods."""
    from harness.registry import plug

    plug(plugins)
    PLUGINS[:] = plugins


@app.command()
def plan(name: Name = DEFAULT, changes: Changes = []) -> None:  # noqa: B006 - typer reads the default
    """List jobs and cells with predicted tokens, seconds, GPU-hours and disk."""
    from harness import plan as planning

    experiment = _load(name, changes)
    estimates = planning.plan(experiment)
    _table(
        f"Plan of {experiment.name}",
        ["job", "fit or cell", "cells", "tokens", "seconds", "GPU-hours", "MB on disk"],
        list(planning.lines(experiment, estimates)),
        numbers_from=2,
    )


@app.command()
def validate(name: Name = DEFAULT, changes: Changes = []) -> None:  # noqa: B006
    """Check an experiment file; say nothing was wrong, or what, where and the mend."""
    from harness.experiment import cells, jobs

    experiment = _load(name, changes)
    found = jobs(experiment)
    count = sum(len(cells(experiment, job)) for job in found)
    typer.echo(f"{experiment.name}: {len(found)} jobs, {count} cells")


@app.command()
def prepare(name: Name, backbone: Backbone, changes: Changes = [], results: Results = RESULTS) -> None:  # noqa: B006
    """Fetch or convert a backbone and write its description."""
    _job("prepare", _load(name, changes), backbone, "", 0, results, False)


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
    _job("fit", _load(name, changes), backbone, row, seed, results, retrain)


@app.command()
def evaluate(
    name: Name,
    backbone: Backbone,
    row: Row,
    seed: Seed = 42,
    changes: Changes = [],  # noqa: B006
    results: Results = RESULTS,
) -> None:
    """Run every cell of a job and leave a record each."""
    _job("evaluate", _load(name, changes), backbone, row, seed, results, False)


@app.command()
def rescore(name: Name = DEFAULT, changes: Changes = [], results: Results = RESULTS) -> None:  # noqa: B006
    """Score stored answers again by the tasks' rules as they are now, without a model."""
    from harness import provenance, rescoring

    for path in rescoring.rescore(_load(name, changes), results, provenance.code()[0]):
        typer.echo(path)


@app.command()
def tables(
    name: Name = DEFAULT,
    changes: Changes = [],  # noqa: B006
    results: Results = RESULTS,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default RESULTS/EXPERIMENT/tables.")] = None,
) -> None:
    """Write the tables of an experiment from its records."""
    from harness.reporting import tables as reporting

    experiment = _load(name, changes)
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

    experiment = _load(name, changes)
    for path in reporting.write(experiment, results, out or results / experiment.name / "figures"):
        typer.echo(path)


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
    _table("Methods", ["name", "family", "presets", "conditions and arms", "summary"], rows)


@app.command()
def tasks() -> None:
    """List the tasks: unit of a message, metric, splits, and what each asks."""
    from harness.tasks import tasks as known

    rows = [[name, cls.unit, cls.primary_metric, ", ".join(cls.splits), cls.summary] for name, cls in known().items()]
    _table("Tasks", ["name", "unit", "metric", "splits", "summary"], rows)


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
    from harness.publish import publish as copy
    from harness.reporting import figures, tables

    experiment = _load(name, changes)
    folder = copy(experiment, results)
    for room in (tables, figures):
        for path in room.write(experiment, folder.parent, folder / room.__name__.rsplit(".", 1)[-1]):
            typer.echo(path)


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
    _table(f"Cache at {cache.folder()}", ["entry", "MB"], rows, numbers_from=1)


@cache_app.command("clear")
def cache_clear() -> None:
    """Delete all that the cache holds; it is made again when needed."""
    from harness import cache

    typer.echo(f"{cache.clear() / 1e6:,.1f} MB freed in {cache.folder()}")


@adapter_app.command("inspect")
def adapter_inspect(folder: Folder, method: Method = ADAPTERS_OF) -> None:
    """Say what an adapter is: variant, sizes, heads, layers, gates, dtype, and what its file leaves out."""
    _table(str(folder), ["what", "value"], [list(pair) for pair in _tools(method).inspect(folder)])


@adapter_app.command("convert")
def adapter_convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of an adapter.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write, which must not exist.")],
    to: Annotated[Literal["native", "official"], typer.Option(help="PEFT's format, or the authors'.")],
    backbone: Annotated[
        str | None, typer.Option(help="Check against this: a shape (qwen3-4b), a local folder, or EXPERIMENT/BACKBONE.")
    ] = None,
    keep_dtype: Annotated[bool, typer.Option("--keep-dtype", help="Write the tensors as stored, not in bf16.")] = False,
    method: Method = ADAPTERS_OF,
) -> None:
    """Write an adapter in the other format; without --backbone its sizes are checked against its own configuration."""
    _notes(_tools(method).convert(source, target, to, backbone, keep_dtype))
    typer.echo(target)


@adapter_app.command("verify")
def adapter_verify(
    folder: Folder,
    backbone: Weights,
    other: Annotated[Path | None, typer.Option(help="Another adapter, which must do the same.")] = None,
    method: Method = ADAPTERS_OF,
) -> None:
    """Load an adapter onto its backbone and check what it does there."""
    checks = _tools(method).verify(folder, backbone, other)
    rows = [[check.name, check.figure, "fails" if check.failure else "holds"] for check in checks]
    _table(str(folder), ["check", "figure", "outcome"], rows)
    for check in checks:
        if check.failure:
            raise HarnessError(check.failure)


@adapter_app.command("trace")
def adapter_trace(
    backbone: Weights,
    adapter: Annotated[Path, typer.Option(help="Folder of an adapter.")],
    inputs: Annotated[Path, typer.Option(help="Safetensors: write_ids, read_ids; masks and segment ids if wanted.")],
    out: Annotated[Path, typer.Option(help="Safetensors to write: write.logits, read.logits, state.LAYER.")],
    method: Method = ADAPTERS_OF,
) -> None:
    """Write tokens, read others from the state alone, and keep logits and states, to compare implementations."""
    _notes(_tools(method).trace(backbone, adapter, inputs, out))
    typer.echo(out)


def _tools(method: str) -> Any:
    from harness.registry import resolve

    return resolve(method)[0].adapter_tools()


def _notes(notes: list[str]) -> None:
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def _parameters(name: str) -> None:
    from harness import parameters

    outline = parameters.outline(parameters.named(name))
    rows = [[name, f"{parameters.size(outline):,}", "100%"]]
    rows += [[c.row, f"{c.trainable:,}", f"{100 * c.share:.4f}%"] for c in parameters.counts(outline)]
    _table(f"Trainable parameters on {name}", ["name", "parameters", "of the backbone"], rows, numbers_from=1)


def _load(name: str, changes: list[str]) -> Experiment:
    from harness import config

    return config.load(name, [*(f"plugins+={json.dumps(str(file))}" for file in PLUGINS), *changes])


def _job(kind: str, experiment: Experiment, backbone: str, row: str, seed: int, results: Path, retrain: bool) -> None:
    """Hand one job in and show how far it is until it is done."""
    from harness.errors import nearest
    from harness.progress import follow

    rows = [r.row for r in experiment.rows]
    if backbone not in experiment.backbones:
        hint = nearest(backbone, experiment.backbones)
        raise HarnessError(f"the experiment '{experiment.name}' has no backbone '{backbone}'; {hint}")
    if kind != "prepare" and row not in rows:
        raise HarnessError(f"the experiment '{experiment.name}' has no row '{row}'; {nearest(row, rows)}")
    if kind != "prepare" and seed not in experiment.seeds:
        known = ", ".join(map(str, experiment.seeds))
        raise HarnessError(f"the experiment '{experiment.name}' has no seed {seed}; known: {known}")
    label = " ".join(filter(None, [kind, backbone, row]))
    log = results / experiment.name / "logs" / f"{label.replace(' ', '-')}-{seed}.jsonl"
    request = {
        "kind": kind,
        "experiment": experiment.model_dump(mode="json", by_alias=True),
        "backbone": backbone,
        "row": row,
        "seed": seed,
        "results": str(results),
        "retrain": retrain,
        "progress": str(log),
    }
    with follow(log, label):
        submit(request)


def _table(title: str, heads: list[str], rows: list[list[str]], numbers_from: int | None = None) -> None:
    """A table for people; tab-separated lines where nobody looks."""
    if not sys.stdout.isatty():
        for row in [heads, *rows]:
            typer.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for place, head in enumerate(heads):
        right = numbers_from is not None and place >= numbers_from
        table.add_column(head, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)

"""What the commands share: the app, their options, loading an experiment, handing in a job, printing a table."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from harness import cluster, disk
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
            with disk.sentences():
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

Name = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Name of a file in config/, or a path to one.")]
Changes = Annotated[
    list[str], typer.Option("--set", help="Change a value: run.executor=inline, methods+=my_memory. Repeatable.")
]
Backbone = Annotated[str, typer.Option(help="Name of a backbone of the experiment.")]
Row = Annotated[str, typer.Option(help="Name of a row of the experiment.")]
Seed = Annotated[int, typer.Option(help="One of its training seeds.")]
Results = Annotated[Path, typer.Option(help="Folder of all results.")]
MaxGpuHours = Annotated[
    float | None,
    typer.Option(envvar="MAX_GPU_HOURS", help="GPU-hours that the experiment's results may take in all; resumable."),
]
MaxWorkerHours = Annotated[
    float | None,
    typer.Option(envvar="MAX_WORKER_HOURS", help="The same in hours of workers, where they have no GPU."),
]
Plugins = Annotated[
    list[Path],
    typer.Option("--plugin", metavar="PATH", help="A Python file or package of methods. Repeatable."),
]

DEFAULT = "embedded"
RESULTS = Path("results")
PLUGINS: list[Path] = []
"""Given before the command; every experiment that the command loads names them, so that its workers know them."""


@app.callback()
def main(plugins: Plugins = []) -> None:  # noqa: B006
    """δ-mem, measured: fit and compare memory methods."""
    from harness.registry import plug

    if owner := os.environ.get(cluster.OWNER):
        cluster.end_with(int(owner))
    plug(plugins)
    PLUGINS[:] = plugins


def load(name: str, changes: list[str]) -> Experiment:
    from harness import config

    return config.load(name, [*(f"plugins+={json.dumps(str(file))}" for file in PLUGINS), *changes])


def hand_in(
    kind: str,
    experiment: Experiment,
    backbone: str,
    row: str,
    seed: int,
    results: Path,
    retrain: bool = False,
    hours: tuple[float | None, float | None] = (None, None),
) -> dict[str, Any]:
    """Hand one job in, show how far it is until it is done, and give its result.

    Args:
        hours: GPU-hours or worker-hours that the experiment may use in all.
    """
    from harness import seals
    from harness.allowance import Limit
    from harness.errors import nearest
    from harness.experiment import Job
    from harness.planned import predicted
    from harness.progress import follow

    rows = [r.row for r in experiment.rows]
    if backbone not in experiment.backbones:
        hint = nearest(backbone, experiment.backbones)
        raise HarnessError(f"the experiment '{experiment.name}' has no backbone '{backbone}'; {hint}")
    if kind != "prepare" and row not in rows:
        raise HarnessError(f"the experiment '{experiment.name}' has no row '{row}'; {nearest(row, rows)}")
    if kind not in ("prepare", "measure") and seed not in experiment.seeds:
        known = ", ".join(map(str, experiment.seeds))
        raise HarnessError(f"the experiment '{experiment.name}' has no seed {seed}; known: {known}")
    label = " ".join(filter(None, [kind, backbone, row]))
    log = results / experiment.name / "logs" / f"{label.replace(' ', '-')}-{seed}.jsonl"
    limit = Limit.given(*hours, experiment.run.gpus_per_worker)
    job = Job(experiment.name, backbone, row, seed)
    request = {
        "kind": kind,
        "experiment": experiment.model_dump(mode="json", by_alias=True),
        "backbone": backbone,
        "row": row,
        "seed": seed,
        "results": str(results),
        "retrain": retrain,
        "progress": str(log),
        "limit": limit and asdict(limit),
        "predicted": dict(predicted(experiment, job, results)) if limit else {},
    }
    prepared = results / experiment.name / backbone / "backbone.json"
    if kind != "prepare" and prepared.is_file():
        request["digest"] = seals.read(prepared).get("digest")
    with follow(log, label):
        return submit(request)


def table(title: str, heads: list[str], rows: list[list[str]], numbers_from: int | None = None) -> None:
    """A table for people; tab-separated lines where nobody looks."""
    if not sys.stdout.isatty():
        for row in [heads, *rows]:
            typer.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title)
    for place, head in enumerate(heads):
        right = numbers_from is not None and place >= numbers_from
        table.add_column(head, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)

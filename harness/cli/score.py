"""The command that scores answers which any system gave."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli._common import app
from harness.errors import HarnessError

STDIN = Path("-")


@app.command()
def score(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Whose rules: a task of `harness tasks`.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON lines {prediction, gold, category, id}; - is standard input.")
    ] = STDIN,
    rule: Annotated[
        Literal["official", "release"], typer.Option(help="The benchmark's own rule, or that of the paper's release.")
    ] = "official",
    metric: Annotated[str | None, typer.Option(help="Only this metric.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Score predictions as they stand, without the clean-up.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write; else standard output.")] = None,
) -> None:
    """Score answers that any system gave: a line of JSON each, in order; means go to standard error."""
    from harness import answers
    from harness.records import atomic
    from harness.tasks import task as named

    scored = named(task)
    if file == STDIN:
        found = answers.score(scored, sys.stdin.buffer, "standard input", rule, metric, raw)
    else:
        try:
            with file.open("rb") as lines:
                found = answers.score(scored, lines, str(file), rule, metric, raw)
        except OSError as error:
            raise HarnessError(f"{file} cannot be read ({error.strerror}); name a file of JSON lines") from error
    text = "".join(f"{one.line()}\n" for one in found)
    if out is None:
        typer.echo(text, nl=False)
    else:
        try:
            with atomic(out) as whole:
                whole.write_text(text, encoding="utf-8")
        except OSError as error:
            raise HarnessError(f"{out} cannot be written ({error.strerror}); name another file") from error
    if note := scored.note():
        typer.echo(f"note: {note}", err=True)
    if rule == "release" and not answers.has_rule(scored, rule):
        typer.echo(f"note: the release has no rule of its own for '{task}'; these are the benchmark's", err=True)
    for name, mean, count in answers.means(found):
        typer.echo(f"{name}\t{mean:.4f}\t{count}", err=True)

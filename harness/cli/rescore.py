"""The command that scores answers again: those of an experiment, or of a file that any system left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli._common import DEFAULT, RESULTS, Changes, Results, app, load, table
from harness.errors import HarnessError


@app.command()
def rescore(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="[EXPERIMENT|FILE]", help="Name of an experiment, or a file of answers.")
    ] = DEFAULT,
    changes: Changes = [],  # noqa: B006
    results: Results = RESULTS,
    task: Annotated[str | None, typer.Option(help="With FILE: whose rules, where it does not tell its task.")] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="With FILE: questions whose gold is wrong; scores also without them.")
    ] = None,
    official_golds: Annotated[
        bool, typer.Option("--official-golds", help="With FILE: score by the data folder's gold answers.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="With FILE: a Markdown file to write.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With FILE: JSON on standard output.")] = False,
) -> None:
    """Score stored answers again, without a model: an experiment's, or those of others' systems (docs/rescore.md)."""
    from harness.others.formats import names_answers

    given = {key for key, value in context.params.items() if value and value != RESULTS}
    if names_answers(name):
        _refuse(given & {"changes", "results"}, "a file of answers")
        _file(Path(name), task, overlay, official_golds, out, as_json)
    else:
        _refuse(given & {"task", "overlay", "official_golds", "out", "as_json"}, "an experiment")
        _experiment(name, changes, results)


def _refuse(given: set[str], form: str) -> None:
    options = {"changes": "--set", "as_json": "--json"}
    for key in sorted(given):
        option = options.get(key, f"--{key.replace('_', '-')}")
        raise HarnessError(f"{option} does not go with {form}; see `harness rescore --help`")


def _experiment(name: str, changes: list[str], results: Path) -> None:
    from harness import provenance, rescoring
    from harness.tasks import tasks

    experiment = load(name, changes)
    for path in rescoring.rescore(experiment, results, provenance.code()[0]):
        typer.echo(path)
    for spec in experiment.tasks:
        if tasks()[spec.task].secret:
            typer.echo(f"note: '{spec.name}' keeps its scores, for its answers are stored nowhere", err=True)


def _file(path: Path, task: str | None, overlay: Path | None, official: bool, out: Path | None, as_json: bool) -> None:
    from harness.others import report, scorer
    from harness.records import atomic

    found = scorer.rescore(path, task, overlay, official)
    if out is not None:
        try:
            with atomic(out) as whole:
                whole.write_text(report.markdown(found), encoding="utf-8")
        except OSError as error:
            raise HarnessError(f"{out} cannot be written ({error.strerror}); name another file") from error
    if as_json:
        typer.echo(json.dumps(report.facts(found), indent=1, sort_keys=True, ensure_ascii=False))
        return
    table(f"Answers to {found.task}", report.HEADS, report.lines(found), numbers_from=2)
    for sentence in report.sentences(found):
        typer.echo(sentence)

"""The command that holds scores against each other: ours against the paper's, or one row's against another's."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.cli._common import DEFAULT, RESULTS, Changes, Results, app, load, table
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.reporting.compare import Contest
    from harness.reporting.summary import Summary

EPILOG = """
Examples:

  harness compare paper                              every score beside the paper's

  harness compare delta_mem_tsw bm25_rag             A against B, on each task of the default experiment

  harness compare delta_mem_tsw:replayed frozen --experiment own_data --task my_notes --require better

Exit code: 0, or 1 where --require does not hold on every task compared, or 2 for a mistake in the input.
"""


@app.command(epilog=EPILOG)
def compare(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[EXPERIMENT | A B]",
            help="An experiment, to stand beside the paper; or two rows, each [BACKBONE/]ROW[:CONDITION].",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    experiment: Annotated[str, typer.Option(help="Experiment of the two rows; else the default one.")] = "",
    task: Annotated[str, typer.Option(help="Only this task.")] = "",
    metric: Annotated[str, typer.Option(help="Score by this metric; else each task's own.")] = "",
    category: Annotated[str, typer.Option(help="Only questions of this category.")] = "",
    condition: Annotated[str, typer.Option(help="Of both rows, where they name none.")] = "",
    require: Annotated[
        Literal["better", "not-worse"] | None,
        typer.Option(
            help="Leave with 1 unless A - B lies, with its whole interval, above the margin, or above -margin."
        ),
    ] = None,
    margin: Annotated[float, typer.Option(min=0, help="Points, for --require.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    changes: Changes = [],  # noqa: B006
    results: Results = RESULTS,
) -> None:
    """Hold every score against the paper's, or one row against another: difference, interval, costs, one sentence."""
    if len(words) > 2:
        raise HarnessError(f"{len(words)} names were given; name one experiment, or two rows and --experiment")
    if len(words) < 2:
        chosen = {"--task": task, "--metric": metric, "--category": category, "--condition": condition}
        given = [name for name, value in {**chosen, "--require": require, "--margin": margin}.items() if value]
        if given:
            raise HarnessError(f"{given[0]} is for two rows; name both, as in `harness compare A B {given[0]} ...`")
        if words and experiment:
            raise HarnessError(f"'{words[0]}' stands alone beside --experiment; name two rows, or one experiment")
        return _paper(_summary(words[0] if words else experiment, changes, results), as_json)
    if require == "not-worse" and not margin:
        raise HarnessError("--require not-worse needs the points that may be lost; give --margin, or require better")
    if margin and not require:
        raise HarnessError("--margin belongs to --require; give --require better or --require not-worse")
    from harness.reporting import compare as reporting

    summary = _summary(experiment, changes, results)
    contests, left_out = reporting.compare(summary, words[0], words[1], task, metric, category, condition)
    broken = [contest.task for contest in contests if require and not contest.holds(require, margin)]
    if as_json:
        claim = {"claim": require, "margin": margin, "holds": not broken, "broken_on": broken} if require else None
        told = {"contests": [reporting.plain(c) for c in contests], "left_out": [o._asdict() for o in left_out]}
        typer.echo(json.dumps({"experiment": summary.experiment.name, **told, "require": claim}, indent=1))
    else:
        _print(contests, several=len(summary.experiment.backbones) > 1)
        for where, reason in reporting.together(left_out):
            typer.echo(f"Left out: {where}, for {reason}.")
        if require:
            by = f" by {margin:g} points" if margin else ""
            typer.echo(f"{require}{by}: {'does not hold on ' + ', '.join(broken) if broken else 'holds'}")
    if broken:
        raise typer.Exit(1)


def _summary(name: str, changes: list[str], results: Path) -> Summary:
    from harness.reporting.summary import Summary

    return Summary(load(name or DEFAULT, changes), results)


def _print(contests: list[Contest], several: bool) -> None:
    from harness.reporting.compare import named
    from harness.reporting.render import cell, seconds, size, value

    scores, costs = [], []
    for c in contests:
        a, b = named(c.left, several), named(c.right, several)
        p = "" if c.difference.p is None else f"{c.difference.p:.3g} {c.difference.test}"
        ratio = "" if c.ratio is None else f"{c.ratio.value:.2f}"
        if c.ratio is not None and c.ratio.low is not None and c.ratio.high is not None:
            ratio += f" [{c.ratio.low:.2f}, {c.ratio.high:.2f}]"
        score = f"{c.metric}, {c.category}" if c.category else c.metric
        counts = [f"{c.difference.n:,}", f"{c.difference.clusters:,}", f"{c.wins:,}/{c.ties:,}/{c.losses:,}"]
        ours = [value(c.left.score), value(c.right.score), cell(c.difference, True), p, ratio]
        scores.append([c.task, score, a, b, *ours, *counts])
        for name, side in ((a, c.left), (b, c.right)):
            s = side.spent
            kept = [size(round(s.state_bytes)), seconds(s.write_seconds), f"{s.prompt_tokens:,.1f}"]
            costs.append([c.task, name, *kept, seconds(s.seconds), f"{s.trainable_parameters:,}"])
    heads = ["task", "score", "A", "B", "A %", "B %", "A − B", "p", "A / B", "questions", "clusters", "won/tied/lost"]
    table("Scores", heads, scores, numbers_from=4)
    typer.echo()
    heads = ["task", "row", "kept a history", "write s a history", "prompt tokens a question", "s a question"]
    table("Costs", [*heads, "trainable parameters"], costs, numbers_from=2)
    devices = {side.spent.device for c in contests for side in (c.left, c.right)}
    apart = " Those of different devices must not be compared." if len(devices) > 1 else ""
    typer.echo(f"Seconds were measured on {' and on '.join(sorted(devices))}.{apart}")
    typer.echo()
    for c in contests:
        typer.echo(c.text)
        if c.alone:
            typer.echo(f"{c.alone:,} questions that only one of the two has answered are left out.")


def _paper(summary: Summary, as_json: bool) -> None:
    """Every verdict beside the paper's numbers, row by row, and how many there are of each."""
    from harness.reporting import reported
    from harness.reporting.render import cell, number

    found = reported.comparisons(summary.experiment, summary)
    missing = reported.not_run(summary.experiment, summary)
    counted = Counter([*(c.verdict for c in found), *(printed.verdict for printed in missing)])
    counts = {verdict: counted[verdict] for verdict in reported.VERDICTS if counted[verdict]}
    if as_json:
        lines = [_plain(c) for c in found]
        unrun = [{**m._asdict(), "score": m.score._asdict()} for m in missing]
        told = {"scores": lines, "not_run": unrun, "verdicts": counts}
        typer.echo(json.dumps({"experiment": summary.experiment.name, **told}, indent=1))
        return
    rows = [
        [c.place.backbone, c.place.row, c.place.condition, c.place.task, c.score, cell(c.ours), f"{c.printed:.2f}",
         number(c.ours.value - c.printed / 100, signed=True), f"{c.method} ({c.backbone})", c.verdict, c.reason]
        for c in found
    ]  # fmt: skip
    heads = ["backbone", "row", "condition", "task", "score", "ours", "printed", "ours − printed"]
    if rows:
        table("Beside arXiv 2605.12357", [*heads, "paper's row", "verdict", "reason"], rows)
    else:
        typer.echo(f"No score of '{summary.experiment.name}' has a number of the paper's beside it.")
    typer.echo("; ".join(f"{verdict}: {count:,}" for verdict, count in counts.items()) or "no verdicts")


def _plain(comparison: Any) -> dict[str, Any]:
    ours = comparison.ours
    ends = {name: 100 * end for name in ("value", "low", "high") if (end := getattr(ours, name)) is not None}
    told = {name: getattr(comparison, name) for name in ("metric", "category", "printed", "verdict", "reason")}
    paper = {"paper_backbone": comparison.backbone, "paper_method": comparison.method}
    return {**comparison.place._asdict(), **told, **paper, "ours": {**ends, "n": ours.n, "clusters": ours.clusters}}

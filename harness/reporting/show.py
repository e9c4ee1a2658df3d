"""Prints one cell: its record and its first answers."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness import records
from harness.errors import HarnessError, nearest
from harness.experiment import Cell, Job
from harness.records import Record
from harness.reporting.render import number


def show(results: Path, cell_id: str, console: Console | None = None, count: int = 10) -> None:
    """Print the record and the first ``count`` samples of a cell.

    Args:
        results: The results folder.
        cell_id: ``experiment/backbone/row/seedN/task/condition/arm``, the cell's folder under ``results``.
        console: Where to print; None prints to the terminal.
        count: Samples shown.

    Raises:
        HarnessError: no such cell, or its record or samples are torn.
    """
    path = results / cell_id / "record.json"
    if not path.is_file():
        known = [str(p.parent.relative_to(results)) for p in results.rglob("record.json")]
        raise HarnessError(f"there is no cell '{cell_id}' under {results}; {nearest(cell_id, known)}")
    record = records.load(path)
    job = Job(record.experiment, record.backbone, record.row, record.seed)
    cell = Cell(job, record.task, record.condition, record.arm)
    console = console or Console()
    console.print(f"[bold]{escape(cell.id)}[/bold]")
    for table in (_facts(record), _scores(record), _samples(record, path.parent, count)):
        console.print(table)


def _facts(record: Record) -> Table:
    ran, data, costs = record.provenance, record.provenance.data, record.costs
    fit = ran.fit or {}
    facts = {
        "method": record.method,
        "data": f"{data.get('source')} {data.get('file', '')}".strip(),
        "questions": f"{record.questions:,}; histories cut {record.truncated:,} (lost {record.lost_share:.0%})",
        "ran on": f"{ran.device}, {ran.dtype}, {ran.attention} attention",
        "commit": f"{ran.commit[:12]}{' with uncommitted changes' if ran.dirty else ''}",
        "fit": f"{fit['address'][:12]} {'restored' if fit.get('restored') else 'fitted here'}" if fit else "none",
        "seconds": f"write {costs.write_seconds:.1f}, prefill {costs.prefill_seconds:.1f}, "
        f"decode {costs.decode_seconds:.1f}, other {costs.overhead_seconds:.1f}",
        "tokens": f"written {costs.tokens_written:,}, in {costs.tokens_in:,}, out {costs.tokens_out:,}",
        "gates": ", ".join(f"{g.name} {g.status}" for g in record.gates) or "none",
        "warnings": "; ".join(record.warnings) or "none",
    }
    table = Table(show_header=False, box=None)
    for name, text in facts.items():
        table.add_row(name, escape(text))
    return table


def _scores(record: Record) -> Table:
    table = Table("score", "percent", "95% interval", "n", "clusters", "rule")
    for name, score in record.scores.items():
        known = score.low is not None and score.high is not None
        ends = f"{number(score.low or 0.0)} to {number(score.high or 0.0)}" if known else ""
        mark = " *" if name == record.primary_metric else ""
        table.add_row(escape(name) + mark, number(score.value), ends, f"{score.n:,}", f"{score.clusters:,}", score.rule)
    return table


def _samples(record: Record, folder: Path, count: int) -> Table:
    frame = records.samples(record, folder).head(count)
    wanted = ("question_id", "category", "donor", "prompt_tokens", "new_tokens", "answer")
    columns = [c for c in frame.columns if c in wanted or c.startswith("score.")]
    table = Table(*columns)
    for row in frame[columns].itertuples(index=False):
        table.add_row(*(escape(f"{v:.3g}" if isinstance(v, float) else str(v)) for v in row))
    return table

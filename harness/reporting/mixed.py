"""What must not be mixed under one name: two backbones are refused, two ways of computing are told."""

from __future__ import annotations

from harness.errors import HarnessError
from harness.records import Record
from harness.reporting.notes import Note
from harness.reporting.summary import Summary


def check(summary: Summary) -> None:
    """One name of a backbone is one set of weights in every record of the experiment.

    Raises:
        HarnessError: two records of one backbone's name come from different weights; it names a cell of either.
    """
    first: dict[str, Record] = {}
    for record in _every(summary):
        other = first.setdefault(record.backbone, record) if _digest(record) else record
        if _digest(other) != _digest(record):
            raise HarnessError(
                f"backbone '{record.backbone}' has weights {_digest(other)[:12]} in cell {_cell(other)} and "
                f"{_digest(record)[:12]} in cell {_cell(record)}; delete the cells of one and run again, or give each "
                "backbone a name of its own"
            )


def notes(summary: Summary) -> list[Note]:
    """One note a backbone whose cells ran in more than one dtype or attention: differences may be arithmetic."""
    ways: dict[str, dict[str, list[str]]] = {}
    for record in _every(summary):
        way = f"{record.provenance.dtype} with {record.provenance.attention} attention"
        ways.setdefault(record.backbone, {}).setdefault(way, []).append(_cell(record))
    return [
        Note("Mixed", f"{backbone} ran in {_listed(found)}: differences between these cells may be of arithmetic.")
        for backbone, found in ways.items()
        if len(found) > 1
    ]


def _listed(found: dict[str, list[str]]) -> str:
    counted = {way: f"{cells[0]}" + f" and {len(cells) - 1} more" * (len(cells) > 1) for way, cells in found.items()}
    return " and in ".join(f"{way} ({cells})" for way, cells in sorted(counted.items()))


def _every(summary: Summary) -> list[Record]:
    return [*summary.records.values(), *summary.unanswered.values()]


def _digest(record: Record) -> str:
    return str(record.provenance.backbone.get("digest") or "")


def _cell(record: Record) -> str:
    return "/".join((record.backbone, record.row, f"seed{record.seed}", record.task, record.condition, record.arm))

"""The tables of speed and memory (a part of ``costs``) and ``efficiency.csv``, from the records of measurements."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.efficiency_records import RATIOS, EfficiencyRecord, Figures, Point, load, path_of
from harness.experiment import Experiment, measurements

FIGURES = tuple(Figures.model_fields)
SIZES = ("prompt_tokens", "tokens_written", "new_tokens", "kv_bytes", "state_bytes")
CSV_COLUMNS = (
    "backbone", "row", "method", "backbone_weights", "method_weights", "device", "dtype", "threads", "condition",
    "prompt_length", "decode_length", "status", "reason", *SIZES, *FIGURES,
    *(f"frozen_{name}" for name in ("kv_bytes", *FIGURES)),
    *(f"ratio_{name}" for name in (*RATIOS, "kv_bytes", "state_to_kv")),
    "trainable_parameters", "extra_parameters",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A row at one point."""

    record: EfficiencyRecord
    point: Point


@dataclass(frozen=True)
class Panel:
    """All rows at one point: where the history stood, and how long prompt and answer were."""

    backbone: str
    shown: bool
    """The history is in the prompt; else it is out of sight, written or put back."""
    prompt: int
    decode: int
    lines: list[Line]


def records(experiment: Experiment, results: Path) -> list[EfficiencyRecord]:
    """The record of every measurement that the experiment names.

    Raises:
        HarnessError: a record is missing, torn or of another schema.
    """
    return [load(path_of(results, experiment.name, j.backbone, j.row)) for j in measurements(experiment)]


def context(measured: Sequence[EfficiencyRecord]) -> dict[str, Any]:
    """What the templates of ``costs`` say of speed and memory."""
    return {"panels": panels(measured), "failures": failures(measured), "rows": measured, "notes": notes(measured)}


def panels(records: Sequence[EfficiencyRecord]) -> list[Panel]:
    """What was measured, the rows of one point together, in the order of the experiment."""
    found: dict[tuple[str, bool, int, int], list[Line]] = {}
    for record in records:
        for p in record.points:
            if p.row is not None:
                key = record.backbone, p.condition == "replayed", p.prompt_length, p.decode_length
                found.setdefault(key, []).append(Line(record, p))
    order = {record.backbone: n for n, record in reversed(list(enumerate(records)))}
    keys = sorted(found, key=lambda key: (order[key[0]], not key[1], *key[2:]))
    return [Panel(*key, found[key]) for key in keys]


def failures(records: Sequence[EfficiencyRecord]) -> list[tuple[str, str]]:
    """Rows without figures, with the points at which they have none and the reason, one line a reason."""
    found = []
    for record in records:
        missing = [(p, f"{p.status}: {p.reason}") for p in record.points if p.status != "ok"]
        missing += [(p, f"the bare backbone: {p.frozen_reason}") for p in record.points if p.frozen_reason]
        for reason, group in groupby(missing, key=lambda pair: pair[1]):
            points = [p for p, _ in group]
            lengths = ", ".join(f"{p.prompt_length} + {p.decode_length}" for p in points)
            found.append((f"{record.row} on {record.backbone}, {points[0].condition}, {lengths}", reason))
    return found


def notes(records: Sequence[EfficiencyRecord]) -> list[str]:
    """What a reader must know of where and how it was measured, each thing once."""
    machines = {
        f"Measured on {p.device}, {p.threads} thread{'s' * (p.threads != 1)}, {p.dtype}, {p.attention} attention; "
        f"torch {p.versions['torch']}, transformers {p.versions['transformers']}; commit {p.commit[:12]}"
        f"{' with uncommitted changes' if p.dirty else ''}."
        for p in (record.provenance for record in records)
    }
    kinds = {
        f"Memory: {record.memory}. Times: medians of {record.repeats} after {record.warm_up} that do not count."
        for record in records
    }
    random = sorted({record.backbone for record in records if record.backbone_weights == "random"})
    weights = [f"Weights of {', '.join(random)} are random."] if random else []
    return [*sorted(machines), *sorted(kinds), *weights, "What a row would learn is as it starts; nothing was fitted."]


def csv_text(records: Sequence[EfficiencyRecord]) -> str:
    """``efficiency.csv``: every point of every row, one a line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_lines(records))
    return text.getvalue()


def _lines(records: Sequence[EfficiencyRecord]) -> Iterator[dict[str, Any]]:
    for record in records:
        about = record.model_dump(include={"backbone", "row", "method", "backbone_weights", "method_weights"})
        about |= record.model_dump(include={"trainable_parameters", "extra_parameters"})
        about |= record.provenance.model_dump(include={"device", "dtype", "threads"})
        for p in record.points:
            line = about | p.model_dump(include={"condition", "prompt_length", "decode_length", "status", "reason"})
            if p.row is not None:
                line |= p.row.model_dump(include=set(SIZES)) | p.row.figures.model_dump()
                line |= {f"ratio_{name}": ratio for name, ratio in p.ratios.items()}
            if p.frozen is not None:
                bare = {"kv_bytes": p.frozen.kv_bytes, **p.frozen.figures.model_dump()}
                line |= {f"frozen_{name}": value for name, value in bare.items()}
            yield {name: _number(value) for name, value in line.items()}


def _number(value: Any) -> Any:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value

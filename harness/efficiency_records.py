"""What a measurement of speed and memory leaves behind: ``efficiency.json``, one a backbone and row."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.records import Provenance, read, write_sealed

SCHEMA_VERSION = 1
FILE = "efficiency.json"
Status = Literal["ok", "unsupported", "skipped", "out_of_memory", "error"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Run(_Part):
    """One repetition: seconds of wall clock, on CUDA between synchronisations."""

    write_seconds: float | None = Field(None, description="Of the history; null where it stands in the prompt.")
    read_seconds: float = Field(description="Retrieving, routing and the like, before the prompt is read.")
    prefill_seconds: float = Field(description="Of the prompt, up to the first token of the answer.")
    decode_seconds: float = Field(description="Of the other tokens.")


class Peaks(_Part):
    """Bytes in use at most, in a repetition of its own, whose times do not count; null where the system is silent."""

    start_bytes: int | None = Field(description="In use before the first phase: the weights, and what else is loaded.")
    write_bytes: int | None = Field(None, description="null too where nothing is written.")
    read_bytes: int | None = Field(None, description="While the memory is asked, before the prompt is read.")
    prefill_bytes: int | None
    decode_bytes: int | None
    reserved_bytes: int | None = Field(None, description="Held by torch's allocator while decoding; CUDA only.")


class Figures(_Part):
    """What follows from the medians over the repetitions, and from the peaks."""

    write_seconds: float | None = None
    read_seconds: float
    prefill_seconds: float
    decode_seconds: float
    first_token_seconds: float = Field(description="read + prefill: from the question to the answer's first token.")
    generate_tokens_per_second: float = Field(description="New tokens / (prefill + decode).")
    decode_tokens_per_second: float | None = Field(description="(New tokens - 1) / decode; null of one token.")
    peak_bytes: int | None = Field(description="Of all phases, the weights among it.")
    peak_above_start_bytes: int | None = Field(description="Of all phases, without what was in use at the start.")
    answer_above_start_bytes: int | None = Field(description="Of prefill and decode alone.")


class Side(_Part):
    """What the row, or the bare backbone, did at one point."""

    prompt_tokens: int = Field(description="Tokens of the prompt that was read.")
    tokens_written: int = Field(0, description="Tokens of the history that was written, in the chat template.")
    new_tokens: int
    kv_bytes: int = Field(description="Keys and values in the cache when the prompt was read, a method's own among it.")
    state_bytes: int = Field(description="Kept of the history; under `replayed` the states that the cache carries.")
    answer_sha256: str = Field(description="Digest of the new token ids.")
    runs: list[Run]
    memory: Peaks
    figures: Figures


class Point(_Part):
    """One prompt length, one decode length, one condition."""

    condition: Literal["replayed", "removed", "own_text"]
    prompt_length: int = Field(description="Tokens of the prompt with the history in sight.")
    decode_length: int
    status: Status = "ok"
    reason: str = Field("", description="Why the row has no figures.")
    row: Side | None = None
    frozen: Side | None = Field(None, description="The bare backbone, with the history in its prompt, in between.")
    frozen_reason: str = Field("", description="Why the bare backbone has no figures, where the row has.")
    ratios: dict[str, float] = Field({}, description="Row over bare backbone; state_to_kv: state bytes / its KV bytes.")


class EfficiencyRecord(_Part):
    """All that was measured of one row on one backbone, in one process."""

    schema_version: int = SCHEMA_VERSION
    experiment: str
    backbone: str
    row: str
    method: str
    backbone_weights: Literal["random", "pretrained"]
    method_weights: Literal["initial", "none"] = Field(
        description="initial: what the row would learn is as it starts, for speed does not depend on it; none: nothing."
    )
    trainable_parameters: int
    extra_parameters: int = Field(description="Of networks loaded beside the backbone.")
    memory: Literal["allocated on the device", "resident set of the process"]
    warm_up: int
    repeats: int
    points: list[Point]
    provenance: Provenance
    date: float = 0.0


def figures(runs: Sequence[Run], memory: Peaks, new_tokens: int) -> Figures:
    """Medians of the repetitions (at least one), and speeds and sizes from them."""
    read, prefill, decode = (
        statistics.median(getattr(run, f"{phase}_seconds") for run in runs) for phase in ("read", "prefill", "decode")
    )
    wrote = [run.write_seconds for run in runs if run.write_seconds is not None]
    answer = _most(memory.prefill_bytes, memory.decode_bytes)
    peak = _most(answer, memory.write_bytes, memory.read_bytes)
    return Figures(
        write_seconds=statistics.median(wrote) if wrote else None,
        read_seconds=read,
        prefill_seconds=prefill,
        decode_seconds=decode,
        first_token_seconds=read + prefill,
        generate_tokens_per_second=new_tokens / (prefill + decode),
        decode_tokens_per_second=(new_tokens - 1) / decode if new_tokens > 1 else None,
        peak_bytes=peak,
        peak_above_start_bytes=_above(peak, memory.start_bytes),
        answer_above_start_bytes=_above(answer, memory.start_bytes),
    )


def _most(*sizes: int | None) -> int | None:
    return max((size for size in sizes if size is not None), default=None)


def _above(peak: int | None, start: int | None) -> int | None:
    return None if peak is None or start is None else max(0, peak - start)


RATIOS = (
    "prefill_seconds",
    "decode_seconds",
    "first_token_seconds",
    "generate_tokens_per_second",
    "decode_tokens_per_second",
    "peak_bytes",
    "peak_above_start_bytes",
    "answer_above_start_bytes",
)
"""Figures of which row over bare backbone is told; none where the backbone's is zero or unknown."""


def ratios(row: Side, frozen: Side) -> dict[str, float]:
    """Row over bare backbone, of figures."""
    found = {}
    for name in RATIOS:
        ours, theirs = getattr(row.figures, name), getattr(frozen.figures, name)
        if ours is not None and theirs:
            found[name] = ours / theirs
    found["kv_bytes"] = row.kv_bytes / frozen.kv_bytes
    found["state_to_kv"] = row.state_bytes / frozen.kv_bytes
    return found


def path_of(results: Path, experiment: str, backbone: str, row: str) -> Path:
    """Where a record lies."""
    return results / experiment / backbone / row / FILE


def save(record: EfficiencyRecord, results: Path) -> Path:
    """Write a record whole, and tell where."""
    path = path_of(results, record.experiment, record.backbone, record.row)
    write_sealed(path, record.model_dump(mode="json"))
    return path


def load(path: Path) -> EfficiencyRecord:
    """Read a record.

    Raises:
        HarnessError: missing, torn, of another schema, or not as it was written.
    """
    return read(EfficiencyRecord, path, "run the pipeline, or `harness measure`, first")

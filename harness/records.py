"""The unit of truth: what a cell leaves behind, ``record.json`` and ``samples.parquet``.

A record is a superset of lm-eval's result fields (same names, same shapes), so that its readers can read ours.
Files appear under their final name only when whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import disk, leftovers, seals
from harness.errors import HarnessError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1

AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class GateOutcome(_Part):
    """One validity gate (docs/validity.md)."""

    name: str = Field(description="e.g. equality.padding.sharp, activity.state, isolation.same_history")
    status: Literal["pass", "warn"] = Field(description="A failed gate leaves no record at all.")
    value: float | None = Field(None, description="What was measured, e.g. a relative difference.")
    limit: float | None = Field(None, description="What it was held against.")
    note: str = ""


class Certificate(_Part):
    """Under what the gates were passed, so that `harness doctor` can be asked of the same again."""

    digest: str = Field(
        description="sha256 of backbone digest, method, settings, fit, dtype, attention, batch size and kind of device."
    )
    dtype: str
    attention: str
    passed: list[str] = []
    warned: list[str] = []


class Failure(_Part):
    """A question that has no answer: it is counted, not scored."""

    episode: str
    question: str
    status: Literal["unsupported", "skipped", "error"] = Field(
        description="unsupported: beyond the method's nature; skipped: what it needs is not here; error: it failed."
    )
    reason: str


class Provenance(_Part):
    """Enough to run the cell again and to know what it ran on (docs/provenance.md)."""

    config: dict[str, Any] = Field(description="Resolved experiment.")
    config_hash: str = Field(description="sha256 of the canonical JSON of `config`.")
    commit: str = Field(description="Commit of this repository, or 'unknown' outside git.")
    dirty: bool = Field(description="Uncommitted changes were present.")
    versions: dict[str, str] = Field(description="python, torch, transformers, peft, lm_eval, ray, snakemake, ...")
    backbone: dict[str, Any] = Field(
        description="spec, revision, digest, pinned, parameters, tokenizer_hash, chat_template_hash"
    )
    data: dict[str, Any] = Field(
        description="source (official, rebuilt, generated, own), file, hash, episodes, questions"
    )
    fit: dict[str, Any] | None = Field(None, description="address, restored (bool), adapter_hash, steps, loss, seconds")
    prompt_hash: str = Field(description="Digest of the wording of the prompts used.")
    dtype: str
    attention: str = Field(description="Attention backend really used.")
    batch_size: int = Field(description="Questions of one history decoded together at most.")
    seed: int
    device: str = Field(description="CPU or GPU name.")
    threads: int
    wording_hash: str = Field("", description="Digest of the wording of this task's own prompts.")
    least_batch: int | None = Field(
        None, description="Down to how many questions a batch was halved, where memory was too short for `batch_size`."
    )
    machine: dict[str, str] = Field({}, description="cpu, gpu (name), system, torch_build (cpu, or CUDA's version)")


class Costs(_Part):
    """What the cell cost. Seconds are wall clock; the write is charged once a history (in the cell that did it)."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    write_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    overhead_seconds: float = Field(0.0, description="wall minus write, read, prefill and decode.")
    peak_bytes: int = Field(0, description="Peak resident memory of the worker; device memory on CUDA.")
    read_seconds: float = Field(0.0, description="Retrieving, routing and the like, before the prompt is read.")
    tokens_written: int = 0
    tokens_in: int = Field(0, description="Prompt tokens the model attended to, a question each.")
    tokens_out: int = 0
    state_bytes: int = Field(0, description="Mean bytes kept for a history.")
    trainable_parameters: int = 0
    extra_parameters: int = Field(0, description="Of networks loaded beside the backbone: embedder, memory network.")
    write_lm_calls: int = Field(0, description="Forward passes and generations of the backbone, a row each.")
    write_tokens_read: int = Field(0, description="Tokens fed in them, every training step counted.")
    write_tokens_generated: int = 0
    write_gradient_steps: int = 0
    read_lm_calls: int = Field(0, description="Beside the answer itself.")
    read_tokens: int = Field(0, description="Tokens fed in them.")


class Score(_Part):
    """One metric of the cell, with its honest interval."""

    value: float = Field(description="Mean over questions, 0 to 1.")
    low: float | None = Field(
        None, description="Lower end of the 95% interval, clusters resampled; None where undefined."
    )
    high: float | None = None
    n: int = Field(description="Questions scored.")
    clusters: int = Field(description="Independent root documents behind them.")
    rule: Literal["official", "release"] = "official"


class Record(_Part):
    """Everything one cell says. One schema for every method, task, condition and arm."""

    schema_version: int = SCHEMA_VERSION
    experiment: str
    backbone: str
    row: str
    method: str
    task: str
    condition: str
    arm: str
    seed: int
    scores: dict[str, Score] = Field(description="Metric name to score; categories as metric/category.")
    primary_metric: str
    scored_by: str = Field("", description="Commit by whose rules stored answers were scored again; empty: at once.")
    address: str = Field(
        "", description="sha256 of all that the answers are a function of; another one is another cell."
    )
    addressed: dict[str, Any] = Field(
        {}, description="What `address` is the digest of; empty in records that are older than this field."
    )
    status: Literal["ok", "unsupported", "skipped", "error"] = Field(
        "ok", description="Anything but ok: no question was answered, and `failures` says why."
    )
    samples_sha256: str = Field("", description="Of the samples' file; empty in records that are older than it.")
    failures: list[Failure] = Field([], description="Questions without an answer; `scores` are over the others.")
    gates: list[GateOutcome] = []
    certificate: Certificate | None = Field(None, description="Absent in records that are older than it.")
    warnings: list[str] = Field([], description="Warnings (docs/validity.md); they travel into the table's notes.")
    costs: Costs = Costs()
    provenance: Provenance
    questions: int = Field(description="Questions answered, each once.")
    truncated: int = Field(0, description="Histories that were cut.")
    lost_share: float = Field(0.0, description="Mean share of history tokens lost to cutting.")
    visible_share: float | None = Field(
        None, description="Under `windowed`: mean share of the written history's tokens that stood in the prompt."
    )
    layers: dict[str, list[float]] = Field(
        {},
        description="What the states that were written say by layer, mean over histories: norm, write_gate, and "
        "forget_gate where it is a gate of its own. Empty: nothing is written, or the record is older.",
    )
    # --- lm-eval's own names ---
    results: dict[str, Any] = {}
    group_subtasks: dict[str, list[str]] = {}
    configs: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    n_shot: dict[str, int] = Field({}, alias="n-shot")
    higher_is_better: dict[str, Any] = {}
    n_samples: dict[str, Any] = Field({}, alias="n-samples")
    date: float = 0.0
    git_hash: str = ""


SAMPLE_COLUMNS = {
    "question_id": "string: the data set's id of the question",
    "history_id": "string: episode",
    "root": "string: root document, the cluster",
    "category": "string: the task's category of the question, or empty",
    "donor": "string: episode whose memory was used in the donor arm, else empty",
    "draw": "int: which derangement (donor arm), else 0",
    "prompt_tokens": "int: tokens the model attended to before answering",
    "new_tokens": "int: tokens generated",
    "hit_cap": "bool: the answer was cut by the token cap",
    "prompt_sha256": "string: digest of the prompt's token ids",
    "answer_sha256": "string: digest of the answer text",
    "answer": "string: the answer; absent in committed records of official data, and of a secret task everywhere",
    "notes": "string: JSON of what the memory says of this answer: retrieved ids, kept ratio, ...",
    "clean": "bool: no overlay names the gold answer as wrong; absent where the task has no overlay",
    "score.<metric>": "float: one column a metric",
    "weight.<metric>": "float: how often the score counts in a mean; absent where each counts once",
}


TEXT = ["answer", "notes"]
"""Columns of samples that may hold words of a benchmark."""


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that becomes ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=leftovers.prefix(path))
    os.close(handle)
    temporary = Path(name)
    try:
        with disk.writing(path):
            yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted keys, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(_json(value), encoding="utf-8")


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """As :func:`write_json`, with a seal, for what a run reads again (:func:`harness.seals.read`)."""
    with atomic(path) as temporary:
        temporary.write_text(seals.sealed(_json(value)), encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def save(record: Record, samples: pd.DataFrame, directory: Path) -> None:
    """Leave a cell: samples first, the record last, so that a record means that all is there.

    Both are written before either gets its name, for a record holds the digest of its samples.
    """
    with atomic(directory / "record.json") as told, atomic(directory / "samples.parquet") as answers:
        samples.to_parquet(answers, index=False)
        record.samples_sha256 = seals.sha256(answers)
        told.write_text(seals.sealed(_json(record.model_dump(mode="json", by_alias=True))), encoding="utf-8")


def load(path: Path) -> Record:
    """Read ``record.json``.

    Raises:
        HarnessError: missing, torn, of another schema, or not as it was written.
    """
    return read(Record, path, "run the pipeline first")


def samples_bytes(record: Record, directory: Path) -> bytes:
    """The file of samples beside a record.

    Raises:
        HarnessError: missing, or not the samples that the record was written with.
    """
    path = directory / "samples.parquet"
    try:
        found = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise HarnessError(f"{path} cannot be read ({reason}); delete the cell's folder and run again") from error
    if record.samples_sha256 not in ("", hashlib.sha256(found).hexdigest()):
        raise HarnessError(
            f"{path} cannot be read (it is not as it was written); delete the cell's folder and run again"
        )
    return found


def samples(record: Record, directory: Path) -> pd.DataFrame:
    """The answers beside a record, one row a question and draw (columns: ``SAMPLE_COLUMNS``).

    Raises:
        HarnessError: missing, torn, or not the samples that the record was written with.
    """
    import pandas as pd

    try:
        return pd.read_parquet(io.BytesIO(samples_bytes(record, directory)))
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these two kinds
        path, reason = directory / "samples.parquet", " ".join(str(error).split())
        raise HarnessError(f"{path} cannot be read ({reason}); delete the cell's folder and run again") from error


def read(model: type[AnyRecord], path: Path, mend: str) -> AnyRecord:
    """A record of any kind; ``mend`` is what to do where there is none.

    Raises:
        HarnessError: missing, torn, of another schema, or not as it was written.
    """
    try:
        text = seals.opened(path.read_bytes())
    except FileNotFoundError as error:
        raise HarnessError(f"there is no record at {path}; {mend}") from error
    except OSError as error:
        raise HarnessError(f"{path} cannot be read ({error.strerror}); make it a file that you may read") from error
    except seals.BrokenSealError as error:
        raise HarnessError(f"{path} is not a whole record ({error}); delete it and run again") from error
    ours = model.model_fields["schema_version"].default
    try:
        record = model.model_validate_json(text)
        version = record.schema_version  # type: ignore[attr-defined]
    except ValidationError as error:
        version = _version(text)  # another schema has other fields: then that is what is wrong
        if version in (None, ours):
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise HarnessError(
                f"{path} is not a whole record ({where}: {first['msg']}); delete it and run again"
            ) from error
    if version != ours:
        mend = "update the harness, or delete it and run again" if version > ours else "delete it and run again"
        raise HarnessError(f"{path} has schema {version}, this version reads {ours}; {mend}")
    return record


def _version(text: bytes) -> int | None:
    """The schema that a record says it has; None where it is no JSON or says none."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    version = found.get("schema_version") if isinstance(found, dict) else None
    return version if type(version) is int else None

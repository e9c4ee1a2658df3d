"""The measurements run, on sizes that mean nothing, and say what they are held against."""

import json

import pytest
from typer.testing import CliRunner

from benchmarks import jobs as job_seconds
from benchmarks import recall
from benchmarks.__main__ import app
from benchmarks._measured import Measured, as_json
from harness import records
from harness.config import load
from harness.errors import HarnessError
from harness.experiment import cells, jobs
from harness.records import Costs, Provenance, Record, Score


def printed(*words):
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("measured", "met"),
    [
        (Measured("a", 4.0, at_least=4.0), True),
        (Measured("a", 3.9, at_least=4.0), False),
        (Measured("a", 5.0, at_most=5.0), True),
        (Measured("a", 5.1, at_most=5.0), False),
        (Measured("a", 1.0), None),
    ],
)
def test_a_goal_is_met_or_not(measured, met):
    assert json.loads(as_json([measured])) == {"a": {"value": measured.value, "goal": measured.goal, "met": met}}


def test_twenty_questions_compares_both_ways():
    words = ["--backbone", "random:tiny-llama", "--questions", "3", "--tokens", "60", "--new-tokens", "2"]
    found = printed("twenty-questions", *words)
    for case in ("frozen.replayed", "delta_mem_tsw.removed", "delta_mem_tsw.replayed"):
        apart, together = found[f"{case}.apart"]["value"], found[f"{case}.together"]["value"]
        assert found[f"{case}.ratio"]["value"] == pytest.approx(apart / together, rel=0.05)
        assert found[f"{case}.equal_answers"] == {"value": 3, "goal": 3, "met": True}


def test_ranks_are_compared_with_one_worker():
    found = printed("ranks", "--backbone", "random:tiny-llama", "--row", "lora", "--steps", "2", "--accumulation", "2")
    one, two = (found[f"lora.{count}.step"]["value"] for count in (1, 2))
    assert found["lora.ratio"]["value"] == pytest.approx(one / two, rel=0.05)
    assert found["lora.loss_difference"]["met"]


def test_recurrence_compares_every_form_with_the_definition():
    found = printed("recurrence", "--length", "64")
    for way in ("forward", "forward_backward"):
        slow = found[f"64.{way}.reference"]["value"]
        for form in ("chunked", "compiled"):
            fast, ratio = found[f"64.{way}.{form}"]["value"], found[f"64.{way}.{form}.ratio"]
            assert ratio["value"] == pytest.approx(slow / fast, rel=0.01)
            assert ratio["goal"] is None
    assert found["time_a_token_32768_over_2048"]["goal"] == 1.1


def test_overhead_compares_with_the_bare_backbone():
    words = ["--backbone", "random:tiny-qwen3", "--row", "delta_mem_msw", "--write", "64", "--prompt", "8"]
    found = printed("overhead", *words, "--decode", "4", "--repeats", "1")
    assert {name.split(".")[1] for name in found} == {"write", "decode", "training_step", "memory"}
    for way, goal in (("write", 1.2), ("decode", 0.85), ("training_step", 1.3)):
        bare, ours = (found[f"delta_mem_msw.{way}.{side}"]["value"] for side in ("bare", "delta_mem"))
        assert found[f"delta_mem_msw.{way}.ratio"]["value"] == pytest.approx(
            ours / bare, rel=0.15
        )  # both are printed rounded
        assert found[f"delta_mem_msw.{way}.ratio"]["goal"] == goal


def test_an_unknown_way_of_overhead_is_told():
    result = CliRunner().invoke(app, ["overhead", "--way", "writing"])
    assert isinstance(result.exception, HarnessError)
    assert "write" in str(result.exception)


def record(cell, score, questions):
    return Record(
        experiment=cell.job.experiment, backbone=cell.job.backbone, row=cell.job.row, method=cell.job.row,
        task=cell.task, condition=cell.condition, arm=cell.arm, seed=cell.job.seed,
        scores={"acc": Score(value=score, n=questions, clusters=questions)}, primary_metric="acc",
        questions=questions, costs=Costs(overhead_seconds=0.2),
        provenance=Provenance(config={}, config_hash="", commit="", dirty=False, versions={}, backbone={}, data={},
                              prompt_hash="", dtype="", attention="", batch_size=1, seed=42, device="", threads=1),
    )  # fmt: skip


@pytest.fixture
def answered(tmp_path):
    """The smoke experiment's records: a memory that is right nine times in ten, a donor's once."""
    import pandas as pd

    for job in jobs(load("smoke")):
        for cell in cells(load("smoke"), job):
            right = 1 if cell.arm == "donor" else 9
            frame = pd.DataFrame({"question_id": [f"q{n}" for n in range(10)], "category": "", "draw": 0})
            frame["history_id"] = frame["root"] = frame["question_id"]
            frame["score.acc"] = [float(n < right) for n in range(10)]
            records.save(record(cell, right / 10, 10), frame, tmp_path / cell.path)
        facts = {"answered": len(cells(load("smoke"), job)), "seconds": 16.0, "model_seconds": 6.5}
        facts |= {"opening_seconds": 1.5, "gates_seconds": 4.0}
        records.write_json(tmp_path / job.path / "evaluated.json", facts)
    return tmp_path


def test_recall_gives_the_contrast_with_its_interval(answered):
    found = printed("recall", "smoke", "--results", str(answered))
    label = "tiny_llama.delta_mem_tsw.own_minus_donor"
    assert found[label] == {"value": 80, "goal": None, "met": None}
    assert found[f"{label}.low"]["met"] is True
    assert 20 <= found[f"{label}.low"]["value"] < 80 < found[f"{label}.high"]["value"]
    assert not any("bm25_rag" in name for name in found)


def test_jobs_gives_jobs_and_cells_beside_the_model(answered):
    found = printed("jobs", "smoke", "--results", str(answered))
    assert found["tiny_llama.delta_mem_tsw.seed42.job"] == {"value": 5.5, "goal": 5.0, "met": False}
    assert found["tiny_llama.delta_mem_tsw.seed42.dearest_cell"] == {"value": 0.2, "goal": 0.3, "met": True}
    assert found["tiny_llama.delta_mem_tsw.seed42.gates"] == {"value": 4.0, "goal": None, "met": None}


@pytest.mark.parametrize("measure", [recall.measure, job_seconds.measure], ids=["recall", "jobs"])
def test_no_records_are_told_with_the_mend(measure, tmp_path):
    with pytest.raises(HarnessError, match="run the"):
        measure("smoke", tmp_path)


def test_prompts_of_one_history_hold_it_once():
    words = ["--backbone", "random:tiny-llama", "--source", "generated", "--questions", "20", "--tokens", "20000"]
    found = printed("prompts", *words)
    assert found["locomo.questions"]["value"] == 20
    assert found["locomo.seconds"]["goal"] == 20
    assert found["one_history.tokens"]["value"] == pytest.approx(20_000, rel=0.1)
    assert found["one_history.ratio"]["met"]


def test_cluster_tells_how_busy_gpus_are_and_what_a_loss_costs():
    found = printed("cluster", "--nodes", "2", "--gpus", "2", "--jobs", "12", "--seeds", "1", "--ray", "0")
    assert {f"{load}.busy" for load in ("equal", "uneven", "unforeseen", "paper")} < set(found)
    assert 0 < found["equal.busy"]["value"] < 1
    assert found["equal.busy"]["goal"] == 0.95
    assert found["equal.node_lost.again"]["value"] > 0
    assert found["handing_out"]["met"]

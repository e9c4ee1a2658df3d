"""The command line: what it says, how it refuses, and how a job is handed in."""

import json
import subprocess
import sys
import types

import pytest
from typer.testing import CliRunner

import harness
from harness.cli import app
from harness.errors import HarnessError

HEAVY = ("torch", "transformers", "peft", "ray", "lm_eval", "datasets", "pandas")


def call(*words: str):
    return CliRunner().invoke(app, list(words))


def test_help_teaches_by_example():
    said = call("--help").output
    assert "Examples:" in said
    assert "harness plan" in said


def test_plan_tells_hours_and_cost_by_row_and_task():
    lines = call("plan", "smoke", "--price", "2", "--pilot", "results/reference/embedded").output.splitlines()
    assert lines[0].split("\t") == ["row", "gates", "write_clear_read", "locomo", "fit", "all", "cost"]
    assert [line.split("\t")[0] for line in lines[1:6]] == ["frozen", "bm25_rag", "lora", "delta_mem_tsw", "all"]
    assert any(line.startswith("Pilot: 48 records of embedded") for line in lines)
    assert "Cost at the 2 given for one of the worker-hours, in its currency." in lines


def test_a_plan_as_json_adds_up():
    told = json.loads(call("plan", "smoke", "--price", "2", "--json").output)
    assert told["total"]["cells"] == 13
    assert told["total"]["cost"] == pytest.approx(2 * told["total"]["seconds"] / 3600)
    assert {e["task"] for e in told["estimates"]} == {"fit", "write_clear_read", "locomo"}


@pytest.mark.parametrize("command", ["fit", "evaluate"])
def test_a_limit_of_hours_is_checked_before_anything_runs(command, tmp_path):
    words = ["smoke", "--backbone", "tiny_llama", "--row", "lora", "--results", str(tmp_path)]
    said = call(command, *words, "--max-gpu-hours", "1")
    assert (said.exit_code, "give max_worker_hours" in said.output) == (2, True)
    assert "two limits" in call(command, *words, "--max-gpu-hours", "1", "--max-worker-hours", "1").output
    assert not (tmp_path / "smoke" / "spent").exists()


def test_plan_is_plain_lines_where_nobody_looks():
    lines = call("plan", "smoke", "--cells").output.splitlines()
    assert lines[0].split("\t") == [
        "job",
        "step",
        "cells",
        "questions",
        "tokens",
        "seconds",
        "GPU-hours",
        "MB on disk",
        "from",
    ]
    assert lines[1].startswith("tiny_llama/frozen/seed42\twrite_clear_read/replayed/own\t")


def test_methods_and_tasks_are_listed():
    assert (
        "\ndelta_mem\tonline_state\tdelta_mem_tsw, delta_mem_ssw, delta_mem_msw, delta_mem_tsw_release\t"
        in call("methods").output
    )
    assert "write_clear_read\tfact\tacc\t" in call("tasks").output


def test_methods_counts_what_each_trains():
    lines = call("methods", "--backbone", "smoke/tiny_llama", "--parameters").output.splitlines()
    assert lines[:2] == ["name\tparameters\tof the backbone", "smoke/tiny_llama\t90,624\t100%"]
    assert "lora\t7,168\t7.9096%" in lines


def test_validate_counts_jobs_and_cells():
    assert call("validate", "smoke").output == "smoke: 4 jobs, 13 cells\n"
    assert call("validate", "efficiency").output == "efficiency: 0 jobs, 0 cells, 21 measured\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["validate", "smok"], "did you mean 'smoke'?"),
        (["plan", "smoke", "--set", "run.executer=inline"], "did you mean 'executor'?"),
        (["fit", "smoke", "--backbone", "tiny_lama", "--row", "lora"], "did you mean 'tiny_llama'?"),
        (["fit", "smoke", "--backbone", "tiny_llama", "--row", "lorra"], "did you mean 'lora'?"),
        (["evaluate", "smoke", "--backbone", "tiny_llama", "--row", "lora", "--seed", "7"], "known: 42"),
        (["measure", "smoke", "--backbone", "tiny_llama", "--row", "lora"], "give it the key 'efficiency'"),
        (["measure", "efficiency", "--backbone", "small_qwen3", "--row", "lorra"], "did you mean 'lora'?"),
        (["methods", "--backbone", "qwen3-4", "--parameters"], "did you mean 'qwen3-4b'?"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(words, said, tmp_path, monkeypatch):
    result = call(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.fixture
def fake_jobs(monkeypatch):
    """Jobs that only note what they were asked."""
    module = types.ModuleType("harness.jobs")
    module.requests = []

    def run(request):
        module.requests.append(request)
        if request["row"] == "frozen":
            raise HarnessError("the file is torn; delete it")
        return {}

    module.run = run
    monkeypatch.setitem(sys.modules, "harness.jobs", module)
    monkeypatch.setattr(harness, "jobs", module, raising=False)
    return module


def test_a_job_is_one_json_request(fake_jobs, tmp_path, monkeypatch):
    monkeypatch.setenv("RETRAIN", "1")
    words = ["fit", "smoke", "--backbone", "tiny_llama", "--row", "lora", "--set", "run.executor=inline"]
    assert call(*words, "--results", str(tmp_path)).exit_code == 0
    (request,) = fake_jobs.requests
    assert {k: request[k] for k in ("kind", "backbone", "row", "seed", "retrain")} == {
        "kind": "fit",
        "backbone": "tiny_llama",
        "row": "lora",
        "seed": 42,
        "retrain": True,
    }
    assert request["experiment"]["rows"][2] == {"row": "lora", "method": "lora", "with": {}}


def test_a_mistake_that_a_job_finds_is_told_alike(fake_jobs, tmp_path):
    words = ["evaluate", "smoke", "--backbone", "tiny_llama", "--row", "frozen", "--set", "run.executor=inline"]
    result = call(*words, "--results", str(tmp_path))
    assert (result.exit_code, result.stderr) == (2, "harness: the file is torn; delete it\n")


def test_the_cache_is_listed_and_cleared(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTA_MEM_CACHE", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"0" * 2_000_000)
    assert "model\t2.0\n" in call("cache", "list").output
    assert call("cache", "clear").output.startswith("2.0 MB freed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["plan", "smoke"], ["validate", "paper"], ["methods"], ["tasks"]])
def test_light_commands_import_nothing_heavy(words):
    code = (
        "import sys\nfrom harness.cli import app\n"
        f"app({words}, standalone_mode=False)\n"
        f"heavy = [m for m in {HEAVY} if m in sys.modules]\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

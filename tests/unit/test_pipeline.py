"""What the Snakefile knows: keys, marks that do not hold, and one pipeline a folder."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from harness import allowance, manifest, pilot, pipeline
from harness.allowance import Limit
from harness.errors import HarnessError
from harness.experiment import cells, jobs
from harness.pipeline import ORDERLY, STOPPED, Pipeline, dry

INLINE = {"experiment": "smoke", "set": "run.executor=inline"}


def test_config_words_become_arguments_of_every_call():
    run = Pipeline({"experiment": "smoke", "methods": "question_only", "set": ["seeds=[1]", "donors=2"]})
    assert run.arguments == ["smoke", "--set", "methods+=question_only", "--set", "seeds=[1]", "--set", "donors=2"]
    assert [r.row for r in run.experiment.rows][-1] == "question_only"


def test_an_unknown_config_word_is_told():
    with pytest.raises(HarnessError, match="unknown key 'experimnt' after --config; did you mean 'experiment'"):
        Pipeline({"experimnt": "smoke"})


def test_only_what_learns_waits_for_a_fit():
    run = Pipeline(INLINE)
    assert run.before_evaluation("tiny_llama", "lora", "42").name == "fit.json"
    assert run.before_evaluation("tiny_llama", "frozen", "42").name == "backbone.json"


def test_what_takes_longest_begins_first():
    run = Pipeline({"experiment": "smoke", "set": ["tasks.locomo.limit=1"]})
    longer = Pipeline({"experiment": "smoke", "set": ["tasks.locomo.limit=8"]})
    learning, evaluation = (run.priority("tiny_llama", "lora", "42", step) for step in ("fit", "evaluate"))
    assert learning > evaluation > 0
    assert longer.priority("tiny_llama", "lora", "42", "evaluate") > evaluation
    assert run.priority("tiny_llama", "none", "42", "evaluate") == 0


def test_what_cannot_be_planned_has_no_order(monkeypatch):
    def refuses(experiment):
        raise HarnessError("there is no such file; name another")

    monkeypatch.setattr(pipeline, "plan", refuses)
    assert Pipeline(INLINE).priority("tiny_llama", "lora", "42", "fit") == 0


def test_an_evaluation_whose_record_is_gone_is_done_again(tmp_path):
    run = Pipeline(INLINE, tmp_path, tmp_path / "published")
    table = tmp_path / "published" / "main.tex"
    table.parent.mkdir()
    table.write_text("old")
    for job, mark in zip(jobs(run.experiment), run.evaluated, strict=True):
        for path in [mark, *(tmp_path / cell.path / "record.json" for cell in cells(run.experiment, job))]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    run.forget()
    assert all(path.exists() for path in [*run.evaluated, table])
    first = cells(run.experiment, jobs(run.experiment)[0])[0]
    (tmp_path / first.path / "record.json").unlink()
    run.forget()
    assert [mark.exists() for mark in run.evaluated] == [False, True, True, True]
    assert not table.exists()


@pytest.mark.parametrize(("status", "again"), [("error", True), ("skipped", True), ("unsupported", False)])
def test_what_had_no_answer_for_a_passing_reason_is_asked_again(tmp_path, status, again):
    run = Pipeline(INLINE, tmp_path, tmp_path / "published")
    for job, mark in zip(jobs(run.experiment), run.evaluated, strict=True):
        for path in [mark, *(tmp_path / cell.path / "record.json" for cell in cells(run.experiment, job))]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"failures": [{"status": status}]}))
    run.forget()
    assert not any(mark.exists() == again for mark in run.evaluated)


def test_a_plugin_lies_in_a_folder_of_any_name(tmp_path):
    file = tmp_path / "a: b #c" / "mine.py"
    with pytest.raises(HarnessError, match=r"there is no plugin at .*a: b #c/mine\.py"):
        Pipeline({**INLINE, "plugin": str(file)})


@pytest.mark.parametrize(("retrain", "learned_here", "kept"), [(0, False, True), (1, False, False), (1, True, True)])
def test_retraining_forgets_only_fits_from_elsewhere(tmp_path, monkeypatch, retrain, learned_here, kept):
    monkeypatch.setenv("RETRAIN", str(retrain))
    run = Pipeline(INLINE, tmp_path, tmp_path / "published")
    job = next(j for j in jobs(run.experiment) if j.row == "lora")
    mark = tmp_path / job.path / "fit.json"
    mark.parent.mkdir(parents=True)
    mark.write_text(json.dumps({"address": "0123456789abcdef" * 4}))
    if learned_here:
        (tmp_path / "fits" / "0123456789abcdef").mkdir(parents=True)
    run.forget()
    assert mark.exists() == kept


def test_a_second_pipeline_on_one_folder_is_refused(tmp_path):
    first, second = Pipeline(INLINE, tmp_path), Pipeline(INLINE, tmp_path)
    first.begin()
    with pytest.raises(HarnessError, match="another pipeline works in"):
        second.begin()
    first.end()
    second.begin()
    second.end()


@pytest.mark.parametrize("words", [["-n"], ["--dry-run"], ["--dryrun"], ["-np"], ["tables/main.tex", "-qn"]])
def test_a_dry_run_is_known_by_its_words(words):
    assert dry(["snakemake", *words])


@pytest.mark.parametrize("words", [["--cores", "all"], ["--config", "experiment=one-n"], ["-j1"], ["--nolock"]])
def test_a_real_run_is_no_dry_one(words):
    assert not dry(["snakemake", *words])


def test_the_plan_names_every_cell(capsys):
    run = Pipeline(INLINE)
    run.show_plan()
    told = capsys.readouterr().err
    assert all(
        f"{c.task}/{c.condition}/{c.arm}" in told for job in jobs(run.experiment) for c in cells(run.experiment, job)
    )


MEASURE = {"experiment": "efficiency", "set": "run.executor=inline"}


def test_what_is_only_measured_has_tables_and_figures_of_speed():
    run = Pipeline(MEASURE)
    assert run.evaluated == []
    stems = ("parameters", "efficiency", "efficiency-2", "efficiency-3")
    assert run.figures == [f"{stem}.{kind}" for stem in stems for kind in ("pdf", "png")]
    of_all = ["main.tex", "main.md", "main.csv", "paper.csv", "costs.tex", "costs.md"]
    assert run.tables == [*of_all, "efficiency.csv"]
    assert run.measured[0].parts[-2:] == ("frozen", "efficiency.json")


def test_what_is_only_asked_has_nothing_measured():
    run = Pipeline(INLINE)
    assert run.measured == []
    assert "costs.tex" in run.tables
    assert "efficiency.csv" not in run.tables


@pytest.mark.parametrize(("status", "again"), [("ok", False), ("unsupported", False), ("skipped", True)])
def test_a_measurement_that_lacked_something_is_made_again(tmp_path, status, again):
    run = Pipeline(MEASURE, tmp_path, tmp_path / "published")
    record = run.measured[0]
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"points": [{"status": "ok"}, {"status": status}]}))
    run.forget()
    assert record.exists() != again


def test_a_measurement_follows_from_its_lengths_and_device_and_not_from_workers():
    def prints(*changes):
        return Pipeline({**MEASURE, "set": list(changes)}).fingerprint("small_qwen3", "lora", 0, "measure")

    before = prints("run.executor=inline")
    assert prints("run.workers=2", "run.executor=inline") == before
    assert prints("efficiency.repeats=4") != before
    assert prints("run.dtype=bfloat16") != before


@pytest.fixture
def listed(tmp_path):
    """A run whose manifest lists a record and a table, its published table beside it."""
    run = Pipeline(INLINE, tmp_path / "results", tmp_path / "published")
    files = [run.folder / "tables" / "main.tex", run.folder / "a" / "record.json", tmp_path / "published" / "main.tex"]
    for path in files:
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    manifest.write(run.experiment, run.results, partial=True)
    return run, *files


def test_a_manifest_that_holds_changes_nothing(listed):
    run, *files = listed
    run.forget()
    assert all(path.exists() for path in files)
    assert manifest.read(run.results, "smoke")


def test_a_table_by_another_hand_is_made_again(listed):
    run, table, record, published = listed
    table.write_text("{} ")
    run.forget()
    assert (table.exists(), record.exists(), published.exists()) == (False, True, False)
    assert manifest.read(run.results, "smoke") is None


def test_a_record_by_another_hand_is_refused(listed):
    run, table, record, _ = listed
    record.write_text("{} ")
    with pytest.raises(HarnessError, match=r"a/record\.json has 3 bytes, not 2; delete its folder and run again, or "):
        run.forget()
    assert table.exists()


def test_tables_are_made_again_where_there_is_no_manifest(listed):
    run, table, record, published = listed
    mine = table.with_name("mine.csv")
    mine.write_text("made by another command")
    manifest.void(run.results, "smoke")
    run.forget()
    assert (table.exists(), published.exists()) == (False, False)
    assert record.exists()
    assert mine.exists()


@pytest.fixture
def handlers():
    """The handlers of a process that nobody has changed, as they were before the test afterwards."""
    plain = (signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL)
    before = [signal.signal(number, handler) for number, handler in zip(ORDERLY, plain, strict=True)]
    yield dict(zip(ORDERLY, plain, strict=True))
    for number, handler in zip(ORDERLY, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ORDERLY)
def test_a_run_that_is_asked_to_end_says_so_once_and_ends_as_by_ctrl_c(number, tmp_path, handlers, monkeypatch, capsys):
    monkeypatch.setitem(os.environ, "DELTA_MEM_OWNER", "")
    run = Pipeline(INLINE, tmp_path)
    run.begin()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGHUP)
    assert capsys.readouterr().err.count("the same command goes on from there") == 1
    run.end()
    assert {each: signal.getsignal(each) for each in ORDERLY} == handlers


def test_a_run_that_was_begun_deaf_to_a_signal_stays_so(tmp_path, handlers, monkeypatch):
    monkeypatch.setitem(os.environ, "DELTA_MEM_OWNER", "")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run = Pipeline(INLINE, tmp_path)
    run.begin()
    signal.raise_signal(signal.SIGHUP)
    run.end()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def worked(folder, log, **facts):
    """A line of a job's log of hours."""
    path = folder / allowance.FOLDER / f"{log}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"run": log, "gpus": 0, "time": time.time() + 1, **facts}))


def test_a_run_that_used_its_hours_says_what_is_left_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    for name in ("MAX_WORKER_HOURS", "MAX_GPU_HOURS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    run = Pipeline({**INLINE, "max_worker_hours": 2}, tmp_path)
    run.begin()
    assert os.environ["MAX_WORKER_HOURS"] == "2.0"  # for the jobs
    worked(run.folder, "tiny/frozen/evaluate-42", seconds=1.5 * 3600, stopped=True)
    with pytest.raises(SystemExit) as ended:
        run.end()
    assert ended.value.code == STOPPED
    said = capsys.readouterr().err
    assert "stopped, for 1.5 of 2 worker-hours are used" in said
    assert "undone are 13 of 13 cells, 2 of 2 fits" in said
    assert said.count("\n") == 1
    Pipeline({**INLINE, "max_worker_hours": 3}, tmp_path)._lock.acquire(timeout=0)  # the results are let go


def test_an_earlier_stop_does_not_stop_this_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MAX_WORKER_HOURS", "2")
    run = Pipeline(INLINE, tmp_path)
    worked(run.folder, "tiny/frozen/evaluate-42", seconds=60, ahead=7200, stopped=True, time=1.0)
    run.begin()
    assert not any(note.ahead for note in allowance.spent(run.folder).values())
    run.end()


def test_results_from_before_there_were_logs_are_charged(tmp_path):
    run = Pipeline(INLINE, tmp_path)
    job = next(j for j in jobs(run.experiment) if j.row == "lora")
    record = tmp_path / cells(run.experiment, job)[0].path / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"costs": {"wall_seconds": 1800}}))
    for restored, hours in ((True, 0.5), (False, 1.5)):
        (tmp_path / job.path / "fit.json").write_text(json.dumps({"seconds": 3600, "restored": restored}))
        run.begin()
        run.end()
        assert allowance.hours(run.folder, Limit(1, "worker")) == hours


def test_a_pipeline_stores_its_plan_before_it_runs(tmp_path):
    run = Pipeline({**INLINE, "pilot": "results/reference/embedded"}, tmp_path)
    run.begin()
    run.end()
    stored = json.loads((run.folder / "plan.json").read_text())["steps"].values()
    assert len(stored) == 13 + 2 + 4  # cells, fits, gates
    assert {step["pilot"] for step in stored} == {pilot.read(Path("results/reference/embedded")).source}


@pytest.mark.parametrize("hours", ["many", "0", "-1"])
def test_a_wrong_limit_is_refused(tmp_path, monkeypatch, hours):
    monkeypatch.setenv("MAX_GPU_HOURS", "")
    monkeypatch.delenv("MAX_GPU_HOURS")
    with pytest.raises(HarnessError, match="give"):
        Pipeline({**INLINE, "max_gpu_hours": hours}, tmp_path)

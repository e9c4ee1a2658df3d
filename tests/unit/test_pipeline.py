"""What the Snakefile knows: keys, marks that do not hold, and one pipeline a folder."""

import json
import os
import signal

import pytest

from harness import manifest, pipeline
from harness.errors import HarnessError
from harness.experiment import cells, jobs
from harness.pipeline import ORDERLY, Pipeline, dry

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

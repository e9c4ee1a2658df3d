"""Stored answers scored again: by the rules as they are, without a model, and only where there are answers."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from harness import jobs, records, rescoring
from harness.errors import HarnessError
from harness.experiment import Experiment, TaskSpec

SPEC = {
    "name": "x",
    "backbones": {"tiny": {"random": "tiny-llama"}},
    "rows": ["frozen"],
    "tasks": [
        {"task": "write_clear_read", "episodes": 3, "max_new_tokens": 2},
        {"task": "locomo", "limit": 6, "max_history_tokens": 320, "max_new_tokens": 2},
    ],
    "data": {"source": "generated"},
    "run": {"executor": "inline", "device": "cpu", "workers": 1},
}


@pytest.fixture
def done(tmp_path):
    """An experiment, its results, and the records by task as they were made."""
    experiment = Experiment.model_validate(SPEC)
    spec = experiment.model_dump(mode="json", by_alias=True)
    request = {"kind": "evaluate", "experiment": spec, "backbone": "tiny", "row": "frozen", "seed": 42}
    jobs.run({**request, "results": str(tmp_path)})
    made = {records.load(path).task: records.load(path) for path in tmp_path.rglob("record.json")}
    return experiment, tmp_path, made


def keep(path, answers):
    """Other samples beside a record that knows of them."""
    records.save(records.load(path.with_name("record.json")), answers, path.parent)


def test_the_same_rules_give_the_same_scores(done):
    experiment, results, made = done
    for path in results.rglob("samples.parquet"):
        answers = pd.read_parquet(path)
        answers[[c for c in answers if c.startswith("score.")]] = 0.5
        keep(path, answers)
    assert len(list(rescoring.rescore(experiment, results, "c0ffee"))) == 2
    for path in results.rglob("record.json"):
        record = records.load(path)
        assert record.scores == made[record.task].scores
        assert record.scored_by == "c0ffee"
        assert record.provenance == made[record.task].provenance


def test_another_answer_has_another_score(done):
    experiment, results, made = done
    (path,) = (results / "x").rglob("write_clear_read/replayed/own/samples.parquet")
    answers = pd.read_parquet(path)
    told = made["write_clear_read"].scores["named"].value
    answers["answer"] = "It is red, or blue."
    keep(path, answers)
    [*rescoring.rescore(experiment, results, "c0ffee")]
    record = records.load(path.with_name("record.json"))
    assert record.scores["acc"].value == 0
    assert record.scores["named"].value > told
    assert record.results["write_clear_read"]["named,none"] == record.scores["named"].value


def test_answers_that_are_not_stored_or_another_experiments_are_refused(done):
    experiment, results, _ = done
    (path,) = (results / "x").rglob("locomo/replayed/own/samples.parquet")
    keep(path, pd.read_parquet(path).drop(columns=["answer", "notes"]))
    with pytest.raises(HarnessError, match="locomo/replayed/own has no answers to this experiment's questions"):
        [*rescoring.rescore(experiment, results, "c0ffee")]
    shorter = Experiment.model_validate({**SPEC, "tasks": [{**SPEC["tasks"][0], "episodes": 1}]})
    with pytest.raises(HarnessError, match="on its data"):
        [*rescoring.rescore(shorter, results, "c0ffee")]


@pytest.fixture
def named(done, tmp_path):
    """The experiment with an overlay of half the questions that were asked of `locomo`, and those ids."""
    experiment, results, _ = done
    (path,) = (results / "x").rglob("locomo/replayed/own/samples.parquet")
    wrong = sorted(pd.read_parquet(path)["question_id"])[:3]
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps({"task": "locomo", "source": "an invented audit", "wrong": wrong}), encoding="utf-8")
    tasks = (experiment.tasks[0], experiment.tasks[1].model_copy(update={"overlay": str(file)}))
    return experiment.model_copy(update={"tasks": tasks}), results, path, wrong


def marked(path, wrong):
    """Samples and record, whose scores with and without the wrong golds are those of the samples."""
    answers, record = pd.read_parquet(path), records.load(path.with_name("record.json"))
    rest = answers[~answers["question_id"].isin(wrong)]
    assert record.scores["f1"].value == pytest.approx(answers["score.f1"].mean())
    assert record.scores["f1/clean"].value == pytest.approx(rest["score.f1"].mean())
    assert (record.scores["f1"].n, record.scores["f1/clean"].n) == (6, 3)
    assert record.configs["locomo"]["overlay"]["wrong"] == 3
    return answers, record


def again(experiment, results):
    """How many cells an evaluation answers."""
    spec = experiment.model_dump(mode="json", by_alias=True)
    request = {"kind": "evaluate", "experiment": spec, "backbone": "tiny", "row": "frozen", "seed": 42}
    return jobs.run({**request, "results": str(results)})["answered"]


def test_a_newly_named_overlay_needs_no_model(named):
    experiment, results, path, wrong = named
    [*rescoring.rescore(experiment, results, "c0ffee")]
    _, record = marked(path, wrong)
    assert record.scored_by == "c0ffee"
    plain = experiment.model_copy(update={"tasks": (experiment.tasks[0], TaskSpec.model_validate(SPEC["tasks"][1]))})
    [*rescoring.rescore(plain, results, "c0ffee")]
    record = records.load(path.with_name("record.json"))
    assert not [name for name in record.scores if name.endswith("/clean")]
    assert "overlay" not in record.configs["locomo"]
    assert "clean" not in pd.read_parquet(path)


def test_an_evaluation_brings_standing_records_up_to_a_new_overlay(named):
    experiment, results, path, wrong = named
    answers = pd.read_parquet(path)
    answers["score.f1"] = answers["score.f1_release"] = [n / 8 for n in range(len(answers))]
    keep(path, answers)  # so that what is left out shows in the scores
    assert again(experiment, results) == 0
    answers, record = marked(path, wrong)
    assert record.scores["f1/clean"].value != record.scores["f1"].value
    assert sorted(answers[~answers["clean"]]["question_id"]) == wrong


def test_an_evaluation_scores_with_and_without_at_once(named):
    experiment, results, path, wrong = named
    path.with_name("record.json").unlink()
    assert again(experiment, results) == 1
    marked(path, wrong)

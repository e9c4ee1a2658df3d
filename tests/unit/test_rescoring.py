"""Stored answers scored again: by the rules as they are, without a model, and only where there are answers."""

from __future__ import annotations

import pandas as pd
import pytest

from harness import jobs, records, rescoring
from harness.errors import HarnessError
from harness.experiment import Experiment

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


def test_the_same_rules_give_the_same_scores(done):
    experiment, results, made = done
    for path in results.rglob("samples.parquet"):
        answers = pd.read_parquet(path)
        answers[[c for c in answers if c.startswith("score.")]] = 0.5
        answers.to_parquet(path, index=False)
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
    answers.to_parquet(path, index=False)
    [*rescoring.rescore(experiment, results, "c0ffee")]
    record = records.load(path.with_name("record.json"))
    assert record.scores["acc"].value == 0
    assert record.scores["named"].value > told
    assert record.results["write_clear_read"]["named,none"] == record.scores["named"].value


def test_answers_that_are_not_stored_or_another_experiments_are_refused(done):
    experiment, results, _ = done
    (path,) = (results / "x").rglob("locomo/replayed/own/samples.parquet")
    pd.read_parquet(path).drop(columns=["answer", "notes"]).to_parquet(path, index=False)
    with pytest.raises(HarnessError, match="locomo/replayed/own has no answers to this experiment's questions"):
        [*rescoring.rescore(experiment, results, "c0ffee")]
    shorter = Experiment.model_validate({**SPEC, "tasks": [{**SPEC["tasks"][0], "episodes": 1}]})
    with pytest.raises(HarnessError, match="on its data"):
        [*rescoring.rescore(shorter, results, "c0ffee")]

"""Questions asked of nothing: how they are drawn, refused, answered and told."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pandas as pd
import pytest

from harness import answers, jobs, plan, records, rescoring, statistics
from harness.config import load
from harness.data.files import TaskData
from harness.episodes import Episode, History, Question, episodes_digest
from harness.errors import HarnessError
from harness.experiment import Experiment, TaskSpec
from harness.scoring import Share, mean
from harness.tasks import select, task

ARMS = ("own", "donor", "mean", "zero")
SPEC = {
    "name": "n",
    "backbones": {"tiny": {"random": "tiny-llama"}},
    "rows": ["frozen", "lora", "delta_mem_tsw"],
    "donors": 1,
    "tasks": [
        {"task": "ifeval", "limit": 3, "max_new_tokens": 8, "conditions": {"replayed": [*ARMS]}},
        {"task": "gpqa", "limit": 2, "max_new_tokens": 4},
    ],
    "data": {"source": "generated"},
    "training": {"task": "write_clear_read", "episodes": 4},
    "budget": {"steps": 1, "batch_size": 2, "accumulation": 1},
    "run": {"executor": "inline", "device": "cpu", "workers": 1},
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.delenv("DELTA_MEM_DATA", raising=False)


def empty(history=False):
    episodes = tuple(Episode(f"e{n}", History(()), (Question(f"q{n}", "x", ("y",)),), f"e{n}", "own") for n in range(4))
    return TaskData(episodes, "own", "file", "h", has_history=history)


def test_an_empty_history_is_drawn_from_a_task_without_any_and_refused_of_others():
    assert len(select(empty(), TaskSpec(task="ifeval", limit=3), 0)) == 3
    with pytest.raises(HarnessError, match="the history of 'e0' is empty"):
        select(empty(history=True), TaskSpec(task="locomo"), 0)


def test_a_document_counts_in_a_digest_only_where_there_is_one():
    (first, *_) = empty().episodes
    told = first.with_questions(replace(q, doc={"a": 1}) for q in first.questions)
    assert episodes_digest([first]) != episodes_digest([told])


def test_other_conditions_than_replayed_are_refused(tmp_path):
    spec = {**SPEC, "tasks": [{"task": "gpqa", "conditions": {"replayed": ["own"], "removed": ["own"]}}]}
    (tmp_path / "x.yaml").write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(HarnessError, match="task 'gpqa' has no history; remove the condition 'removed'"):
        load(str(tmp_path / "x.yaml"))


@pytest.mark.parametrize(("name", "count"), [("ifeval", 541), ("gpqa", 198), ("gpqa@release", 198)])
def test_a_plan_knows_the_official_sizes(name, count):
    experiment = Experiment.model_validate({**SPEC, "tasks": [{"task": name}], "data": {"source": "official"}})
    size = plan.size(experiment, experiment.tasks[0])
    assert (size.histories, size.questions, size.tokens) == (count, count, 0)


@pytest.mark.parametrize("row", SPEC["rows"])
def test_every_kind_of_method_answers(row, tmp_path):
    experiment = Experiment.model_validate(SPEC)
    spec = experiment.model_dump(mode="json", by_alias=True)
    request = {"experiment": spec, "backbone": "tiny", "row": row, "seed": 42, "results": str(tmp_path)}
    if row != "frozen":
        jobs.run({**request, "kind": "fit"})
    jobs.run({**request, "kind": "evaluate"})
    made = {(r.task, r.arm): r for r in map(records.load, tmp_path.rglob("record.json"))}
    arms = set(ARMS) if row == "delta_mem_tsw" else {"own"}
    assert made.keys() == {*(("ifeval", arm) for arm in arms), ("gpqa", "own")}
    for record in made.values():
        assert (record.status, record.failures, record.truncated, record.lost_share) == ("ok", [], 0, 0.0)
    told = made["ifeval", "own"]
    assert (told.questions, told.n_samples["ifeval"]["effective"]) == (3, 3)
    assert set(told.scores) >= {
        "prompt_level_strict_acc",
        "inst_level_loose_acc",
        "inst_level_strict_acc/1_instruction",
    }
    assert told.results["ifeval"]["inst_level_loose_acc,none"] == pytest.approx(
        told.scores["inst_level_loose_acc"].value
    )
    if row == "delta_mem_tsw":
        assert told.gates  # on the questions themselves, for there is no history to probe


def test_scores_that_count_several_times_weigh_so_in_samples_means_and_intervals():
    found = [Share(1, 3), Share(1, 1), Share(0, 2)]
    assert mean(found) == pytest.approx(2 / 6)
    columns = rescoring.columns("m", found)
    assert columns["weight.m"] == [3, 1, 2]
    assert "weight.m" not in rescoring.columns("m", [0.5, 1.0])
    rows = {"history_id": [*"abc"], "question_id": [*"abc"], "root": [*"abc"], "category": [""] * 3, **columns}
    assert statistics.score(pd.DataFrame(rows), "m").value == pytest.approx(2 / 6)


def test_a_weight_is_as_good_as_saying_it_again():
    """A score that counts three times, as three questions of its cluster would."""
    values, weights, clusters = [0.2, 0.9, 0.4, 1.0, 0.0, 0.7, 0.3], [3, 1, 2, 1, 1, 4, 2], [*"abcdefg"]
    again = [(v, c) for v, w, c in zip(values, weights, clusters, strict=True) for _ in range(w)]
    ours, theirs = statistics.mean(values, clusters, weights), statistics.mean(*zip(*again, strict=True))
    assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high))
    zeros = [0.0] * 7
    pair = statistics.paired(values, zeros, clusters, weights=weights)
    far = statistics.paired([v for v, _ in again], [0.0] * len(again), [c for _, c in again])
    assert (pair.value, pair.low, pair.high, pair.p) == pytest.approx((far.value, far.low, far.high, far.p))


def test_any_systems_answers_to_ifeval_are_scored():
    row = {"key": 1, "prompt": "x", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    lines = io.BytesIO("".join(json.dumps({**row, "prediction": said}) + "\n" for said in ("a, b", "a b")).encode())
    found = answers.score(task("ifeval"), lines, "file", metric="prompt_level_strict_acc")
    assert [one.scores for one in found] == [{"prompt_level_strict_acc": 0.0}, {"prompt_level_strict_acc": 1.0}]
    with pytest.raises(HarnessError, match="the field 'kwargs' is missing"):
        answers.score(task("ifeval"), [b'{"prediction": "a", "key": 1, "instruction_id_list": ["x"]}'], "file")


def test_any_systems_answers_to_gpqa_are_scored():
    row = {"gold": "C", "options": ["one", "two", "three", "four"], "prediction": "Final answer: C"}
    (one,) = answers.score(task("gpqa"), [json.dumps(row).encode()], "file", rule="release")
    assert one.scores == {"acc_release": 1.0}
    for changed, said in (({"gold": "E"}, "a letter from A to D"), ({"options": ["a"]}, "a list of four strings")):
        with pytest.raises(HarnessError, match=f"file, line 1: .*{said}"):
            answers.score(task("gpqa"), [json.dumps({**row, **changed}).encode()], "file")

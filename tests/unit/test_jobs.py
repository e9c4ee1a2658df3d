"""Jobs inline on random weights: fit, evaluate, interruption, repetition."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from harness import jobs, lm, records
from harness.errors import HarnessError, SkippedError, UnsupportedError
from harness.experiment import Experiment
from harness.gates import GateError
from harness.progress import Progress
from harness.tasks import task

SPEC = {
    "name": "x",
    "backbones": {"tiny": {"random": "tiny-llama"}},
    "rows": ["frozen", "bm25_rag", "delta_mem_tsw"],
    "tasks": [
        {
            "task": "write_clear_read",
            "episodes": 4,
            "max_new_tokens": 3,
            "conditions": {"replayed": ["own"], "removed": ["own", "donor"], "own_text": ["own"]},
        }
    ],
    "donors": 2,
    "seeds": [1],
    "data": {"source": "generated"},
    "training": {"task": "write_clear_read", "episodes": 4},
    "budget": {"steps": 1, "batch_size": 2, "accumulation": 1},
    "run": {"executor": "inline", "device": "cpu", "workers": 1},
}


def request(kind, results, row="delta_mem_tsw", **changes):
    spec = Experiment.model_validate({**SPEC, **changes}).model_dump(mode="json", by_alias=True)
    return {"kind": kind, "experiment": spec, "backbone": "tiny", "row": row, "seed": 1, "results": str(results)}


def evaluate(results, row="delta_mem_tsw", **changes):
    if row == "delta_mem_tsw":
        jobs.run(request("fit", results, row, **changes))
    return jobs.run(request("evaluate", results, row, **changes))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A results folder with the δ-mem job done, and what the job said."""
    results = tmp_path_factory.mktemp("results")
    return results, evaluate(results)


def samples(results, cell):
    return pd.read_parquet(results / cell / "samples.parquet")


def test_a_job_leaves_a_record_a_cell(done):
    results, facts = done
    cells = [
        f"x/tiny/delta_mem_tsw/seed1/write_clear_read/{c}" for c in ("replayed/own", "removed/own", "removed/donor")
    ]
    assert facts["cells"] == cells
    assert facts["answered"] == 3
    for cell in cells:
        record = records.load(results / cell / "record.json")
        draws = 2 if cell.endswith("donor") else 1
        rows = samples(results, cell)
        assert record.questions == 8 == record.scores["acc"].n
        assert len(rows) == 8 * draws
        assert record.scores["acc"].value == pytest.approx(rows["score.acc"].mean())
        assert {g.name for g in record.gates} >= {"activity.state", "equality.definition.sharp", "isolation.backbone"}
        assert record.provenance.fit["address"]
        assert record.costs.tokens_out == rows["new_tokens"].sum()
        assert record.costs.state_bytes == 2 * 8 * 8 * 4 or cell.endswith("replayed/own")
        told = {} if cell.endswith("replayed/own") else {"norm": 2, "write_gate": 2}
        assert {name: len(by_layer) for name, by_layer in record.layers.items()} == told
        assert all(0 < gate < 1 for gate in record.layers.get("write_gate", ()))
        assert not (results / cell / "journal.jsonl").exists()
    json.loads((results / "x/tiny/delta_mem_tsw/seed1/fit.json").read_text())


def test_a_donor_is_another_episode_and_each_serves_once_a_draw(done):
    rows = samples(done[0], "x/tiny/delta_mem_tsw/seed1/write_clear_read/removed/donor")
    assert (rows["donor"] != rows["history_id"]).all()
    for _, draw in rows.groupby("draw"):
        pairs = draw[["history_id", "donor"]].drop_duplicates()
        assert sorted(pairs["donor"]) == sorted(pairs["history_id"])
    own = samples(done[0], "x/tiny/delta_mem_tsw/seed1/write_clear_read/removed/own")
    assert (own["donor"] == "").all()


def test_a_second_evaluation_answers_nothing(done):
    results, facts = done
    stamps = [(results / c / "record.json").stat().st_mtime_ns for c in facts["cells"]]
    again = jobs.run(request("evaluate", results))
    assert again["answered"] == 0
    assert [(results / c / "record.json").stat().st_mtime_ns for c in facts["cells"]] == stamps


def test_another_setting_is_another_cell(done, tmp_path):
    results, _ = done
    (task,) = SPEC["tasks"]
    again = jobs.run(request("evaluate", results, tasks=[{**task, "max_new_tokens": 2}]))
    assert again["answered"] == 3
    assert evaluate(results)["answered"] == 3


@pytest.mark.parametrize("at", [2, 9])
def test_an_interrupted_evaluation_ends_as_an_unbroken_one(at, done, tmp_path, monkeypatch):
    results, facts = done
    evaluated, plain = [], Progress.update

    def interrupt(self, phase, *args, **options):
        plain(self, phase, *args, **options)
        evaluated.extend([phase] if phase == "evaluate" else [])
        if len(evaluated) == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path)
    monkeypatch.undo()
    answered, one = [], lm.MemoryLM._answer
    monkeypatch.setattr(lm.MemoryLM, "_answer", lambda self, some: answered.append(1) or one(self, some))
    jobs.run(request("evaluate", tmp_path))
    assert len(answered) == 4 + 4 + 8 - at  # not one finished episode is done again
    for cell in facts["cells"]:
        pd.testing.assert_frame_equal(samples(tmp_path, cell), samples(results, cell))
        whole, cut = (records.load(folder / cell / "record.json") for folder in (results, tmp_path))
        assert cut.layers == whole.layers


@pytest.mark.parametrize(("row", "conditions"), [("frozen", ["replayed"]), ("bm25_rag", ["own_text"])])
def test_methods_without_a_fit_are_evaluated_directly(row, conditions, tmp_path):
    facts = evaluate(tmp_path, row)
    assert [c.split("/")[-2] for c in facts["cells"]] == conditions
    record = records.load(tmp_path / facts["cells"][0] / "record.json")
    assert record.provenance.fit is None
    with pytest.raises(HarnessError, match="learns nothing"):
        jobs.run(request("fit", tmp_path, row))


def test_a_row_without_its_fit_is_refused(tmp_path):
    with pytest.raises(HarnessError, match="run `harness fit`"):
        jobs.run(request("evaluate", tmp_path))
    assert not list(tmp_path.rglob("record.json"))


def test_a_failed_gate_leaves_no_record(tmp_path, monkeypatch):
    from methods.delta_mem import _gates

    def fail(*args):
        raise GateError("activity.state", "made to fail")

    monkeypatch.setattr(_gates, "_activity", fail)
    with pytest.raises(GateError, match="made to fail"):
        evaluate(tmp_path)
    assert not list(tmp_path.rglob("record.json"))
    assert not list(tmp_path.rglob("samples.parquet"))


def failing(monkeypatch, error, when=lambda history: True):
    """bm25_rag cannot write the histories of which ``when`` holds."""
    from baselines.bm25_rag import Bm25Rag

    plain = Bm25Rag.write

    def write(self, history, state=None):
        if when(history):
            raise error
        return plain(self, history, state)

    monkeypatch.setattr(Bm25Rag, "write", write)


@pytest.fixture
def second(episodes):
    """Whether a history is the second episode's."""
    return lambda history: history.messages == episodes[1].history.messages


def test_failures_are_counted_and_not_scored(tmp_path, monkeypatch, second):
    failing(monkeypatch, ValueError("odd"), second)
    evaluate(tmp_path, "bm25_rag")
    (path,) = tmp_path.rglob("record.json")
    record = records.load(path)
    assert record.status == "ok"
    assert [f.reason for f in record.failures] == ["ValueError: odd"] * 2
    assert record.questions == record.scores["acc"].n == len(pd.read_parquet(path.with_name("samples.parquet"))) == 6
    assert record.results["write_clear_read"]["acc,none"] == pytest.approx(record.scores["acc"].value)
    assert record.n_samples["write_clear_read"]["effective"] == 6


@pytest.mark.parametrize("error", [UnsupportedError("by nature"), SkippedError("not here")])
def test_a_cell_without_an_answer_says_why(error, tmp_path, monkeypatch):
    failing(monkeypatch, error)
    evaluate(tmp_path, "bm25_rag")
    (path,) = tmp_path.rglob("record.json")
    record = records.load(path)
    assert record.status == {UnsupportedError: "unsupported", SkippedError: "skipped"}[type(error)]
    assert (record.scores, record.questions, len(record.failures)) == ({}, 0, 8)
    # what was not here may be by now; what is not in a method's nature stays so
    assert evaluate(tmp_path, "bm25_rag")["answered"] == isinstance(error, SkippedError)
    monkeypatch.undo()
    evaluate(tmp_path, "bm25_rag")
    assert records.load(path).status == ("ok" if isinstance(error, SkippedError) else "unsupported")


def test_a_cell_where_everything_fails_is_a_mistake(tmp_path, monkeypatch):
    failing(monkeypatch, HarnessError("a date does not parse; write it as 2023-05-08"))
    for _ in range(2):
        with pytest.raises(HarnessError, match="a date does not parse"):
            evaluate(tmp_path, "bm25_rag")
    assert not list(tmp_path.rglob("record.json"))
    monkeypatch.undo()  # a mended method is asked anew
    evaluate(tmp_path, "bm25_rag")
    assert not records.load(next(tmp_path.rglob("record.json"))).failures


def test_the_other_cells_of_a_job_are_answered_all_the_same(tmp_path, monkeypatch):
    failing(monkeypatch, ValueError("odd"), lambda h: len(h.messages) == 2)
    plain = {"task": "write_clear_read", "episodes": 2, "max_new_tokens": 2, "conditions": {"own_text": ["own"]}}
    more = {**plain, "as": "three_facts", "settings": {"facts": 3}}
    with pytest.raises(ValueError, match="odd"):
        evaluate(tmp_path, "bm25_rag", tasks=[plain, more])
    (path,) = tmp_path.rglob("record.json")
    assert records.load(path).task == "three_facts"
    assert not list(tmp_path.rglob("evaluated.json"))


def test_one_error_among_questions_that_are_not_held_is_no_mistake(tmp_path, monkeypatch, second):
    from baselines.bm25_rag import Bm25Rag

    def write(self, history, state=None):
        raise ValueError("odd") if second(history) else UnsupportedError("by nature")

    monkeypatch.setattr(Bm25Rag, "write", write)
    evaluate(tmp_path, "bm25_rag")
    record = records.load(next(tmp_path.rglob("record.json")))
    assert record.status == "error"
    assert {f.status for f in record.failures} == {"error", "unsupported"}


def test_a_question_that_met_an_error_is_asked_again(tmp_path, monkeypatch, second):
    failing(monkeypatch, ValueError("odd"), second)
    evaluate(tmp_path, "bm25_rag")
    monkeypatch.undo()
    assert evaluate(tmp_path, "bm25_rag")["answered"] == 1
    assert not records.load(next(tmp_path.rglob("record.json"))).failures


def test_a_resumed_cell_tells_what_all_of_it_cost(tmp_path, monkeypatch):
    def counted(results):
        record = records.load(next((results / "x").rglob("own_text/own/record.json")))
        return {
            name: getattr(record.costs, name)
            for name in ("tokens_written", "tokens_in", "state_bytes", "write_lm_calls", "read_lm_calls")
        }, record.costs

    from baselines.bm25_rag import Bm25Rag

    plain, asked = Bm25Rag.write, []

    def write(self, history, state=None):
        asked.append(history)
        self.effort.lm_calls += 3
        if len(asked) == cut:
            raise KeyboardInterrupt
        return plain(self, history, state)

    monkeypatch.setattr(Bm25Rag, "write", write)
    cut = 0
    evaluate(tmp_path / "whole", "bm25_rag")
    asked.clear()
    cut = 3
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "cut", "bm25_rag")
    cut = 0
    evaluate(tmp_path / "cut", "bm25_rag")
    whole, costs = counted(tmp_path / "cut")
    assert whole == counted(tmp_path / "whole")[0]
    assert whole["write_lm_calls"] == 12
    parts = costs.write_seconds + costs.read_seconds + costs.prefill_seconds + costs.decode_seconds
    assert costs.wall_seconds == pytest.approx(parts + costs.overhead_seconds)
    assert costs.overhead_seconds > 0


def test_one_root_document_has_no_donor(tmp_path):
    (task,) = SPEC["tasks"]
    with pytest.raises(HarnessError, match="two root documents"):
        evaluate(tmp_path, tasks=[{**task, "episodes": 1}])


def test_the_backbone_stays_warm_between_jobs(done):
    assert jobs._open.cache_info().hits > 0
    jobs.reset()
    assert jobs._open.cache_info().currsize == 0


def test_an_experiment_names_the_metric_of_its_main_table(tmp_path):
    (task,) = SPEC["tasks"]
    evaluate(tmp_path, "frozen", tasks=[{**task, "metric": "named"}])
    record = records.load(next(tmp_path.rglob("record.json")))
    assert record.primary_metric == "named"
    assert record.scores.keys() == {"acc", "named"}


def test_a_task_asked_twice_goes_by_its_names(tmp_path):
    """Paths, records and addresses go by the name; wording and episodes by the task."""
    plain = {"task": "write_clear_read", "episodes": 2, "max_new_tokens": 2}
    more = {**plain, "as": "three_facts", "settings": {"facts": 3}}
    facts = evaluate(tmp_path, "frozen", tasks=[plain, more])
    assert facts["cells"] == [f"x/tiny/frozen/seed1/{t}/replayed/own" for t in ("write_clear_read", "three_facts")]
    first, second = (records.load(tmp_path / cell / "record.json") for cell in facts["cells"])
    assert (first.questions, second.questions) == (4, 6)
    assert (second.task, second.provenance.data["task"]) == ("three_facts", "write_clear_read")
    assert list(second.results) == ["three_facts"]
    assert jobs.run(request("evaluate", tmp_path, "frozen", tasks=[plain, more]))["answered"] == 0


def test_histories_that_an_earlier_process_has_written_are_not_charged_again(tmp_path):
    (task,) = SPEC["tasks"]
    evaluate(tmp_path, "bm25_rag", tasks=[{**task, "conditions": {"own_text": ["own"]}}])
    evaluate(tmp_path, "bm25_rag", tasks=[{**task, "conditions": {"own_text": ["own", "donor"]}}])
    own, donor = (records.load(next(tmp_path.rglob(f"own_text/{arm}/record.json"))).costs for arm in ("own", "donor"))
    assert own.tokens_written > 0 == donor.tokens_written
    assert own.write_seconds > 0 == donor.write_seconds
    assert donor.state_bytes == own.state_bytes


@pytest.mark.parametrize("row", ["question_only", "delta_mem_tsw"])
def test_two_prompts_of_one_task_are_two_cells_that_say_how_they_asked(row, tmp_path):
    plain = {"task": "hotpotqa@release", "limit": 3, "max_new_tokens": 2, "conditions": {"removed": ["own", "mean"]}}
    both = [{**plain, "as": name, "removed_prompt": name} for name in ("closed_book", "empty_context")]
    facts = evaluate(tmp_path, row, tasks=both, rows=[row])
    assert facts["answered"] == (2 if row == "question_only" else 4)
    told = [records.load(tmp_path / cell / "record.json") for cell in facts["cells"]]
    for record in told:
        assert record.configs[record.task]["removed_prompt"] == record.task
        assert record.configs[record.task]["generation_kwargs"]["do_sample"] is False
        assert {name for name in record.scores if "/" in name} >= {"em_release/bridge", "em_release/comparison"}
    assert len({record.address for record in told}) == len(told)
    asked = {
        name: samples(tmp_path, f"x/tiny/{row}/seed1/{name}/removed/own") for name in ("closed_book", "empty_context")
    }
    assert set(asked["closed_book"]["question_id"]) == set(asked["empty_context"]["question_id"])
    assert not {*asked["closed_book"]["prompt_sha256"]} & {*asked["empty_context"]["prompt_sha256"]}
    assert jobs.run(request("evaluate", tmp_path, row, tasks=both, rows=[row]))["answered"] == 0


def test_sampled_answers_are_another_cell_and_say_so(tmp_path, monkeypatch):
    tasks = [{"task": "locomo@release", "limit": 4, "max_new_tokens": 2}]
    (cell,) = evaluate(tmp_path, "frozen", tasks=tasks)["cells"]
    record = records.load(tmp_path / cell / "record.json")
    how = record.configs["locomo@release"]["generation_kwargs"]
    assert (how["do_sample"], how["temperature"], how["top_p"], how["top_k"]) == (True, 0.4, 0.9, 10)
    assert "removed_prompt" not in record.configs["locomo@release"]
    seeds = [json.loads(notes)["seed"] for notes in samples(tmp_path, cell)["notes"]]
    assert all(42 <= seed < 47 for seed in seeds)
    assert record.primary_metric == "f1_release"
    again = jobs.run(request("evaluate", tmp_path / "other", "frozen", tasks=tasks))
    assert again["answered"] == 1
    assert list(samples(tmp_path / "other", cell)["answer"]) == list(samples(tmp_path, cell)["answer"])
    monkeypatch.setattr("harness.tasks.locomo.LoCoMoRelease.seed", 7)
    assert jobs.run(request("evaluate", tmp_path, "frozen", tasks=tasks))["answered"] == 1


def test_gates_look_at_two_histories_that_differ(episodes):
    """Two episodes may ask of one history: it cannot show that two histories give two states."""
    first, other = episodes[0], episodes[1]
    twin = replace(first, id="twin")
    plans = lambda *found: [SimpleNamespace(material=SimpleNamespace(task=task("recall"), episodes=list(found)))]  # noqa: E731
    assert [e.id for e in jobs._probe(plans(first, twin, other))] == [first.id, other.id]
    assert [e.id for e in jobs._probe(plans(first, twin))] == [first.id]


TWO = [{**SPEC["tasks"][0], "as": name, "conditions": {"removed": ["own", "donor"]}} for name in ("first", "second")]


def test_a_helper_takes_tasks_from_the_last_one_on_and_the_records_are_the_same(tmp_path, monkeypatch):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    whole = evaluate(alone, tasks=TWO)
    jobs.run(request("fit", shared, tasks=TWO))
    order, plain = [], jobs.cells.answer
    monkeypatch.setattr(jobs.cells, "answer", lambda plan, *rest: order.append(plan.cell.task) or plain(plan, *rest))
    work = SimpleNamespace(results=shared, job=jobs.Job("x", "tiny", "delta_mem_tsw", 1))
    with jobs._alone(work, "first") as mine:
        assert mine
        helped = jobs.run({**request("evaluate", shared, tasks=TWO), "helps": True})
    assert (order, helped["answered"]) == (["second"] * 2, 2)
    assert not (shared / "x/tiny/delta_mem_tsw/seed1/evaluated.json").exists()
    rest = jobs.run(request("evaluate", shared, tasks=TWO))
    assert (order[2:], rest["answered"], rest["cells"]) == (["first"] * 2, 2, whole["cells"])
    for cell in whole["cells"]:
        pd.testing.assert_frame_equal(samples(alone, cell), samples(shared, cell))
        told = [records.load(results / cell / "record.json") for results in (alone, shared)]
        assert told[0].address == told[1].address
        assert told[0].scores == told[1].scores
    assert jobs.run({**request("evaluate", shared, tasks=TWO), "helps": True}) == {}


def test_whoever_has_a_job_waits_for_its_helpers(tmp_path):
    """A helper is at the second task, and has not left a record when it lets go."""
    work = SimpleNamespace(results=tmp_path, job=jobs.Job("x", "tiny", "frozen", 1))
    took, may_go = threading.Event(), threading.Event()

    def hold():
        with jobs._alone(work, "second"):
            took.set()
            may_go.wait(60)

    tasks = [{**task, "conditions": {"replayed": ["own"]}} for task in TWO]
    threading.Thread(target=hold, daemon=True).start()
    assert took.wait(5)
    first = tmp_path / "x/tiny/frozen/seed1/first/replayed/own/record.json"

    def let_go():
        while not first.exists():
            time.sleep(0.01)
        time.sleep(0.3)
        may_go.set()

    threading.Thread(target=let_go, daemon=True).start()
    facts = evaluate(tmp_path, "frozen", tasks=tasks)
    assert facts["answered"] == 2
    assert facts["waited_seconds"] >= 0.2

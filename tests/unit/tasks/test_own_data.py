"""The user's own data as a task: how answers are scored, and a run from one YAML block."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from harness import config, inputs, jobs, plan, records
from harness.data.own import Asked
from harness.errors import HarnessError
from harness.experiment import DataSpec, Experiment
from harness.pipeline import Pipeline
from harness.reporting import notes
from harness.tasks import task
from harness.tasks.own_data import chosen

TASK = task("own_data")
EXAMPLE = "config/examples/notes.jsonl"


def scored(answer, *golds, choices=()):
    return TASK.score(TASK.answer(answer), Asked("q", "?", golds, choices=choices))


@pytest.mark.parametrize(
    ("answer", "golds", "f1", "em", "contains"),
    [
        ("The red kite.", ("red kite",), 1, 1, 1),
        ("a kite that is red", ("red kite",), 2 * 2 / (4 + 2), 0, 0),
        ("It is the red kite, I think", ("blue", "red kite"), 2 * 2 / (6 + 2), 0, 1),
        ("redder kites", ("red",), 0, 0, 0),
        ("", ("red",), 0, 0, 0),
        ("A", ("a",), 1, 1, 1),
        ("", ("a",), 0, 0, 0),
        ("?", ("!",), 0, 0, 0),
        ("grade A it is", ("A",), 0, 0, 1),
    ],
)
def test_words_are_compared_as_squad_does(answer, golds, f1, em, contains):
    assert scored(answer, *golds) == pytest.approx({"f1": f1, "em": em, "contains": contains, "choice": em})


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B", 1),
        ("b.", 1),
        ("(B) a red one", 1),
        ("Answer: B", 1),
        ("B. red", 1),
        ("red", 1),
        ("It is red.", 1),
        ("It is red or blue.", 0),
        ("A", 0),
        ("A red one", 1),
        ("D", 0),
        ("Be quick", 0),
        ("", 0),
    ],
)
def test_a_choice_is_named_by_letter_or_text(answer, right):
    assert scored(answer, "red", choices=("blue", "red", "green"))["choice"] == right


def test_a_choice_that_is_a_letter_is_meant_before_its_place():
    assert scored("B", "B", choices=("B", "A"))["choice"] == 1


def test_questions_are_asked_in_the_words_of_the_settings():
    settings = {"file": EXAMPLE, "question": "Say in a word: {question}", "question_removed": "Recall: {question}"}
    question = TASK.load(DataSpec(), "test", settings).episodes[0].questions[0]
    assert TASK.question(question) == "Say in a word: Who keeps bees?"
    assert TASK.question(question, removed=True) == "Recall: Who keeps bees?"
    plain = TASK.load(DataSpec(), "test", {"file": EXAMPLE}).episodes[0].questions[0]
    assert TASK.question(plain) == "Who keeps bees?"


def test_instructions_are_the_episodes_then_the_settings_then_the_tasks():
    settings = {"file": EXAMPLE}
    systems = {e.root: e.history.system for e in TASK.load(DataSpec(), "test", settings).episodes}
    assert systems["trip"].startswith("You are told about a trip")
    assert systems["garden"] == TASK.system()
    given = TASK.load(DataSpec(), "test", {**settings, "system": "Be brief."}).episodes
    assert {e.root: e.history.system for e in given} == {**dict.fromkeys(systems, "Be brief."), "trip": systems["trip"]}


@pytest.mark.parametrize("source", ["auto", "official", "generated"])
def test_the_source_of_other_data_does_not_matter(source):
    assert TASK.load(DataSpec(source=source), "test", {"file": EXAMPLE}).source == "own"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "'tasks.0.settings.file' is missing; add it"),
        ({"file": EXAMPLE, "fil": 1}, "unknown key 'fil'; did you mean 'file'"),
        ({"file": "a\0b"}, "tasks.0.settings.file: no file has a NUL in its name; take it out"),
        ({"file": EXAMPLE, "question": "?"}, "the question itself goes where {question} stands"),
    ],
)
def test_wrong_settings_are_told_with_their_line(settings, said, tmp_path):
    path = tmp_path / "mine.yaml"
    spec = {
        "name": "x",
        "backbones": {"t": {"random": "tiny-llama"}},
        "rows": ["frozen"],
        "tasks": [{"task": "own_data", "settings": settings}],
    }
    path.write_text(json.dumps(spec))
    with pytest.raises(HarnessError) as error:
        config.load(str(path))
    assert said in str(error.value)
    assert f"{path} line 1" in str(error.value)


# --- a run ---


def spec(file, train=None):
    return {
        "name": "x",
        "backbones": {"tiny": {"random": "tiny-llama"}},
        "rows": ["frozen", "bm25_rag", "delta_mem_tsw"],
        "tasks": [
            {
                "task": "own_data",
                "as": "my_notes",
                "metric": "contains",
                "max_new_tokens": 3,
                "conditions": {"replayed": ["own"], "removed": ["own", "donor"], "own_text": ["own"]},
                "settings": {"file": str(file)},
            }
        ],
        "donors": 1,
        "seeds": [1],
        "data": {"source": "generated"},
        "training": {"task": "own_data", "episodes": 5, "settings": {"file": str(train or EXAMPLE)}},
        "budget": {"steps": 1, "batch_size": 2, "accumulation": 1},
        "run": {"executor": "inline", "device": "cpu", "workers": 1},
    }


@pytest.fixture
def mine(tmp_path):
    """A file that is not the one trained on."""
    file = tmp_path / "notes.jsonl"
    with open(EXAMPLE, encoding="utf-8") as stream:
        file.write_text(stream.read().replace("Rosa", "Ruth"), encoding="utf-8")
    return file


def run(kind, results, row, made):
    request = {"backbone": "tiny", "row": row, "seed": 1, "results": str(results), "kind": kind}
    experiment = Experiment.model_validate(made).model_dump(mode="json", by_alias=True)
    return jobs.run({**request, "experiment": experiment})


def test_one_block_runs_every_kind_of_method_and_trains_on_another_file(mine, tmp_path):
    run("fit", tmp_path, "delta_mem_tsw", spec(mine))
    for row in ("frozen", "bm25_rag", "delta_mem_tsw"):
        run("evaluate", tmp_path, row, spec(mine))
    found = {(r.row, r.condition, r.arm): r for r in map(records.load, tmp_path.rglob("record.json"))}
    assert found.keys() == {
        ("frozen", "replayed", "own"),
        ("bm25_rag", "own_text", "own"),
        ("delta_mem_tsw", "replayed", "own"),
        ("delta_mem_tsw", "removed", "own"),
        ("delta_mem_tsw", "removed", "donor"),
    }
    asked = TASK.load(DataSpec(), "test", {"file": str(mine)})
    for record in found.values():
        assert (record.primary_metric, record.questions) == ("contains", 9)
        data = record.provenance.data
        assert (data["source"], data["file"], data["hash"]) == ("own", str(mine), asked.hash)
        assert notes._source(record) == f"own data ({mine}, {asked.hash[:12]})"
        assert not any("no longer begin" in warning for warning in record.warnings)
    fit = found["delta_mem_tsw", "removed", "own"].provenance.fit
    assert (fit["data"]["source"], fit["data"]["file"]) == ("own", EXAMPLE)
    samples = pd.read_parquet(next(tmp_path.rglob("removed/donor/samples.parquet")))
    roots = {e.id: e.root for e in asked.episodes}
    assert all(roots[d] != root for d, root in zip(samples["donor"], samples["root"], strict=True))


def test_a_step_is_done_again_when_its_file_changes(mine):
    made = Experiment.model_validate(spec(mine))
    job = plan.jobs(made)[-1]
    before = [inputs.fingerprint(made, job, step) for step in ("fit", "evaluate")]
    mine.write_text(mine.read_text().replace("Tomas", "Tilda"))
    after = [inputs.fingerprint(made, job, step) for step in ("fit", "evaluate")]
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)


def test_what_is_asked_is_not_trained_on(mine):
    inputs.check_files(Experiment.model_validate(spec(mine)))
    with pytest.raises(HarnessError, match="would be trained on and asked; name another file under 'training'"):
        inputs.check_files(Experiment.model_validate(spec(mine, mine)))
    untrained = {**spec(mine, mine), "rows": ["frozen"]}
    inputs.check_files(Experiment.model_validate(untrained))


def test_a_wrong_file_is_told_before_anything_runs(mine, tmp_path, monkeypatch):
    mine.write_text("{\n")
    changes = ["tasks.own_data.settings.file=" + str(mine)]
    with pytest.raises(HarnessError, match=r"notes\.jsonl line 1 is cut off or no JSON"):
        Pipeline({"experiment": "own_data", "set": changes}, tmp_path)


def test_the_plan_writes_a_history_that_goes_on_once():
    made = Experiment.model_validate(spec(EXAMPLE))
    size = plan.size(made, made.tasks[0])
    assert (size.histories, size.questions) == (5, 9)
    assert size.written < size.tokens


@pytest.mark.parametrize(
    ("answer", "choices"), [("-5", ("5", "-5")), ("C++", ("C", "C++", "C#")), ("1.5", ("15", "1.5")), ("a", ("A", "a"))]
)
def test_a_choice_word_for_word_is_that_choice(answer, choices):
    assert chosen(answer, choices) == answer


def test_a_line_of_others_may_bring_its_choices():
    own = task("own_data")
    q = own.question_of({"prediction": "B", "gold": "the map", "choices": ["the tent", "the map"]})
    assert own.score("B", q)["choice"] == 1.0
    with pytest.raises(HarnessError, match="'choices' is no list of strings"):
        own.question_of({"prediction": "B", "gold": "the map", "choices": "the map"})

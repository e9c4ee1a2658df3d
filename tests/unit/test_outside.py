"""lm-eval's own command and models with this project's tasks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from harness.errors import HarnessError
from harness.tasks import tasks

FOLDER = Path("harness/tasks")
YAMLS = FOLDER / "lm_eval"


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.delenv("DELTA_MEM_DATA", raising=False)


@pytest.fixture
def model(tiny, tmp_path):
    """A folder of a tiny model, as transformers saves one."""
    backbone = tiny()
    backbone.model.save_pretrained(tmp_path / "model")
    backbone.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_every_task_with_a_history_and_a_test_split_has_a_file():
    known = {name for name, cls in tasks().items() if cls.has_history and "test" in cls.splits}
    assert {path.stem for path in YAMLS.glob("*.yaml")} == known
    for path in YAMLS.glob("*.yaml"):
        assert f"task: {path.stem}\n" in path.read_text(encoding="utf-8")


def test_lm_eval_finds_our_tasks_and_no_other_there():
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(FOLDER), include_defaults=False)
    assert manager.all_tasks == sorted(path.stem for path in YAMLS.glob("*.yaml"))
    wording = yaml.safe_load((FOLDER / "prompts.yaml").read_text(encoding="utf-8"))
    assert not {"task", "class", "group"} & set(wording)  # by these lm-eval would take it for a task


def test_the_command_runs_on_a_plain_model(model, tmp_path, monkeypatch):
    from lm_eval.__main__ import cli_evaluate

    words = ["lm_eval", "--model", "hf", "--model_args", f"pretrained={model}", "--include_path", str(FOLDER)]
    words += ["--tasks", "locomo,hotpotqa,write_clear_read", "--limit", "2", "--device", "cpu"]
    words += ["--metadata", json.dumps({"max_new_tokens": 3}), "--output_path", str(tmp_path / "out"), "--log_samples"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr("lm_eval.tasks.TaskManager.__init__", _light())
    cli_evaluate()
    (results,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(results.read_text(encoding="utf-8"))
    assert set(found["results"]) == {"locomo", "hotpotqa", "write_clear_read"}
    assert set(found["results"]["hotpotqa"]) >= {"em,none", "f1,none", "em_release,none", "f1_release,none"}
    assert found["n-samples"]["locomo"]["effective"] == 2
    assert found["configs"]["locomo"]["metadata"]["source"] == "generated"
    (samples,) = (tmp_path / "out").rglob("samples_locomo_*.jsonl")
    first = json.loads(samples.read_text(encoding="utf-8").splitlines()[0])
    assert "[" in first["arguments"]["gen_args_0"]["arg_0"]  # the history, its dates in brackets, stands in the prompt
    assert first["arguments"]["gen_args_0"]["arg_1"]["max_gen_toks"] == 3


def _light():
    """lm-eval's index without its own tasks, which take twenty seconds to read."""
    from lm_eval.tasks import TaskManager

    plain = TaskManager.__init__
    return lambda self, *args, **options: plain(self, *args, **{**options, "include_defaults": False})


@pytest.fixture
def built():
    from lm_eval.tasks import TaskManager

    def build(name, **metadata):
        manager = TaskManager(include_path=str(FOLDER), include_defaults=False, metadata=metadata)
        return manager.load([name])["tasks"][name]

    return build


def test_metadata_sizes_a_task_and_the_models_arguments_are_passed_over(built):
    task = built("write_clear_read", pretrained="x", episodes=3, questions=4, settings={"facts": 1}, data_seed=5)
    assert len(task.docs) == 3
    assert task.config.metadata["source"] == "generated"
    assert "seed 5" in task.config.metadata["data"]
    told = task.episodes[task.docs[0]["history_id"]].history.messages[0].content
    assert told in task.doc_to_text(task.docs[0])
    hidden = built("write_clear_read", episodes=3, settings={"facts": 1}, data_seed=5, removed=True)
    assert told not in hidden.doc_to_text(hidden.docs[0])


def test_a_chat_template_gets_the_instruction_apart(built):
    task = built("write_clear_read", episodes=1)
    said = []
    text = task.fewshot_context(task.docs[0], 0, chat_template=lambda messages: said.extend(messages) or "whole")
    assert text == "whole"
    assert [m["role"] for m in said] == ["system", "user"]
    assert said[0]["content"] == "Answer with one word."
    assert "\n\n".join(m["content"] for m in said) == task.doc_to_text(task.docs[0])


def test_a_sampled_answer_brings_no_seed(built):
    task = built("locomo@release", questions=1)
    request = task.construct_requests(task.docs[0], "x", metadata=("t", 0, 1))
    assert request.args[1]["do_sample"] is True
    assert "seed" not in request.args[1]


@pytest.mark.parametrize(
    ("name", "metadata", "said"),
    [
        ("write_clear_read", {"source": "mine"}, "'source' is wrong"),
        ("write_clear_read", {"questions": 0}, "'questions' is wrong"),
        ("write_clear_read", {"settings": {"fact": 1}}, "wrong setting 'fact'; did you mean 'facts'"),
        ("own_data", {}, "own_data"),
    ],
)
def test_a_mistake_is_one_sentence(built, name, metadata, said):
    with pytest.raises(HarnessError) as error:
        built(name, **metadata)
    assert said in str(error.value)

"""Any lm-eval task under any method: the tasks here are two small ones of a folder of our own."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from harness import foreign
from harness.cli import app
from harness.errors import HarnessError
from harness.session import Session

ROWS = [
    {"question": "Which is a colour?", "choices": ["red", "seven", "to run"], "label": 0},
    {"question": "Which is a number?", "choices": ["red", "seven", "to run"], "label": 1},
    {"question": "Which is a verb?", "choices": ["red", "seven", "to run"], "label": 2},
]
COMMON = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
"""
TASKS = {
    "my_choice": """
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "my_generate": """
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices[label]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "my_perplexity": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: question
metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]
""",
    "my_lost": """
output_type: generate_until
dataset_kwargs: {data_files: {test: nowhere.jsonl}}
doc_to_text: question
doc_to_target: question
""",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of lm-eval's YAML files, and datasets' cache beside it."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    home = tmp_path / "yaml"
    home.mkdir()
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    common = COMMON.format(file=home / "rows.jsonl")
    for name, text in TASKS.items():
        shared = "dataset_path: json\ntest_split: test\n" if "dataset_kwargs" in text else common
        (home / f"{name}.yaml").write_text(f"task: {name}\n{shared}{text}", encoding="utf-8")
    return home


@pytest.mark.parametrize(
    ("method", "condition"), [("frozen", None), ("lora", "removed"), ("delta_mem_tsw", "replayed")]
)
def test_choices_and_generation_run_under_a_method(method, condition, folder):
    with Session.open("random:tiny-llama", method, condition=condition) as session:
        found = foreign.evaluate(["my_choice", "my_generate"], session, limit=2, include=[folder])
    assert 0 <= found["results"]["my_choice"]["acc,none"] <= 1
    assert found["n-samples"]["my_generate"]["effective"] == 2
    assert found["provenance"]["condition"] == (condition or "replayed")
    assert "question" not in json.dumps(found)
    assert [line[:2] for line in foreign.lines(found)] == [["my_choice", "acc"], ["my_generate", "exact_match"]]


def test_choices_are_decided_by_their_likelihood_under_the_method(folder, monkeypatch):
    """The option that begins with what the method makes likely wins: here the label itself is."""
    from harness import generation

    def likely(backbone, asked, steering, continuations):
        said = backbone.tokenizer.decode(asked.ids)
        label = next(row["label"] for row in ROWS if row["question"] in said)
        return [(0.0 if n == label else -9.0, False) for n in range(len(continuations))]

    monkeypatch.setattr(generation, "loglikelihood", likely)
    with Session.open("random:tiny-llama", "delta_mem_tsw", condition="replayed") as session:
        found = foreign.evaluate(["my_choice"], session, include=[folder])
    assert found["results"]["my_choice"]["acc,none"] == 1.0


def test_the_command_prints_and_writes(folder, tmp_path):
    out = tmp_path / "out.json"
    words = ["evaluate", "--task", "my_choice", "--method", "delta_mem_tsw", "--backbone", "random:tiny-llama"]
    result = CliRunner().invoke(app, [*words, "--include-path", str(folder), "--limit", "2", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].split("\t") == ["task", "metric", "filter", "value", "stderr"]
    assert result.stdout.splitlines()[1].startswith("my_choice\tacc\tnone\t")
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["provenance"]["method"] == "delta_mem"
    assert found["provenance"]["limit"] == 2
    assert found["provenance"]["backbone"]["spec"] == {"random": "tiny-llama"}
    assert found["provenance"]["versions"]["lm_eval"]


ON = ["--backbone", "random:tiny-llama", "--method", "frozen"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give an EXPERIMENT, or --task"),
        (["smoke", "--backbone", "tiny_llama", "--row", "lora", "--task", "my_choice"], "--task does not go with an"),
        (["smoke", "--backbone", "tiny_llama"], "--row is missing"),
        (["--task", "my_choice", "--row", "lora"], "--row does not go with --task"),
        (["--task", "my_choice", *ON, "--set", "run.dtype=float32"], "--set does not go with --task"),
        (["--task", "my_choice", "--method", "frozen"], "--backbone is missing"),
        (["--task", "my_choice", "--backbone", "random:tiny-llama"], "--method is missing"),
        (["--task", "my_choice", *ON, "--condition", "removed"], "does not serve the condition 'removed'"),
        (["--task", "my_choice", *ON, "--include-path", "nowhere"], "which is no folder"),
        (["--task", "my_choice", *ON, "--fit", "nowhere"], "holds no fit.json"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(words, said):
    result = CliRunner().invoke(app, ["evaluate", *words])
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("harness: ")
    assert result.stdout == ""


def test_what_a_memory_does_not_give_is_refused(folder):
    with Session.open("random:tiny-llama", "frozen") as session:
        with pytest.raises(HarnessError, match="choose the generative form"):
            foreign.evaluate(["my_perplexity"], session, include=[folder])
        with pytest.raises(HarnessError, match="the task 'my_lost' cannot be had"):
            foreign.evaluate(["my_lost"], session, include=[folder])


def test_unknown_tasks_get_the_nearest_name_and_ours_belong_into_an_experiment(folder, monkeypatch):
    plain = foreign.TaskManager.__init__
    light = lambda self, **options: plain(self, **{**options, "include_defaults": False})  # noqa: E731
    monkeypatch.setattr(foreign.TaskManager, "__init__", light)
    with Session.open("random:tiny-llama", "frozen") as session:
        with pytest.raises(HarnessError, match="did you mean 'my_choice'"):
            foreign.evaluate(["my_choise"], session, include=[folder])
        with pytest.raises(HarnessError, match="'locomo' is a task of this project"):
            foreign.evaluate(["locomo"], session, include=[folder])

"""Experiment files: what is read, and the one sentence that each mistake gets."""

from pathlib import Path

import pytest

from harness import config
from harness.errors import HarnessError

PLAIN = """\
name: x
backbones:
  tiny: {random: tiny-llama}
rows: [frozen, lora]
tasks:
  - task: write_clear_read
    limit: 4
training: {task: write_clear_read, episodes: 8}
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "x.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def refusal(path: str, *overrides: str) -> str:
    with pytest.raises(HarnessError) as caught:
        config.load(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", [p.stem for p in Path("config").glob("*.yaml")])
def test_every_packaged_experiment_is_valid(name):
    assert config.load(name).name == name


def test_the_schema_on_disk_is_current():
    assert config.SCHEMA.read_text(encoding="utf-8") == config.schema()


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("limit: 4", "lim: 4"), 7, "unknown key 'lim'; did you mean 'limit'?"),
        (("limit: 4", "limit: four"), 7, "valid integer"),
        (("limit: 4", "limit: 0"), 7, "greater than or equal to 1"),
        (("lora", "lorra"), 4, "unknown method 'lorra'; did you mean 'lora'?"),
        (("- task: write_clear_read", "- task: write_clear"), 6, "did you mean 'write_clear_read'?"),
        (("limit: 4", "settings: {fact: 2}"), 7, "unknown key 'fact'; did you mean 'facts'?"),
        (("limit: 4", "settings: {facts: 2, values: 1}"), 7, "values"),
        (("[frozen, lora]", "[{row: lora, with: {rnk: 2}}]"), 4, "wrong setting 'rnk'"),
        (("random: tiny-llama", "random: a, hub: b"), 3, "exactly one of hub, folder, gguf, random, trained"),
        (("name: x", "name: ../x"), 1, "must be a name of letters"),
        (("limit: 4", "limit: 4\n  - task: write_clear_read"), 1, "task 'write_clear_read' is named twice"),
        (("limit: 4", "as: ../x"), 7, "must be a name of letters"),
        (("name: x", "name: x\nname: y"), 2, "the key 'name' is given twice"),
        (("name: x", "name: !!python/object/apply:os.getpid []"), 1, "is not read; write a plain value"),
        (("name: x", "a: &a [1]\nname: *a"), 1, "anchors and aliases are not read"),
        (("name: x", "name: [x"), 2, "not valid YAML"),
        (("name: x", "name: x\na: " + "[" * 40 + "]" * 40), 2, "nested deeper"),
        (("{task: write_clear_read, episodes: 8}", "{task: locomo}"), 8, "has no training split"),
        (
            ("write_clear_read\n    limit: 4", "locomo\n    settings: {sessions: 4}\ndata: {source: official}"),
            7,
            "the settings of task 'locomo' are knobs of generated rows",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(written, change, line, said):
    sentence = refusal(written(PLAIN.replace(*change)))
    assert f"x.yaml line {line}: " in sentence
    assert said in sentence
    assert "\n" not in sentence


def test_a_missing_key_and_a_missing_file_are_told(written):
    assert "the key 'rows' is missing" in refusal(written(PLAIN.replace("rows: [frozen, lora]", "")))
    assert "did you mean 'smoke'?" in refusal("smok")
    assert "an experiment is a mapping" in refusal(written("- a\n- b\n"))


def test_a_file_that_is_too_large_or_no_text_is_refused(written, tmp_path):
    assert "larger than" in refusal(written("# " + "x" * config.MAX_BYTES))
    (tmp_path / "x.yaml").write_bytes(b"name: \xff\xfe\n")
    assert "is not UTF-8" in refusal(str(tmp_path / "x.yaml"))
    assert "not allow" in refusal(written("name: a\0b\n"))


def test_overrides_set_values_and_add_rows(written):
    changes = ("run.executor=inline", "tasks.write_clear_read.limit=2", "methods+=bm25_rag", "seeds=[1, 2]")
    experiment = config.load(written(PLAIN), changes)
    assert experiment.run.executor == "inline"
    assert experiment.tasks[0].limit == 2
    assert [r.row for r in experiment.rows] == ["frozen", "lora", "bm25_rag"]
    assert experiment.seeds == (1, 2)
    assert config.load(written(PLAIN), ["rows.lora.method=frozen"]).rows[1].method == "frozen"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run.executer=inline", "did you mean 'executor'?"),
        ("tasks.locomo.limit=2", "there is no 'locomo' in the list; known: write_clear_read"),
        ("methods+=my_memory", "unknown method 'my_memory'"),
        ("name.first=x", "holds a plain value"),
        ("name+=x", "is not a list"),
        ("executor", "not of the form key=value"),
    ],
)
def test_a_wrong_override_is_told(written, override, said):
    sentence = refusal(written(PLAIN), override)
    assert f"override '{override}'" in sentence
    assert said in sentence


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("{executor: inline, fit_workers: 2}", "leave fit_workers at 1"),
        ("{workers: 2, fit_workers: 3}", "the places of 3 workers where there are 2; lower fit_workers"),
        ("{workers: 64, fit_workers: 33}", "budget.accumulation makes 32; lower fit_workers to that"),
    ],
)
def test_ranks_without_a_place_or_a_share_are_refused(written, override, said):
    assert said in refusal(written(PLAIN), f"run={override}")
    assert "fit_workers" not in config.load(written(PLAIN)).model_dump()["run"]  # as in records of before


def test_one_task_may_be_asked_twice_under_two_names(written):
    """The name enters an address only where it is given, so that addresses of before stand."""
    path = written(PLAIN.replace("limit: 4", "limit: 4\n  - {task: write_clear_read, as: more, settings: {facts: 3}}"))
    first, second = config.load(path).tasks
    assert (first.name, second.name) == ("write_clear_read", "more")
    assert "as_" not in first.model_dump()
    assert second.model_dump()["as_"] == "more"


def test_an_experiment_may_measure_and_ask_nothing(tmp_path):
    path = tmp_path / "x.yaml"
    text = "name: x\nbackbones: {tiny: {random: tiny-llama}}\nrows: [frozen]\n"
    path.write_text(text + "efficiency: {prompt_lengths: [256]}\n")
    experiment = config.load(str(path))
    assert experiment.tasks == ()
    assert (experiment.efficiency.prompt_lengths, experiment.efficiency.decode_lengths) == ((256,), (64, 256))
    path.write_text(text)
    with pytest.raises(HarnessError, match="no tasks are named; name at least one"):
        config.load(str(path))
    path.write_text(text + "efficiency: {prompt_lengths: []}\n")
    with pytest.raises(HarnessError, match="line 4"):
        config.load(str(path))


def test_what_measures_nothing_says_nothing_of_it():
    assert "efficiency" not in config.load("smoke").model_dump()

"""The contract of a task, the wording, and the draw of questions."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import Counter

import pytest
import yaml

from harness.episodes import Episode, History, Message, Question
from harness.errors import HarnessError
from harness.experiment import DataSpec, TaskSpec
from harness.tasks import Prompts, TaskData, select, task, tasks
from harness.tasks.base import WORDING

GENERATED = DataSpec(source="generated")
SETTINGS = {"own_data": {"file": "config/examples/notes.jsonl"}}
"""Of the tasks that have no generated episodes."""


@pytest.mark.parametrize("name", tasks())
def test_every_task_keeps_the_contract(name):
    one = task(name)
    data = one.load(GENERATED, one.splits[0], SETTINGS.get(name, {}), 6)
    assert (data.source, len(data.hash)) == ("own" if name in SETTINGS else "generated", 64)
    assert {m.name for m in one.metrics} >= {one.primary_metric}
    assert {e.history.system for e in data.episodes} >= {one.system()}
    for q in (q for e in data.episodes for q in e.questions):
        assert q.text in one.question(q)
        assert q.text in one.question(q, removed=True)
        assert list(one.score("", q)) == [m.name for m in one.metrics]
        if not one.has_history:
            continue  # what is right there is no text that could be said again
        scores = one.score(one.answer(f"\n  {q.answers[0]}  \nmore"), q)
        assert list(scores) == [m.name for m in one.metrics]
        assert set(one.score("", q).values()) == {0.0}
        best = {m.name: float(m.higher_is_better) for m in one.metrics}
        assert q.category == "open_domain" or scores == best


def test_tasks_are_light_to_import():
    code = "import sys; from harness.tasks import tasks; tasks(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "lm_eval", "datasets", "nltk", "ray"} & set(loaded)
    assert "harness.tasks.locomo" in loaded


def test_wrong_names_get_the_nearest_right_one():
    with pytest.raises(HarnessError, match="unknown task 'locomoo'; did you mean 'locomo'"):
        task("locomoo")
    with pytest.raises(HarnessError, match="wrong setting 'fact'; did you mean 'facts'"):
        task("write_clear_read").load(GENERATED, "test", {"fact": 2})
    with pytest.raises(HarnessError, match="'locomo' has no train split; it has: test"):
        task("locomo").load(GENERATED, "train", {})


@pytest.fixture
def wording(tmp_path):
    """Writes a changed copy of the packaged wording and gives its path."""

    def write(change):
        texts = yaml.safe_load(WORDING.read_text(encoding="utf-8"))
        change(texts)
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(texts), encoding="utf-8")
        return path

    return write


def test_another_wording_is_asked_and_has_another_hash(wording):
    prompts = Prompts(wording(lambda texts: texts["locomo"].update(system="Be brief.")))
    assert task("locomo", prompts).system() == "Be brief."
    assert prompts.hash != Prompts().hash
    assert Prompts(wording(lambda texts: None)).hash == Prompts().hash


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["locomo"].pop("system"), r"'locomo\.system' is missing; copy it"),
        (lambda t: t["locomo"].update(sistem="x"), r"unknown text 'locomo\.sistem'; did you mean 'locomo\.system'"),
        (lambda t: t["qasper"].update(question="no place"), r"'qasper\.question' has wrong placeholders.*\{question\}"),
        (lambda t: t["qasper"].update(question="{question} {x}"), "wrong placeholders"),
        (lambda t: t["qasper"].update(question="{question"), "has an open brace"),
        (lambda t: t["qasper"].update(system=3), r"'qasper\.system' is no string"),
        (lambda t: t.update(qasper="text"), "no mapping of tasks to texts"),
    ],
)
def test_a_wrong_wording_is_refused_by_file_and_key(wording, change, said):
    path = wording(change)
    with pytest.raises(HarnessError, match=said) as error:
        Prompts(path)
    assert path.name in str(error.value)


def test_a_prompts_file_that_is_no_yaml_or_is_missing_is_refused(tmp_path):
    (tmp_path / "torn.yaml").write_text("a: [1, ", encoding="utf-8")
    with pytest.raises(HarnessError, match=r"torn\.yaml line 1: not valid YAML"):
        Prompts(tmp_path / "torn.yaml")
    with pytest.raises(HarnessError, match=r"none\.yaml cannot be read"):
        Prompts(tmp_path / "none.yaml")


def episode(name: str, root: str, categories: str) -> Episode:
    questions = tuple(Question(f"{name}-{n}", "q?", ("a",), c) for n, c in enumerate(categories))
    return Episode(name, History((Message("told"),)), questions, root, "generated")


def data_of(*episodes: Episode) -> TaskData:
    return TaskData(episodes, "generated", "some file", "h")


MANY = data_of(*(episode(f"e{n}", f"r{n % 5}", "xxxxyyz") for n in range(10)))


def ids(episodes: tuple[Episode, ...]) -> list[str]:
    return [q.id for e in episodes for q in e.questions]


def test_no_limit_keeps_all_in_the_order_of_the_data():
    assert select(MANY, TaskSpec(task="t"), 0) == MANY.episodes
    assert select(MANY, TaskSpec(task="t", limit=70), 0) == MANY.episodes


def test_the_draw_is_a_function_of_the_seed_and_keeps_the_order():
    spec = TaskSpec(task="t", limit=12)
    drawn = ids(select(MANY, spec, 1))
    assert drawn == ids(select(MANY, spec, 1))
    assert drawn != ids(select(MANY, spec, 2))
    assert drawn == [name for name in ids(MANY.episodes) if name in drawn]
    assert len(drawn) == 12


@pytest.mark.parametrize("seed", range(5))
def test_a_small_limit_covers_roots_and_categories_evenly(seed):
    chosen = select(MANY, TaskSpec(task="t", limit=15), seed)
    roots = Counter(e.root for e in chosen for _ in e.questions)
    categories = Counter(q.category for e in chosen for q in e.questions)
    assert set(roots.values()) == {3}
    assert max(categories.values()) - min(categories.values()) <= 2  # where the data has 4 to 2 to 1


def test_few_episodes_are_of_different_roots():
    chosen = select(MANY, TaskSpec(task="t", episodes=5), 3)
    assert len({e.root for e in chosen}) == len(chosen) == 5
    assert len(select(MANY, TaskSpec(task="t", episodes=7), 3)) == 7


def test_a_history_without_questions_is_not_asked_and_none_at_all_is_refused():
    silent = episode("silent", "r9", "")
    assert ids(select(data_of(silent, MANY.episodes[0]), TaskSpec(task="t"), 0)) == ids(MANY.episodes[:1])
    with pytest.raises(HarnessError, match="some file gives task 't' no question to ask"):
        select(data_of(silent), TaskSpec(task="t"), 0)


@pytest.mark.parametrize("messages", [(), (Message("  \n"),)])
def test_an_empty_history_is_refused_by_name(messages):
    empty = dataclasses.replace(episode("hollow", "r", "x"), history=History(messages))
    with pytest.raises(HarnessError, match="some file: the history of 'hollow' is empty; give it a message"):
        select(data_of(empty), TaskSpec(task="t"), 0)

"""What a step follows from: it is done again when that changes."""

from __future__ import annotations

import pytest

from harness import config, inputs
from harness.experiment import jobs


@pytest.fixture(scope="module")
def smoke():
    return config.load("smoke")


def test_a_step_is_done_again_when_what_its_method_shares_changes(tmp_path):
    for name, text in (("one.py", "a"), ("_shared.py", "b"), ("two.py", "c")):
        (tmp_path / name).write_text(text)
    before = inputs._sources(tmp_path / "one.py")
    (tmp_path / "two.py").write_text("changed")
    assert inputs._sources(tmp_path / "one.py") == before
    (tmp_path / "_shared.py").write_text("changed")
    assert inputs._sources(tmp_path / "one.py") != before


def test_all_of_a_package_is_watched(tmp_path):
    for name in ("__init__.py", "_part.py", "helper.py"):
        (tmp_path / name).write_text(name)
    for file in ("__init__.py", "_part.py"):
        before = inputs._sources(tmp_path / file)
        (tmp_path / "helper.py").write_text(f"changed {file}")
        assert inputs._sources(tmp_path / file) != before


def test_a_fit_follows_from_its_budget_and_not_from_the_questions(smoke):
    job = next(j for j in jobs(smoke) if j.row == "lora")

    def prints(*overrides):
        changed = config.load("smoke", overrides)
        return [inputs.fingerprint(changed, job, step) for step in ("fit", "evaluate")]

    fit, evaluation = prints()
    assert prints("tasks.locomo.limit=2")[0] == fit
    assert prints("tasks.locomo.limit=2")[1] != evaluation
    assert prints("budget.steps=3")[0] != fit
    assert prints("run.executor=inline") == [fit, evaluation]
    assert prints("methods+=question_only") == [fit, evaluation]


def test_an_overlay_that_is_edited_is_followed(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("task: locomo\nsource: x\nwrong: [a-q1]\n")
    experiment = config.load("smoke", [f"tasks.locomo.overlay={file}"])
    job = jobs(experiment)[0]
    before = inputs.fingerprint(experiment, job, "evaluate")
    file.write_text("task: locomo\nsource: x\nwrong: [a-q1, a-q2]\n")
    assert inputs.fingerprint(experiment, job, "evaluate") != before

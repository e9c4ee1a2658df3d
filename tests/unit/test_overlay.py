"""Gold answers known to be wrong: a file of ids, refused in one sentence where it is not one."""

from __future__ import annotations

import json

import pytest

from harness import overlay
from harness.errors import HarnessError
from harness.experiment import TaskSpec

GOOD = {"task": "locomo", "source": "an invented audit", "wrong": ["c1-q0", "c1-q2"]}
KNOWN = {"c1-q0", "c1-q1", "c1-q2"}


def of(tmp_path, content, task="locomo"):
    file = tmp_path / "wrong.yaml"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return overlay.of(TaskSpec(task=task, overlay=str(file)), KNOWN)


def test_a_file_gives_ids_and_who_found_them(tmp_path):
    found = of(tmp_path, GOOD)
    assert found.wrong == ("c1-q0", "c1-q2")
    assert (found.facts()["source"], found.facts()["wrong"]) == ("an invented audit", 2)
    turned = of(tmp_path, "task: locomo\nsource: an invented audit\nwrong:\n- c1-q2\n- c1-q0\n")
    assert turned.facts() == found.facts()


def test_the_other_form_of_a_task_takes_it_too(tmp_path):
    assert of(tmp_path, GOOD, "locomo@release") == of(tmp_path, GOOD)


def test_no_overlay_is_none():
    assert overlay.of(TaskSpec(task="locomo"), KNOWN) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {**GOOD, "wrong": ["c1-q0", "c1-q9"]},
            "'wrong' names 'c1-q9', which is no question of the data; did you mean",
        ),
        ({**GOOD, "task": "hotpotqa"}, "wrong golds of task 'hotpotqa', not of 'locomo'; name another overlay"),
        ("task: locomo\nsource: x\nwrong:\n- c1-q0\n- c1-q0\n", r"line 5: the question 'c1-q0' stands twice"),
        ("task: locomo\nsource: x\nwrong:\n- c1-q0\n- 3\n", r"line 5: 'wrong\.1' is wrong \(.*string"),
        ({"task": "locomo", "source": "x"}, "'wrong' is wrong .*; give task, source and wrong"),
        ({**GOOD, "wrong": []}, "'wrong' is wrong"),
        ({**GOOD, "answers": ["x"]}, "'answers' is wrong"),
        ("[1, 2]", "'the file' is wrong"),
        ("task: [", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_place(content, said, tmp_path):
    with pytest.raises(HarnessError, match=said) as error:
        of(tmp_path, content)
    assert "wrong.yaml" in str(error.value)


def test_a_missing_file_is_named():
    with pytest.raises(HarnessError, match=r"the overlay none\.yaml cannot be read .*; name a file of question ids"):
        overlay.of(TaskSpec(task="locomo", overlay="none.yaml"), KNOWN)

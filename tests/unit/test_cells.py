"""What a cell warns of, and what makes it another cell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from harness import cells
from harness.experiment import Cell, Experiment, Job
from harness.gates import GateOutcome
from harness.registry import resolve
from harness.tasks import Prompts, TaskData, task

SPEC = {
    "name": "x",
    "backbones": {"tiny": {"random": "tiny-llama"}},
    "rows": ["delta_mem_tsw"],
    "tasks": ["write_clear_read"],
    "data": {"source": "generated"},
}


@pytest.fixture
def plan(tiny, episodes):
    """A cell of many episodes, planned and not yet answered."""

    def build(tmp_path="", arm="own", condition="removed", row="delta_mem_tsw", fit=None, cap=4, notes=None, **changes):
        experiment = Experiment.model_validate({**SPEC, "tasks": [{"task": "write_clear_read"}], **changes})
        cls, config = resolve(row)
        job = Job("x", "tiny", row, 42)
        context = cells.JobContext(experiment, job, cls(config, tiny(), 42), tmp_path, fit)
        data = TaskData(episodes, "generated", "made", "hash")
        chosen = [replace(e, notes=notes or {}) for e in episodes]
        material = cells.Material(task("write_clear_read"), experiment.tasks[0], data, chosen, {}, cap)
        return cells.Plan(context, Cell(job, "write_clear_read", condition, arm), material)

    return build


def answered(n=100, **columns):
    base = {"hit_cap": False, "answer": [f"word{k}" for k in range(n)], "root": [f"r{k}" for k in range(n)]}
    return pd.DataFrame({**base, **columns})


def test_nothing_is_said_where_nothing_is_wrong(plan):
    assert cells._warnings(plan(), answered()) == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"hit_cap": [True] * 2 + [False] * 98}, "2% of the answers hit the cap of 4 tokens"),
        ({"answer": [""] * 6 + [f"w{k}" for k in range(94)]}, "6% of the answers are empty"),
        ({"answer": ["Same "] * 90 + ["other"] * 10}, "90% of the answers are the same text"),
        ({"root": [f"r{k % 19}" for k in range(100)]}, "19 independent source documents"),
    ],
)
def test_each_doubt_is_told(columns, message, plan):
    assert any(message in line for line in cells._warnings(plan(), answered(**columns)))


@pytest.mark.parametrize(
    "columns", [{"hit_cap": [True] + [False] * 99}, {"answer": [""] * 5 + [f"w{k}" for k in range(95)]}]
)
def test_a_doubt_at_its_limit_is_none(columns, plan):
    assert cells._warnings(plan(), answered(**columns)) == []


def test_gates_cuts_and_single_seeds_are_told(plan):
    made = plan(fit={"adapter_hash": "a"}, notes={"lost_share": 0.25})
    made.job.gates = [
        GateOutcome(name="equality.x", status="warn", note="drowns"),
        GateOutcome(name="y", status="pass"),
    ]
    found = cells._warnings(made, answered())
    assert found == ["equality.x: drowns", "6 of 6 histories were cut, losing 25%", "one training seed"]
    assert "one training seed" not in cells._warnings(plan(fit={"adapter_hash": "a"}, seeds=[1, 2]), answered())


def test_a_window_that_shows_all_is_told(plan):
    made = plan(condition="windowed", notes={"visible_share": 1.0})
    assert "6 of 6 histories are in sight as a whole, with nothing left to memory" in cells._warnings(made, answered())
    assert cells._warnings(plan(condition="windowed", notes={"visible_share": 0.9}), answered()) == []


def test_the_address_names_all_that_answers_depend_on(plan):
    fit = {"adapter_hash": "a"}
    found = [
        plan(),
        plan(fit=fit),
        plan(fit={"adapter_hash": "b"}),
        plan(arm="donor"),
        plan(arm="donor", donors=1),
        plan(condition="replayed"),
        plan(row="delta_mem_ssw"),
        plan(row="frozen"),
        plan(tasks=[{"task": "write_clear_read", "max_new_tokens": 9}]),
        plan(tasks=[{"task": "write_clear_read", "settings": {"facts": 3}}]),
        plan(tasks=[{"task": "write_clear_read", "max_history_tokens": 99}]),
        plan(data={"source": "generated", "seed": 1}),
        plan(run={"dtype": "bfloat16"}),
        plan(run={"attention": "eager"}),
        plan(run={"batch_size": 2}),
    ]
    assert len({p.address for p in found}) == len(found)
    other_arms = [{"task": "write_clear_read", "conditions": {"removed": ["own"]}}]
    for same in (plan(title="else"), plan(run={"workers": 1}), plan(tasks=other_arms), plan(name="y")):
        assert same.address == found[0].address


def test_a_changed_method_is_another_cell(plan, monkeypatch):
    before = plan().address
    monkeypatch.setattr(cells, "sources", lambda method: ["changed"])
    assert plan().address != before


def test_donors_are_answered_once_a_draw(plan):
    assert plan(arm="donor", donors=3).questions == 3 * plan().questions == 36


def test_the_prompt_under_removed_is_in_the_address_and_what_is_told_of_the_answers_is_not(plan):
    asked = lambda **more: plan(tasks=[{"task": "write_clear_read", **more}]).address  # noqa: E731
    assert asked(removed_prompt="empty_context") != asked() == asked(removed_prompt="closed_book")
    assert asked(overlay="wrong.yaml") == asked(details=["own", "donor"]) == asked()


def test_what_an_answer_may_take_and_how_a_history_is_cut_enter_the_address(plan):
    """A benchmark's cap or a task's rule that is mended later makes other cells."""
    capped, cut = plan(), plan()
    questions = [e.with_questions(replace(q, max_new_tokens=1) for q in e.questions) for e in capped.material.episodes]
    capped.material.episodes = questions
    cut.material.task.truncate = "head"
    assert len({plan().address, plan(cap=5).address, capped.address, cut.address}) == 4


def test_a_task_that_borrows_its_wording_is_another_cell_where_that_changes(plan, tmp_path):
    wording = Path("harness/tasks/prompts.yaml").read_text(encoding="utf-8")
    changed = tmp_path / "prompts.yaml"
    changed.write_text(wording.replace("Answer with one word.", "Answer with a word."), encoding="utf-8")
    asked = plan()
    asked.material.task = task("granularity")
    other = plan()
    other.material.task = task("granularity", Prompts(changed))
    assert asked.address != other.address


@pytest.mark.parametrize(
    ("row", "condition", "arm", "writes"),
    [
        ("delta_mem_tsw", "removed", "own", True),
        ("delta_mem_tsw", "windowed", "own", True),
        ("delta_mem_tsw", "removed", "zero", False),
        ("delta_mem_tsw", "replayed", "own", False),
        ("window", "windowed", "own", False),
        ("window", "own_text", "own", True),
    ],
)
def test_a_cell_that_writes_nothing_has_paid_for_no_write(plan, row, condition, arm, writes):
    assert plan(row=row, condition=condition, arm=arm).writes is writes

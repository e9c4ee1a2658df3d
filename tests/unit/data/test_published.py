"""Where the official files are whole, they hold as many questions as the plan goes by."""

from __future__ import annotations

from harness import config, plan
from harness.experiment import DataSpec
from harness.tasks import task


def test_the_files_hold_the_published_counts(real):
    for name in ("locomo", "ifeval"):
        found = task(name).load(DataSpec(source="official"), "test", {})
        assert sum(len(e.questions) for e in found.episodes) == plan.OFFICIAL[name][1]


def test_the_paper_is_planned_with_the_published_counts_whatever_files_are_at_hand(real):
    paper = config.load("paper")
    sizes = {spec.task.removesuffix("@release"): plan.size(paper, spec).questions for spec in paper.tasks}
    assert sizes == {"ifeval": 541, "hotpotqa": 7405, "gpqa": 198, "memory_agent_bench": 3671, "locomo": 1540}

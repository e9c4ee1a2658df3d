"""Tables that are published: a machine that goes down while they are copied leaves no half of one."""

import os

import pytest

from harness import pilot, planned
from harness.manifest import Manifest
from harness.pipeline import Pipeline
from tests.faults.campaign_reporting import INLINE, goes_down_in_a_copy
from tests.faults.pipeline import Checkout

pytestmark = pytest.mark.pipeline


@pytest.fixture
def checkout():
    """One in which all has been made and nothing published; no file holds anything but its own name, many times."""
    checkout = Checkout(INLINE)
    results = checkout.folder / "results"
    plan = Pipeline({"experiment": "smoke", "set": list(INLINE)}, results)
    made = [*(f"tables/{name}" for name in (*plan.tables, "audit.md")), *(f"figures/{name}" for name in plan.figures)]
    for name in made:
        path = plan.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n" * 99)
    planned.keep(plan.experiment, results, pilot.UNMEASURED)  # else the run writes it, and voids the manifest
    (plan.folder / "manifest.json").write_text(Manifest(experiment={}, files={}).sealed().text())
    yield checkout
    checkout.remove()


def test_a_table_has_its_name_as_a_whole_or_not_at_all(checkout):
    with goes_down_in_a_copy(checkout):
        broken = checkout.start(rule="publish")
        assert broken.wait() == -9, broken.said()
    assert checkout.tables() == {}
    again = checkout.start(rule="publish")
    assert again.wait() == 0, again.said()
    assert checkout.tables()["main.tex"] == b"tables/main.tex\n" * 99
    assert [name for name in os.listdir(checkout.folder / "tables") if name.startswith(".")] == []

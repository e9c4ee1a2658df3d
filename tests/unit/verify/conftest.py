"""A small whole run, with a fit, measurements, tables, figures and its manifest: what every check reads."""

import shutil
from types import SimpleNamespace

import pytest

from harness import config, jobs, manifest, records, seals
from harness.reporting import figures, report, tables
from harness.reporting.audit import markdown
from harness.reporting.summary import Summary

SMALL = (
    "primary=write_clear_read",
    "rows=[frozen, lora]",
    "tasks=[{task: write_clear_read, episodes: 3, max_new_tokens: 2, conditions: {replayed: [own], removed: [own]}}, "
    "{task: locomo, limit: 4, episodes: 2, max_history_tokens: 320, max_new_tokens: 2}]",
    "budget.steps=1",
    "run.executor=inline",
    "efficiency={prompt_lengths: [100], decode_lengths: [2], repeats: 1, warm_up: 0}",
)


@pytest.fixture(scope="session")
def changes():
    """As words of the command line."""
    return [word for change in SMALL for word in ("--set", change)]


@pytest.fixture(scope="session")
def experiment():
    return config.load("smoke", SMALL)


@pytest.fixture(scope="session")
def whole(experiment, tmp_path_factory):
    """The results folder of a whole run, inline, as if from a clean commit; tests work on copies of it."""
    results = tmp_path_factory.mktemp("whole")
    request = {"experiment": experiment.model_dump(mode="json", by_alias=True), "results": str(results), "seed": 42}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.provenance.code", lambda: ("c" * 40, False))
        for row, kinds in (("frozen", ["evaluate", "measure"]), ("lora", ["fit", "evaluate", "measure"])):
            for kind in kinds:
                jobs.run({**request, "kind": kind, "backbone": "tiny_llama", "row": row})
    for room in (tables, figures):
        room.write(experiment, results, results / "smoke" / room.__name__.rsplit(".", 1)[-1])
    audit = markdown(experiment, Summary(experiment, results))
    (results / "smoke" / "tables" / "audit.md").write_text(audit, encoding="utf-8", newline="\n")
    report.write(experiment, results, results / "smoke" / "report" / report.FILE)
    manifest.write(experiment, results)
    return results


@pytest.fixture
def run(whole, tmp_path):
    """A copy that a test may damage: where things lie, and ways to change them."""
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    return SimpleNamespace(results=results, folder=results / "smoke", cell=cell(results), change=change)


def cell(results, row="lora", task="write_clear_read", condition="removed"):
    """Folder of a cell."""
    return results / "smoke" / "tiny_llama" / row / "seed42" / task / condition / "own"


def change(path, edit):
    """Rewrite a JSON file as ``edit`` leaves its object."""
    value = seals.read(path)
    edit(value)
    records.write_json(path, value)

"""Predicted against taken: from what was stored before the run alone, and said where nothing was."""

import json
import re
import shutil

import pytest

from harness import planned
from harness.experiment import jobs
from harness.reporting import costs, predicted
from harness.reporting.report import write
from harness.reporting.summary import Summary


@pytest.fixture
def stored(embedded, tmp_path):
    """The invented experiment, of which every cell was said to take twice what it took, a donor's nothing at all."""
    chosen, results = embedded
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    summary = Summary(chosen, tmp_path)
    steps = {
        str(cell.path): {"seconds": 25.0, "basis": "constants", "inputs": "x"}
        for cell in summary.records
        if cell.arm != "donor"
    }
    lora = next(job for job in jobs(chosen) if job.row == "lora")
    steps |= {f"{lora.path}/{step}": {"seconds": 30.0} for step in ("fit", "gates")}
    (tmp_path / lora.path / "fit.json").write_text(json.dumps({"restored": False, "seconds": 60.0}))
    (tmp_path / lora.path / "evaluated.json").write_text(json.dumps({"gates_seconds": 30.0}))
    (tmp_path / chosen.name / planned.FILE).write_text(json.dumps({"steps": steps}))
    return chosen, tmp_path


def test_by_row_and_task(stored):
    chosen, results = stored
    said, heads, lines = predicted.texts(chosen, Summary(chosen, results))
    assert heads == ["row", "write_clear_read", "hotpotqa", "locomo", "fit", "gates", "all"]
    table = {line[0]: dict(zip(heads[1:], line[1:], strict=True)) for line in lines}
    assert table["frozen on smollm2"]["locomo"] == "25 / 12.5 = 2.00"
    assert table["lora on smollm2"]["fit"] == "30 / 60 = 0.50"
    assert table["lora on smollm2"]["gates"] == "30 / 30 = 1.00"
    assert table["frozen on smollm2"]["fit"] == ""
    assert "median 2.00" in said
    assert re.search(r"Of 6 of \d+ cells none was stored before they ran\.", said)


def test_a_restored_fit_is_not_set_beside_a_prediction(stored):
    chosen, results = stored
    lora = next(job for job in jobs(chosen) if job.row == "lora")
    (results / lora.path / "fit.json").write_text(json.dumps({"restored": True, "seconds": 60.0}))
    assert "fit" not in predicted.texts(chosen, Summary(chosen, results))[1]


def test_the_report_and_the_table_of_costs_tell_it(stored, tmp_path):
    chosen, results = stored
    page = write(chosen, results, tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Seconds predicted before the run" in page
    assert "25 / 12.5 = 2.00" in page
    text = costs.texts(chosen, Summary(chosen, results), results)["costs.md"]
    assert "## What was predicted before the run" in text
    line = next(line for line in text.splitlines() if "30 / 60 = 0.50" in line)
    assert line.startswith("| lora on smollm2 |")
    assert line.count("|") == 8


def test_where_nothing_was_stored_the_report_says_so(embedded, tmp_path):
    page = write(*embedded, tmp_path / "index.html").read_text(encoding="utf-8")
    assert predicted.NONE in page
    assert "predicted" not in costs.texts(embedded[0], Summary(*embedded), embedded[1])["costs.md"]

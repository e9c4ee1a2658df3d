"""What stands under the table beside the arms: families, null results, seeds, rivals."""

import re

import pytest

from harness import records
from harness.experiment import Cell, Job
from harness.reporting import notes
from harness.reporting.summary import Place, Summary
from harness.statistics import Estimate


def told(experiment, summary, label):
    return [note.text for note in notes.notes(experiment, summary) if note.label == label]


def test_every_other_column_is_a_family_of_its_own(embedded):
    chosen, results = embedded
    found = told(chosen, Summary(chosen, results), "Families")
    assert [text.split(":")[0] for text in found] == [
        "own − donor on hotpotqa, removed",
        "own − donor on locomo, removed",
    ]
    assert "(sign-flip, which over 10 clusters reaches no p below 0.002, Holm over 2)." in found[1]


def test_holm_doubles_the_smaller_of_two(embedded):
    chosen, results = embedded
    summary = Summary(chosen, results)
    own = [Place("smollm2", row, "locomo", "removed") for row in ("delta_mem_tsw", "delta_mem_ssw")]
    ps = [summary.contrast(place, place._replace(arm="donor")).p for place in own]
    corrected = [min(1.0, 2 * p) if p == min(ps) else max(p, 2 * min(ps)) for p in ps]
    said = next(text for text in told(chosen, summary, "Families") if "locomo" in text)
    assert [float(p) for p in re.findall(r"p = ([\d.]+\d)", said)] == pytest.approx(corrected, abs=5e-4)


def test_a_null_says_what_it_could_have_found():
    null = Estimate(0.01, -0.1, 0.1, 60, 60, detectable=0.123)
    found = Estimate(0.2, 0.1, 0.3, 60, 60, detectable=0.123)
    assert notes._missed(null) == " (80% power finds 12.3 points or more)"
    assert notes._missed(found) == ""
    assert notes._missed(Estimate(0.01, None, None, 60, 5)) == ""


def test_seeds_are_told_apart_from_questions(invented, tmp_path):
    chosen = invented.experiment(
        rows=["frozen", "delta_mem_tsw"],
        seeds=[1, 2, 3],
        tasks=[{"task": "write_clear_read", "conditions": {"removed": ["own"], "replayed": ["own"]}}],
    )
    for row, condition, seed, right in (
        ("frozen", "replayed", 1, 30),
        *(("delta_mem_tsw", "removed", seed, right) for seed, right in ((1, 30), (2, 36), (3, 42))),
    ):
        cell = Cell(Job(chosen.name, "smollm2", row, seed), "write_clear_read", condition, "own")
        answers = invented.samples(cell)
        answers["score.acc"] = [float(i < right) for i in range(60)]
        records.save(invented.record(cell, answers), answers, tmp_path / cell.path)
    first, second = told(chosen, Summary(chosen, tmp_path), "Seeds")
    assert first.startswith("1, 2, 3, averaged by question")
    where = "delta_mem_tsw on smollm2, write_clear_read, removed"
    assert second.startswith(f"{where}: 50.0, 60.0, 70.0; SD of seeds 10.0, standard error over questions ")
    assert second.endswith("].")


def test_no_rival_is_said_to_be_chosen_where_none_was(embedded, invented):
    chosen, results = embedded
    (said,) = told(chosen, Summary(chosen, results), "Rivals")
    assert "no best rival of delta_mem_tsw, delta_mem_ssw was chosen on held-out questions (none are held out)" in said
    assert "harness compare holds any one of bm25_rag, lora against them." in said
    dev = chosen.model_copy(update={"training": chosen.training.model_copy(update={"dev": 8})})
    assert "the held-out questions chose learning rates alone" in told(dev, Summary(dev, results), "Rivals")[0]
    alone = invented.experiment(rows=["frozen", "delta_mem_tsw"])
    assert told(alone, Summary(alone, results), "Rivals") == []


def test_a_run_that_is_not_whole_says_so(invented, tmp_path):
    chosen = invented.experiment(
        rows=["frozen", "lora"],
        tasks=[{"task": "write_clear_read", "conditions": {"removed": ["own"], "replayed": ["own"]}}],
    )
    invented.fill(chosen, tmp_path)
    assert told(chosen, Summary(chosen, tmp_path), "Incomplete") == []
    cell = Cell(Job(chosen.name, "smollm2", "lora", 42), "write_clear_read", "removed", "own")
    (tmp_path / cell.path / "record.json").unlink()
    said = told(chosen, Summary(chosen, tmp_path), "Incomplete")
    assert said == ["1 of 3 cells have no record (lora): this run is not whole."]

"""Records are found by cell, and what is torn, doubled, foreign or at odds with its samples is refused."""

import shutil

import numpy as np
import pytest

from harness import records
from harness.errors import HarnessError
from harness.reporting import summary
from harness.reporting.summary import Place, Summary
from harness.statistics import paired

TSW = Place("smollm2", "delta_mem_tsw", "write_clear_read", "removed")


@pytest.fixture
def few(tmp_path, invented):
    """One task, two rows, and where their records lie."""
    chosen = invented.experiment(
        rows=["question_only", "delta_mem_tsw"],
        tasks=[{"task": "write_clear_read", "conditions": {"removed": ["own", "donor"]}}],
    )
    invented.fill(chosen, tmp_path)
    return chosen, tmp_path


def test_records_come_in_the_order_of_the_experiment(embedded, invented):
    chosen, results = embedded
    found = summary.collect(chosen, results)
    assert list(found) == list(invented.cells(chosen))
    assert all(found[cell].row == cell.job.row for cell in found)


def test_cells_that_the_experiment_no_longer_names_are_left_alone(embedded, invented):
    _, results = embedded
    chosen = invented.experiment(rows=["frozen"], tasks=[{"task": "locomo"}])
    assert [(c.job.row, c.task, c.condition) for c in summary.collect(chosen, results)] == [
        ("frozen", "locomo", "replayed")
    ]


def test_donor_draws_are_averaged_by_question(few, invented):
    chosen, results = few
    estimate = Summary(chosen, results).estimate(TSW._replace(arm="donor"))
    draws = summary.samples(results, list(invented.cells(chosen))[-1])
    assert len(draws) == 180
    assert (estimate.n, estimate.clusters) == (60, 60)
    assert estimate.value == pytest.approx(draws["score.acc"].mean())


def test_contrast_pairs_by_question_whatever_the_order_of_the_samples(few, invented):
    chosen, results = few
    own, donor = list(invented.cells(chosen))[1:]
    before = Summary(chosen, results).contrast(TSW, TSW._replace(arm="donor"))
    shuffled = invented.samples(own).sample(frac=1, random_state=0)
    records.save(invented.record(own, shuffled), shuffled, results / own.path)
    assert Summary(chosen, results).contrast(TSW, TSW._replace(arm="donor")) == before
    left = invented.samples(own)["score.acc"].to_numpy()
    right = invented.samples(donor)["score.acc"].to_numpy().reshape(3, 60).mean(axis=0)
    by_hand = paired(left, right, range(60))
    assert (before.value, before.low, before.p) == pytest.approx((by_hand.value, by_hand.low, by_hand.p))


def test_seeds_are_averaged_by_question_and_told_apart(tmp_path, invented):
    chosen = invented.experiment(
        seeds=[1, 2, 3], rows=["delta_mem_tsw"], tasks=[{"task": "locomo", "conditions": {"removed": ["own"]}}]
    )
    invented.fill(chosen, tmp_path)
    found = Summary(chosen, tmp_path)
    place = Place("smollm2", "delta_mem_tsw", "locomo", "removed")
    assert len(found.records_of(place)) == len(set(found.seed_values(place))) == 3
    estimate = found.estimate(place)
    assert (estimate.n, estimate.clusters) == (60, 10)
    assert estimate.value == pytest.approx(np.mean(found.seed_values(place)))


def test_nothing_ran(tmp_path, invented):
    with pytest.raises(HarnessError, match="run the pipeline first"):
        Summary(invented.experiment(), tmp_path)


def test_two_records_for_one_cell(few, invented):
    chosen, results = few
    cell = next(invented.cells(chosen))
    shutil.copytree(results / cell.path, results / chosen.name / "copy")
    with pytest.raises(HarnessError, match="delete one"):
        summary.collect(chosen, results)


def test_a_record_in_a_foreign_place(few, invented):
    chosen, results = few
    cell = next(invented.cells(chosen))
    shutil.move(results / cell.path, results / chosen.name / "elsewhere")
    with pytest.raises(HarnessError, match="move it to"):
        summary.collect(chosen, results)


@pytest.mark.parametrize("change", ["torn", "schema", "field"])
def test_a_record_that_is_not_whole_or_not_ours(few, invented, change):
    chosen, results = few
    path = results / next(invented.cells(chosen)).path / "record.json"
    text = path.read_text()
    broken = {
        "torn": text[: len(text) // 2],
        "schema": text.replace('"schema_version": 1', '"schema_version": 99'),
        "field": text.replace('"questions":', '"question_count":'),
    }
    path.write_text(broken[change])
    with pytest.raises(HarnessError, match="run again"):
        summary.collect(chosen, results)


@pytest.mark.parametrize("change", ["missing", "torn", "edited"])
def test_samples_that_do_not_belong_to_their_record(few, invented, change):
    chosen, results = few
    cell = next(invented.cells(chosen))
    path = results / cell.path / "samples.parquet"
    if change == "missing":
        path.unlink()
    elif change == "torn":
        path.write_bytes(path.read_bytes()[:100])
    else:
        invented.samples(cell).assign(**{"score.acc": 1.0}).to_parquet(path)
    with pytest.raises(HarnessError, match="delete"):
        Summary(chosen, results).estimate(TSW._replace(row="question_only"))

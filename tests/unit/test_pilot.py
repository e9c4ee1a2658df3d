"""A pilot: what one run measured predicts another, better than constants, and says from where it knows."""

import statistics
from pathlib import Path

import pytest

from harness import config, pilot, records
from harness.errors import HarnessError
from harness.experiment import cells, jobs
from harness.pilot import UNMEASURED, Answers, Measured, Pilot, Ratio, Trained
from harness.plan import plan

REFERENCE = Path("results/reference")


@pytest.fixture(scope="module")
def local():
    return pilot.read(REFERENCE / "local")


def ratios(name, rates):
    """Predicted over taken seconds of every published cell."""
    experiment = config.load(name)
    said = {(e.job, e.step): e.seconds for e in plan(experiment, rates)}
    return [
        said[job, cell.step] / records.load(REFERENCE / cell.path / "record.json").costs.wall_seconds
        for job in jobs(experiment)
        for cell in cells(experiment, job)
    ]


def test_one_experiment_predicts_the_cells_of_another(local):
    """Measured: median 1.11, eight in ten between 0.93 and 1.35; by constants 2.3, between 1.7 and 3.1."""
    held_out, constant = ratios("embedded", local), ratios("embedded", UNMEASURED)
    assert len(held_out) == 48
    assert 0.8 < statistics.median(held_out) < 1.25
    assert sum(0.5 < ratio < 2 for ratio in held_out) >= 0.95 * len(held_out)
    assert statistics.median(constant) > 1.5 * statistics.median(held_out)


def test_it_says_what_it_is_and_where_each_estimate_comes_from(local):
    assert local.source.startswith("177 records of local, measured on ")
    found = {(e.job.row, e.step): e.basis for e in plan(config.load("embedded", ["rows+=window"]), local)}
    assert found["frozen", "locomo/replayed/own"] == "pilot"
    smaller = Pilot([c for c in local.cells if c.method != "frozen"])
    assert smaller.rate("frozen", "locomo", "replayed", "cpu").basis == "near"
    assert {e.basis for e in plan(config.load("embedded"))} == {"constants"}


def test_another_device_tells_lengths_alone(local):
    rate = local.rate("frozen", "locomo", "replayed", "cuda")
    assert (rate.write, rate.prefill, rate.decode, rate.other) == (1, 1, 1, 0)
    assert rate.basis == "constants"
    assert rate.length(16) == local.rate("frozen", "locomo", "replayed", "cpu").length(16) < 16
    assert local.fitting("lora", "cuda") == (1.0, "constants")
    assert 60 < local.question("locomo") < 90


def cell(method="m", task="t", condition="removed", write=2.0, prefill=3.0, tokens=(4,), cut=0):
    parts = {"write": Ratio(write, 1), "prefill": Ratio(prefill, 1), "decode": Ratio(1, 1), "other": Ratio(0, 1)}
    return Measured(method, task, condition, "cpu", parts, Answers(tokens, cut))


def test_the_nearest_measured_counts():
    found = Pilot(
        [
            cell(prefill=1.0),
            cell(condition="replayed", prefill=2.0),
            cell("other", prefill=4.0, write=8.0),
            cell("m", "elsewhere", prefill=16.0, write=6.0),
        ]
    )
    assert found.rate("m", "t", "removed", "cpu").prefill == 1
    assert found.rate("m", "t", "own_text", "cpu").prefill == 1.5
    assert found.rate("new", "t", "replayed", "cpu").prefill == 2
    assert found.rate("m", "new", "removed", "cpu").prefill == 8.5  # under this condition
    assert found.rate("m", "new", "removed", "cpu").write == pytest.approx(10 / 3)  # of the method
    assert found.rate("new", "new", "removed", "cpu").write == 4.5


def test_lengths_of_answers_under_another_cap():
    short = Answers((2, 2, 4), cut=0)
    assert short.length(100) == pytest.approx(8 / 3)
    assert short.length(3) == pytest.approx(7 / 3)
    all_cut = Answers((16, 16), cut=2)
    assert all_cut.length(64) == 64
    assert all_cut.length(8) == 8
    half = Answers((4, 16), cut=1)
    assert 10 < half.length(64) < 34


def test_a_loaded_machine_is_told_by_its_processor(monkeypatch):
    """Half of the processor, half of the seconds."""
    record = records.load(REFERENCE / "embedded/smollm2/frozen/seed42/locomo/replayed/own/record.json")
    full = pilot._measured(record, 60.0, Answers((4,)))
    record.costs.cpu_seconds, record.costs.wall_seconds = 5.0, 10.0
    assert pilot._measured(record, 60.0, Answers((4,))).parts["prefill"].measured == pytest.approx(
        0.5 * full.parts["prefill"].measured, rel=0.05
    )


def test_gates_scale_with_the_backbone():
    from harness.loads import Forms

    run = config.load("embedded").run
    found = Pilot(gates=[Trained("m", "cpu", Ratio(10.0, Forms(1e8, run).reading(pilot.PROBE)))])
    assert found.proving("m", Forms(1e8, run)) == (pytest.approx(10.0), "pilot")
    assert found.proving("new", Forms(2e9, run))[0] > 100
    assert UNMEASURED.proving("m", Forms(1e8, run))[0] == 0


def test_a_folder_without_records_is_no_pilot(tmp_path):
    with pytest.raises(HarnessError, match="holds no answered cell; name a folder of results"):
        pilot.read(tmp_path)

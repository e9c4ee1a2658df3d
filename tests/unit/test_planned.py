"""Plans as they are told, and as they are kept so that nobody can make them fit."""

import json

import pytest

from harness import config, pilot, planned
from harness.errors import HarnessError
from harness.experiment import cells, jobs
from harness.pilot import UNMEASURED
from harness.plan import plan


@pytest.fixture(scope="module")
def smoke():
    return config.load("smoke")


def kept(experiment, results, rates=UNMEASURED):
    return planned.steps(planned.keep(experiment, results, rates))


def test_hours_and_cost_stand_by_row_and_task_and_add_up():
    experiment = config.load("paper")
    estimates, unit = plan(experiment), planned.Unit.of(experiment, 2.0)
    heads, lines = planned.by_row(estimates, unit)
    assert heads[:2] + heads[-2:] == ["row", "fit", "all", "cost"] or "hotpotqa@release" in heads
    assert len(lines) == 3 * 7 + 1
    numbers = [[float(cell.rstrip("* †").replace(",", "") or 0) for cell in line[1:]] for line in lines]
    *rows, total = numbers
    assert total[-2] == pytest.approx(sum(e.gpu_hours for e in estimates), rel=0.01)
    assert total[-1] == pytest.approx(2 * sum(e.gpu_hours for e in estimates), abs=0.01)
    for column, value in enumerate(total):
        assert value == pytest.approx(sum(row[column] for row in rows), rel=0.02)


def test_steps_add_up_and_no_price_is_made_up(smoke):
    estimates, unit = plan(smoke), planned.Unit.of(smoke)
    heads, lines = planned.by_step(estimates, unit)
    assert "cost" not in heads
    assert unit.name == "worker-hours"
    assert {line[0]: line[1] for line in lines} == {"fits": "2", "cells": "13", "all": "15"}
    told = " ".join(planned.sentences(smoke, estimates, unit, UNMEASURED))
    assert "--price" in told
    assert "No pilot" in told


def test_a_workers_gpus_count_in_gpu_hours(smoke):
    two = config.load("smoke", ["run.gpus_per_worker=2"])
    estimates = plan(two)
    assert planned.Unit.of(two).hours(estimates) == pytest.approx(sum(e.gpu_hours for e in estimates))
    assert planned.Unit.of(two).hours(estimates) == pytest.approx(2 * sum(e.seconds for e in estimates) / 3600)


def test_a_prediction_stays_and_what_has_a_result_gets_none(smoke, tmp_path):
    job = jobs(smoke)[0]
    cell = cells(smoke, job)[0]
    record = tmp_path / cell.path / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    first = kept(smoke, tmp_path)
    assert f"{job.path}/{cell.step}" not in first
    assert len(first) == 14  # 13 cells and 2 fits, but for the one
    better = pilot.read(config.Path("results/reference/embedded"))
    assert kept(smoke, tmp_path, better).items() >= first.items()
    assert {step.split("/")[-1] for step in set(kept(smoke, tmp_path, better)) - set(first)} == {"gates"}


def test_a_run_of_some_rows_or_without_the_pilot_leaves_the_other_predictions(smoke, tmp_path):
    better = pilot.read(config.Path("results/reference/embedded"))
    whole = kept(smoke, tmp_path, better)
    assert kept(config.load("smoke", ["rows=[frozen]"]), tmp_path) == whole
    assert kept(smoke, tmp_path) == whole


def test_other_inputs_are_predicted_anew_before_they_run(smoke, tmp_path):
    first = kept(smoke, tmp_path)
    longer = config.load("smoke", ["budget.steps=20"])
    again = kept(longer, tmp_path)
    fits = [step for step in first if step.endswith("/fit")]
    assert all(again[step]["seconds"] > first[step]["seconds"] for step in fits)
    (tmp_path / fits[0]).with_suffix(".json").parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / fits[0]).with_suffix(".json").write_text("{}")
    assert fits[0] not in kept(config.load("smoke", ["budget.steps=30"]), tmp_path)


def test_what_a_job_may_expect_is_what_was_kept(smoke, tmp_path):
    path = planned.keep(smoke, tmp_path)
    job = jobs(smoke)[0]
    step = cells(smoke, job)[0].step
    said = json.loads(path.read_text())
    said["steps"][f"{job.path}/{step}"]["seconds"] = 123.0
    path.write_text(json.dumps(said))
    told = planned.predicted(smoke, job, tmp_path)
    assert told[step] == 123.0
    assert set(told) == {cell.step for cell in cells(smoke, job)}


def test_a_torn_plan_is_told(smoke, tmp_path):
    path = planned.keep(smoke, tmp_path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(HarnessError, match="is not a whole plan; delete it"):
        planned.keep(smoke, tmp_path)

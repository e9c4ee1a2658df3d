"""Doses against recall and the state: from records and fits to numbers and a figure."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from benchmarks import granularity
from benchmarks.__main__ import app
from harness import jobs
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.registry import resolve
from harness.reporting.figures import doses
from harness.tasks import task

TASK = """
  - {{task: granularity, as: {name}, episodes: 2, max_new_tokens: 1,
     conditions: {{removed: [own, donor]}}, settings: {{facts: 2{dose}}}}}"""


@pytest.fixture
def ran(tmp_path):
    """A tiny experiment of one row and three doses, run: its file and its results."""
    told = [TASK.format(name=name, dose=dose) for name, dose in (("clean", ""), ("noisy", ", noise: 2"))]
    file = tmp_path / "doses.yaml"
    file.write_text(
        "name: doses\nbackbones: {tiny: {random: tiny-llama}}\nrows: [delta_mem_tsw, frozen]\ndonors: 1\ntasks:"
        + "".join(told)
        + "\ndata: {source: generated}\ntraining: {task: granularity, episodes: 2}\n"
        "budget: {steps: 1, batch_size: 2, accumulation: 1}\nrun: {executor: inline}\n"
    )
    from harness.config import load

    request = {"experiment": load(str(file)).model_dump(mode="json", by_alias=True), "backbone": "tiny",
               "row": "delta_mem_tsw", "seed": 42, "results": str(tmp_path)}  # fmt: skip
    for kind in ("fit", "evaluate"):
        jobs.run({**request, "kind": kind})
    jobs.reset()
    return file, tmp_path


def test_recall_comes_from_records_and_the_state_from_fits(ran):
    file, results = ran
    out = results / "figures"
    words = ["granularity", str(file), "--results", str(results), "--out", str(out), "--json"]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert found["tiny.delta_mem_tsw.clean.delta"]["value"] == 0
    assert 0 < found["tiny.delta_mem_tsw.noisy.delta"]["value"] < 2
    assert not any("frozen" in name for name in found)
    lines = pd.read_csv(out / "granularity.csv")
    assert list(zip(lines["task"], lines["kind"], lines["dose"], strict=True)) == [
        ("clean", "clean", 0),
        ("noisy", "noise", 2),
    ]
    assert lines["own"].between(0, 1).all()
    assert (out / "granularity.png").read_bytes()[:4] == b"\x89PNG"


def test_the_state_moves_by_what_is_said_and_by_nothing_else(tiny):
    cls, settings = resolve("delta_mem_ssw")
    memory = cls(settings, tiny(), 1)
    state = lambda history: memory.write(history).S  # noqa: E731
    load = lambda **settings: task("granularity").load(DataSpec(), "test", {"facts": 2, **settings}, 3).episodes  # noqa: E731
    clean = list(granularity.moved(state, load(), load()))
    again = list(granularity.moved(state, load(repeats=2), load()))
    assert [m["delta"] for m in clean] == [0, 0, 0]
    assert all(m["delta"] > 0 for m in again)
    assert [m["other"] for m in clean] == [m["other"] for m in again]
    assert all(m["other"] > 0 and 0 < m["last"] < 1 for m in clean)


def test_apart_is_the_mean_over_layers_of_relative_frobenius_norms():
    plain = torch.zeros(2, 1, 2, 2)
    plain[0, 0, 0, 0], plain[1, 0, 0, 0], plain[1, 0, 1, 1] = 2.0, 3.0, 4.0
    moved = plain.clone()
    moved[0, 0, 0, 1], moved[1, 0, 0, 0] = 1.0, 5.0
    assert granularity._apart(moved, plain) == pytest.approx((1 / 2 + 2 / 5) / 2)


def frame():
    line = {"backbone": "b", "row": "r", "own": 0.5, "own_low": 0.4, "own_high": 0.6, "donor": 0.1, "other": 1.0}
    told = (("clean", 0, 0.0), ("noise", 8, 0.4), ("noise", 2, 0.2), ("repeats", 4, 0.1), ("several", 0, 9.0))
    return pd.DataFrame([{**line, "kind": kind, "dose": n, "delta": delta} for kind, n, delta in told])


def test_lines_start_at_the_clean_history_and_go_by_dose():
    assert list(doses._along(frame(), "noise")["delta"]) == [0.0, 0.2, 0.4]
    assert list(doses._along(frame(), "repeats")["dose"]) == [1, 4]


def test_an_experiment_without_doses_is_refused(tmp_path):
    with pytest.raises(HarnessError, match="no task of 'smoke' is granularity"):
        granularity.measure("smoke", tmp_path)

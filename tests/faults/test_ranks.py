"""A fit that two ranks make under Ray Train, through the death of one of them."""

from __future__ import annotations

import ipaddress
import json
import threading
import time

import psutil
import pytest

from harness import config, executor
from tests.faults.pipeline import PATIENCE

EXPERIMENT = """\
name: ranked
backbones: {tiny: {random: tiny-llama}}
rows: [delta_mem_tsw]
tasks: [{task: write_clear_read, episodes: 2, conditions: {removed: [own]}}]
training: {task: write_clear_read, episodes: 24}
budget: {steps: 16, batch_size: 1, accumulation: 8, save_every: 2, max_write_tokens: 64, max_read_tokens: 64}
run: {workers: 2, fit_workers: 2}
"""


def fitted(folder, *changes):
    """The facts of a fit whose results lie in a folder."""
    (folder / "ranked.yaml").write_text(EXPERIMENT)
    experiment = config.load(str(folder / "ranked.yaml"), changes)
    asked = {"kind": "fit", "backbone": "tiny", "row": "delta_mem_tsw", "seed": 42}
    places = {"results": str(folder), "progress": str(folder / "progress.jsonl")}
    return executor.submit({**asked, **places, "experiment": experiment.model_dump(mode="json", by_alias=True)})


def steps(folder):
    """Steps that a fit has made by now."""
    file = folder / "progress.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return max((told["done"] for told in map(json.loads, lines) if told["phase"] == "fit"), default=0)


def family():
    return psutil.Process().children(recursive=True)


def ranks():
    """The processes in which ranks run."""
    return [p for p in family() if "RayTrainWorker" in " ".join(p.cmdline())]


def test_a_killed_rank_is_replaced_and_the_fit_is_that_of_one_worker(tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    one = fitted(folders[0], "run.executor=inline", "run.fit_workers=1")
    found = []
    fit = threading.Thread(target=lambda: found.append(fitted(folders[1])), daemon=True)
    fit.start()
    until = time.monotonic() + PATIENCE
    while steps(folders[1]) < 3:
        assert fit.is_alive()
        assert time.monotonic() < until
        time.sleep(0.05)
    heard = {c.laddr.ip for p in family() for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    first = ranks()
    assert len(first) == 2
    first[1].kill()
    fit.join()
    (two,) = found
    assert two["ranks"] == 2
    assert (two["address"], two["steps"], two["tokens"]) == (one["address"], one["steps"], one["tokens"])
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5, rel=0)
    assert not {ip for ip in heard if not ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback}
    assert [p.name for p in (folders[1] / ".locks" / "ranks").iterdir()] == [".validate_storage_marker"]
    assert not ranks()

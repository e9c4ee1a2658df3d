"""A worker with a cache of its own gets the backbone of the pipeline's machine through Ray."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from harness import cache, config, seals
from harness.cluster import ENVIRONMENT, Head, Worker
from harness.errors import HarnessError
from harness.experiment import RunSpec
from harness.shelf import Elsewhere, put_up


@pytest.fixture
def package(tiny, tmp_path, monkeypatch):
    """A package with a GGUF that is converted in this machine's cache; gives the package's name and its digest."""
    monkeypatch.setenv("DELTA_MEM_CACHE", str(tmp_path / "cache of a"))
    home = tmp_path / "packages" / "carries_weights"
    home.mkdir(parents=True)
    (home / "__init__.py").touch()
    (home / "tiny.gguf").write_bytes(b"weights")
    known_by = seals.sha256(home / "tiny.gguf")

    def convert(work):
        tiny().model.save_pretrained(work)
        tiny().tokenizer.save_pretrained(work)
        return {"source": known_by}

    cache.put(cache.place(f"carries-weights-{known_by[:16]}"), convert)
    return "carries-weights", known_by


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Starts a worker with a cache folder of its own; this process is the pipeline."""
    for name, value in {**ENVIRONMENT, "RAY_AUTH_MODE": "disabled"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    folder = Path(tempfile.mkdtemp(prefix="delta-mem-test-", dir="/tmp"))  # a socket's path must be short
    head = Head(RunSpec(workers=2), folder)
    import ray

    def start(cache, *given):
        variables = {"env_vars": {"DELTA_MEM_CACHE": str(cache)}}
        return ray.remote(Worker).options(num_cpus=1, runtime_env=variables).remote(*given)

    try:
        ray.init(address=head.address(), namespace="delta-mem", log_to_driver=False)
        yield start
    finally:
        ray.shutdown()
        os.killpg(head.process.pid, signal.SIGTERM)
        head.process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_workers_with_caches_of_their_own_open_the_same_backbone(package, worker, tmp_path):
    import ray

    name, known_by = package
    spec = {"backbones": {"tiny": {"gguf": name}}, "run": {"device": "cpu"}}
    experiment = {**config.load("smoke").model_dump(mode="json", by_alias=True), **spec}
    request = {"kind": "prepare", "experiment": experiment, "backbone": "tiny", "results": str(tmp_path / "results")}
    handle = put_up()
    workers = [worker(tmp_path / f"cache of {node}", os.getcwd(), 1, handle) for node in "bc"]
    replies = ray.get([each.run.remote(request) for each in workers])
    assert [reply["result"]["digest"] for reply in replies] == [known_by, known_by]
    here, *there = (tmp_path / f"cache of {node}" / "backbones" / f"{name}-{known_by[:16]}" for node in "abc")
    assert all(map(cache.whole, there))
    assert [seals.digests(each) for each in there] == [seals.digests(here)] * 2

    shutil.rmtree(tmp_path / "packages" / "carries_weights")
    fresh = put_up()
    with pytest.raises(HarnessError, match="the package 'carries-weights' is not installed"):  # in its own words
        Elsewhere(fresh).offer('{"gguf": "carries-weights"}')
    ray.kill(fresh)
    with pytest.raises(HarnessError, match="no longer hands out its backbones"):
        Elsewhere(fresh).offer('{"gguf": "carries-weights"}')

"""A worker with a cache of its own gets the backbone of the pipeline's machine through Ray."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from harness import cache, seals
from harness.cluster import ENVIRONMENT, Head
from harness.errors import HarnessError
from harness.experiment import RunSpec
from harness.shelf import Elsewhere, put_up

SPEC = '{"gguf": "carries-weights"}'


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installed, with a GGUF that is converted in this machine's cache; gives its home, and where that lies."""
    monkeypatch.setenv("DELTA_MEM_CACHE", str(tmp_path / "cache of a"))
    home = tmp_path / "packages" / "carries_weights"
    home.mkdir(parents=True)
    (home / "__init__.py").touch()
    (home / "tiny.gguf").write_bytes(b"weights")
    known_by = seals.sha256(home / "tiny.gguf")

    def convert(work):
        (work / "config.json").write_text("{}")
        (work / "model.safetensors").write_bytes(bytes(range(256)) * 100_000)  # more than one part
        return {"source": known_by}

    return home, cache.put(cache.place(f"carries-weights-{known_by[:16]}"), convert)


@pytest.fixture
def pull(tmp_path, monkeypatch):
    """Lets a process of the cluster, with a cache of its own, fetch the backbone; this process is the pipeline."""
    for name, value in {**ENVIRONMENT, "RAY_AUTH_MODE": "disabled"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    folder = Path(tempfile.mkdtemp(prefix="delta-mem-test-", dir="/tmp"))  # a socket's path must be short
    head = Head(RunSpec(workers=2), folder)
    import ray

    def fetch(handle):
        shelf = Elsewhere(handle)
        return str(cache.fetch(shelf, shelf.offer(SPEC)))

    def start(folder, handle):
        return ray.remote(fetch).options(runtime_env={"env_vars": {"DELTA_MEM_CACHE": str(folder)}}).remote(handle)

    try:
        ray.init(address=head.address(), namespace="delta-mem", log_to_driver=False)
        yield start
    finally:
        ray.shutdown()
        os.killpg(head.process.pid, signal.SIGTERM)
        head.process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_processes_with_caches_of_their_own_get_the_same_backbone(package, pull, tmp_path):
    import ray

    home, here = package
    handle = put_up()
    folders = [tmp_path / f"cache of {node}" for node in "bc"]
    there = [Path(path) for path in ray.get([pull(folder, handle) for folder in folders])]
    assert [path.parents[1] for path in there] == folders
    assert all(map(cache.whole, there))
    assert [seals.digests(path)["model.safetensors"] for path in there] == [
        seals.sha256(here / "model.safetensors")
    ] * 2
    ray.kill(handle)
    with pytest.raises(HarnessError, match="no longer hands out its backbones"):
        Elsewhere(handle).offer(SPEC)
    shutil.rmtree(home)
    with pytest.raises(HarnessError, match=r"^the package 'carries-weights' is not installed"):  # in its own words
        Elsewhere(put_up()).offer(SPEC)

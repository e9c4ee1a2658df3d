"""No network: an experiment on a packaged model's shape runs, what needs the hub says so, and nothing else asks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.faults import network

WORK = ["--backbone", "tiny_llama", "--row", "frozen", "--seed", "42", "--set", "run.executor=inline"]


@pytest.fixture
def alone():
    with network.none() as done:
        if not done:
            pytest.skip("this user may not do without a network")
        yield


def harness(folder, *words, **surroundings):
    command = [sys.executable, "-c", "from harness.cli import app; app()", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HOME": str(folder), **surroundings}
    )


def test_the_count_sees_every_way_out(alone):
    assert network.attempts() == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sent, socket.socket() as connected:
        for act, where in ((sent.connect, ("192.0.2.1", 53)), (connected.connect, ("192.0.2.1", 443))):
            with pytest.raises(OSError, match="unreachable"):
                act(where)
        with pytest.raises(ConnectionRefusedError):
            connected.connect(("127.0.0.1", 9))
    assert network.attempts() == 2


def test_an_evaluation_asks_nobody(alone, tmp_path):
    done = harness(tmp_path, "evaluate", "smoke", *WORK, "--results", str(tmp_path / "results"))
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "results").rglob("record.json"))
    assert network.attempts() == 0


def test_a_model_of_the_hub_is_refused_in_one_sentence(alone, tmp_path):
    elsewhere = ["--set", "backbones.tiny_llama={hub: nobody/no-such-model}", "--results", str(tmp_path / "results")]
    done = harness(tmp_path, "prepare", "smoke", "--backbone", "tiny_llama", *WORK[-2:], *elsewhere)
    assert done.returncode == 2, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("harness: ")]
    assert "nobody/no-such-model" in said
    assert ";" in said

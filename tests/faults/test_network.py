"""No network: an experiment runs that needs none, what needs the hub says so, and nothing else asks."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

from harness import cli, cluster, random_weights
from harness.experiment import RunSpec
from tests.faults import network

WORK = ["smoke", "--backbone", "tiny_llama", "--set", "run.executor=inline", "--results"]


@pytest.fixture
def _alone():
    with network.none() as done:
        if not done:
            pytest.skip("this user may not do without a network")
        yield


def left(*words):
    with pytest.raises(SystemExit) as ended:
        cli.app([*words])
    return ended.value.code


@pytest.mark.usefixtures("_alone")
def test_the_count_sees_every_way_out():
    assert network.attempts() == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sent, socket.socket() as connected:
        for act, where in ((sent.connect, ("192.0.2.1", 53)), (connected.connect, ("192.0.2.1", 443))):
            with pytest.raises(OSError, match="unreachable"):
                act(where)
        with pytest.raises(ConnectionRefusedError):
            connected.connect(("127.0.0.1", 9))
    assert network.attempts() == 2


@pytest.mark.usefixtures("_alone")
def test_an_evaluation_asks_nobody(tmp_path):
    assert left("evaluate", *WORK, str(tmp_path), "--row", "frozen", "--seed", "42") == 0
    assert list(tmp_path.rglob("record.json"))
    assert network.attempts() == 0


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("row", ["lora", "delta_mem_tsw"])
def test_a_fit_asks_nobody_for_a_backbone_that_is_named_after_one_of_the_hub(row, tmp_path, monkeypatch):
    """Neither its checkpoints nor what is stored of it."""
    known = random_weights.shape
    monkeypatch.setattr(random_weights, "shape", lambda name: {**known(name), "_name_or_path": "nobody/no-such-model"})
    assert left("fit", *WORK, str(tmp_path), "--row", row, "--seed", "42") == 0
    assert list(tmp_path.rglob("fit.json"))
    assert network.attempts() == 0


@pytest.mark.usefixtures("_alone")
def test_a_model_of_the_hub_is_refused_in_one_sentence(tmp_path, capsys):
    elsewhere = "backbones.tiny_llama={hub: nobody/no-such-model}"
    assert left("prepare", *WORK, str(tmp_path), "--set", elsewhere) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("harness: ")]
    assert "nobody/no-such-model" in said
    assert ";" in said
    assert not list(tmp_path.rglob("backbone.json"))


@pytest.fixture
def heard(monkeypatch):
    """What arrives at a server of this loopback, at which all that should reach nobody is aimed instead."""
    said = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            said.append(self.path)
            self.send_error(404)

        do_POST = do_GET  # noqa: N815 - the name that the server calls

        def log_message(self, *words):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in cluster.ENVIRONMENT.items():
            here = f"http://127.0.0.1:{server.server_port}"
            monkeypatch.setenv(name, here if value == cluster.NOWHERE else value)
        yield said
        server.shutdown()


@pytest.mark.usefixtures("_alone")
def test_the_head_of_a_cluster_asks_nobody(heard):
    """Ray's own would ask three clouds whether it is theirs, and tell its makers that it is not to tell them."""
    with tempfile.TemporaryDirectory(prefix="delta-mem-test-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        head = cluster.Head(RunSpec(workers=1), Path(folder))  # a socket's path must be short
        try:
            head.address()
            for _ in range(600):
                if "/" in heard:
                    break
                time.sleep(0.1)
        finally:
            os.killpg(head.process.pid, signal.SIGTERM)
            head.process.wait(60)
    asked = [where.removeprefix("http://").partition("/")[0] for where in heard]
    assert asked == ["169.254.169.254", "metadata.google.internal", "169.254.169.254", ""]
    assert network.attempts() == 0

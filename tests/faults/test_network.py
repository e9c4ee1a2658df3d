"""No network: an experiment runs that needs none, what needs the hub says so, and nothing else asks."""

from __future__ import annotations

import socket

import pytest

from harness import cli
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
def test_a_model_of_the_hub_is_refused_in_one_sentence(tmp_path, capsys):
    elsewhere = "backbones.tiny_llama={hub: nobody/no-such-model}"
    assert left("prepare", *WORK, str(tmp_path), "--set", elsewhere) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("harness: ")]
    assert "nobody/no-such-model" in said
    assert ";" in said
    assert not list(tmp_path.rglob("backbone.json"))

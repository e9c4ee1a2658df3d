"""Handing jobs in: replies over the socket, and an end with the owner."""

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from harness import cluster, executor
from harness.errors import HarnessError

REQUEST = {"kind": "fit", "experiment": {"run": {}}, "backbone": "tiny", "row": "lora", "seed": 1}


@pytest.fixture
def served(monkeypatch):
    """A socket that answers one request with the given bytes; gives what was asked."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as server:
        address = Path(folder) / "socket"
        server.bind(str(address))
        server.listen()
        monkeypatch.setenv(cluster.ADDRESS, str(address))
        asked = []

        def answer(reply: bytes):
            def serve():
                link, _ = server.accept()
                with link:
                    asked.append(json.loads(link.makefile("rb").readline()))
                    link.sendall(reply)

            threading.Thread(target=serve, daemon=True).start()
            return asked

        yield answer


def test_a_result_comes_back_as_it_is(served):
    asked = served(b'{"result": {"cells": 3}}\n')
    assert executor.submit(REQUEST) == {"cells": 3}
    assert asked == [REQUEST]


def test_a_mistake_and_a_fault_come_back_as_what_they_are(served):
    served(b'{"error": "the file is torn; delete it"}\n')
    with pytest.raises(HarnessError, match="the file is torn"):
        executor.submit(REQUEST)
    served(b'{"failure": "Traceback ..."}\n')
    with pytest.raises(executor.JobError, match="Traceback"):
        executor.submit(REQUEST)


def test_an_answer_that_breaks_off_names_the_cluster(served):
    served(b'{"result": {"ce')
    with pytest.raises(HarnessError, match="ended before the job did"):
        executor.submit(REQUEST)


def test_a_cluster_that_is_gone_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv(cluster.ADDRESS, str(tmp_path / "socket"))
    with pytest.raises(HarnessError, match="is gone"):
        executor.submit(REQUEST)
    cluster.stop(tmp_path / "socket")


def test_a_cluster_that_is_slow_to_end_fails_no_run(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "LONGEST_STOP", 0.1)
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    slow = subprocess.Popen([sys.executable, "-c", program, "harness.cluster"], stdout=subprocess.PIPE)
    slow.stdout.readline()
    (tmp_path / "pid").write_text(str(slow.pid))
    cluster.stop(tmp_path / "socket")
    assert slow.poll() is None
    slow.kill()
    slow.wait()


def test_the_client_imports_neither_ray_nor_torch():
    code = "import sys, harness.executor\nassert not {'ray', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_watch_ends_with_the_owner():
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    async def watch():
        watching = asyncio.create_task(cluster._watch(owner.pid, None))
        await asyncio.sleep(0.5)
        assert not watching.done()
        owner.kill()
        assert await asyncio.wait_for(watching, 60) == "the pipeline that it served is gone"

    asyncio.run(watch())
    owner.wait()

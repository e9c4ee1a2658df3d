"""Handing jobs in: replies over the socket, lost workers, and an end with the owner."""

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
from harness.experiment import RunSpec

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


def test_the_client_imports_neither_ray_nor_torch():
    code = "import sys, harness.executor\nassert not {'ray', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class Losing:
    """A worker that dies ``losses`` times before it answers; `run.remote` is Ray's way of calling."""

    def __init__(self, losses: list[int]) -> None:
        self.losses = losses
        self.run = self

    async def remote(self, request):
        import ray.exceptions

        if self.losses[0] > 0:
            self.losses[0] -= 1
            raise ray.exceptions.RayActorError(error_msg="its process was killed")
        return {"result": request["row"]}


@pytest.mark.parametrize(("losses", "key"), [(0, "result"), (2, "result"), (3, "error")])
def test_a_lost_worker_is_replaced_three_times_at_most(monkeypatch, losses, key):
    left = [losses]
    spawned = []

    async def ask():
        workers = cluster.Workers(RunSpec())
        monkeypatch.setattr(workers, "spawn", lambda: spawned.append(1) or Losing(left))
        workers.free.put_nowait(Losing(left))
        workers.ready.set_result(None)
        return await workers.do(REQUEST), workers.free.qsize()

    reply, free = asyncio.run(ask())
    assert key in reply
    assert (len(spawned), free) == (losses, 1)
    if key == "error":
        assert "fit of tiny/lora lost 3 workers" in reply["error"]
        assert "its process was killed" in reply["error"]


@pytest.mark.parametrize("ends", [{"result": 1}, RuntimeError("Ray is gone")])
def test_ranks_take_the_places_of_workers_who_come_back(monkeypatch, ends):
    import ray

    from harness import ranks

    there = [f"worker {n}" for n in range(3)]
    taken, most = [], []
    monkeypatch.setattr(ray, "kill", taken.append)

    def fit(request, run):
        most.append(len(taken))
        time.sleep(0.1)
        if isinstance(ends, Exception):
            raise ends
        return ends

    monkeypatch.setattr(ranks, "fit", fit)

    async def ask():
        workers = cluster.Workers(RunSpec(workers=3, fit_workers=2))
        monkeypatch.setattr(workers, "spawn", lambda: "a new worker")
        for each in there[:2]:
            workers.free.put_nowait(each)
        workers.ready.set_result(None)
        asked = [asyncio.create_task(workers.do(REQUEST)) for _ in range(3)]
        await asyncio.sleep(0.05)
        workers.free.put_nowait(there[2])  # was at work; two fits that each took one place would now wait for ever
        replies = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
        return replies, [workers.free.get_nowait() for _ in range(workers.free.qsize())]

    replies, free = asyncio.run(ask())
    assert replies == [ends] * 3
    assert most == [2, 4, 6]
    assert taken[:3] == there
    assert free == ["a new worker"] * 3


def test_a_cluster_that_cannot_start_refuses_each_request():
    async def ask():
        workers = cluster.Workers(RunSpec())
        workers.ready.set_exception(HarnessError("Ray cannot serve this run (no head)"))
        return [await workers.do(REQUEST) for _ in range(2)]

    assert asyncio.run(ask()) == [{"error": "Ray cannot serve this run (no head)"}] * 2


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

"""Ray's own nodes, several on this machine, and workers on them whose cells only take their time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import cluster
from harness.journal import Journal
from harness.records import write_json
from harness.workers import Worker, Workers

BEGUN = "begun"
"""File of a stub job's folder with a line for each episode that was begun."""
STORE = 80_000_000
"""Bytes of a node's shared memory: requests and results are small."""


class Nodes:
    """Ray's test cluster: a head without room for workers, and nodes that join and are lost.

    Args:
        each: What each of the first nodes has: ``num_cpus`` and ``num_gpus``, which exist on paper alone.
    """

    def __init__(self, *each: dict[str, Any]) -> None:
        os.environ.update({**cluster.ENVIRONMENT, **cluster.LOOPBACK, "RAY_AUTH_MODE": "disabled"})
        from ray._common.utils import get_default_ray_temp_dir
        from ray._private import ray_constants
        from ray.cluster_utils import Cluster

        ray_constants.ENABLE_RAY_CLUSTER = False  # the same switch, where Ray was imported before
        self.folder = Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp"))  # a socket's path may have 107 characters
        Path(get_default_ray_temp_dir()).mkdir(parents=True, exist_ok=True)  # its address goes there
        self.ray, self.first = Cluster(), each

    def __enter__(self) -> Nodes:
        try:
            for resources in ({"num_cpus": 0}, *self.first):
                self.join(**resources)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()  # whoever connected from here; its node could not be removed else
        self.ray.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def address(self) -> str:
        return self.ray.address

    def join(self, **resources: Any) -> Any:
        """Let one more node join; gives Ray's handle of it."""
        settings = {"include_dashboard": False, "temp_dir": str(self.folder), "object_store_memory": STORE}
        with self._spoken_for():
            return self.ray.add_node(runtime_env_agent_port=cluster.free_port(), **settings, **resources)

    def lose(self, node: Any) -> None:
        """Kill all processes of a node at once."""
        self.ray.remove_node(node, allow_graceful=False)

    @contextlib.contextmanager
    def _spoken_for(self) -> Iterator[None]:
        """Say in the place of a node's agent that it serves no ports, for on a busy machine it comes too late."""
        name, started = secrets.token_hex(28), threading.Event()

        def speak() -> None:
            while not started.wait(0.05):
                for session in self.folder.glob("session_2*"):
                    for port in cluster.AGENT_PORTS:
                        if not (session / f"{port}_{name}").exists():
                            (session / f".{port}").write_text("-1")
                            (session / f".{port}").rename(session / f"{port}_{name}")

        os.environ["RAY_OVERRIDE_NODE_ID_FOR_TESTING"] = name
        speaker = threading.Thread(target=speak, daemon=True)
        speaker.start()
        try:
            yield
        finally:
            del os.environ["RAY_OVERRIDE_NODE_ID_FOR_TESTING"]
            started.set()
            speaker.join()


def stub(folder: Path, cells: int, seconds: float, episodes: int = 10) -> dict[str, Any]:
    """A request for a job of equal cells in a folder of its own."""
    folder.mkdir(parents=True)
    log = folder / "log.jsonl"
    log.write_text("")
    sizes = {"cells": cells, "seconds": seconds, "episodes": episodes}
    return {"kind": "stub", "backbone": "none", "row": folder.name, "progress": str(log), **sizes}


class StubWorker(Worker):
    """Sleeps an episode, keeps it in the cell's journal, and goes on where another one was lost."""

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        begun, answered = time.time(), 0
        folder = Path(request["progress"]).parent
        for number in range(request["cells"]):
            cell = folder / str(number)
            if (cell / "record.json").exists():
                continue
            journal = Journal(cell / "journal.jsonl", "stub")
            for episode in range(request["episodes"]):
                if str(episode) not in journal.done:
                    with (folder / BEGUN).open("a") as file:
                        file.write(f"{number} {episode}\n")
                    time.sleep(request["seconds"] / request["episodes"])
                    journal.add(str(episode), {"answer": "stub"})
                    answered += 1
            write_json(cell / "record.json", {"answered": len(journal.done)})
            journal.remove()
        import ray

        context = ray.get_runtime_context()
        facts = {"node": context.get_node_id(), "process": os.getpid(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}
        return {"result": {**facts, "episodes": answered, "begun": begun, "ended": time.time()}}


class StubWorkers(Workers):
    """The harness's own, over stubs."""

    worker = StubWorker

    async def fill(self, folder: Path, count: int) -> list[dict[str, Any]]:
        """Wait until as many workers are there, and have answered; gives what one of each said."""
        said: dict[int, dict[str, Any]] = {}
        for turn in itertools.count():
            asked = [self.do(stub(folder / f"fill{turn}-{n}", 1, 0.2)) for n in range(count)]
            said |= {reply["result"]["process"]: reply["result"] for reply in await asyncio.gather(*asked)}
            if len(said) >= count:
                break
        return list(said.values())

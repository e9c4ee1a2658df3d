"""A cluster in simulated time: the harness's own places and queue, over workers that only let time pass.

Everything that decides is :class:`harness.workers.Workers`, as it is; what is invented are nodes, GPUs, and how long a
cell takes. An event loop whose clock jumps to the next event makes a day of it in seconds.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import selectors
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar

from ray.exceptions import RayActorError

from harness.experiment import RunSpec
from harness.workers import Workers

START = 60.0
"""Seconds until a new worker may be asked: its process, torch, a backbone of some GB from the node's cache."""
BEGIN = 30.0
"""Seconds of a job's evaluation before its first answer: the gates, and data read; also where it is resumed."""
EPISODES = 10
"""Of each cell, equally long; those that are finished survive a loss."""
CLIENT = 3.0
"""Seconds from the end of one job's process to the first word of the next one's."""
APART = 0.02
"""Seconds between two of the first clients: starting one takes a core of the machine for a second."""

Value = TypeVar("Value")


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waits for nothing: where no event is due, the clock goes on to the next one."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if found := super().select(0):
            return found
        if timeout is None:
            raise RuntimeError("the simulation waits for something that nobody does")
        self.now += timeout
        return []


def simulate(main: Coroutine[Any, Any, Value]) -> Value:
    """What a coroutine gives, in a loop of simulated seconds."""
    selector = _Jumping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


@dataclass
class Task:
    """Cells of a job for which histories are written once, so that one worker has all of them."""

    cells: Sequence[float]
    """Seconds of each."""
    done: int = 0
    """Episodes in the journals, over all cells in order."""
    holder: SimulatedWorker | None = None

    def left(self) -> list[float]:
        """When each episode that is left will be in a journal, in seconds from now."""
        lengths = [cell / EPISODES for cell in self.cells for _ in range(EPISODES)]
        return list(itertools.accumulate(lengths[self.done :]))


@dataclass
class Job:
    """A job of stub cells."""

    tasks: Sequence[Task]
    begun: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when some worker lets go of a task."""

    def seconds(self) -> float:
        return sum(sum(task.cells) for task in self.tasks)


class Nodes:
    """Nodes with GPUs, each of which one worker may hold, and what they have spent."""

    def __init__(self, nodes: int, gpus: int) -> None:
        self.fallen = [asyncio.Event() for _ in range(nodes)]
        self.free: asyncio.Queue[int] = asyncio.Queue()
        for node in [*range(nodes)] * gpus:
            self.free.put_nowait(node)
        self.useful = 0.0
        """GPU seconds of answers that are in a journal."""
        self.again = 0.0
        """GPU seconds that losses cost: answers that were in no journal, and beginning a job once more."""
        self.helped = 0.0
        """GPU seconds in which helpers began jobs that another worker had begun."""

    async def take(self) -> int:
        """A node with a GPU that is free from now on taken; waits until there is one."""
        while self.fallen[node := await self.free.get()].is_set():
            pass
        return node


class SimulatedWorker:
    """As :class:`harness.workers.Worker` behind Ray's handle, over cells that only let time pass.

    Who takes which tasks of a job is as in ``harness.jobs``: in order, helpers from the last one on, none that another
    worker is at.
    """

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, self.node = nodes, -1
        self.settle, self.misses, self.run = (
            SimpleNamespace(remote=function) for function in (self._settle, self._misses, self._run)
        )

    async def _settle(self, needed: Any) -> str:
        self.node = await self.nodes.take()
        await self._pass(START)
        return ""

    async def _misses(self, request: dict[str, Any]) -> str:
        await self._pass(0)
        return ""

    async def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        job, helps = request["job"], request.get("helps", False)
        if helps and not any(task.left() and task.holder is None for task in job.tasks):
            return {}
        if helps:
            self.nodes.helped += BEGIN
        elif job.begun:
            self.nodes.again += BEGIN
        job.begun = True
        await self._pass(BEGIN)
        for task in reversed(job.tasks) if helps else job.tasks:
            if task.holder is None:
                await self._answer(job, task)
        while not helps and (task := next((task for task in job.tasks if task.left()), None)):
            if task.holder is None:
                await self._answer(job, task)
            else:
                job.released.clear()
                await self._unless_lost(job.released.wait())
        return {"result": {}}

    async def _answer(self, job: Job, task: Task) -> None:
        task.holder, begun = self, asyncio.get_running_loop().time()
        left = task.left()
        try:
            if left:
                await self._pass(left[-1])
        finally:
            passed = asyncio.get_running_loop().time() - begun
            kept = bisect.bisect_right(left, passed + 1e-6)
            useful = left[kept - 1] if kept else 0.0
            task.done += kept
            self.nodes.useful += useful
            self.nodes.again += passed - useful if kept < len(left) else 0.0
            task.holder = None
            job.released.set()

    async def _pass(self, seconds: float) -> None:
        await self._unless_lost(asyncio.sleep(seconds))

    async def _unless_lost(self, event: Coroutine[Any, Any, Any]) -> None:
        tasks = {asyncio.ensure_future(event), asyncio.ensure_future(self.nodes.fallen[self.node].wait())}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        if self.nodes.fallen[self.node].is_set():
            raise RayActorError(error_msg="its node was lost")


class SimulatedWorkers(Workers):
    """The harness's places and queue over simulated nodes."""

    def __init__(self, nodes: Nodes, count: int) -> None:
        super().__init__(RunSpec(workers=count, gpus_per_worker=1))
        self.nodes = nodes

    def spawn(self) -> SimulatedWorker:
        return SimulatedWorker(self.nodes)

    def end(self, worker: SimulatedWorker) -> None:
        """A GPU is free again, unless it is gone with its node."""
        self.nodes.free.put_nowait(worker.node)


@dataclass(frozen=True)
class Outcome:
    """What a campaign came to."""

    busy: float
    """Share of the living GPUs' time, from the first word to the last answer, in which answers were made."""
    again: float
    """What losses cost, over all work that there was."""
    helped: float
    """What helping cost, over the same."""
    seconds: float
    """From the first word to the last reply."""


def campaign(
    jobs: Sequence[Job], nodes: int, gpus: int, losses: Sequence[float] = (), clients: int | None = None
) -> Outcome:
    """Run jobs on a simulated cluster.

    Args:
        losses: When a node is lost, in seconds from the start; the first one first. None of them comes back.
        clients: Jobs' processes at a time, as Snakemake's ``--cores``; None starts them all at once.
    """
    return simulate(_campaign(jobs, nodes, gpus, losses, clients or len(jobs)))


async def _campaign(jobs: Sequence[Job], nodes: int, gpus: int, losses: Sequence[float], clients: int) -> Outcome:
    cluster = Nodes(nodes, gpus)
    workers = SimulatedWorkers(cluster, nodes * gpus)
    workers.open()
    clock = asyncio.get_running_loop()
    for node, when in enumerate(losses):
        clock.call_later(when, cluster.fallen[node].set)
    gate = asyncio.Semaphore(clients)

    async def client(number: int, job: Job) -> None:
        async with gate:
            await asyncio.sleep(CLIENT + (number * APART if number < clients else 0))
            tasks = {"tasks": [None] * len(job.tasks)}
            request = {"kind": "evaluate", "experiment": tasks, "backbone": "stub", "row": str(number), "job": job}
            reply = await workers.do(request)
            assert "result" in reply, reply

    await asyncio.gather(*(client(number, job) for number, job in enumerate(jobs)))
    end = clock.time()
    for place in (places := list(workers.places)):
        place.cancel()
    await asyncio.gather(*places, return_exceptions=True)
    living = nodes * gpus * end - sum(gpus * (end - when) for when in losses if when < end)
    needed = sum(job.seconds() for job in jobs)
    assert abs(cluster.useful - needed) < 1e-3 * needed, (cluster.useful, needed)
    return Outcome(cluster.useful / living, cluster.again / needed, cluster.helped / needed, end)

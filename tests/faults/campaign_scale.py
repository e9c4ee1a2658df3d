"""Several nodes: one is lost in the middle, one joins, shares of a GPU; and a simulated cluster that loses some."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks._nodes import BEGUN, Nodes, StubWorkers, stub
from benchmarks.cluster import LOADS
from benchmarks.cluster import run as simulated
from harness import cluster
from harness.experiment import RunSpec
from tests.faults.pipeline import HERE, SMALL, Checkout, moments, unbroken
from tests.faults.sheet import Result

NODE = {"num_cpus": 1, "num_gpus": 1}
SHARED = RunSpec(workers=4, cpus_per_worker=0.5, gpus_per_worker=0.5)
"""Two workers on the GPU of each of two nodes."""
PATIENCE = 600
"""Seconds after which something counts as never happening."""
EPISODES, SECONDS = 20, 2.0
"""Of a stub job of one cell."""


def run(quick: bool) -> Iterator[Result]:
    yield from on_nodes()
    yield simulated_loss(1 if quick else 10)
    if not quick:
        yield from pipelines(3)


def on_nodes() -> Iterator[Result]:
    """Faults of stub workers on real nodes, one after another on one cluster, which take a minute to start."""
    with Nodes(NODE, NODE) as nodes, tempfile.TemporaryDirectory() as folder:
        yield from asyncio.run(_on_nodes(nodes, Path(folder)))


async def _on_nodes(nodes: Nodes, folder: Path) -> list[Result]:
    await asyncio.to_thread(cluster.connect, nodes.address, SHARED, False)
    workers = StubWorkers(SHARED)
    workers.open()
    said = await workers.fill(folder, SHARED.workers)
    return [shares(said), await node_lost(nodes, workers, folder), await node_joins(nodes, workers, folder)]


def shares(said: list[dict[str, Any]]) -> Result:
    """Two workers with half a GPU each on one GPU, told which by CUDA_VISIBLE_DEVICES."""
    at = [(worker["node"], worker["gpus"]) for worker in said]
    gpus = sorted({gpu for _, gpu in at})
    return Result(
        "run.gpus_per_worker: 0.5, two nodes of one GPU (on paper)",
        "two workers on each GPU, and each sees it alone",
        f"{len(said)} workers on {len({node for node, _ in at})} nodes, CUDA_VISIBLE_DEVICES {', '.join(gpus)}",
        gpus == ["0"] and len(set(at)) == 2 and all(at.count(place) == 2 for place in at),
    )


async def node_lost(nodes: Nodes, workers: StubWorkers, folder: Path) -> Result:
    """All processes of a node with two workers are killed while all four are busy; no node takes its place."""
    requests = [stub(folder / f"lost{n}", 1, SECONDS, EPISODES) for n in range(8)]
    asked = [asyncio.create_task(workers.do(request)) for request in requests]
    await asyncio.sleep(SECONDS * 0.6)
    await asyncio.to_thread(nodes.lose, next(iter(nodes.ray.worker_nodes)))
    replies = await asyncio.wait_for(asyncio.gather(*asked), PATIENCE)
    done = sum("result" in reply for reply in replies)
    twice = sum(len((Path(r["progress"]).parent / BEGUN).read_text().splitlines()) for r in requests) - 8 * EPISODES
    return Result(
        "a node of two is lost with two workers at work, and eight jobs to do",
        "all jobs are done on the node that is left; one episode a lost worker done twice at most",
        f"{done} of 8 done, {twice} episodes done twice",
        done == 8 and 0 <= twice <= 2,
    )


async def node_joins(nodes: Nodes, workers: StubWorkers, folder: Path) -> Result:
    """Two of four workers have had no room since the node was lost."""
    before = {worker["process"] for worker in await workers.fill(folder / "before", 2)}
    begun = time.monotonic()
    nodes.join(**NODE)  # in this thread, for Ray asks for signals there
    said = await asyncio.wait_for(workers.fill(folder / "joined", SHARED.workers), PATIENCE)
    there = {worker["node"] for worker in said if worker["process"] not in before}
    return Result(
        "a node joins a run whose workers do not all fit",
        "the others start on it and answer",
        f"{len(said)} of {SHARED.workers} workers answer, {time.monotonic() - begun:.0f} s after it began to join",
        len(said) == SHARED.workers and len(there) == 1,
    )


def simulated_loss(seeds: int) -> Result:
    """A loss costs the rest of an episode and the begin of a job, for each worker of the node."""
    runs = [simulated(LOADS["equal"], 64, 8, 1000, seed, losing=True) for seed in range(seeds)]
    worst, busy = max(run.again for run in runs), [run.busy for run in runs]
    return Result(
        f"1 of 64 nodes of 8 GPUs lost at a random moment, 1,000 jobs of 20 cells, simulated, {seeds} times",
        "at most 2% of the work is done twice, and the GPUs that are left are busy 95% of the time on average",
        f"at most {worst:.2%}; busy {sum(busy) / seeds:.1%}, at the worst {min(busy):.1%}",
        worst <= 0.02 and sum(busy) / seeds >= 0.95,
    )


def pipelines(count: int) -> Iterator[Result]:
    """The real pipeline on RAY_ADDRESS: tables byte-equal to those of its own local cluster."""
    yield broken("a node with one of two workers is lost at {} seeded moments of a pipeline", count, [NODE, NODE], lose)
    yield broken("a second node joins at {} seeded moments of a pipeline of two workers", count, [NODE], join)


def lose(nodes: Nodes) -> None:
    nodes.lose(next(iter(nodes.ray.worker_nodes)))


def join(nodes: Nodes) -> None:
    nodes.join(**NODE)


def broken(fault: str, count: int, first: list[dict[str, Any]], change: Callable[[Nodes], None]) -> Result:
    """Change the cluster in the middle of a run, which has to end by itself."""
    same, twice, said, whole = 0, [], "", unbroken()  # before anything else runs
    for moment in moments(fault, count):
        checkout = Checkout(SMALL)
        seen = {"DELTA_MEM_TALLY": str(checkout.tally), "PYTHONPATH": str(HERE / "tests/faults/tally")}
        with mock.patch.dict(os.environ, seen), Nodes(*first) as nodes:
            checkout.surroundings["RAY_ADDRESS"] = nodes.address
            this = checkout.start()
            if this.reaches(*whole.moment(moment)):
                change(nodes)
            code = this.wait()
        same += code == 0 and checkout.tables() == whole.tables
        said = said or ("" if code == 0 else f"; exit {code}: {this.said()[-300:]}")
        twice.append(checkout.twice())
        checkout.remove()
    return Result(
        fault.format(count),
        f"the run ends by itself, tables byte-equal {count} of {count}; one episode done twice at most",
        f"byte-equal {same} of {count}; at most {max(twice)} episodes twice{said}",
        same == count and max(twice) <= 1,
    )

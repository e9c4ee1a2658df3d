"""What a cluster is used for: how busy its GPUs are, what a lost node costs, what a cell costs beside the model.

The first two are simulated over the harness's own places and queue (:mod:`benchmarks._simulated`), the last one is
measured on Ray nodes of this machine, whose GPUs exist on paper.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from benchmarks._measured import Measured
from benchmarks._nodes import Nodes, StubWorkers, stub
from benchmarks._simulated import Job, Outcome, Task, campaign
from harness import cluster
from harness.experiment import RunSpec

BUSY_GOAL, AGAIN_GOAL, CELL_GOAL = 0.95, 0.02, 50.0
"""Share of the GPUs' time, share of the work that is done twice for a lost node, milliseconds a cell."""
TASKS, CELLS = 5, 4
"""Tasks of a stub job, and cells of each: 20 cells a job."""
SECONDS = 300.0
"""Of a stub cell on the average. Those of config/paper.yaml take 90 minutes by the plan."""
OFF = 0.3
"""Standard deviation of the logarithm of what the plan says over what a job takes: a factor of 1.35 either way."""

Load = list[tuple[list[list[float]], float]]
"""Of each job the seconds of its cells by task, and what the plan says of it."""


def equal(count: int, draw: random.Random) -> Load:
    """Cells that all take the same."""
    return [([[SECONDS] * CELLS] * TASKS, 1.0)] * count


def uneven(count: int, draw: random.Random, off: float = 0.0) -> Load:
    """Cells between half and one and a half of the mean."""
    found = []
    for _ in range(count):
        tasks = [[draw.uniform(0.5, 1.5) * SECONDS for _ in range(CELLS)] for _ in range(TASKS)]
        found.append((tasks, sum(map(sum, tasks)) * draw.lognormvariate(0, off)))
    return found


def unforeseen(count: int, draw: random.Random) -> Load:
    """The same, of which the plan knows little."""
    return uneven(count, draw, OFF)


def paper(count: int, draw: random.Random) -> Load:
    """Jobs of config/paper.yaml, of very different lengths: their cells as planned, a tenth more or less."""
    from harness.config import load
    from harness.plan import plan

    planned: defaultdict[object, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for estimate in plan(load("paper")):
        if estimate.cells:
            planned[estimate.job][estimate.step.partition("/")[0]].append(estimate.seconds)
    jobs, found = [list(tasks.values()) for tasks in planned.values()], []
    for _ in range(count):
        tasks = [[draw.lognormvariate(0, 0.1) * cell for cell in task] for task in draw.choice(jobs)]
        found.append((tasks, sum(map(sum, tasks)) * draw.lognormvariate(0, OFF)))
    return found


LOADS: dict[str, Callable[[int, random.Random], Load]] = {
    made.__name__: made for made in (equal, uneven, unforeseen, paper)
}


def simulated(nodes: int, gpus: int, jobs: int, seeds: int) -> list[Measured]:
    """Means over seeds. Longest job first, as the pipeline hands them in, but for ``any_order``."""

    def mean(name: str, figure: str = "busy", **changes: bool) -> float:
        runs = [run(LOADS[name], nodes, gpus, jobs, seed, **changes) for seed in range(seeds)]
        return statistics.fmean(getattr(each, figure) for each in runs)

    begun = time.process_time()
    found = [Measured(f"{name}.busy", mean(name), at_least=BUSY_GOAL) for name in LOADS]
    cost = 1000 * (time.process_time() - begun) / (len(LOADS) * seeds * jobs * TASKS * CELLS)
    return [
        *found,
        Measured("uneven.any_order.busy", mean("uneven", ordered=False)),
        Measured("equal.node_lost.busy", mean("equal", losing=True)),
        Measured("equal.node_lost.again", mean("equal", "again", losing=True), at_most=AGAIN_GOAL),
        Measured("paper.helping", mean("paper", "helped")),
        Measured("handing_out", cost, "ms a cell", at_most=CELL_GOAL),
    ]


def run(
    made: Callable[[int, random.Random], Load],
    nodes: int,
    gpus: int,
    jobs: int,
    seed: int,
    ordered: bool = True,
    losing: bool = False,
) -> Outcome:
    """One campaign; losing, one node in a hundred (one at least) at a random moment of it."""
    draw = random.Random(seed)
    load = made(jobs, draw)
    if ordered:
        load.sort(key=lambda job: job[1], reverse=True)
    work = sum(sum(map(sum, tasks)) for tasks, _ in load)
    losses = [draw.random() * work / (nodes * gpus) for _ in range(max(1, round(nodes / 100)) if losing else 0)]
    built = [Job([Task(cells) for cells in tasks]) for tasks, _ in load]
    return campaign(built, nodes, gpus, losses, clients=nodes * gpus * 11 // 10 + 1)


def on_ray(nodes: int, workers: int, jobs: int, seconds: float) -> list[Measured]:
    """What a stub cell takes beside its own seconds: handing out, journal, mark of its end.

    Args:
        workers: On each node.
        jobs: For each worker.
        seconds: Of a cell.
    """
    cells, count = TASKS * CELLS, nodes * workers
    settings = RunSpec(workers=count, cpus_per_worker=1 / workers, gpus_per_worker=1)
    each = {"num_cpus": 1, "num_gpus": workers}

    async def measured(folder: Path, address: str) -> float:
        await asyncio.to_thread(cluster.connect, address, settings, True)
        pool = StubWorkers(settings)
        pool.open()
        await pool.fill(folder, count)
        requests = [stub(folder / str(n), cells, seconds) for n in range(count * jobs)]
        begun = time.perf_counter()
        replies = await asyncio.gather(*map(pool.do, requests))
        passed = time.perf_counter() - begun
        assert all("result" in reply for reply in replies), replies
        return 1000 * (passed * count - cells * seconds * len(requests)) / (cells * len(requests))

    with tempfile.TemporaryDirectory() as folder, Nodes(*[each] * nodes) as made:
        over = asyncio.run(measured(Path(folder), made.address))
    return [Measured(f"ray.{nodes}_nodes.overhead", over, "ms a cell", at_most=CELL_GOAL)]

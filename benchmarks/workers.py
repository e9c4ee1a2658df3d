"""What a second worker costs and gives: its memory beside the first one's, and the seconds of an evaluation.

Each worker computes with one thread. Memory is what only the process itself holds (private pages), not what is resident
in it: mapped weights are resident in every worker and lie in memory once.
"""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks._measured import Measured

MEMORY_GOAL = 40.0
"""Percent of a copy of the weights."""
SPEED_GOAL = 1.6
ROWS = 4
"""Equal jobs of an evaluation, so that they can be shared out evenly."""
LOOP = "import time\nbegin = time.perf_counter()\nfor n in range({}):\n    pass\nprint(time.perf_counter() - begin)"
TURNS = 60_000_000
"""Of the loop that shows what two cores are worth: some seconds."""


def measure(backbone: str, questions: int, repeats: int, ways: list[str]) -> list[Measured]:
    """Memory and speed of two workers beside one.

    Args:
        backbone: As in :meth:`harness.session.Session.open`.
        questions: Of each of the evaluation's jobs.
        repeats: Evaluations with one and with two workers; medians count.
        ways: Of ``memory`` and ``speed``.
    """
    from harness.errors import HarnessError, nearest

    unknown = next((way for way in ways if way not in WAYS), None)
    if unknown:
        raise HarnessError(f"unknown way '{unknown}'; {nearest(unknown, WAYS)}")
    from harness.session import source_of

    spec = source_of(backbone)
    return [m for way in WAYS if way in ways for m in WAYS[way](spec, questions, repeats)]


# --- memory ---


def _memory(spec: dict[str, str], questions: int, repeats: int) -> list[Measured]:
    spawn = multiprocessing.get_context("spawn")
    held = []
    for _ in range(2):  # the first stays while the second one opens
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_hold, args=(spec, theirs))
        process.start()
        held.append((process, ours, ours.recv()))
    for process, ours, _ in held:
        ours.send(None)
        process.join()
    first, second = (found for _, _, found in held)
    return [
        Measured("weights", second["weights"], "MB"),
        Measured("second.private", second["private"], "MB"),
        Measured("second.proportional", second["proportional"], "MB"),
        Measured("first.written_pages_of_weights", first["written"], "MB", at_most=0.0),
        Measured("second.of_a_copy", 100 * second["private"] / second["weights"], "%", at_most=MEMORY_GOAL),
    ]


def _hold(spec: dict[str, str], link: Connection) -> None:
    """Open a backbone, compute with it, tell what memory that took, and hold it until told to go."""
    import torch

    from harness import backbones
    from harness.experiment import BackboneSpec, RunSpec

    torch.set_num_threads(1)
    run = RunSpec(device="cpu")
    _use(backbones.open_backbone(BackboneSpec(random="tiny-llama"), run))  # code is not of the backbone
    gc.collect()
    before = _pages(Path("/proc/self/smaps_rollup"))
    opened = backbones.open_backbone(BackboneSpec(**spec), run)
    _use(opened)
    gc.collect()
    after = _pages(Path("/proc/self/smaps_rollup"))
    mapped = _pages(Path("/proc/self/smaps"), ".safetensors")
    link.send(
        {
            "weights": sum(p.nbytes for p in opened.model.parameters()) / 1e6,
            "private": _private(after) - _private(before),
            "proportional": after["Pss"] - before["Pss"],
            "written": mapped.get("Private_Dirty", 0.0),
        }
    )
    link.recv()


def _use(backbone: Any) -> None:
    import torch

    with torch.no_grad():
        backbone.model(torch.arange(32)[None])


def _private(pages: dict[str, float]) -> float:
    return pages["Private_Clean"] + pages["Private_Dirty"]


def _pages(file: Path, of: str = "") -> dict[str, float]:
    """MB by kind from a file of /proc, summed over the mappings whose path ends in ``of``."""
    found: dict[str, float] = {}
    counts = not of
    for line in file.read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            counts = line.endswith(of)
        elif counts and rest[1:] == ["kB"]:
            found[name[:-1]] = found.get(name[:-1], 0.0) + int(rest[0]) * 1024 / 1e6
    return found


# --- speed ---


def _speed(spec: dict[str, str], questions: int, repeats: int) -> list[Measured]:
    seconds: dict[int, list[float]] = {1: [], 2: []}
    loops: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):  # in turn, so that what else the machine does befalls both
        for workers in (1, 2):
            loops[workers].append(_loops(workers))
            seconds[workers].append(_evaluation(spec, questions, workers))
    one, two = (statistics.median(seconds[n]) for n in (1, 2))
    gain = statistics.median(a / b for a, b in zip(seconds[1], seconds[2], strict=True))
    ceiling = statistics.median(2 * a / b for a, b in zip(loops[1], loops[2], strict=True))
    return [
        Measured("one_worker", one, "s", at_least=60.0),
        Measured("two_workers", two, "s"),
        Measured("two_workers.faster", gain, "times", at_least=SPEED_GOAL),
        Measured("two_loops.faster", ceiling, "times"),
        Measured("two_workers.of_what_two_loops_get", 100 * gain / ceiling, "%"),
    ]


def _loops(count: int) -> float:
    """Seconds of the slowest of so many loops that do nothing but count, at the same time."""
    command = [sys.executable, "-c", LOOP.format(TURNS)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return max(float(process.communicate()[0]) for process in running)


def _evaluation(spec: dict[str, str], questions: int, workers: int) -> float:
    """Seconds of an evaluation of ``ROWS`` jobs on warm workers."""
    from harness import cluster, executor
    from harness.experiment import RunSpec

    with tempfile.TemporaryDirectory() as results:
        experiment = _experiment(spec, questions, workers)
        request = {"experiment": experiment, "backbone": "backbone", "seed": 42, "results": results}
        with cluster.running(RunSpec.model_validate(experiment["run"])) as address, ThreadPoolExecutor(ROWS) as clients:
            before = os.environ.get(cluster.ADDRESS)
            os.environ[cluster.ADDRESS] = str(address)
            try:
                list(clients.map(executor.submit, [{**request, "kind": "prepare"}] * workers))
                begin = time.perf_counter()
                jobs = [{**request, "kind": "evaluate", "row": row["row"]} for row in experiment["rows"]]
                list(clients.map(executor.submit, jobs))
                return time.perf_counter() - begin
            finally:
                os.environ.pop(cluster.ADDRESS)
                if before is not None:
                    os.environ[cluster.ADDRESS] = before


def _experiment(spec: dict[str, str], questions: int, workers: int) -> dict[str, Any]:
    """Rows that do the same, so that their jobs take equally long."""
    from harness import config

    whole = copy.deepcopy(config.load("smoke").model_dump(mode="json", by_alias=True))
    task = {"task": "write_clear_read", "limit": questions, "conditions": {"replayed": ["own"]}}
    return {
        **whole,
        "name": "workers",
        "backbones": {"backbone": spec},
        "rows": [{"row": f"frozen{n}", "method": "frozen"} for n in range(ROWS)],
        "tasks": [task],
        "primary": "",
        "run": {"workers": workers, "cpus_per_worker": 1, "device": "cpu"},
    }


WAYS: dict[str, Callable[[dict[str, str], int, int], list[Measured]]] = {"memory": _memory, "speed": _speed}

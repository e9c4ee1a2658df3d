"""``kill -9`` of a worker, of the raylet, of the head, of the control store, of the guard, at seeded moments."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psutil

from tests.faults.campaign_kills import Score, broken, compare, finish
from tests.faults.pipeline import ONE, SHORT, moments
from tests.faults.sheet import Result


def run(quick: bool) -> Iterator[Result]:
    for name in TARGETS:
        yield of_part(name, 1 if quick else 10)


def is_worker(process: psutil.Process) -> bool:
    """A process of Ray's in which jobs run."""
    return "ray::Worker" in " ".join(process.cmdline()) or process.name().startswith("ray::Worker")


def is_raylet(process: psutil.Process) -> bool:
    return process.name() == "raylet"


def is_store(process: psutil.Process) -> bool:
    """Ray's global control store."""
    return process.name() == "gcs_server"


def is_head(process: psutil.Process) -> bool:
    """The process that started Ray, which watches over its parts."""
    return "ray.scripts.scripts" in process.cmdline()


def is_cluster(process: psutil.Process) -> bool:
    """The cluster's guard or its supervisor: the ones that Ray's processes belong to."""
    return "harness.cluster" in process.cmdline()


TARGETS: dict[str, Callable[[psutil.Process], bool]] = {
    "a Ray worker": is_worker,
    "the raylet": is_raylet,
    "the head": is_head,
    "the control store": is_store,
    "the cluster's guard or supervisor": is_cluster,
}


def of_part(name: str, count: int) -> Result:
    """Kill one of Ray's processes: the run goes on, or ends with a cause and the same command completes it."""
    score = Score()
    for moment in moments(name, count):
        checkout, first = broken(moment, lambda first: first.members(TARGETS[name]), ONE, SHORT)
        if first.wait() == 0:
            score.alone += 1
            compare(score, checkout)
        else:
            causes = [line for line in first.sentences() if "again" in line]
            score.named += bool(causes)
            if not causes:
                score.faults.append(f"no cause named: {first.said()[-300:]}")
            finish(score, checkout)
        if left := first.left():
            score.faults.append(f"left running: {left[0]}")
    return Result(
        f"kill -9 of {name} at {count} seeded moments",
        f"tables byte-equal {count} of {count}, at once or, after an end with a named cause, by the same command",
        f"byte-equal {score.same} of {score.kills}; {score.alone} went on by themselves, {score.named} named the cause"
        f"{score.flaws}",
        score.same == score.kills == count and not score.faults,
    )

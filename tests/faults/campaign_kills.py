"""``kill -9`` of the pipeline, of a worker, of the raylet, of the head, at seeded moments of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil

from tests.faults.pipeline import SHORT, WHOLE, Checkout, Run, moments, unbroken
from tests.faults.sheet import Result

WORKERS = 2
TRIES = 4
"""Runs that are begun for one kill: one may be done before its moment comes, or have no such process yet."""


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


TARGETS: dict[str, Callable[[psutil.Process], bool]] = {
    "a Ray worker": is_worker,
    "the raylet": is_raylet,
    "the head": is_head,
    "the control store": is_store,
}


@dataclass
class Score:
    """What the kills of one kind came to."""

    kills: int = 0
    same: int = 0
    """Kills after which the tables had the bytes of the unbroken run."""
    alone: int = 0
    """Kills that the run survived, so that nothing had to be called again."""
    named: int = 0
    """Runs that ended with a cause."""
    twice: list[int] = field(default_factory=list)
    """Episodes that were answered again, a kill."""
    faults: list[str] = field(default_factory=list)
    """What went wrong, where something did."""

    @property
    def flaws(self) -> str:
        return "".join(f"; {fault}" for fault in dict.fromkeys(self.faults))


def run(quick: bool) -> Iterator[Result]:
    yield of_pipeline(2 if quick else 25)
    for name in TARGETS:
        yield of_part(name, 1 if quick else 10)


def of_pipeline(count: int) -> Result:
    """Kill Snakemake and nothing else; the same command again has to end as if nothing had been."""
    score = Score()
    for moment in moments("pipeline", count):
        checkout, first = broken(moment, lambda first: [first.process], WHOLE)
        first.process.wait()
        if left := first.left():
            score.faults.append(f"left running: {left[0]}")
        finish(score, checkout)
    most = max(score.twice, default=0)
    return Result(
        f"kill -9 of the pipeline at {count} seeded moments, the same command again",
        f"tables byte-equal {count} of {count}; no unlock; one episode a worker done twice at most; none left running",
        f"byte-equal {score.same} of {score.kills}; at most {most} episodes twice with {WORKERS} workers{score.flaws}",
        score.same == score.kills == count and most <= WORKERS and not score.faults,
    )


def of_part(name: str, count: int) -> Result:
    """Kill one of Ray's processes: the run goes on, or ends with a cause and the same command completes it."""
    score = Score()
    for moment in moments(name, count):
        checkout, first = broken(moment, lambda first: first.members(TARGETS[name]), SHORT)
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


def broken(share: float, targets: Callable[[Run], list], target: str) -> tuple[Checkout, Run]:
    """A run of which one process was killed after a share of the work that an unbroken one does.

    Raises:
        TimeoutError: no run lasted until its moment with such a process.
    """
    for again in range(TRIES):
        checkout = Checkout(target=target)
        run = checkout.start()
        runs = run.reaches(*unbroken(target=target).moment(share * 0.9**again))
        while runs:
            if found := targets(run):
                found[int(share * 1000) % len(found)].kill()
                print(f"killed after {run.steps()} steps ({share:.0%})", file=sys.stderr, flush=True)
                return checkout, run
            runs = not run.ends_by(0.5)  # it is not there yet
        checkout.remove()
    raise TimeoutError(f"{TRIES} runs ended before {share:.0%} of an unbroken one's work was done")


def finish(score: Score, checkout: Checkout) -> None:
    """The same command once more, to its end."""
    again = checkout.start()
    if again.wait() != 0:
        score.faults.append(f"the same command again failed: {again.said()[-300:]}")
    again.left()
    compare(score, checkout)


def compare(score: Score, checkout: Checkout) -> None:
    """Hold the tables against the unbroken run's, and count what was done twice."""
    score.kills += 1
    score.same += checkout.tables() == unbroken(target=checkout.target).tables
    score.twice.append(checkout.twice())
    print(f"byte-equal {score.same} of {score.kills}{score.flaws}", file=sys.stderr, flush=True)
    checkout.remove()

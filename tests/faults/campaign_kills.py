"""``kill -9`` of the pipeline at seeded moments of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.faults.pipeline import SMALL, TRIES, WHOLE, Checkout, Run, moments, unbroken, under_way
from tests.faults.sheet import Result

WORKERS = 2


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


def of_pipeline(count: int) -> Result:
    """Kill Snakemake and nothing else; the same command again has to end as if nothing had been."""
    score = Score()
    for moment in moments("pipeline", count):
        checkout, first = broken(moment, lambda first: [first.process])
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


def broken(
    share: float, targets: Callable[[Run], list], changes: tuple[str, ...] = SMALL, target: str = WHOLE
) -> tuple[Checkout, Run]:
    """A run of which one process was killed after a share of the work that an unbroken one does.

    Raises:
        TimeoutError: no run had such a process.
    """
    for again in range(TRIES):
        checkout, run = under_way(share * 0.9**again, changes, target)
        while not run.ends_by(0.1):
            if found := targets(run):
                found[int(share * 1000) % len(found)].kill()
                print(f"killed after {run.steps()} steps ({share:.0%})", file=sys.stderr, flush=True)
                return checkout, run
        run.left()
        checkout.remove()
    raise TimeoutError(f"in {TRIES} runs there was nothing to kill after {share:.0%} of the work")


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
    score.same += checkout.tables() == unbroken(checkout.changes, checkout.target).tables
    score.twice.append(checkout.twice())
    print(f"byte-equal {score.same} of {score.kills}{score.flaws}", file=sys.stderr, flush=True)
    checkout.remove()

"""Ctrl-C once and twice, and two pipelines on one results folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from signal import SIGINT

from tests.faults.pipeline import Checkout, Run, moments, unbroken
from tests.faults.sheet import Result

ORDERLY = 10
"""Seconds that an interrupted run may take to end."""
AT_ONCE = 2
"""Seconds that one interrupted twice may take."""


def run(quick: bool) -> Iterator[Result]:
    yield interrupted_once(1 if quick else 5)
    yield interrupted_twice(1 if quick else 5)
    yield two_pipelines(1 if quick else 3)


def interrupted_once(count: int) -> Result:
    """The signal reaches Snakemake alone, as from ``kill -INT``; a terminal sends it to the jobs too."""
    seconds, same, left = [], 0, []
    for moment in moments("interrupt", count):
        checkout = Checkout()
        first = checkout.start()
        if not first.ends_by(moment * unbroken()[1]):
            seconds.append(interrupt(first, 1))
            left += first.left(5)
        same += checkout.start().wait() == 0 and checkout.tables() == unbroken()[0]
        checkout.remove()
    slowest = max(seconds, default=0.0)
    return Result(
        f"SIGINT once at {count} seeded moments, the same command again",
        f"ends within {ORDERLY} s, nothing left running, then byte-equal tables {count} of {count}",
        f"{len(seconds)} interrupted, the slowest ended after {slowest:.1f} s, {len(left)} processes left; "
        f"byte-equal {same}",
        same == count == len(seconds) and slowest <= ORDERLY and not left,
    )


def interrupted_twice(count: int) -> Result:
    """The second signal follows half a second after the first."""
    seconds, left = [], []
    for moment in moments("interrupt twice", count):
        checkout = Checkout()
        first = checkout.start()
        if not first.ends_by(moment * unbroken()[1]):
            seconds.append(interrupt(first, 2))
            left += first.left(5)
        checkout.remove()
    slowest = max(seconds, default=0.0)
    return Result(
        f"SIGINT twice, half a second apart, at {count} seeded moments",
        f"ends within {AT_ONCE} s of the second, nothing left running",
        f"{len(seconds)} interrupted, the slowest ended after {slowest:.1f} s, {len(left)} processes left",
        len(seconds) == count and slowest <= AT_ONCE and not left,
    )


def interrupt(run: Run, times: int) -> float:
    """Seconds from the last of the signals to the end."""
    for _ in range(times - 1):
        run.process.send_signal(SIGINT)
        run.ends_by(0.5)
    begun = time.monotonic()
    run.process.send_signal(SIGINT)
    run.wait(120)
    return time.monotonic() - begun


def two_pipelines(count: int) -> Result:
    """The second one begins while the first one works."""
    refused, same, said = 0, 0, []
    for moment in moments("two pipelines", count):
        checkout = Checkout()
        first = checkout.start()
        while not (checkout.folder / "results/smoke/logs").exists():
            assert not first.ends_by(0.1), first.said()  # it has the lock from then on
        first.ends_by(moment * unbroken()[1] / 3)
        second = checkout.start()
        code, said = second.wait(120), second.sentences()
        refused += code != 0 and len(said) == 1 and "another pipeline works in" in said[0]
        same += first.wait() == 0 and checkout.tables() == unbroken()[0]
        checkout.remove()
    return Result(
        f"two pipelines on one results folder, {count} times",
        "the second refuses in one sentence, the first ends with the same bytes",
        f"refused {refused}, byte-equal {same} of {count} ({'; '.join(said)})",
        refused == same == count,
    )

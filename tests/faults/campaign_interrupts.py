"""Ctrl-C once and twice, SIGTERM, a terminal closed or resized, and two pipelines on one results folder."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from signal import SIGINT, SIGTERM

from tests.faults.pipeline import ONE, SHORT, Checkout, Run, moments, unbroken, under_way
from tests.faults.sheet import Result
from tests.faults.terminal import Terminal

ORDERLY = 10
"""Seconds that an interrupted run may take to end."""
AT_ONCE = 2
"""Seconds that one interrupted twice may take."""
SIZES = ((24, 80), (50, 200), (5, 20), (1, 1), (0, 0))
"""Rows and columns of a window that is dragged about."""


def run(quick: bool) -> Iterator[Result]:
    yield asked("SIGINT once", 1 if quick else 5, interrupt)
    yield asked("SIGINT twice, half a second apart,", 1 if quick else 5, interrupt_twice, AT_ONCE)
    yield asked("SIGTERM", 1 if quick else 3, lambda first: first.process.send_signal(SIGTERM))
    yield asked("SIGTERM to the jobs too", 1 if quick else 3, lambda first: os.killpg(first.process.pid, SIGTERM))
    yield asked("the terminal closed", 1 if quick else 3, lambda first: first.terminal.close(), terminal=Terminal)
    yield resized()
    yield two_pipelines(1 if quick else 3)


def interrupt(run: Run) -> None:
    """As from ``kill -INT``; a terminal sends it to the jobs too."""
    run.process.send_signal(SIGINT)


def interrupt_twice(run: Run) -> None:
    interrupt(run)
    if not run.ends_by(0.5):
        interrupt(run)


def asked(
    fault: str,
    count: int,
    ask: Callable[[Run], None],
    patience: float = ORDERLY,
    terminal: Callable[[], Terminal | None] = lambda: None,
) -> Result:
    """A run is asked to end, and the same command then goes on from there."""
    seconds, same, left = [], 0, []
    for moment in moments(fault, count):
        checkout, first = under_way(moment, ONE, SHORT, terminal)
        ask(first)
        begun = time.monotonic()
        first.wait(120)
        seconds.append(time.monotonic() - begun)
        left += first.left(5)
        same += checkout.start().wait() == 0 and checkout.tables() == unbroken(ONE, SHORT).tables
        checkout.remove()
        print(f"ended after {', '.join(f'{each:.1f}' for each in seconds)} s", file=sys.stderr, flush=True)
    slowest = max(seconds)
    return Result(
        f"{fault} at {count} seeded moments, the same command again",
        f"ends within {patience} s, nothing left running, then byte-equal tables {count} of {count}",
        f"the slowest ended after {slowest:.1f} s, {len(left)} processes left; byte-equal {same} of {count}",
        same == count and slowest <= patience and not left,
    )


def resized() -> Result:
    """With Snakemake's bars; every other run of these campaigns has no terminal at all."""
    checkout, terminal, sizes = Checkout(ONE, SHORT), Terminal(), itertools.cycle(SIZES)
    run = checkout.start(terminal)
    while not run.ends_by(0.3):
        terminal.resize(*next(sizes))
    broken = run.said().count("Traceback")
    same = run.wait() == 0 and checkout.tables() == unbroken(ONE, SHORT).tables
    run.left()
    checkout.remove()
    return Result(
        "the terminal resized all the time, down to no size",
        "no traceback, byte-equal tables",
        f"{broken} tracebacks, {'' if same else 'not '}byte-equal",
        same and not broken,
    )


def two_pipelines(count: int) -> Result:
    """The second one begins while the first one works."""
    refused, same, said = 0, 0, []
    for moment in moments("two pipelines", count):
        checkout = Checkout(ONE, SHORT)
        first = checkout.start()
        while not (checkout.folder / "results/smoke/logs").exists():
            assert not first.ends_by(0.1), first.said()  # it has the lock from then on
        assert first.reaches(*unbroken(ONE, SHORT).moment(moment * 0.5)), first.said()
        second = checkout.start()
        code, said = second.wait(120), second.sentences()
        refused += code != 0 and len(said) == 1 and "another pipeline works in" in said[0]
        same += first.wait() == 0 and checkout.tables() == unbroken(ONE, SHORT).tables
        first.left()
        checkout.remove()
    return Result(
        f"two pipelines on one results folder, {count} times",
        "the second refuses in one sentence, the first ends with the same bytes",
        f"refused {refused}, byte-equal {same} of {count} ({'; '.join(said)})",
        refused == same == count,
    )

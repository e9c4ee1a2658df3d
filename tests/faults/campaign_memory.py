"""Memory that does not suffice: torch says so, or the kernel kills the worker; for several questions, or for one."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from pathlib import Path

from harness import records, shortage
from tests.faults.pipeline import Checkout
from tests.faults.sheet import Result
from tests.faults.tally.shortage import GROUPS

LONGEST = 600
"""Seconds after which a run counts as one that does not end."""


def run(quick: bool) -> Iterator[Result]:
    ways = {"torch's allocator refuses": "torch", "the kernel kills the worker of": "kernel"}
    for words, how in ways.items():
        if how == "kernel" and not _may_limit():
            yield Result(
                f"{words} a batch", "as above", "not done", False, "this user may not limit a process's memory"
            )
            continue
        yield halved(f"{words} more than one question at a time", f"{how}:1")
        if not quick or how == "kernel":
            yield failed(f"{words} even one question", f"{how}:0")


def _may_limit() -> bool:
    probe = GROUPS / "faults-probe"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


@functools.cache
def unbroken() -> dict[str, bytes]:
    """The tables of a run with memory enough."""
    checkout = Checkout()
    run = checkout.start()
    assert run.wait() == 0, run.said()
    tables = checkout.tables()
    run.left()
    checkout.remove()
    return tables


def halved(fault: str, short: str) -> Result:
    """What is too much for several questions suffices for one: the same answers, by one command."""
    expected, checkout, kills = unbroken(), Checkout(DELTA_MEM_SHORT=short), shortage.kills()
    run = checkout.start()
    code = run.wait(LONGEST)
    least = [made.provenance.least_batch for made in _records(checkout.folder)]
    same = checkout.tables() == expected
    said = "" if code == 0 else f"; exit {code}: {run.said()[-300:]}"
    _clear(checkout, run)
    return Result(
        fault,
        "tables byte-equal by the one command; every record says that batches were halved down to 1",
        f"{'byte-equal' if same else 'differ'}; {least.count(1)} of {len(least)} records say so; "
        f"{shortage.kills() - kills} workers lost{said}",
        code == 0 and same and bool(least) and set(least) == {1},
    )


def failed(fault: str, short: str) -> Result:
    """Nothing can be answered: failures with a reason, or an end with a cause; and with memory all is as ever."""
    expected, checkout, kills = unbroken(), Checkout(DELTA_MEM_SHORT=short), shortage.kills()
    begun = time.monotonic()
    run = checkout.start()
    code = run.wait(LONGEST)
    seconds, lost = time.monotonic() - begun, shortage.kills() - kills
    found = [failure for made in _records(checkout.folder) for failure in made.failures]
    told = [f for f in found if f.status == "skipped" and "memory" in f.reason and ";" in f.reason]
    causes = [line for line in run.sentences() if "for want of memory" in line and "again" in line]
    run.left()
    checkout.surroundings.clear()
    again = checkout.start()
    same = again.wait() == 0 and checkout.tables() == expected
    _clear(checkout, again)
    return Result(
        fault,
        "ends; each question without an answer has its reason in a record, or the command ends with a cause; the same "
        "command with memory enough gives the same bytes",
        f"ended after {seconds:.0f} s with exit {code} and {lost} workers lost; {len(told)} of {len(found)} failures "
        f"give the reason{'; ' + causes[0] if causes else ''}; then {'byte-equal' if same else 'tables differ'}",
        same and len(told) == len(found) and (bool(found) if code == 0 else bool(causes)),
    )


def _records(folder: Path) -> list[records.Record]:
    return [records.load(path) for path in sorted(folder.glob("results/**/record.json"))]


def _clear(checkout: Checkout, run) -> None:
    run.left()
    for group in GROUPS.glob("faults-*"):
        try:
            group.rmdir()
        except OSError:
            continue  # another campaign's
    checkout.remove()

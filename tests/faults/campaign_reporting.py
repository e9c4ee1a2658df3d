"""What is killed while tables, figures and the manifest are made of finished answers, and what a kill leaves there."""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
from collections.abc import Iterator

import psutil

from tests.faults.pipeline import SEED, SMALL, WHOLE, Checkout, Run, unbroken
from tests.faults.sheet import Result

INLINE = (*SMALL, "run.executor=inline")
"""Ray has no part in it."""
STEPS = ("tables", "audit", "figures", "report", "manifest")
LONGEST = 1.5
"""Seconds after a step's begin until which it is killed."""
TORN = """#!/bin/sh
head -c 100 "$1" > "$(for last; do :; done; echo "$last")/$(basename "$1")"
kill -9 0
"""
"""A ``cp`` in whose midst the machine goes down: its whole process group dies with half of the first file there."""


def run(quick: bool) -> Iterator[Result]:
    checkout = Checkout(INLINE)
    first = checkout.start()
    assert first.wait() == 0, first.said()
    yield killed(checkout, "Snakemake", 1 if quick else 3)
    yield killed(checkout, "the step's own process", 1 if quick else 3)
    yield torn(checkout)
    yield stale(checkout)
    checkout.remove()


def killed(checkout: Checkout, what: str, count: int) -> Result:
    """Kill it in each step in turn, from step to step by the same command."""
    draws, kills, same, wrong = random.Random(f"{SEED} {what}"), 0, 0, []
    for _ in range(count):
        forget(checkout)
        for step in STEPS:
            begun = checkout.start()
            if process := in_step(begun, step, draws.uniform(0, LONGEST)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    (begun.process if what == "Snakemake" else process).kill()
                    kills += 1
            begun.wait()
            wrong += begun.left(5) + half_written(checkout)
        same += completes(checkout)
        print(f"{what}: {kills} kills, {same} byte-equal", file=sys.stderr, flush=True)
    return Result(
        f"kill -9 of {what} in each of {', '.join(STEPS)}, {count} times",
        f"nothing half-written under a final name, nothing left running, then byte-equal tables {count} of {count}",
        f"{kills} kills; {'; '.join(wrong) or 'nothing half-written or left'}; byte-equal {same} of {count}",
        same == count and not wrong and kills > count,
    )


def torn(checkout: Checkout) -> Result:
    """As a machine that goes down while the tables are published."""
    forget(checkout)
    with goes_down_in_a_copy(checkout):
        code = checkout.start().wait()
    wrong = half_written(checkout)
    same = completes(checkout)
    return Result(
        "the machine goes down while the tables are published",
        "no half of a table under its final name, then byte-equal tables",
        f"exit {code}; {'; '.join(wrong) or 'nothing half-written'}; {'' if same else 'not '}byte-equal",
        same and code != 0 and not wrong,
    )


@contextlib.contextmanager
def goes_down_in_a_copy(checkout: Checkout) -> Iterator[None]:
    """As long as this lasts, ``cp`` is the other one."""
    checkout.programs.mkdir()
    program = checkout.programs / "cp"
    program.write_text(TORN)
    program.chmod(0o755)
    try:
        yield
    finally:
        shutil.rmtree(checkout.programs)


def stale(checkout: Checkout) -> Result:
    """Snakemake's own lock and marks, as a kill leaves them where someone ran it without the project's profile."""
    forget(checkout)
    locks = checkout.folder / ".snakemake" / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    for kind in ("input", "output"):
        (locks / f"0.{kind}.lock").write_text("\n".join([WHOLE, "results/smoke/tables/main.tex"]))
    same = completes(checkout)
    return Result(
        "a stale lock of Snakemake's", "no manual unlock, byte-equal tables", "byte-equal" if same else "no", same
    )


def forget(checkout: Checkout) -> None:
    """Let the answers stand and all that is made of them be made again."""
    (checkout.folder / "results/smoke/manifest.json").unlink()


def in_step(run: Run, step: str, seconds: float) -> psutil.Process | None:
    """The process of a step, some seconds after it was begun; None where it has ended by then."""
    while not (found := run.members(lambda process: {"smoke", step} <= set(process.cmdline()))):
        if run.ends_by(0.05):
            return None
    run.ends_by(seconds)
    return found[-1] if found[-1].is_running() else None


def half_written(checkout: Checkout) -> list[str]:
    """Tables that are there and are not as they must be."""
    expected = unbroken(INLINE).tables
    folders = (checkout.folder / "tables", checkout.folder / "results/smoke/tables")
    there = [folder / name for folder in folders for name in expected if (folder / name).exists()]
    return [f"half of {path.parent.name}/{path.name}" for path in there if path.read_bytes() != expected[path.name]]


def completes(checkout: Checkout) -> bool:
    """Whether the same command ends with the tables of a run that nothing happened to."""
    again = checkout.start()
    return again.wait() == 0 and checkout.tables() == unbroken(INLINE).tables

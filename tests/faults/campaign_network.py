"""No network: the smoke run and the tests pass, and nothing tries to reach beyond the loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

from tests.faults import network
from tests.faults.pipeline import HERE, Checkout
from tests.faults.sheet import Result

QUICK = ("tests/unit/data", "tests/unit/tasks", "tests/unit/test_backbones.py")
"""Tests of what reads data and models, which might come from elsewhere."""
MAY_NOT = "this user may not do without a network"


def run(quick: bool) -> Iterator[Result]:
    yield smoke()
    yield tests(QUICK if quick else ("tests/unit",))


def smoke() -> Result:
    """The same run with the machine's network, whatever that is, and without any."""
    tables, said = [], []
    for without in (False, True):
        checkout = Checkout()
        if not without:
            run = checkout.start()
            run.wait()
        else:
            with network.none() as alone:
                if not alone:
                    return Result("no network", "the smoke run's bytes", "not done", False, MAY_NOT)
                run = checkout.start()
                run.wait()
                run.left()
                tried = network.attempts()
        tables.append(checkout.tables())
        said.append(run.said()[-300:] if run.process.returncode else "")
        run.left()
        checkout.remove()
    same = bool(tables[0]) and tables[0] == tables[1]
    return Result(
        "no network: the smoke run",
        "tables byte-equal to those made with one, 0 attempts to reach beyond the loopback",
        f"{'byte-equal' if same else 'tables differ'}, {tried} attempts{''.join(said)}",
        same and tried == 0,
    )


def tests(which: tuple[str, ...]) -> Result:
    """Attempts are told and not judged: a test may ask for what is nowhere."""
    with network.none() as alone:
        if not alone:
            return Result("no network: the tests", "pass", "not done", False, MAY_NOT)
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *which],
            cwd=HERE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        tried = network.attempts()
    last = (ended.stdout.strip().splitlines() or [""])[-1]
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", ended.stdout, re.MULTILINE)
    return Result(
        f"no network: {', '.join(which)}",
        "all pass",
        f"{last.strip('= ')}, {tried} attempts to reach beyond the loopback{'; ' if failed else ''}{', '.join(failed)}",
        ended.returncode == 0,
    )

"""Results on a disk that is full, at many amounts of room, or read-only, or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow

from harness import records
from harness.errors import HarnessError
from tests.faults import disks
from tests.faults.pipeline import Checkout, Run
from tests.faults.sheet import Result

LARGE = 200_000_000
"""Bytes that are enough for a run."""
MAY_NOT = "this user may not mount a disk"
GOAL = "one sentence with the path and the mend, nothing half-written under its final name"


def run(quick: bool) -> Iterator[Result]:
    expected, needed = unbroken()
    if not needed:
        yield Result("full and read-only disks", GOAL, "not done", False, MAY_NOT)
        return
    count = 2 if quick else 10
    yield full([round(needed * (part + 0.5) / count) for part in range(count)], expected)
    yield read_only()
    yield not_there("results that link to a disk that is not there", lambda at: at.symlink_to("/mnt/not-there"))
    yield not_there("a file in the place of the results", lambda at: at.write_text(""))


def unbroken() -> tuple[dict[str, bytes], int]:
    """The tables of a run with room enough, and the bytes of its results; 0 where no disk may be mounted."""
    checkout = Checkout()
    with disks.disk(checkout.folder / "results", LARGE) as mounted:
        if not mounted:
            return {}, 0
        this = checkout.start()
        assert this.wait() == 0, this.said()
        this.left()
        tables, needed = checkout.tables(), shutil.disk_usage(checkout.folder / "results").used
    checkout.remove()
    return tables, needed


def full(rooms: list[int], expected: dict[str, bytes]) -> Result:
    """Each time the run ends where the room does; with more room the same command completes it."""
    named, same, faults = 0, 0, []
    for room in rooms:
        checkout = Checkout()
        results = checkout.folder / "results"
        with disks.disk(results, room):
            first = checkout.start()
            if first.wait() == 0:
                faults.append(f"{room:,} bytes were enough")
            told = [said for said in first.sentences() if "results" in said and "disk is full; free some space" in said]
            named += bool(told)
            faults += [] if told else [f"with {room:,} bytes it said {first.sentences() or first.said()[-300:]}"]
            faults += torn(results)
            first.left()
            disks.change(results, f"size={LARGE}")
            again = checkout.start()
            same += again.wait() == 0 and checkout.tables() == expected
            again.left()
        checkout.remove()
    return Result(
        f"a full disk, with room for {len(rooms)} shares of what a run leaves",
        f"{GOAL}; with more room the same command gives the same bytes",
        f"named {named}, then byte-equal {same} of {len(rooms)}{''.join(f'; {fault}' for fault in faults)}",
        named == same == len(rooms) and not faults,
    )


def read_only() -> Result:
    checkout = Checkout()
    with disks.disk(checkout.folder / "results", LARGE):
        disks.change(checkout.folder / "results", "ro")
        first = checkout.start()
        result = refused("a read-only results folder", first, "disk is read-only; mount it writable")
    checkout.remove()
    return result


def not_there(fault: str, make) -> Result:
    checkout = Checkout()
    make(checkout.folder / "results")
    result = refused(fault, checkout.start(), "results")
    checkout.remove()
    return result


def refused(fault: str, run: Run, words: str) -> Result:
    code, said = run.wait(), run.sentences()
    left = run.left()
    met = code != 0 and len(said) == 1 and words in said[0] and "; " in said[0] and not left
    return Result(fault, GOAL, f"exit {code}: {' '.join(said) or run.said()[-300:]}", met)


def torn(results: Path) -> Iterator[str]:
    """Files under their final names that are not whole."""
    for path in results.rglob("*"):
        inner = path.relative_to(results)
        if not path.is_file() or any(part.startswith(".") for part in inner.parts):
            continue
        try:
            if path.name == "record.json":
                records.load(path)
            elif path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".parquet":
                pd.read_parquet(path)
            elif path.suffix == ".tex" and not path.read_text(encoding="utf-8").endswith("\n"):
                yield f"{inner} is cut off"
        except (HarnessError, ValueError, OSError, pyarrow.ArrowException) as error:
            yield f"{inner} is torn ({error})"

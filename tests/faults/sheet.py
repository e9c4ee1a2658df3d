"""The score sheet of the faults: what was done to the harness, what it had to do, and what it did."""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SHEET = Path("results/faults.md")
HEADS = ("fault", "goal", "figure", "met", "why not")


@dataclass(frozen=True)
class Result:
    """One line of the sheet."""

    fault: str
    """What was done: ``kill -9 of the pipeline at 25 seeded moments``."""
    goal: str
    """What has to hold then: ``main.tex byte-equal 25 of 25``."""
    figure: str
    """What was measured, in the words of the goal: ``25 of 25``."""
    met: bool
    why: str = ""
    """Where the goal is not met: the reason. Without one, the sheet fails."""


Campaign = Callable[[bool], Iterable[Result]]
"""``run(quick)`` of a module ``tests/faults/campaign_*.py``: does the faults; quick, a few of each kind."""


def campaigns(names: Iterable[str] = ()) -> dict[str, Campaign]:
    """Every campaign by name, or those named.

    Raises:
        SystemExit: there is no campaign of a name.
    """
    there = sorted(file.stem.removeprefix("campaign_") for file in Path(__file__).parent.glob("campaign_*.py"))
    chosen = list(names) or there
    if unknown := [name for name in chosen if name not in there]:
        raise SystemExit(f"there is no campaign '{unknown[0]}'; known: {', '.join(there)}")
    return {name: importlib.import_module(f"tests.faults.campaign_{name}").run for name in chosen}


def play(found: dict[str, Campaign], quick: bool) -> Iterator[Result]:
    """The results one by one; a campaign that breaks is a goal that is not met."""
    for name, campaign in found.items():
        begun = time.monotonic()
        try:
            for result in campaign(quick):
                mark = "met" if result.met else f"NOT MET {result.why}"
                print(f"{name}: {result.fault}: {result.figure} ({mark})", file=sys.stderr, flush=True)
                yield result
        except Exception as error:
            traceback.print_exc()
            yield Result(f"campaign {name}", "runs to its end", f"{type(error).__name__}: {error}", False)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


def sheet(results: Iterable[Result]) -> str:
    """A Markdown table."""
    rows = [(r.fault, r.goal, r.figure, "yes" if r.met else "no", r.why) for r in results]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in [HEADS, *rows]]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(HEADS), *lines[1:]]) + "\n"


def passes(results: Iterable[Result]) -> bool:
    """Whether every goal is met, or says why it is not."""
    return all(result.met or result.why for result in results)

"""Whether what lies in a results folder is what it says: every digest, every score, every table, computed again.

Each kind of check reads the folder and nothing else, but for the data folder where it is there; no model is opened.
What cannot be checked is counted, with the reason, and is no mismatch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from harness import manifest
from harness.efficiency_records import FILE as MEASUREMENT
from harness.errors import HarnessError, nearest
from harness.verify import answers, outputs, sources
from harness.verify.run import Check, Run

__all__ = ["KINDS", "Check", "Run", "experiments", "verify"]

KINDS: dict[str, Callable[[Run], Check]] = {
    "manifest": outputs.listed,
    "records": answers.records,
    "samples": answers.samples,
    "counts": answers.counts,
    "answers": answers.answers,
    "addresses": sources.addresses,
    "fits": sources.fits,
    "backbones": sources.backbones,
    "data": sources.data,
    "measurements": answers.measurements,
    "tables": outputs.tables,
    "figures": outputs.figures,
    "report": outputs.report,
}
"""What is checked, in the order in which it is told."""
SHARED = ("reference", "fits", "backbones")
"""Folders below the results that hold no experiment."""


def experiments(results: Path, name: str = "") -> list[str]:
    """The experiments of a results folder, or the one that is named.

    Raises:
        HarnessError: there is no such folder, or nothing in it.
    """
    if not results.is_dir():
        raise HarnessError(f"there is no results folder {results}; name one that a run has left")
    found = [
        folder.name
        for folder in sorted(results.iterdir())
        if folder.is_dir() and folder.name not in SHARED and not folder.name.startswith(".") and _has_run(folder)
    ]
    if name and name not in found:
        raise HarnessError(f"there is no record of '{name}' under {results}; {nearest(name, found)}")
    if not found:
        raise HarnessError(f"there is no record under {results}; name a folder that a run has left")
    return [name] if name else found


def _has_run(folder: Path) -> bool:
    wanted = ("record.json", MEASUREMENT, manifest.FILE)
    return any(next(folder.rglob(name), None) is not None for name in wanted)


def verify(results: Path, name: str, kinds: Iterable[str] = ()) -> list[Check]:
    """Check one experiment.

    Args:
        kinds: Some of ``KINDS``; none is all of them.

    Raises:
        HarnessError: a kind is unknown.
    """
    for kind in (chosen := list(kinds)):
        if kind not in KINDS:
            raise HarnessError(f"there is no kind of check '{kind}'; {nearest(kind, KINDS)}")
    run = Run(results, name)
    return [check(run) for kind, check in KINDS.items() if kind in chosen or not chosen]

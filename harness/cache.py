"""The folder of what can be made again: backbones that were converted, trained or fetched, each whole or not there.

What is put into it is sealed: ``digest.json`` holds the digest that a backbone is known by and those of its files.
Whoever opens one holds the files against them, so that a changed bit or a cut file is never computed with.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from harness import disk, leftovers, seals
from harness.errors import HarnessError

DIGEST = "digest.json"
PART = 2**24
"""Bytes of a file that are fetched at once, so that memory does not grow with the backbone."""


def folder() -> Path:
    """``DELTA_MEM_CACHE``, else ``~/.cache/delta-mem``."""
    return Path(os.environ.get("DELTA_MEM_CACHE") or Path.home() / ".cache" / "delta-mem")


def entries() -> dict[Path, int]:
    """What the cache holds: each entry and its size in bytes."""
    root = folder()
    return {entry: _size(entry) for entry in sorted(root.iterdir())} if root.is_dir() else {}


def clear() -> int:
    """Delete every entry; gives the bytes that are free now."""
    found = entries()
    for entry in found:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return sum(found.values())


def _size(entry: Path) -> int:
    files = entry.rglob("*") if entry.is_dir() else [entry]
    return sum(file.stat().st_size for file in files if file.is_file())


# --- backbones ---


def place(name: str) -> Path:
    """Where the backbone of that name lies, or is to lie."""
    return folder() / "backbones" / name


def put(target: Path, make: Callable[[Path], dict[str, Any]]) -> Path:
    """Fill a folder of the cache, unless another process has done so while this one waited.

    Args:
        target: As :func:`place` gives it.
        make: Fills an empty folder, and gives what is to be known of the backbone: its digest as ``source``, and more.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if whole(target):
            return target
        leftovers.sweep(target.parent)
        work = Path(tempfile.mkdtemp(dir=target.parent, prefix=leftovers.prefix(target)))
        try:
            with disk.writing(target):
                facts = {**make(work), "files": _digests(work)}
            (work / DIGEST).write_text(seals.sealed(json.dumps(facts, indent=1, sort_keys=True)), encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)
            os.rename(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def source(stored: Path) -> str | None:
    """The digest that a backbone in the cache is known by; None where nothing says so, or not as it was written."""
    try:
        return str(_facts(stored)["source"])
    except (OSError, ValueError, KeyError):
        return None


def whole(stored: Path) -> bool:
    """Whether a backbone in the cache is as it was put there, every bit of every file."""
    return source(stored) is not None and _facts(stored).get("files") == _digests(stored)


def altered(stored: Path) -> bool:
    """Whether a folder says what its files were when it was put into a cache, and one is no longer that."""
    return source(stored) is not None and "files" in _facts(stored) and not whole(stored)


def _facts(stored: Path) -> dict[str, Any]:
    return json.loads(seals.opened((stored / DIGEST).read_bytes()))


def _digests(stored: Path) -> dict[str, str]:
    return {name: value for name, value in seals.digests(stored).items() if name != DIGEST}


# --- from another machine ---


@dataclass(frozen=True)
class Offer:
    """A backbone that another machine holds."""

    name: str
    digest: str
    files: dict[str, str]
    """sha256 by name."""


class Shelf(Hashable, Protocol):
    """What another machine holds of backbones (:mod:`harness.shelf`)."""

    def offer(self, spec: str) -> Offer:
        """Of a backbone's specification (JSON); made there first where it must be."""

    def part(self, digest: str, file: str, start: int) -> bytes:
        """At most ``PART`` bytes of a file that was offered; none past its end."""


def fetch(shelf: Shelf, offer: Offer) -> Path:
    """A backbone of another machine in this one's cache: the one of that digest if it is there, else pulled in parts.

    Raises:
        HarnessError: what came is not what was offered.
    """
    for known in sorted(folder().glob(f"backbones/*/{DIGEST}")):
        if source(known.parent) == offer.digest and whole(known.parent):
            return known.parent
    return put(place(f"{offer.name}-{offer.digest[:16]}"), lambda work: _pull(shelf, offer, work))


def _pull(shelf: Shelf, offer: Offer, work: Path) -> dict[str, Any]:
    for file, wanted in offer.files.items():
        if Path(file).name != file:
            raise HarnessError(f"the backbone '{offer.name}' is offered with '{file}', which is no plain file name")
        with (work / file).open("xb") as stream:
            while part := shelf.part(offer.digest, file, stream.tell()):
                stream.write(part)
        if seals.sha256(work / file) != wanted:
            raise HarnessError(
                f"{file} of the backbone '{offer.name}' arrived with other bytes than were offered; run again, and "
                "check the disk of the machine that the pipeline runs on if it happens again"
            )
    return {"source": offer.digest}

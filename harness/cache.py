"""The folder of what can be made again: converted backbones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


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

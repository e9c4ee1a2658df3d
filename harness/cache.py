"""The folder of what can be made again: converted backbones."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    """``DELTA_MEM_CACHE``, else ``~/.cache/delta-mem``."""
    return Path(os.environ.get("DELTA_MEM_CACHE") or Path.home() / ".cache" / "delta-mem")

"""Small disks, full ones and read-only ones, for tests that may mount: as root, on Linux."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


def _mount(*words: str) -> bool:
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[bool]:
    """A disk of some bytes at a folder for the length of a block; False where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def change(folder: Path, how: str) -> None:
    """Mount a disk again, with another ``size=BYTES``, or ``ro`` or ``rw``."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True, capture_output=True)


def fill(folder: Path, room: int = 0) -> Path:
    """Take all bytes of a disk but ``room``; gives the file that holds them."""
    ballast = folder / ".ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    with ballast.open("rb+") as file:
        file.truncate(max(0, ballast.stat().st_size - room))
    return ballast

"""What a kill leaves behind, and what would grow without end: taken away, or put aside, when the next run starts.

Only what is ours goes, and only where its owner is dead: a temporary file's name tells its owner's machine and
process. What a run can go on from (checkpoints of a fit, journals of a cell) is no leftover while it can.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import stat
import time
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

LARGEST_LOG = 5_000_000
"""Bytes after which a log is put aside; one that was put aside before is dropped."""
NEWEST = 20
"""Logs of past runs that stay where each run leaves one."""
CLUSTER = "delta-mem-"
"""What a cluster's folder below /tmp begins with."""
HOUR, DAY = 3600, 86400
HERE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
OWNED = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)\.[a-z0-9_]{8}")
"""Names that :func:`prefix` begins and tempfile ends."""


def prefix(path: Path) -> str:
    """What the name of a temporary beside ``path`` begins with; this process is its owner."""
    return f".{path.name}.{HERE}-{os.getpid()}."


def sweep(folder: Path) -> list[Path]:
    """Take away the temporaries of dead owners in a folder, and below it; gives what went."""
    every = (Path(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files))
    found = [path for path in every if _dead(path)]
    for path in found:
        _remove(path)
    return found


def _dead(temporary: Path) -> bool:
    """Whether a path is one of our temporaries and its owner is gone.

    A process that is younger than the file is another one of the same number. Of other machines nothing is known but
    that no file takes a day.
    """
    owner = OWNED.fullmatch(temporary.name)
    if owner is None:
        return False
    try:
        written = temporary.lstat().st_mtime
        if owner[1] != HERE:
            return time.time() - written > DAY
        return psutil.Process(int(owner[2])).create_time() > written + 1
    except psutil.NoSuchProcess:
        return True
    except (OSError, psutil.Error):
        return False


def sweep_results(results: Path, experiment: Path) -> list[Path]:
    """As :func:`sweep`, of an experiment's results and of the fits, the latter's work folders included."""
    fits = results / "fits"
    done = [work for work in fits.glob(".*.work") if _served(work, results / ".locks")]
    for work in done:
        _remove(work)
    return [*sweep(experiment), *sweep(fits), *done]


def _served(work: Path, locks: Path) -> bool:
    """Whether the checkpoints in a work folder are of no use: nobody is at them, and the fit is there as a whole."""
    name = work.name.removeprefix(".").removesuffix(".work")
    if not (work.with_name(name) / "fit.json").is_file():
        return False
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / f"{name}.lock", timeout=0):
            return True
    except Timeout:
        return False


def sweep_clusters(root: Path) -> list[Path]:
    """Take away the folders of clusters whose supervisor is dead; gives what went."""
    found = [folder for folder in root.glob(f"{CLUSTER}*") if _abandoned(folder)]
    for folder in found:
        _remove(folder)
    return found


def _abandoned(folder: Path) -> bool:
    """Whether a cluster's folder is this user's and its supervisor is gone; one just made has not named it yet."""
    try:
        facts = folder.lstat()
        if facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode):
            return False
        named = (folder / "pid").read_text() if (folder / "pid").exists() else ""
        if not named:
            return time.time() - facts.st_mtime > HOUR
        return "harness.cluster" not in psutil.Process(int(named)).cmdline()
    except psutil.NoSuchProcess:
        return True
    except (OSError, ValueError, psutil.Error):
        return False


def rotate(log: Path) -> None:
    """Put a log aside as ``NAME.1`` when it is large, so that the next line begins it anew."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LARGEST_LOG:
            os.replace(log, log.with_name(f"{log.name}.1"))


def keep_newest(folder: Path, count: int = NEWEST) -> None:
    """Drop all but the newest logs of a folder to which each run adds one."""
    logs = sorted((f for f in folder.glob("*.log") if f.is_file()), key=lambda f: f.stat().st_mtime_ns)
    for log in logs[:-count]:
        log.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()

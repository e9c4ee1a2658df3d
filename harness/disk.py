"""When a disk cannot be used: which file or folder, why, and the mend, in one sentence.

The system's errors name a path only where a file is opened, and other libraries' writers have errors of their own:
:func:`writing` gives them the path. :func:`sentences` stands at the edges: the command line, a worker, the Snakefile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HarnessError

ELSEWHERE = "or use a folder on another disk, and run again"
GONE = "does not answer; mount its disk again, and run again"
SENTENCES = {
    errno.ENOSPC: f"cannot be written, for its disk is full; free some space there, {ELSEWHERE}",
    errno.EDQUOT: f"cannot be written, for the quota there is used up; free some space there, {ELSEWHERE}",
    errno.EROFS: f"cannot be written, for its disk is read-only; mount it writable, {ELSEWHERE}",
    errno.EACCES: "is not yours to use; change its owner or its mode, or use another folder, and run again",
    errno.EPERM: "is not yours to use; change its owner or its mode, or use another folder, and run again",
    errno.ENOENT: "is not there; make it, or mount the disk that it is on, and run again",
    errno.EEXIST: "is no folder, or a link to one that is not there; move it away, or mount the disk that it points to",
    errno.ENOTDIR: "is, or lies below, a file where a folder should be; move that file away",
    errno.EISDIR: "is a folder instead of a file; move it away",
    errno.EIO: GONE,
    errno.ESTALE: GONE,
    errno.ENODEV: GONE,
    errno.ENOTCONN: GONE,
    errno.ETIMEDOUT: GONE,
}
PROBE = 65_536
"""Bytes that a disk with some room left takes."""


@contextlib.contextmanager
def sentences(folder: Path | None = None) -> Iterator[None]:
    """What the system says inside this block of a path that cannot be used becomes one sentence.

    Args:
        folder: What is named where the system names no path.

    Raises:
        HarnessError: a path cannot be used.
    """
    try:
        yield
    except OSError as error:
        path = error.filename2 or error.filename or folder  # of two, as in a copy, the second is written
        if isinstance(path, str | os.PathLike) and error.errno in SENTENCES:
            raise HarnessError(f"{os.fspath(path)} {SENTENCES[error.errno]}") from error
        raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """A failure to write inside this block, in whatever words, is an ``OSError`` of ``path``.

    Raises:
        OSError: its disk could not be written.
    """
    try:
        yield
    except HarnessError:
        raise
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    except Exception as error:
        if number := _said(error) or _refusal(path):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _said(error: Exception) -> int:
    """The system's number in the words of a library in Rust; 0 where there is none."""
    said = re.search(r"\(os error (\d+)\)", str(error))
    return int(said[1]) if said else 0


def _refusal(path: Path) -> int:
    """The number with which the disk of a path refuses some bytes now, for torch tells none; 0 where it takes them."""
    folder = next(place for place in path.absolute().parents if place.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(PROBE))
    except OSError as error:
        return error.errno or 0
    return 0

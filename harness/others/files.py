"""Opening others' files: plain or gzipped, a line at a time or whole, with one sentence for what is wrong."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from harness.answers import refuse, rows
from harness.data.files import unrepeated
from harness.errors import HarnessError

Rows = Iterator[tuple[str, dict[str, Any]]]
"""Each object of a file, with file and line or row."""


def magic(path: Path) -> bytes:
    """The first four bytes.

    Raises:
        HarnessError: the file cannot be read, or is empty.
    """
    try:
        with path.open("rb") as stream:
            begin = stream.read(4)
    except OSError as error:
        raise HarnessError(f"{path} cannot be read ({error.strerror}); name a file of answers") from error
    if not begin:
        raise HarnessError(f"{path} is empty; name a file of answers")
    return begin


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if magic(path)[:2] == b"\x1f\x8b" else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with _opened(path) as stream:
            yield from stream
    except (OSError, EOFError, zlib.error) as error:
        raise HarnessError(f"{path} cannot be read ({error}); fetch it again") from error


def objects(path: Path) -> Rows:
    """The objects of JSON lines, read as a stream."""
    return rows(_lines(path), str(path))


def begins(path: Path) -> tuple[Any, bool]:
    """The first line that is not empty, as JSON (None where it is none of itself), and whether another follows."""
    first: Any = None
    told = False
    for line in _lines(path):
        if not line.strip():
            continue
        if told:
            return first, True
        told = True
        try:
            first = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
        except (ValueError, RecursionError):
            first = None
    return first, False


def whole(path: Path) -> Any:
    """The content of a file that is one JSON value.

    Raises:
        HarnessError: it is cut off, no JSON, or no UTF-8.
    """
    data = b"".join(_lines(path))
    try:
        return json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=partial(unrepeated, where=str(path)),
            parse_constant=refuse,
        )
    except UnicodeDecodeError as error:
        raise HarnessError(f"{path}: no UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{path} is cut off or no JSON ({error}); fetch it again") from error

"""A seal: the digest of a JSON text inside it, so that no bit of what a run reads again can change unseen.

The seal is the text's first member, and the digest is of the text without it::

    {"seal": "sha256:...", "answered": 3}

A text that is older than seals has none, and is taken as it is. Which it is, no single changed bit can feign: two words
tell a seal, its name and that of its digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

HEAD = re.compile(rb'\{(\n )?"seal": "sha256:([0-9a-f]{64})",')
MARKS = (b'"seal"', b"sha256:")
LONGEST = 100
"""Bytes at the beginning of a text in which a seal lies."""


class BrokenSealError(ValueError):
    """The text is not as it was written."""


def sealed(text: str) -> str:
    """The text of a JSON object that is not empty, with its seal."""
    gap = "\n " if text.startswith("{\n ") else ""
    return f'{{{gap}"seal": "sha256:{hashlib.sha256(text.encode()).hexdigest()}",{text[1:]}'


def opened(text: bytes) -> bytes:
    """The text without its seal, as it was written.

    Raises:
        BrokenSealError: a bit of it is another one now.
    """
    head = HEAD.match(text)
    if head is None and not any(mark in text[:LONGEST] for mark in MARKS):
        return text
    bare = b"{" + text[head.end() :] if head else b""
    if head is None or head[2] != hashlib.sha256(bare).hexdigest().encode():
        raise BrokenSealError("its seal does not hold")
    return bare


def sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file in a folder and below it, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def read(path: Path, mend: str = "delete it and run again") -> dict[str, Any]:
    """The object of a sealed JSON file.

    Raises:
        HarnessError: missing, torn, or not as it was written.
    """
    try:
        found = json.loads(opened(path.read_bytes()))
    except OSError as error:
        raise HarnessError(f"{path} cannot be read ({error.strerror}); {mend}") from error
    except ValueError as error:
        raise HarnessError(f"{path} is not as it was written ({error}); {mend}") from error
    if not isinstance(found, dict):
        raise HarnessError(f"{path} holds no object; {mend}")
    return found

"""Answers of finished episodes, so that they survive a kill: one line an episode, appended and flushed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import seals
from harness.records import atomic


class Journal:
    """A log of what one cell has answered so far.

    Each line stands for itself, with the cell's address and a seal. One that a kill cut off, or of which a bit has
    changed, is dropped, so that its episode is answered again, and no other; so is a line of another address (other
    settings, another fit), which is not this cell's.
    """

    def __init__(self, path: Path, address: str) -> None:
        self.path, self.address = path, address
        self.done: dict[str, Any] = {}
        self.damaged = 0
        """Lines that were dropped, for they were not as they were written."""
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
        kept = [line for line in lines if line and self._keeps(line)]
        path.parent.mkdir(parents=True, exist_ok=True)
        if lines != [*kept, b""]:  # also where an end was cut off, so that the next line begins one of its own
            with atomic(path) as temporary:
                temporary.write_bytes(b"".join(line + b"\n" for line in kept))

    def _keeps(self, line: bytes) -> bool:
        """Take up a line's answers, where it is whole and this cell's."""
        try:
            found = json.loads(seals.opened(line))
            address, key, value = found["address"], found["key"], found["value"]
        except (ValueError, KeyError, TypeError):
            self.damaged += 1
            return False
        if address != self.address:
            return False
        self.done[key] = value
        return True

    def add(self, key: str, value: Any) -> None:
        """Keep an episode's answers; handed to the system when this returns."""
        self.done[key] = value
        line = seals.sealed(json.dumps({"address": self.address, "key": key, "value": value}))
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def remove(self) -> None:
        """The record stands; the journal has served."""
        self.path.unlink(missing_ok=True)

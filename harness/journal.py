"""Answers of finished episodes, so that they survive a kill: one line an episode, appended and flushed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Journal:
    """A log of what one cell has answered so far.

    A line that a kill cut off is dropped, so that at most one episode is done again; a journal of another address
    (other settings, another fit) is not this cell's and is started anew.
    """

    def __init__(self, path: Path, address: str) -> None:
        self.path = path
        lines = self._whole_lines()
        if not lines or lines[0] != {"address": address}:
            lines = [{"address": address}]
        self.done: dict[str, Any] = {line["key"]: line["value"] for line in lines[1:]}
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written anew without the torn end, so that the next line starts on a line of its own.
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def _whole_lines(self) -> list[Any]:
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return found

    def add(self, key: str, value: Any) -> None:
        """Keep an episode's answers; on disk when this returns."""
        self.done[key] = value
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"key": key, "value": value}) + "\n")
            stream.flush()

    def remove(self) -> None:
        """The record stands; the journal has served."""
        self.path.unlink(missing_ok=True)

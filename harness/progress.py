"""How far a job is: the worker appends JSON lines, the client shows them.

A file, because it outlives both sides and a log viewer can read it too. Two lines a second at most, under 1.5 MB an
hour; at :data:`harness.leftovers.LARGEST_LOG` bytes it is put aside and begun anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import leftovers
from harness.allowance import Allowance

EVERY_WRITE = 0.5
"""Seconds between two lines of one phase; the last one of a phase is always written."""
EVERY_SHOW = 0.3
SAID = "said"
"""Key of a line that tells something, beside those that tell how far it is."""
LONGEST_LINE = 10_000
"""Bytes from the end of the file that hold its last whole line."""
EVERY_PLAIN = 10.0
"""Seconds between two plain lines in a log."""


class Progress:
    """The worker's side.

    Args:
        path: File to append to; None keeps nothing.
        allowance: The hours that the job may use; None counts none.
    """

    def __init__(self, path: Path | str | None, allowance: Allowance | None = None) -> None:
        self.path = Path(path) if path else None
        self.allowance = allowance
        self._last: tuple[str, float] = ("", 0.0)

    def update(self, phase: str, done: float, total: float, **facts: Any) -> None:
        """Say that ``done`` of ``total`` is done; cheap enough for every step.

        Args:
            facts: JSON values to show beside the bar; ``tokens`` is a count so far and is shown as tokens a second.
        """
        now = time.time()
        before, at = self._last
        if self.path is None or (phase == before and now - at < EVERY_WRITE and done < total):
            return
        self._last = (phase, now)
        _append(self.path, json.dumps({"time": now, "phase": phase, "done": done, "total": total, **facts}))

    def say(self, sentence: str) -> None:
        """Tell who started the job what was met on the way and mended; shown when the job ends."""
        if self.path is not None:
            _append(self.path, json.dumps({SAID: sentence}))

    def piece(self, step: str, left: float = 1.0) -> contextlib.AbstractContextManager[None]:
        """As :meth:`harness.allowance.Allowance.piece`."""
        return self.allowance.piece(step, left) if self.allowance else contextlib.nullcontext()

    def kept(self) -> None:
        """As :meth:`harness.allowance.Allowance.kept`."""
        if self.allowance:
            self.allowance.kept()


def _append(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    leftovers.rotate(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


@contextlib.contextmanager
def follow(path: Path, label: str) -> Iterator[None]:
    """Show the progress file while the block runs: a bar for people, a plain line now and then for logs.

    What was said on the way comes after it, a line each.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("", encoding="utf-8")
    ended = threading.Event()
    show = _bar if sys.stderr.isatty() else _plain
    thread = threading.Thread(target=show, args=(path, label, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for sentence in _said(path):
            print(f"harness: {sentence}", file=sys.stderr, flush=True)


def _said(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:  # just rotated
        return []
    return [json.loads(line)[SAID] for line in lines if line.startswith(f'{{"{SAID}": ') and line.endswith("}")]


def _updates(path: Path, ended: threading.Event, every: float) -> Iterator[dict[str, Any]]:
    """The newest line, each time there is one, with the seconds left and the speed worked out."""
    starts: dict[str, tuple[float, float]] = {}
    seen = b""
    while True:
        last_round = ended.is_set()
        line = _newest(path)
        if line and line != seen:
            seen = line
            if SAID not in (update := json.loads(line)):
                yield _with_rates(update, starts)
        if last_round:
            return
        ended.wait(every)


def _newest(path: Path) -> bytes:
    """The last whole line; empty where there is none, as just after the file was rotated."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LONGEST_LINE))
            whole, _, _ = file.read().rpartition(b"\n")
    except FileNotFoundError:
        return b""
    return whole.rpartition(b"\n")[2]


def _with_rates(update: dict[str, Any], starts: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """Rates since the first line of the phase that was seen, so that work restored from before does not count."""
    start, done = starts.setdefault(update["phase"], (update["time"], update["done"]))
    tokens = update.get("tokens")
    elapsed = update["time"] - start
    first = starts.setdefault(f"{update['phase']}/tokens", (start, tokens or 0))[1]
    fresh = update["done"] - done
    left = (update["total"] - update["done"]) * elapsed / fresh if fresh > 0 else None
    speed = (tokens - first) / elapsed if tokens is not None and elapsed > 0 else None
    return {**update, "left": left, "tokens_per_second": speed}


def _facts(update: dict[str, Any]) -> str:
    words = [f"{update['tokens_per_second']:.0f} tokens/s"] if update["tokens_per_second"] else []
    if update["left"]:
        words.append(f"{int(update['left'] // 60)}:{int(update['left'] % 60):02d} left")
    own = ("time", "phase", "done", "total", "tokens", "left", "tokens_per_second")
    words += [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in update.items() if k not in own]
    return " · ".join(words)


def _plain(path: Path, label: str, ended: threading.Event) -> None:
    for update in _updates(path, ended, EVERY_PLAIN):
        line = f"{label}: {update['phase']} {update['done']:g}/{update['total']:g}"
        print(f"{line}  {_facts(update)}".rstrip(), file=sys.stderr, flush=True)


def _bar(path: Path, label: str, ended: threading.Event) -> None:
    from rich import progress
    from rich.console import Console

    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn())
    with progress.Progress(*columns, progress.TextColumn("{task.fields[facts]}"), console=Console(stderr=True)) as bars:
        bar = bars.add_task(label, total=None, facts="")
        for update in _updates(path, ended, EVERY_SHOW):
            description = f"{label}: {update['phase']}"
            bars.update(
                bar, description=description, completed=update["done"], total=update["total"], facts=_facts(update)
            )

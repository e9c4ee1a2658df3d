"""A terminal on which the pipeline is begun, and which is then resized or closed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import threading
from pathlib import Path


class Terminal:
    """A pseudo-terminal: a run has its one end, and this process reads the other."""

    def __init__(self) -> None:
        self._master, self.end = pty.openpty()
        self._closing = threading.Event()
        self.resize(24, 80)

    def keep(self, file: Path) -> None:
        """Write what is shown from now on to a file; a terminal that nobody reads would stop the run."""
        os.close(self.end)
        self._reader = threading.Thread(target=self._read, args=(file,), daemon=True)
        self._reader.start()

    def _read(self, file: Path) -> None:
        with file.open("ab", buffering=0) as output, contextlib.suppress(OSError):  # the run has ended
            while not self._closing.is_set():
                if select.select([self._master], [], [], 0.1)[0]:
                    output.write(os.read(self._master, 65536))
        os.close(self._master)

    def resize(self, rows: int, columns: int) -> None:
        """As a window does whose corner is dragged."""
        with contextlib.suppress(OSError):  # it is closed
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        """Hang up: the kernel sends SIGHUP, and nothing can be shown any more."""
        self._closing.set()
        self._reader.join()

"""Wall clock and peak memory of one phase of work after another, on a CPU and on CUDA."""

from __future__ import annotations

import contextlib
import ctypes
import time
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What Linux wants written to ``clear_refs`` to begin the peak of a process anew."""


@dataclass(frozen=True)
class Lap:
    """One phase."""

    seconds: float
    peak: int | None
    """Bytes at most in use while it ran: allocated on CUDA, else resident; None where the system does not tell."""


class Meter:
    """Measures phases that follow each other; what lies between two of them is nobody's.

    On CUDA the clock stands between synchronisations, and memory is what torch has allocated. On a CPU memory is the
    process's resident set; what the allocator has free is given back to the system before a first phase, so that the
    start is what is in use.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.clock = 0.0

    def settle(self) -> int | None:
        """Give back what nobody uses, and tell the bytes in use."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            return int(torch.cuda.memory_allocated(self.device))
        with contextlib.suppress(OSError, AttributeError):  # of another allocator than glibc's nothing is asked
            ctypes.CDLL(None).malloc_trim(0)
        return _resident("VmRSS")

    def begin(self) -> None:
        """Begin a phase."""
        self._synchronise()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif CLEAR.exists():
            CLEAR.write_text(RESET_PEAK)
        self.clock = time.perf_counter()

    def end(self) -> Lap:
        """End the phase."""
        self._synchronise()
        seconds = time.perf_counter() - self.clock
        if self.device.type == "cuda":
            return Lap(seconds, int(torch.cuda.max_memory_allocated(self.device)))
        return Lap(seconds, _resident("VmHWM"))

    def reserved(self) -> int | None:
        """Bytes that torch's allocator held at most since the last phase began; None on a CPU."""
        return int(torch.cuda.max_memory_reserved(self.device)) if self.device.type == "cuda" else None

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _resident(field: str) -> int | None:
    """A size from ``/proc/self/status``, in bytes; None where there is no such file."""
    if not CLEAR.exists():
        return None
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(field))

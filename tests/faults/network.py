"""No network but the loopback: for this thread and for all that it starts, as root on Linux."""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000
"""From Linux's ``sched.h``; Python has ``os.unshare`` since 3.12."""


@contextlib.contextmanager
def none() -> Iterator[bool]:
    """No network inside this block; False, and all as ever, where this user may not do without."""
    system = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as before:
        alone = system.unshare(CLONE_NEWNET) == 0
        try:
            if alone:
                subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield alone
        finally:
            if alone:
                assert system.setns(before.fileno(), CLONE_NEWNET) == 0


def attempts() -> int:
    """How often anything inside :func:`none` tried to reach beyond the loopback, names looked up included.

    The kernel counts what it found no route for, whichever process and library asked.
    """
    here = Path("/proc/thread-self/net")
    heads, values = (line.split() for line in (here / "snmp").read_text().splitlines() if line.startswith("Ip: "))
    later = dict(line.split() for line in (here / "snmp6").read_text().splitlines())
    return int(dict(zip(heads, values, strict=True))["OutNoRoutes"]) + int(later["Ip6OutNoRoutes"])

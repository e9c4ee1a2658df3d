"""Loaded by ``sitecustomize``: makes memory run short in the workers of a pipeline under test.

``DELTA_MEM_SHORT`` is ``HOW:MOST``: more than MOST questions of one history decoded together are too many; gates, which
ask too, are spared. HOW is ``torch``, whose allocator then says so, or ``kernel``, which then kills the worker, for it
has joined a group of processes of which memory is limited.
"""

import os
from pathlib import Path

VARIABLE = "DELTA_MEM_SHORT"
GROUPS = Path("/sys/fs/cgroup/memory")
LIMIT = 200_000_000
"""Bytes that the processes of a group may take from when they joined it."""


def limit(lm):
    """Take part in the answering of ``harness.lm``, a module just loaded."""
    how, most = os.environ[VARIABLE].split(":")
    plain = lm.generation._decode

    def decode(backbone, batch, *rest):
        if len(batch) > int(most):
            {"torch": _allocate, "kernel": _be_killed}[how]()
        return plain(backbone, batch, *rest)

    answer = lm.MemoryLM._decode

    def short(*arguments):
        lm.generation._decode = decode
        try:
            return answer(*arguments)
        finally:
            lm.generation._decode = plain

    lm.MemoryLM._decode = short


def _allocate():
    import torch

    torch.empty(2**50, dtype=torch.uint8)


def _be_killed():
    group = GROUPS / f"faults-{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(LIMIT))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    bytearray(os.urandom(1) * (3 * LIMIT))
    raise AssertionError("the kernel did not kill this process")

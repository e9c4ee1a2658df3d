"""When memory runs short: what counts as that, and how an evaluation goes on with less.

Questions are decoded together while memory suffices for it; else the batch is halved, down to one question, and a
question that is too large alone has no answer, and its reason in the record. A worker that was killed for want of
memory can tell nobody: the next one finds on disk what it was at, and begins with half as many questions together.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HarnessError, SkippedError
from harness.records import write_json

SAID = (
    "out of memory",
    "Cannot allocate memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What errors say of it that have no type of their own: torch's on CPUs, the libraries' of CUDA, the kernel's."""
COUNTER = Path("/proc/vmstat")
"""Where Linux counts the processes that it killed for want of memory."""
MORE = "give its worker more memory, or lower run.workers"
MENDS = {
    "fit": f"lower budget.batch_size and raise budget.accumulation as much, so that a step stays as large, or {MORE}",
    "evaluate": f"{MORE}, or set max_history_tokens of the task",
}
"""By kind of job."""


def of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice."""
    import torch  # not above: the cluster's supervisor works without

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in SAID)


def mend(kind: str) -> str:
    """What helps a job of a kind that ran short of memory."""
    return MENDS.get(kind, MORE)


def told(error: Exception) -> Exception:
    """The error; for one that says that memory ran short, a reason that keeps nothing in memory, as its frames do."""
    if not of_memory(error):
        return error
    return SkippedError(f"memory ran short ({_words(error)}); {mend('evaluate')}")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


@contextlib.contextmanager
def noticed() -> Iterator[list[Exception]]:
    """Gathers what says inside this block that memory ran short, as :func:`told` puts it; other errors go on."""
    found: list[Exception] = []
    try:
        yield found
    except Exception as error:
        if not of_memory(error):
            raise
        found.append(told(error))


@contextlib.contextmanager
def named(what: str, kind: str) -> Iterator[None]:
    """What says inside this block that memory ran short becomes one sentence with the mend for a kind of job.

    Raises:
        HarnessError: memory ran short.
    """
    try:
        yield
    except Exception as error:
        if not of_memory(error):
            raise
        raise HarnessError(f"memory ran short in {what} ({_words(error)}); {mend(kind)}") from error


class Batches:
    """How many questions are decoded together: as many as were asked for, or fewer since memory ran short.

    Args:
        most: As many as were asked for.
        begin: Fewer to begin with, where a worker was lost over more.
    """

    def __init__(self, most: int, begin: int | None = None) -> None:
        self.most = most
        self.size = self.least = min(most, begin or most)

    def halve(self, tried: int) -> None:
        """``tried`` of them, more than one, were too many."""
        self.size = tried // 2
        self.least = min(self.least, self.size)


class Trail:
    """What a worker is at, kept on disk for the one that takes over when it is killed for want of memory.

    A history over which a worker was killed is tried with half as many questions together, and given up where it was
    one alone; the next call of the command tries it again.

    Args:
        path: None keeps nothing.
        killed: Workers that this job has lost for want of memory; without any, what an earlier call left is of no
            matter.
    """

    def __init__(self, path: Path | None = None, killed: int = 0) -> None:
        self.path = path
        left = json.loads(path.read_text(encoding="utf-8")) if path and killed and path.is_file() else None
        self.given_up: list[list[str]] = left["given_up"] if left else []
        self.begin: int | None = None
        """Questions to be decoded together at most, to begin with."""
        if left and left["together"] > 1:
            self.begin = left["together"] // 2
        elif left:
            self.begin = left["size"]
            self.given_up.append(left["at"])

    def step(self, cell: str, history: str, together: int, size: int) -> SkippedError | None:
        """Begin with a history in a cell.

        Args:
            together: Questions of it that are decoded at a time.
            size: How many that would be of a history with more questions.

        Returns:
            Why not to, where it was given up.
        """
        at = [cell, history]
        if at in self.given_up:
            return SkippedError(f"a worker was killed for want of memory at one question alone; {mend('evaluate')}")
        if self.path:
            write_json(self.path, {"at": at, "together": together, "size": size, "given_up": self.given_up})
        return None

    def remove(self) -> None:
        """All is done."""
        if self.path:
            self.path.unlink(missing_ok=True)


def kills() -> int:
    """Processes that this machine has killed for want of memory since it started; 0 where it does not count them."""
    with contextlib.suppress(OSError):
        for line in COUNTER.read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0

"""The real pipeline in folders of its own, to be broken: started, watched, killed, and its tables compared."""

from __future__ import annotations

import atexit
import bisect
import fcntl
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.faults.terminal import Terminal

HERE = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "config", "profiles", "harness", "methods", "baselines", "tables/reported", "tables/templates")
TABLES = ("main.tex", "main.md", "main.csv")
SMALL = ("rows=[frozen,delta_mem_tsw]", "run.workers=2")
"""The smoke experiment with one row that learns nothing and one that learns."""
ONE = ("rows=[delta_mem_tsw]", "run.workers=1")
"""With the latter alone: a quarter less, where two jobs at a time make no difference."""
WHOLE = "tables/main.tex"
SHORT = "results/smoke/tables/main.tex"
"""The same bytes without figures, audit, report and manifest: enough where a fault meets only what answers."""
MARK = "DELTA_MEM_FAULTS"
"""Environment variable by which every process of a run is known, whoever its parent has become."""
PATIENCE = 900
"""Seconds after which a run counts as one that never ends."""
TRIES = 4
"""Runs that are begun for one fault: one may be done before its moment comes."""
SEED = 20260512


@functools.cache
def source() -> Path:
    """A copy of what a run is made of, so that edits made meanwhile change no fingerprint."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in PARTS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (HERE / name).is_dir() else shutil.copy
        copy(HERE / name, folder / name)
    return folder


class Checkout:
    """A folder that looks like the checkout and has results and tables of its own."""

    def __init__(
        self, changes: tuple[str, ...] = SMALL, target: str = WHOLE, cores: int = 2, **surroundings: str
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=source()))
        self.changes = changes
        self.target = target
        self.cores = cores
        self.surroundings = surroundings
        self.tally = self.folder / "tally"
        self.programs = self.folder / "bin"
        """Where a program lies that stands in for another one, if any."""
        for name in PARTS:
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).symlink_to(source() / name)

    def start(self, terminal: Terminal | None = None, rule: str = "") -> Run:
        """Begin the one command, which is the same each time.

        Args:
            terminal: Where it is shown, with bars, as ``make tables`` has them; into a file otherwise.
            rule: The only one that may be followed, where all but its outputs is there.
        """
        return Run(self, terminal, rule)

    def tables(self) -> dict[str, bytes]:
        """The bytes of the tables that are there."""
        files = [(self.folder / self.target).with_name(name) for name in TABLES]
        return {file.name: file.read_bytes() for file in files if file.exists()}

    def twice(self) -> int:
        """Episodes that were begun more often than once, each counted as often as it was begun again."""
        begun = Counter(self.tally.read_text().splitlines()) if self.tally.exists() else Counter()
        return sum(count - 1 for count in begun.values())

    def remove(self) -> None:
        shutil.rmtree(self.folder)


class Run:
    """One call of the command, which other processes may outlive."""

    def __init__(self, checkout: Checkout, terminal: Terminal | None = None, rule: str = "") -> None:
        self.mark = f"{checkout.folder.name}-{time.monotonic_ns()}"
        path = os.pathsep.join([str(checkout.programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        looked = os.pathsep.join(map(str, (Path(__file__).with_name("tally"), checkout.folder)))
        changes = ", ".join(f'"{change}"' for change in checkout.changes)
        command = ["snakemake", "--cores", str(checkout.cores), checkout.target]
        command += ["--logger", "rich"] if terminal else []
        command += ["--allowed-rules", rule] if rule else []
        command += ["--config", "experiment=smoke", f"set=[{changes}]"]
        self.output = checkout.folder / f"said-{self.mark}"
        self.logs = checkout.folder / ".snakemake/log"
        self.earlier = set(self.logs.glob("*"))
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=checkout.folder,
                env={
                    **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
                    "OMP_NUM_THREADS": "1",
                    **checkout.surroundings,
                    "PATH": path,
                    "PYTHONPATH": looked,
                    "DELTA_MEM_TALLY": str(checkout.tally),
                    MARK: self.mark,
                },
                stdin=terminal.end if terminal else subprocess.DEVNULL,
                stdout=terminal.end if terminal else output,
                stderr=terminal.end if terminal else output,
                start_new_session=True,
                preexec_fn=_takes_terminal if terminal else _hears_interrupts,
            )
        self.terminal = terminal
        if terminal:
            terminal.keep(self.output)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit code.

        Raises:
            TimeoutError: it did not end in time; it was killed.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.clear()
            raise TimeoutError(f"a run did not end in {seconds:.0f} s: {self.said()[-2000:]}") from None

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def sentences(self) -> list[str]:
        """What the harness gave as the cause of an end, each cause once."""
        lines = self.said().splitlines()
        return list(dict.fromkeys(line for line in lines if line.startswith(("harness: ", "snakemake: "))))

    def ends_by(self, moment: float) -> bool:
        """Whether it ends before a moment (seconds from now)."""
        try:
            self.process.wait(moment)
        except subprocess.TimeoutExpired:
            return False
        return True

    def steps(self) -> int:
        """Steps that it has done, by Snakemake's log: on a terminal it shows bars instead."""
        own = set(self.logs.glob("*")) - self.earlier
        return sum(log.read_text(encoding="utf-8", errors="replace").count("Finished jobid: ") for log in own)

    def reaches(self, steps: int, seconds: float) -> bool:
        """Whether it still runs some seconds after it has done a number of steps, or once it has done one more."""
        while self.steps() < steps:
            if self.ends_by(0.1):
                return False
        until = time.monotonic() + seconds
        while self.steps() == steps and time.monotonic() < until:
            if self.ends_by(0.1):
                return False
        return self.process.poll() is None

    def family(self) -> list[psutil.Process]:
        """All its processes that are still there."""
        return [process for process in psutil.process_iter() if _marked(process, self.mark)]

    def members(self, is_one: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
        """Those of its processes of which something holds, oldest first."""
        found = []
        for process in self.family():
            try:
                found += [(process.create_time(), process)] if is_one(process) else []
            except psutil.Error:
                continue
        return [process for _, process in sorted(found, key=lambda pair: pair[0])]

    def left(self, seconds: float = 20) -> list[str]:
        """Processes that have not ended by themselves some seconds after the pipeline."""
        _, alive = psutil.wait_procs(self.family(), timeout=seconds)
        return [" ".join(process.cmdline())[:80] for process in alive if _marked(process, self.mark)]

    def kill(self) -> None:
        """``kill -9`` of Snakemake's process, and of nothing else."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def clear(self) -> None:
        """End what is left of it."""
        for process in self.family():
            process.kill()
        self.process.wait()


def _hears_interrupts() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _takes_terminal() -> None:
    _hears_interrupts()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@dataclass(frozen=True)
class Unbroken:
    """A run that nothing happened to."""

    tables: dict[str, bytes]
    steps: tuple[float, ...]
    """Seconds at which it began, at which each of its steps was done, and at which it ended."""

    def moment(self, share: float) -> tuple[int, float]:
        """Steps done after a share of its time, and seconds since the last of them.

        A run on a busier machine comes to the same place by them, if later.
        """
        at = share * self.steps[-1]
        done = bisect.bisect_right(self.steps, at) - 1
        return done, at - self.steps[done]


@functools.cache
def unbroken(changes: tuple[str, ...] = SMALL, target: str = WHOLE) -> Unbroken:
    """What a run leaves that nothing happens to.

    Raises:
        RuntimeError: it failed, so that nothing can be compared.
    """
    checkout, begun = Checkout(changes, target), time.monotonic()
    run, steps = checkout.start(), [0.0]
    while not run.ends_by(0.1):
        steps += [time.monotonic() - begun] * (1 + run.steps() - len(steps))
    if run.wait() != 0:
        raise RuntimeError(f"the unbroken run failed: {run.said()[-2000:]}")
    tables = checkout.tables()
    assert set(tables) == set(TABLES), sorted(tables)
    assert checkout.tally.read_text(), "no episode was counted"
    assert checkout.twice() == 0
    run.left()
    checkout.remove()
    return Unbroken(tables, (*steps, time.monotonic() - begun))


def under_way(
    share: float, changes: tuple[str, ...], target: str, terminal: Callable[[], Terminal | None] = lambda: None
) -> tuple[Checkout, Run]:
    """A run that has done a share of the work that an unbroken one does, and still runs.

    Raises:
        TimeoutError: no run lasted until then.
    """
    for again in range(TRIES):
        checkout = Checkout(changes, target)
        run = checkout.start(terminal())
        if run.reaches(*unbroken(changes, target).moment(share * 0.9**again)):
            return checkout, run
        run.left()
        checkout.remove()
    raise TimeoutError(f"{TRIES} runs ended before {share:.0%} of the work was done")


def moments(name: str, count: int) -> Iterator[float]:
    """Shares of an unbroken run's time, one from each of ``count`` equal parts of it, in an order drawn with them."""
    draws = random.Random(f"{SEED} {name}")
    parts = list(range(count))
    draws.shuffle(parts)
    return ((part + draws.random()) / count for part in parts)

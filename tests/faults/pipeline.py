"""The real pipeline in folders of its own, to be broken: started, watched, killed, and its tables compared."""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "config", "profiles", "harness", "methods", "baselines", "tables/reported", "tables/templates")
TABLES = ("main.tex", "main.md", "main.csv")
SMALL = ("rows=[frozen,delta_mem_tsw]", "run.workers=2")
"""The smoke experiment with one row that learns nothing and one that learns."""
MARK = "DELTA_MEM_FAULTS"
"""Environment variable by which every process of a run is known, whoever its parent has become."""
PATIENCE = 900
"""Seconds after which a run counts as one that never ends."""
SEED = 20260512


@functools.cache
def source() -> Path:
    """A copy of what a run is made of, so that edits made meanwhile change no fingerprint."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    for name in PARTS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (HERE / name).is_dir() else shutil.copy
        copy(HERE / name, folder / name)
    return folder


class Checkout:
    """A folder that looks like the checkout and has results and tables of its own."""

    def __init__(self, changes: tuple[str, ...] = SMALL, cores: int = 2, **surroundings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=source()))
        self.changes = changes
        self.cores = cores
        self.surroundings = surroundings
        self.tally = self.folder / "tally"
        for name in PARTS:
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).symlink_to(source() / name)

    def start(self, *more: str) -> Run:
        """Begin the one command, which is the same each time."""
        return Run(self, more)

    def tables(self) -> dict[str, bytes]:
        """The bytes of the tables that are there."""
        files = [self.folder / "tables" / name for name in TABLES]
        return {file.name: file.read_bytes() for file in files if file.exists()}

    def twice(self) -> int:
        """Episodes that were begun more often than once, each counted as often as it was begun again."""
        begun = Counter(self.tally.read_text().splitlines()) if self.tally.exists() else Counter()
        return sum(count - 1 for count in begun.values())

    def remove(self) -> None:
        shutil.rmtree(self.folder)


class Run:
    """One call of the command, which other processes may outlive."""

    def __init__(self, checkout: Checkout, more: tuple[str, ...] = ()) -> None:
        self.mark = f"{checkout.folder.name}-{time.monotonic_ns()}"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        looked = os.pathsep.join(map(str, (Path(__file__).with_name("tally"), checkout.folder)))
        changes = ", ".join(f'"{change}"' for change in (*checkout.changes, *more))
        settings = ("experiment=smoke", f"set=[{changes}]")
        self.output = checkout.folder / f"said-{self.mark}"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                ["snakemake", "--cores", str(checkout.cores), "tables/main.tex", "--config", *settings],
                cwd=checkout.folder,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    **checkout.surroundings,
                    "PATH": path,
                    "PYTHONPATH": looked,
                    "DELTA_MEM_TALLY": str(checkout.tally),
                    MARK: self.mark,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_hears_interrupts,
            )

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


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@functools.cache
def unbroken(changes: tuple[str, ...] = SMALL) -> tuple[dict[str, bytes], float]:
    """The tables of a run that nothing happened to, and its seconds.

    Raises:
        RuntimeError: it failed, so that nothing can be compared.
    """
    checkout, begun = Checkout(changes), time.monotonic()
    run = checkout.start()
    if run.wait() != 0:
        raise RuntimeError(f"the unbroken run failed: {run.said()[-2000:]}")
    tables, seconds = checkout.tables(), time.monotonic() - begun
    assert set(tables) == set(TABLES), sorted(tables)
    assert checkout.tally.read_text(), "no episode was counted"
    assert checkout.twice() == 0
    run.left()
    checkout.remove()
    return tables, seconds


def moments(name: str, count: int) -> Iterator[float]:
    """Shares of an unbroken run's time, one from each of ``count`` equal parts of it, in an order drawn with them."""
    draws = random.Random(f"{SEED} {name}")
    parts = list(range(count))
    draws.shuffle(parts)
    return ((part + draws.random()) / count for part in parts)

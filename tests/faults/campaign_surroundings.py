"""What a result must not depend on: workers, the order of cells and episodes, the hash seed, locale, time zone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from tests.faults.pipeline import SHORT, SMALL, Checkout, unbroken
from tests.faults.sheet import Result

MANY = ("rows=[frozen,bm25_rag,delta_mem_tsw]", "seeds=[42,43]")
"""Enough jobs for four workers at a time."""
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
"""A locale without a letter beyond ASCII, which Python would else overrule."""


def run(quick: bool) -> Iterator[Result]:
    yield compared("PYTHONHASHSEED=12345, TZ=Asia/Kathmandu", PYTHONHASHSEED="12345", TZ="Asia/Kathmandu")
    if quick:
        return
    yield compared("cells, and the episodes of each, answered in a shuffled order", DELTA_MEM_SHUFFLE="1")
    yield compared("PYTHONHASHSEED=0, TZ=America/St_Johns", PYTHONHASHSEED="0", TZ="America/St_Johns")
    for name in locales():
        yield compared(f"LC_ALL={name}", LC_ALL=name, LANG=name)
    yield compared("LC_ALL=C without Python's UTF-8 mode", **ASCII)
    one = (*MANY, "run.workers=1")
    for workers in (2, 4):
        many = (*MANY, f"run.workers={workers}")
        yield compared(f"{workers} one-thread workers in the place of one", many, one, cores=workers)


def compared(
    fault: str, changes: tuple[str, ...] = SMALL, plain: tuple[str, ...] = SMALL, cores: int = 2, **surroundings: str
) -> Result:
    """The tables of a run with other workers or another environment, beside those of the plain one."""
    expected = unbroken(plain, SHORT).tables
    checkout = Checkout(changes, SHORT, cores, **surroundings)
    this = checkout.start()
    code = this.wait()
    differ = [name for name, table in expected.items() if checkout.tables().get(name) != table]
    said = this.said()[-300:]
    this.left()
    checkout.remove()
    figure = f"{', '.join(differ)} differ" if differ else "byte-equal"
    return Result(fault, "tables byte-equal", figure if code == 0 else f"exit {code}: {said}", code == 0 and not differ)


def locales() -> list[str]:
    """A plain one, and one that is neither English nor UTF-8's default where the machine has it."""
    there = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.split()
    foreign = [name for name in there if name.partition("_")[0] not in ("C", "POSIX", "en") and "." in name]
    return ["C", "POSIX", *foreign[:1]]

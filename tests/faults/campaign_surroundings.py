"""What a result must not depend on: workers, the order of cells and episodes, the hash seed, locale, time zone."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.faults.pipeline import ONE, SHORT, SMALL, Checkout, unbroken
from tests.faults.sheet import Result

MANY = (*SMALL, "seeds=[42,43]")
"""Enough jobs for four workers at a time."""
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
"""A locale without a letter beyond ASCII, which Python would else overrule."""
TURKISH = "tr_TR.ISO-8859-9"
"""Where the small form of I is another letter, the decimal point a comma, and no Greek letter can be written."""


def run(quick: bool) -> Iterator[Result]:
    yield compared("PYTHONHASHSEED=12345, TZ=Asia/Kathmandu", PYTHONHASHSEED="12345", TZ="Asia/Kathmandu")
    if quick:
        return
    yield compared("cells, and the episodes of each, answered in a shuffled order", DELTA_MEM_SHUFFLE="1")
    yield compared("PYTHONHASHSEED=0, TZ=America/St_Johns", PYTHONHASHSEED="0", TZ="America/St_Johns")
    for name in ("C", "POSIX"):
        yield compared(f"LC_ALL={name}", LC_ALL=name, LANG=name)
    yield compared("LC_ALL=C without Python's UTF-8 mode", **ASCII)
    yield turkish()
    one = (*MANY, "run.workers=1")
    for workers in (2, 4):
        many = (*MANY, f"run.workers={workers}")
        yield compared(f"{workers} one-thread workers in the place of one", many, one, cores=workers)


def turkish() -> Result:
    """In a locale that is made for this, because few machines have it."""
    fault = f"LC_ALL={TURKISH}"
    with tempfile.TemporaryDirectory() as folder:
        language, _, letters = TURKISH.partition(".")
        command = ["localedef", "-i", language, "-f", letters, str(Path(folder, TURKISH))]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return Result(fault, "tables byte-equal", "not run", False, f"no localedef that makes it: {error}")
        return compared(fault, LOCPATH=folder, LC_ALL=TURKISH, LANG=TURKISH)


def compared(
    fault: str, changes: tuple[str, ...] = ONE, plain: tuple[str, ...] = ONE, cores: int = 2, **surroundings: str
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

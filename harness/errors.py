"""The one error that people see: what was wrong, where, and the mend, in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """A mistake in the input, told in one sentence that ends with the mend.

    The command line prints the sentence and leaves with exit code 2; nothing is written.
    """


class UnsupportedError(HarnessError):
    """A history or question that the method cannot hold by its nature: no score, and no zero either.

    The rest of the run goes on; the record counts what was left out, and the table shows the count.
    """


class SkippedError(HarnessError):
    """What the method needs is not here: a checkpoint, an optional package, time. Counted alike."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names the nearest known name: ``; did you mean 'locomo'?`` or the whole list."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known) or 'none'}"


RETRIED = ("error", "skipped")
"""How a question may have gone without an answer for a reason that another run need not meet."""

"""The one error that people see: what was wrong, where, and the mend, in one sentence. It tells no secret."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable

SECRET_NAME = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD|CREDENTIALS?)(_|$)", re.IGNORECASE)
"""Environment variables whose values are never told: HF_TOKEN, WANDB_API_KEY, AWS_SECRET_ACCESS_KEY, ..."""
SECRET_TEXT = re.compile(r"\bhf_[A-Za-z0-9]{16,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
"""A hub token that came from elsewhere, and the name and password in an address."""
SHORTEST = 8
"""Characters of a secret; a shorter value is a word that may stand anywhere."""
HIDDEN = "***"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""What would break a line, or speak to the terminal."""


def redact(text: str) -> str:
    """``text`` without secrets: those that the environment holds, and what looks like one."""
    values = {v for k, v in os.environ.items() if SECRET_NAME.search(k) and len(v) >= SHORTEST}
    for value in sorted(values, key=len, reverse=True):  # a secret may begin as another one does
        text = text.replace(value, HIDDEN)
    return SECRET_TEXT.sub(HIDDEN, text)


class HarnessError(Exception):
    """A mistake in the input, told in one sentence that ends with the mend.

    The command line prints the sentence and leaves with exit code 2; nothing is written. It quotes what others wrote
    (a file, the hub), so that secrets and control characters are taken out here.
    """

    def __init__(self, sentence: str = "") -> None:
        super().__init__(CONTROL.sub(" ", redact(str(sentence))))


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

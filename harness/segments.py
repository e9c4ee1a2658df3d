"""Where sentences begin: the unit of sentence writes (specification 1.7)."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

BOUNDARY = re.compile(r"""\n{2,}|(?<=[.!?;:])["')\]”’]*\s+""")
"""Two or more newlines, or whitespace after a mark, closing quotes and brackets between them."""


def sentence_starts(text: str) -> list[int]:
    """Offsets at which the sentences of a text begin, the first at 0; none of a blank text.

    What follows the mark, closing quotes and whitespace, begins the next sentence; blank ends are not one.
    """
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    cuts = [m.start() for m in BOUNDARY.finditer(text) if first < m.start() < last]
    return [0, *cuts] if text.strip() else []


def statement_starts(text: str) -> list[int]:
    """As :func:`sentence_starts`, but what ends in a colon, such as a speaker's name, goes with what follows."""
    return [at for at in sentence_starts(text) if not text[:at].endswith(":")]


def by_sentence(text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The sentence that each token of a text belongs to, from 0.

    Args:
        text: What was tokenised.
        spans: Offsets [start, end) of its tokens, in order.

    A text with a token that reaches over a boundary is one sentence.
    """
    starts = sentence_starts(text)
    after = [bisect_right(starts, begin) for begin, _ in spans]
    if any(n < len(starts) and starts[n] < end for n, (_, end) in zip(after, spans, strict=True)):
        return [min(n, 1) - 1 for n in after]
    return [n - 1 for n in after]

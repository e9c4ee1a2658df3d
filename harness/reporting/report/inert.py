"""Text made inert: what others wrote can neither run, nor hide, nor turn the page around."""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache
from typing import Any

_HIDDEN = ("Cc", "Cs", "Co", "Cn")
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that turn the direction of writing, so that code and figures read as others than they are."""
_UNUSUAL = re.compile(r"[^\x20-\x7e\n\t]")
_IN_SCRIPT = {c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


@cache
def _shown(character: str) -> str:
    hidden = unicodedata.category(character) in _HIDDEN or character in _TURNING
    return f"[U+{ord(character):04X}]" if hidden else character


def plain(text: object) -> str:
    """Text of which every character can be seen: control characters, turning marks and halves of pairs by number."""
    return _UNUSUAL.sub(lambda found: _shown(found[0]), str(text).replace("\r\n", "\n"))


def plainly(value: Any) -> Any:
    """A JSON value with all of its strings, keys among them, as :func:`plain` gives them."""
    if isinstance(value, dict):
        return {plain(key): plainly(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plainly(item) for item in value]
    return plain(value) if isinstance(value, str) else value


def script(value: Any) -> str:
    """Compact JSON for a ``<script>`` element, which nothing in it can close.

    Raises:
        ValueError: a number is no number, which JSON cannot say.
    """
    text = json.dumps(plainly(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escaped in _IN_SCRIPT.items():
        text = text.replace(character, escaped)
    return text

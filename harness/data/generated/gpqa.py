"""Invented questions in GPQA's schema: small sums in words, with four options, one of which is right."""

from __future__ import annotations

import random
from typing import Any

TEMPLATES = (
    ("Physics", "A cart moves at {a} metres a second for {b} seconds. How many metres does it go?", "{r} m"),
    ("Chemistry", "{a} flasks hold {b} grams of salt each. How many grams are that together?", "{r} g"),
    ("Biology", "Each of {a} plants carries {b} seeds. How many seeds are there?", "{r} seeds"),
)


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """``count`` rows with the columns that a reader of GPQA needs, the domains in turn."""
    rng = random.Random(f"gpqa/{seed}")
    return [_row(n, rng) for n in range(count)]


def _row(n: int, rng: random.Random) -> dict[str, Any]:
    domain, question, unit = TEMPLATES[n % len(TEMPLATES)]
    a, b = rng.sample(range(3, 13), 2)
    wrong = [v for v in sorted({a + b, a * b + a, a * b - b, a * b + 10, abs(a - b)}) if v != a * b]
    right, *others = [a * b, *rng.sample(wrong, 3)]
    return {
        "Record ID": f"invented-{n:04d}",
        "Question": question.format(a=a, b=b),
        "Correct Answer": unit.format(r=right),
        **{f"Incorrect Answer {k}": unit.format(r=value) for k, value in enumerate(others, 1)},
        "High-level domain": domain,
        "Subdomain": "arithmetic",
    }

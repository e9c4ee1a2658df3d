"""Answers a minute: what scoring many of them takes, by each task's rules, in a fresh process."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

from benchmarks._measured import Measured

GOAL = 60.0
"""Seconds for 100,000 answers, start included."""
ENOUGH = 100_000
VOCABULARY = 50_000
TASKS = ("locomo", "hotpotqa", "qasper")


def measure(answers: int) -> list[Measured]:
    """Seconds that ``harness score`` takes on invented answers of 1 to 30 words, drawn by Zipf's law; gold: 1 to 8."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "answers.jsonl"
        given.write_text(_lines(answers), encoding="utf-8")
        for task in TASKS:
            command = [sys.executable, "-c", "from harness.cli import app; app()", "score", task, str(given)]
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds = time.perf_counter() - start
            if len(done.stdout.splitlines()) != answers:
                raise RuntimeError(f"{task} scored {len(done.stdout.splitlines())} of {answers} answers")
            found.append(Measured(f"{task}.seconds", seconds, "s", at_most=GOAL if answers >= ENOUGH else None))
            found.append(Measured(f"{task}.rate", answers / seconds, "answers a second"))
    return found


def _lines(answers: int) -> str:
    rng = random.Random(0)
    endings = ("", "s", "ed", "ing", "ation")
    words = [f"{_letters(n)}{rng.choice(endings)}" for n in range(VOCABULARY)]
    weights = list(accumulate(1 / (n + 1) for n in range(VOCABULARY)))

    def text(most: int) -> str:
        return " ".join(rng.choices(words, cum_weights=weights, k=rng.randint(1, most)))

    rows = (
        {"id": n, "prediction": text(30), "gold": text(8), "category": ("multi_hop", "temporal")[n % 2]}
        for n in range(answers)
    )
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def _letters(n: int) -> str:
    """A word for a number, in syllables."""
    syllable = "bdfklmnprstv"[n % 12] + "aeiou"[n // 12 % 5]
    return syllable if n < 60 else _letters(n // 60) + syllable

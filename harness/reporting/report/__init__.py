"""The report: one HTML file that holds an experiment's numbers, what stands behind each, and what is wrong with them.

It is a function of the records, the paper's printed numbers and, for the words of questions, the data: no clock, no
network, no file beside it. ``faults`` finds what is wrong, ``leaderboard`` and ``samples`` gather what the page's
script shows, ``sections`` what stands there without it, ``page`` makes one file of it all; ``screenshot`` shows it.
"""

from __future__ import annotations

from pathlib import Path

from harness.experiment import Experiment
from harness.records import atomic
from harness.reporting.report.page import html

FILE = "index.html"


def write(experiment: Experiment, results: Path, out: Path) -> Path:
    """Write the report of an experiment as the one file ``out``, and give its path.

    Raises:
        HarnessError: a record or its samples are torn, doubled, foreign or at odds; nothing is written then.
    """
    text = html(experiment, results)
    with atomic(out) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return out

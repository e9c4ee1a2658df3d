"""The headline, from the records of an experiment: does a memory hold what was written, and not just any memory."""

from __future__ import annotations

from pathlib import Path

from benchmarks._measured import Measured

TASK = "write_clear_read"
ROW, GOAL = "delta_mem_tsw", 20.0
"""The row, and the points by which the lower bound of own - donor must lie above zero."""


def measure(name: str, results: Path) -> list[Measured]:
    """Own, and own - donor under ``removed`` with its paired interval, in points, for every row that has a donor.

    Args:
        name: The experiment.
        results: The results folder with its records.

    Raises:
        HarnessError: there are no records, or no row of the task ran with a donor.
    """
    from harness.config import load
    from harness.errors import HarnessError
    from harness.reporting.summary import Place, Summary

    experiment = load(name)
    summary = Summary(experiment, results)
    found = []
    for backbone in experiment.backbones:
        for row in experiment.rows:
            own = Place(backbone, row.row, TASK, "removed")
            score, contrast = summary.estimate(own), summary.contrast(own, own._replace(arm="donor"))
            if score is None or contrast is None:
                continue
            label = f"{backbone}.{row.row}"
            found += [
                Measured(f"{label}.own", 100 * score.value, f"points, n = {score.n}"),
                Measured(f"{label}.own_minus_donor", 100 * contrast.value, "points"),
            ]
            if contrast.low is not None and contrast.high is not None:
                goal = GOAL if row.row == ROW else None
                found += [
                    Measured(f"{label}.own_minus_donor.low", 100 * contrast.low, "points", at_least=goal),
                    Measured(f"{label}.own_minus_donor.high", 100 * contrast.high, "points"),
                ]
    if not found:
        raise HarnessError(f"no row of '{name}' was asked {TASK} with a donor's memory; add the arm and run it")
    return found

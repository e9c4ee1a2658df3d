"""How our numbers agree with a printed one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.special import stdtrit

Verdict = Literal["reproduced", "compatible", "not reproduced", "inconclusive"]


def verdict(means: Sequence[float], printed: float, band: float, deterministic: bool = False) -> Verdict:
    """How our numbers of K seeds agree with a printed one, all in the same unit (docs/audit.md).

    *reproduced*: the 90% t interval of our mean lies within ``printed`` +- ``band``; *compatible*: not that, but
    ``printed`` lies where the next seed is expected; *not reproduced*: it lies outside that and outside our mean
    +- ``band``; *inconclusive*: none of these, or fewer than three seeds of a row that depends on the seed.
    """
    ours, seeds = float(np.mean(means)), len(means)
    if deterministic:
        return "reproduced" if abs(ours - printed) <= band else "not reproduced"
    if seeds < 3:
        return "inconclusive"
    spread = float(np.std(means, ddof=1))
    half = float(stdtrit(seeds - 1, 0.95)) * spread / np.sqrt(seeds)
    if abs(ours - printed) + half <= band:
        return "reproduced"
    if abs(ours - printed) <= float(stdtrit(seeds - 1, 0.975)) * spread * np.sqrt(1 + 1 / seeds):
        return "compatible"
    return "not reproduced" if abs(ours - printed) > band else "inconclusive"

"""Whose memory a question gets: its own episode's, or a donor's (RIGOR 2)."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from harness.episodes import Episode
from harness.errors import HarnessError

FORBIDDEN, AVOIDED = 1e6, 1e3


def donors(episodes: Sequence[Episode], draws: int, seed: int) -> list[dict[str, str]]:
    """Fixed derangements: for each draw a map from an episode to the one whose memory it gets.

    Each draw is a permutation, so that every memory serves once. A donor comes from another root document, never
    serves one episode twice while others are left, and has no gold answer in common where that is possible.

    Raises:
        HarnessError: all episodes come from one root document.
    """
    n = len(episodes)
    roots = np.array([e.root for e in episodes])
    if len(set(roots)) < 2:
        raise HarnessError(
            f"the donor arm needs episodes of two root documents but all {n} come from '{roots[0]}'; "
            "raise the task's limits or leave the arm out"
        )
    answers = [{a.casefold() for q in e.questions for a in q.answers} for e in episodes]
    cost = np.array([[_cost(roots[i] == roots[j], answers[i] & answers[j]) for j in range(n)] for i in range(n)])
    rng = random.Random(f"donors/{seed}")
    found = []
    for _ in range(draws):
        noise = np.array([[rng.random() for _ in range(n)] for _ in range(n)])
        takers, givers = linear_sum_assignment(cost + noise)
        # A root with more than half of the episodes leaves no permutation; its surplus takes any other root's memory.
        pairs = {
            i: j if roots[i] != roots[j] else int(np.argmin(cost[i] + noise[i]))
            for i, j in zip(takers, givers, strict=True)
        }
        found.append({episodes[i].id: episodes[j].id for i, j in pairs.items()})
        for i, j in pairs.items():
            cost[i, j] += AVOIDED
    return found


def _cost(same_root: bool, common: set[str]) -> float:
    return FORBIDDEN * same_root + AVOIDED / 2 * bool(common)

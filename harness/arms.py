"""Whose memory a question gets: its own episode's, a donor's, the mean of all others', or its own in another order
(docs/conditions.md)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from harness.episodes import Episode, History
from harness.errors import HarnessError

FORBIDDEN, AVOIDED = 1e6, 1e3
UNEQUAL = 0.6 * AVOIDED
"""A memory of fewer or more sessions differs in more than whose it is: that weighs more than one answer in common."""


def check(arm: str, episodes: Sequence[Episode]) -> None:
    """Whether the episodes can serve an arm.

    Raises:
        HarnessError: they cannot, with the mend.
    """
    roots = {e.root for e in episodes}
    if arm in ("donor", "mean") and len(roots) < 2:
        raise HarnessError(
            f"the {arm} arm needs episodes of two root documents but all {len(episodes)} come from '{min(roots)}'; "
            "raise the task's limits or leave the arm out"
        )
    if arm == "shuffled" and all(len(e.history.messages) < 2 for e in episodes):
        raise HarnessError(
            "the shuffled arm needs histories of several messages but each here has one; leave the arm out"
        )


def others(episodes: Sequence[Episode], episode: Episode) -> list[Episode]:
    """The episodes whose mean memory ``episode`` gets: all of another root document."""
    return [e for e in episodes if e.root != episode.root]


def shuffled(episode: Episode, seed: int) -> History:
    """The history with its messages in another order, never its own; one message stays as it is."""
    told = episode.history.messages
    order = list(range(len(told)))
    rng = random.Random(f"shuffled/{episode.id}/{seed}")
    while len(told) > 1 and order == sorted(order):
        rng.shuffle(order)
    return replace(episode.history, messages=tuple(told[n] for n in order))


def donors(
    episodes: Sequence[Episode], draws: int, seed: int, depths: Mapping[str, int] | None = None
) -> list[dict[str, str]]:
    """Fixed derangements: for each draw a map from an episode to the one whose memory it gets.

    Each draw is a permutation, so that every memory serves once. A donor comes from another root document, never
    serves one episode twice while others are left, and has no gold answer in common where that is possible. Where
    histories go on from session to session, it has gone on as far as the taker where that is possible.

    Args:
        depths: By episode, how many it goes on from; none does where there are no depths.

    Raises:
        HarnessError: all episodes come from one root document.
    """
    n = len(episodes)
    check("donor", episodes)
    roots = np.array([e.root for e in episodes])
    answers = [{a.casefold() for q in e.questions for a in q.answers} for e in episodes]
    cost = np.array([[_cost(roots[i] == roots[j], answers[i] & answers[j]) for j in range(n)] for i in range(n)])
    depth = np.array([(depths or {}).get(e.id, 0) for e in episodes])
    cost += UNEQUAL * (depth[:, None] != depth)
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

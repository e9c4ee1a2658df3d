"""Honest uncertainty (docs/statistics.md): means, paired differences and ratios, tests, and layers of chance apart.

The estimand is always the mean over questions. Questions of one root document (one conversation, one book) share
their luck, so intervals count clusters, not questions. Fewer than ``FEWEST_CLUSTERS`` clusters carry no interval and
no test: such a mean speaks of these contexts only. What is computed and how far it holds: docs/statistics.md.
"""

from harness.statistics.estimates import (
    FEWEST_CLUSTERS,
    LEVEL,
    POWER,
    Estimate,
    mean,
    paired,
    ratio,
)
from harness.statistics.layers import Components, components, crossed
from harness.statistics.questions import QUESTION, average, by_question, categories, score, within
from harness.statistics.significance import DRAWS, EXACT_CLUSTERS, holm, mcnemar, sign_flip, smallest_p
from harness.statistics.verdicts import Verdict, verdict

__all__ = [
    "DRAWS", "EXACT_CLUSTERS", "FEWEST_CLUSTERS", "LEVEL", "POWER", "QUESTION", "Components", "Estimate", "Verdict",
    "average", "by_question", "categories", "components", "crossed", "holm", "mcnemar", "mean", "paired", "ratio",
    "score", "sign_flip", "smallest_p", "verdict", "within",
]  # fmt: skip

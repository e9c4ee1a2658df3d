"""What the statistics do where the truth is known: false positives, coverage, power; and what the bootstrap costs."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks._measured import Measured
from harness import statistics

QUESTIONS, METHODS, SEEDS = 1540, 12, 5
BOOTSTRAP_SECONDS, BOOTSTRAP_MEGABYTES = 5.0, 500.0
FALSE, COVERED = 0.065, (0.935, 0.965)
"""What is asked for: false positives at 5% at most, and coverage of 95% intervals from and to."""


@dataclass(frozen=True)
class Setting:
    """Questions in clusters: how many, how large, how alike within one, and the truth."""

    clusters: int
    size: int
    alike: float
    """Intra-class correlation: the share of the variance of right and wrong that lies between clusters."""
    rate: float = 0.5
    """Share of right answers."""

    @property
    def name(self) -> str:
        return f"G{self.clusters}.size{self.size}.icc{self.alike:g}.rate{self.rate:g}"

    @property
    def codes(self) -> NDArray:
        return np.repeat(np.arange(self.clusters), self.size)

    def answers(self, rng: np.random.Generator, lift: float = 0.0) -> NDArray:
        """Right (1) and wrong (0) answers, shape (n,): a beta-binomial draw; ``lift`` is added to the rate."""
        rate = self.rate + lift
        if not self.alike:
            return (rng.random(self.clusters * self.size) < rate).astype(float)
        spread = (1 - self.alike) / self.alike
        chances = rng.beta(rate * spread, (1 - rate) * spread, self.clusters)
        return (rng.random(self.clusters * self.size) < np.repeat(chances, self.size)).astype(float)


SETTINGS = [
    Setting(clusters, size, alike, rate)
    for rate in (0.5, 0.3)
    for clusters, size in ((6, 20), (10, 20), (20, 10), (60, 4), (60, 1))
    for alike in ((0.0, 0.1, 0.3) if size > 1 else (0.0,))
]
"""The settings at which the goals hold and are tested."""
HARSH = [Setting(g, s, alike, 0.1) for g, s in ((6, 20), (10, 20), (20, 10), (60, 4)) for alike in (0.0, 0.1, 0.3)]
"""One right answer in ten: few clusters hold any, and no interval from so few keeps its level everywhere."""


@dataclass(frozen=True)
class Rates:
    """How often what should happen happened."""

    false: float
    """Equal methods told apart at p <= 0.05."""
    mean: float
    """Intervals of a mean that hold the truth."""
    paired: float
    ratio: float
    """Of ratios that have an interval."""
    rated: float
    """Share of ratios that have one."""


def rates(setting: Setting, draws: int, seed: int = 0) -> Rates:
    """Two methods of equal skill, compared ``draws`` times."""
    rng, codes = np.random.default_rng(seed), setting.codes
    false = mean = paired = ratio = rated = 0
    for _ in range(draws):
        left, right = setting.answers(rng), setting.answers(rng)
        mean += _holds(statistics.mean(left, codes), setting.rate)
        contrast = statistics.paired(left, right, codes)
        paired += _holds(contrast, 0.0)
        false += contrast.p is not None and contrast.p <= 0.05
        if right.any():
            quotient = statistics.ratio(left, right, codes)
            rated += quotient.low is not None
            ratio += _holds(quotient, 1.0)
    return Rates(false / draws, mean / draws, paired / draws, ratio / rated if rated else 0.0, rated / draws)


def power(setting: Setting, draws: int, seed: int = 0) -> float:
    """How often an effect as large as the one that is called detectable is found.

    The effect is the mean of what is called detectable where nothing is there.
    """
    rng, codes = np.random.default_rng(seed), setting.codes
    called = [
        statistics.paired(setting.answers(rng), setting.answers(rng), codes).detectable or 0.0 for _ in range(draws)
    ]
    lift, found = float(np.mean(called)), 0
    for _ in range(draws):
        contrast = statistics.paired(setting.answers(rng, lift), setting.answers(rng), codes)
        found += contrast.p is not None and contrast.p <= 0.05
    return found / draws


def layers(seeds: int, clusters: int, size: int, between: tuple[float, float, float], draws: int) -> float:
    """Coverage of :func:`statistics.components`: normal effects with these SDs of seeds, clusters and single scores."""
    rng, codes, held = np.random.default_rng(0), np.repeat(np.arange(clusters), size), 0
    of_seeds, of_clusters, of_scores = between
    for _ in range(draws):
        scores = 0.5 + rng.normal(0, of_seeds, (seeds, 1, 1)) + rng.normal(0, of_clusters, (1, clusters, 1))
        scores = (scores + rng.normal(0, of_scores, (seeds, clusters, size))).reshape(seeds, -1)
        held += _holds(statistics.components(scores, codes), 0.5)
    return held / draws


def _holds(estimate: statistics.Estimate | statistics.Components, truth: float) -> bool:
    return estimate.low is not None and estimate.high is not None and estimate.low <= truth <= estimate.high


def measure(draws: int = 2000) -> list[Measured]:
    """Every rate at every setting; goals stand beside those that have one."""
    found = []
    for setting in (*SETTINGS, *HARSH):
        rate, stated = rates(setting, draws), setting in SETTINGS
        found += [
            Measured(f"{setting.name}.false_positives", rate.false, at_most=FALSE),
            Measured(f"{setting.name}.mean_covers", rate.mean, at_least=COVERED[0] if stated else None),
            Measured(f"{setting.name}.paired_covers", rate.paired, at_least=COVERED[0] if stated else None),
            Measured(f"{setting.name}.ratio_covers", rate.ratio),
            Measured(f"{setting.name}.ratios_with_interval", rate.rated),
        ]
    return found


def bootstrap() -> list[Measured]:
    """The crossed bootstrap: 10,000 draws over 1,540 questions, 12 methods and 5 seeds, a cluster a question."""
    rng = np.random.default_rng(0)
    scores = [(rng.random((SEEDS, QUESTIONS)) < 0.4).astype(float) for _ in range(METHODS)]
    before, clock, cpu = _peak(), time.perf_counter(), time.process_time()
    statistics.crossed(scores, np.arange(QUESTIONS))
    seconds, worked = time.perf_counter() - clock, time.process_time() - cpu
    return [
        Measured("bootstrap.seconds", seconds, "s", at_most=BOOTSTRAP_SECONDS),
        Measured("bootstrap.cpu_seconds", worked, "s"),
        Measured("bootstrap.peak", _peak(), "MB", at_most=BOOTSTRAP_MEGABYTES),
        Measured("bootstrap.peak_over_start", _peak() - before, "MB"),
    ]


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # KiB on Linux

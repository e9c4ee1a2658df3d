"""How hard generated tasks are: what programs reach that read well, that read carelessly, or that guess."""

from __future__ import annotations

from benchmarks import _readers as readers
from benchmarks._measured import Measured
from harness.config import load
from harness.data.settings import Knobs
from harness.episodes import Episode
from harness.experiment import DataSpec, TaskSpec
from harness.tasks import task, tasks

CAPABLE_GOAL, CHANCE_MARGIN = 0.95, 0.05
"""What a reader that misses nothing must reach, and by how much a guesser may do better than chance."""
EPISODES = 100


def measure(name: str) -> list[Measured]:
    """Of every task that a reader is written for: its capable reader, each careless one, guesser and chance.

    Rows of LoCoMo, HotpotQA and QASPER without knobs are left out: no reader knows their wording.

    Chance is the share of the most frequent gold answer to questions of one form, or a half where two things are
    named to choose from, weighted by how often a form is asked.

    Raises:
        HarnessError: the experiment is none, or one of its tasks refuses its settings.
    """
    experiment = load(name)
    found: list[Measured] = []
    for spec in experiment.tasks:
        short = issubclass(tasks()[spec.task].Settings, Knobs) and not spec.settings
        if spec.task in readers.READERS and not short:
            found += of(spec, experiment.data.seed)
    return found


def of(spec: TaskSpec, seed: int = 0) -> list[Measured]:
    """The scores of one use of a task."""
    asked = task(spec.task)

    def episodes(seed: int) -> tuple[Episode, ...]:
        return asked.load(DataSpec(source="generated", seed=seed), asked.splits[0], spec.settings, EPISODES).episodes

    here, elsewhere = episodes(seed), episodes(seed + 1)
    chance = readers.chance(here)
    return [
        Measured(f"{spec.name}.capable", readers.read(asked, here), at_least=CAPABLE_GOAL),
        *(Measured(f"{spec.name}.{flaw}", readers.read(asked, here, flaw)) for flaw in readers.FLAWS[spec.task]),
        Measured(f"{spec.name}.guess", readers.guess(asked, elsewhere, here), at_most=chance + CHANCE_MARGIN),
        Measured(f"{spec.name}.chance", chance),
    ]

"""The figures of an experiment, a module each: pure functions of its records, and of the paper's printed numbers.

A module gives ``CAPTION`` (one sentence: what is drawn), ``pages`` (from the experiment alone, none where it has no
such figure) and ``draw`` (one page). A figure that an experiment has is always there; where nothing of it ran, it says
so in one sentence.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.experiment import Experiment
from harness.reporting.figures import (
    _style,
    capacity,
    efficiency,
    gains,
    layers,
    memory,
    parameters,
    pareto,
    recovery,
    training,
)
from harness.reporting.figures._pages import Sources

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOM = {
    module.__name__.rsplit(".", 1)[-1]: module
    for module in (memory, gains, recovery, pareto, parameters, efficiency, training, layers, capacity)
}
CAPTIONS = {stem: module.CAPTION for stem, module in ROOM.items()}
"""What each figure shows, in one sentence."""


def names(experiment: Experiment) -> list[str]:
    """The stems of the experiment's figures; pages beyond the first have their number behind it (``gains-2``)."""
    return [
        f"{stem}-{number}" if number > 1 else stem
        for stem, module in ROOM.items()
        for number, _ in enumerate(module.pages(experiment), 1)
    ]


def alt(name: str, experiment: Experiment) -> str:
    """What a reader who does not see the figure of this name (a stem of ``names``) is told of it."""
    title = experiment.title or experiment.name
    number = name[len(_stem(name)) + 1 :]
    return f"{CAPTIONS[_stem(name)]} {title}{f', page {number}' if number else ''}."


def write(experiment: Experiment, results: Path, out: Path) -> list[Path]:
    """Write every figure as PDF and PNG into ``out``; equal answers give equal pictures.

    Raises:
        HarnessError: a record or its samples are torn, doubled, foreign or at odds; of what comes after it nothing is
            written then.
    """
    return [path for name, figure in _drawn(experiment, results) for path in _style.save(figure, name, out)]


def svg(experiment: Experiment, results: Path) -> dict[str, str]:
    """Every figure as the text of an SVG, by name; letters are paths, and ids differ from figure to figure.

    Raises:
        HarnessError: as :func:`write`.
    """
    found = {}
    for name, figure in _drawn(experiment, results):
        _style.settle(figure)
        text = io.StringIO()
        _style.draw(figure, "svg", text)
        found[name] = text.getvalue()
    return found


def _drawn(experiment: Experiment, results: Path) -> Iterator[tuple[str, Figure]]:
    """Figures by name; each is to be saved before the next is asked for, under the settings that it was drawn with."""
    sources = Sources(experiment, results)
    if experiment.tasks:
        _ = sources.summary  # what is wrong with the records is told before the first figure
    for name in names(experiment):
        module = ROOM[_stem(name)]
        number = int(name[len(_stem(name)) + 1 :] or 1)
        with _style.settled(name):
            yield name, module.draw(sources, module.pages(experiment)[number - 1])


def _stem(name: str) -> str:
    return re.sub(r"-\d+$", "", name)

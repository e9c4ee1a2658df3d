"""Gold answers known to be wrong, as a file of question ids: scores then print with and without them.

The file (YAML or JSON) holds ids alone, never a benchmark's text::

    task: locomo
    source: who found them, and where it is told
    wrong: [conv-26-q12, conv-30-q7]

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import config
from harness.episodes import digest
from harness.errors import HarnessError, nearest
from harness.experiment import TaskSpec


class Overlay(BaseModel):
    """What such a file says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str = Field(description="Task whose questions these are; its other forms (`task@...`) take it too.")
    source: str = Field(min_length=1, description="Who found them, and where it is told.")
    wrong: tuple[str, ...] = Field(min_length=1, description="Ids of the questions.")

    def facts(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"source": self.source, "wrong": len(self.wrong), "hash": digest(sorted(self.wrong))}


def read(file: Path, task: str) -> Overlay:
    """The overlay of a file, for a task.

    Raises:
        HarnessError: the file is missing or not of this form, an id stands twice, or it is another task's.
    """
    try:
        tree, places = config.read(file)
    except OSError as error:
        raise HarnessError(f"the overlay {file} cannot be read ({error}); name a file of question ids") from error
    try:
        found = Overlay.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        at = tuple(first["loc"])
        name = ".".join(map(str, at)) or "the file"
        where = places.get(at) or places.get(at[:1]) or str(file)
        raise HarnessError(f"{where}: '{name}' is wrong ({first['msg']}); give task, source and wrong") from error
    if found.task not in (task, task.partition("@")[0]):
        raise HarnessError(f"{file} names wrong golds of task '{found.task}', not of '{task}'; name another overlay")
    for n, name in enumerate(found.wrong):
        if name in found.wrong[:n]:
            raise HarnessError(f"{places['wrong', n]}: the question '{name}' stands twice in 'wrong'; keep one")
    return found


def of(spec: TaskSpec, known: Collection[str]) -> Overlay | None:
    """The overlay that a task names, its ids held against those of the data; None where it names none.

    Raises:
        HarnessError: as :func:`read`, or an id is no question's.
    """
    if spec.overlay is None:
        return None
    found = read(Path(spec.overlay), spec.task)
    for name in found.wrong:
        if name not in known:
            raise HarnessError(
                f"{spec.overlay}: 'wrong' names '{name}', which is no question of the data; {nearest(name, known)}"
            )
    return found

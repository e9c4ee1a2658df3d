"""Settings of a task: what an experiment may set, and the knobs of rows that are generated in an official schema."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator

from harness.errors import HarnessError
from harness.experiment import DataSpec


class TaskSettings(BaseModel):
    """Knobs that an experiment may set on a task."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Knobs(TaskSettings):
    """How difficult generated rows are. The first knob of a subclass turns the others on.

    Without it the rows are the short ones of :mod:`harness.data.generated.short`, which published records rest on.
    """

    @property
    def graded(self) -> bool:
        """Whether the knobs are in use."""
        return any(getattr(self, name) != field.default for name, field in type(self).model_fields.items())

    @model_validator(mode="after")
    def _first(self) -> Knobs:
        first = next(iter(type(self).model_fields))
        if self.graded and getattr(self, first) is None:
            raise ValueError(f"the other knobs are of rows that '{first}' sizes; give '{first}' a number")
        return self


def only_generated(settings: TaskSettings | None, task: str, data: DataSpec) -> None:
    """Refuse knobs where the rows are not made here; other settings pass.

    Raises:
        HarnessError: knobs are in use, and ``data`` means a file or the hub.
    """
    from harness.data.files import generates

    if isinstance(settings, Knobs) and settings.graded and not generates(data):
        raise HarnessError(
            f"the settings of task '{task}' are knobs of generated rows and do nothing to official ones; remove them "
            "or choose `data: {source: generated}`"
        )

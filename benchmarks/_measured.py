"""What every measurement gives: numbers with their goals, for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Measured:
    """One number, and the goal it is held against."""

    name: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def goal(self) -> float | None:
        return self.at_least if self.at_most is None else self.at_most

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where none is set."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_least is None else self.value >= self.goal


def as_json(found: Sequence[Measured]) -> str:
    """``{name: {value, goal, met}}``."""
    return json.dumps({m.name: {"value": round(m.value, 4), "goal": m.goal, "met": m.met} for m in found}, indent=1)


def show(found: Sequence[Measured], title: str) -> None:
    """A table on the screen."""
    table = Table("measured", "value", "goal", "met", title=title)
    for m in found:
        sign = "at least" if m.at_most is None else "at most"
        goal = "" if m.goal is None else f"{sign} {m.goal:g}"
        met = {None: "", True: "yes", False: "no"}[m.met]
        value = f"{m.value:,.0f}" if abs(m.value) >= 100 else f"{m.value:.3g}"
        table.add_row(m.name, f"{value} {m.unit}".strip(), goal, met)
    Console().print(table)

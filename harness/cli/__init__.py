"""The command line: ``harness COMMAND``. Thin; nothing imports it, and it imports no torch.

A file a group of commands, each of which joins the one app when it is imported.
"""

from harness.cli import (
    adapters,
    audit,
    compare,
    contamination,
    doctor,
    evaluate,
    experiments,
    lists,
    measurements,
    provenance,
    reports,
    rescore,
    score,
)
from harness.cli._common import PLUGINS, app

__all__ = [
    "PLUGINS",
    "adapters",
    "app",
    "audit",
    "compare",
    "contamination",
    "doctor",
    "evaluate",
    "experiments",
    "lists",
    "measurements",
    "provenance",
    "reports",
    "rescore",
    "score",
]

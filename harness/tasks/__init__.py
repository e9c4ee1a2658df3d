"""Tasks: a file a task, found by scanning (``_*.py`` is not scanned)."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from harness.errors import HarnessError, nearest
from harness.tasks.base import Metric, Prompts, Split, Task, TaskData, select

__all__ = ["Metric", "Prompts", "Split", "Task", "TaskData", "select", "task", "tasks"]


@cache
def tasks() -> dict[str, type[Task]]:
    """Every task by name, in a stable order.

    Raises:
        HarnessError: two classes claim one name.
    """
    found: dict[str, type[Task]] = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda i: i.name):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{info.name}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if not issubclass(cls, Task) or inspect.isabstract(cls) or cls.__module__ != module.__name__:
                continue
            if cls.name in found:
                both = f"{found[cls.name].__module__} and {cls.__module__}"
                raise HarnessError(f"the task '{cls.name}' is defined by {both}; rename one")
            found[cls.name] = cls
    return found


def task(name: str, prompts: Prompts | None = None) -> Task:
    """The task of that name, asking in the packaged wording unless ``prompts`` gives another.

    Raises:
        HarnessError: no such task.
    """
    if name not in tasks():
        raise HarnessError(f"unknown task '{name}'; {nearest(name, tasks())}")
    return tasks()[name](prompts or Prompts())

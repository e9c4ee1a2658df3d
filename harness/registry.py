"""Finds memory methods: a file or package a method under ``methods/`` and ``baselines/`` (``_*.py`` is not scanned)."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from harness.errors import HarnessError, nearest
from harness.method import MemoryMethod, MethodConfig

ROOMS = ("methods", "baselines")


@cache
def methods() -> dict[str, type[MemoryMethod]]:
    """Every method by name, in a stable order.

    Raises:
        HarnessError: two classes claim one name, or a module does not import.
    """
    found: dict[str, type[MemoryMethod]] = {}
    taken: dict[str, type[MemoryMethod]] = {}
    for room in ROOMS:
        package = importlib.import_module(room)
        for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda i: i.name):
            if info.name.startswith("_"):
                continue
            for cls in _defined_in(_imported(f"{room}.{info.name}")):
                for name in {cls.name, *cls.presets}:
                    other = taken.setdefault(name, cls)
                    if other is not cls:
                        raise HarnessError(
                            f"the name '{name}' is taken by {other.__module__} and by {cls.__module__}; rename one"
                        )
                found[cls.name] = cls
    return found


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise HarnessError(f"{name.replace('.', '/')} does not import ({error}); mend the module") from error


def _defined_in(module: object) -> list[type[MemoryMethod]]:
    name = getattr(module, "__name__", "")
    return [
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, MemoryMethod) and not inspect.isabstract(value) and value.__module__.startswith(name)
    ]


@cache
def row_names() -> dict[str, tuple[str, dict]]:
    """Every name a row may use: a method, or a preset of one, with the preset's settings."""
    rows: dict[str, tuple[str, dict]] = {}
    for name, cls in methods().items():
        if not cls.presets:
            rows[name] = (name, {})
        for preset, settings in cls.presets.items():
            rows[preset] = (name, dict(settings))
    for name in methods():
        rows.setdefault(name, (name, {}))
    return rows


def resolve(row: str, settings: dict | None = None) -> tuple[type[MemoryMethod], MethodConfig]:
    """The class and the checked settings behind a row's method name (a method or one of its presets).

    Raises:
        HarnessError: no such name, or a setting the method does not have.
    """
    names = row_names()
    if row not in names:
        raise HarnessError(f"unknown method '{row}'; {nearest(row, names)}")
    name, preset = names[row]
    cls = methods()[name]
    try:
        return cls, cls.Config(**{**preset, **(settings or {})})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        hint = nearest(where, cls.Config.model_fields) if first["type"] == "extra_forbidden" else first["msg"]
        raise HarnessError(f"method '{row}' has a wrong setting '{where}'; {hint}") from error


def source_file(name: str) -> Path:
    """The file that defines a method."""
    return Path(inspect.getfile(methods()[name]))

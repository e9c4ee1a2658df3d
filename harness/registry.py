"""Finds memory methods: a file or package a method under ``methods/`` and ``baselines/`` (``_*.py`` is not scanned),
those that installed packages offer (entry points of the group ``delta_mem.methods``), and plugged-in files.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import get_args

from pydantic import ValidationError

from harness.errors import HarnessError, nearest
from harness.experiment import is_slug
from harness.method import Arm, Capabilities, Condition, MemoryMethod, MethodConfig

ROOMS = ("methods", "baselines")
ENTRY_POINTS = "delta_mem.methods"
"""Group in which a package names a module, or a class, of methods."""
_plugged: dict[Path, ModuleType] = {}


def plug(files: Iterable[str | Path]) -> None:
    """Take in methods from files, or packages, that lie anywhere; one taken in before stays as it is.

    Raises:
        HarnessError: there is no such file, it does not import, or another of its name was taken in.
    """
    for file in (Path(f).resolve() for f in files):
        if file in _plugged:
            continue
        source = file / "__init__.py" if file.is_dir() else file
        if not source.is_file() or source.suffix != ".py":
            raise HarnessError(f"there is no plugin at {file}; name a Python file, or a folder with an __init__.py")
        if not is_slug(file.stem):
            raise HarnessError(f"the plugin {file} has no plain name; rename it (letters, digits, _.@-, 64 at most)")
        name = f"plugin_{file.stem}"
        if name in sys.modules:
            raise HarnessError(f"the plugin {file} has the name of {sys.modules[name].__file__}; rename one")
        spec = importlib.util.spec_from_file_location(
            name, source, submodule_search_locations=[str(file)] if file.is_dir() else None
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise HarnessError(f"{file} does not import ({error}); mend the file") from error
        _plugged[file] = module
        methods.cache_clear()
        row_names.cache_clear()


@cache
def methods() -> dict[str, type[MemoryMethod]]:
    """Every method by name, in a stable order.

    Raises:
        HarnessError: two classes claim one name, a class is not whole, or a module does not import.
    """
    found: dict[str, type[MemoryMethod]] = {}
    taken: dict[str, type[MemoryMethod]] = {}
    for cls in _offered():
        _check(cls)
        for name in {cls.name, *cls.presets}:
            other = taken.setdefault(name, cls)
            if other is not cls:
                raise HarnessError(
                    f"the name '{name}' is taken by {other.__module__} and by {cls.__module__}; rename one"
                )
        found[cls.name] = cls
    return found


def _offered() -> Iterator[type[MemoryMethod]]:
    """Every method class: of the rooms, of installed packages, of plugins."""
    for room in ROOMS:
        package = importlib.import_module(room)
        for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda i: i.name):
            if not info.name.startswith("_"):
                yield from _defined_in(_imported(f"{room}.{info.name}"))
    for point in sorted(entry_points(group=ENTRY_POINTS)):
        try:
            offered = point.load()
        except Exception as error:
            what = f"the entry point {point.name} ({point.value})"
            raise HarnessError(f"{what} does not load ({error}); mend its package, or uninstall it") from error
        yield from _defined_in(sys.modules[offered.__module__] if inspect.isclass(offered) else offered)
    for module in _plugged.values():
        yield from _defined_in(module)


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
        if issubclass(value, MemoryMethod) and value.__module__.startswith(name)
    ]


def _check(cls: type[MemoryMethod]) -> None:
    """What the protocol asks of a class is there.

    Raises:
        HarnessError: names the class, its file, and what is missing or unknown.
    """
    where = f"the method {cls.__name__} in {inspect.getfile(cls)}"
    missing = sorted(cls.__abstractmethods__)
    if missing:
        raise HarnessError(f"{where} has no {' and no '.join(missing)}; write what harness/method.py asks for")
    for attribute, kind in (("name", str), ("summary", str), ("capabilities", Capabilities)):
        if not isinstance(getattr(cls, attribute, None), kind):
            raise HarnessError(f"{where} has no {attribute}; give it one, a {kind.__name__}")
    for name in (cls.name, *cls.presets):
        if not is_slug(name):
            raise HarnessError(f"{where} has a row named '{name}'; a name is letters, digits and _.@-, 64 at most")
    for condition, arms in cls.capabilities.arms.items():
        for word, known in ((condition, get_args(Condition)), *((arm, get_args(Arm)) for arm in arms)):
            if word not in known:
                raise HarnessError(f"{where} names '{word}' among its conditions and arms; {nearest(word, known)}")
    for preset, settings in cls.presets.items():
        try:
            cls.Config(**settings)
        except ValidationError as error:
            wrong = ".".join(map(str, error.errors()[0]["loc"]))
            raise HarnessError(f"{where} has a preset '{preset}' with a wrong setting '{wrong}'; mend it") from error


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


def find(row: str) -> type[MemoryMethod] | None:
    """The class behind a method or preset; None where none of that name is here, as for records of others."""
    return methods().get(row_names().get(row, ("", {}))[0])


def source_file(name: str) -> Path:
    """The file that defines a method."""
    return Path(inspect.getfile(methods()[name]))

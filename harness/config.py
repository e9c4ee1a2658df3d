"""Reads an experiment file: safely, strictly, and with the line of every mistake.

YAML is composed into nodes and read node by node, so that no object is ever built from a tag, an alias cannot
blow up, and each value keeps its line. What is wrong is refused here, before any job is planned.
"""

from __future__ import annotations

import json
import os
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harness.errors import HarnessError, nearest
from harness.experiment import SLUG_LENGTH, Experiment

FOLDER = Path("config")
SCHEMA = FOLDER / "experiment.schema.json"
MAX_BYTES = 1_000_000
MAX_DEPTH = 12

Location = tuple[str | int, ...]
Places = dict[Location, str]
"""Where each value was written: ``config/x.yaml line 12``, or the override that set it."""


def load(name_or_path: str, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a file, with overrides applied, every name in it known.

    Args:
        name_or_path: ``embedded`` (a file in ``config/``) or a path that ends with ``.yaml``.
        overrides: ``methods+=my_memory`` adds a row; ``run.executor=inline`` and ``tasks.locomo.limit=5`` set a
            value, which is read as YAML.

    Raises:
        HarnessError: the file is missing, unsafe or wrong; the sentence names the file, the line and the mend.
    """
    path = find(name_or_path)
    tree, places = read(path)
    if not isinstance(tree, dict):
        raise HarnessError(f"{path} line 1: an experiment is a mapping; start with 'name: {path.stem}'")
    for override in overrides:
        _apply(tree, places, override)
    try:
        experiment = Experiment.model_validate(tree)
    except ValidationError as error:
        raise HarnessError(_explain(error.errors()[0], Experiment, (), places, path)) from error
    _check_names(experiment, places, path)
    return experiment


def find(name_or_path: str) -> Path:
    """The file that a name or a path means.

    Raises:
        HarnessError: no such file; names the experiments that exist.
    """
    is_path = name_or_path.endswith((".yaml", ".yml", ".json"))
    path = Path(name_or_path) if is_path else FOLDER / f"{name_or_path}.yaml"
    if not path.is_file():
        hint = nearest(Path(name_or_path).stem, (p.stem for p in FOLDER.glob("*.yaml")))
        raise HarnessError(f"there is no experiment '{name_or_path}' at {path}; {hint}")
    return path


def schema() -> str:
    """JSON Schema of an experiment file, as editors read it and ``config/experiment.schema.json`` keeps it."""
    return json.dumps(Experiment.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


# --- reading ---------------------------------------------------------------------------------------------------


def read(path: Path) -> tuple[Any, Places]:
    """Plain values of a YAML file, and the line of each.

    Raises:
        HarnessError: not UTF-8 YAML of at most 1 MB, or it uses tags, anchors, aliases or a key twice.
    """
    if path.stat().st_size > MAX_BYTES:
        raise HarnessError(f"{path} is larger than {MAX_BYTES} bytes; an experiment is a short text file")
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise HarnessError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def parse(text: str, source: str) -> tuple[Any, Places]:
    """As :func:`read`, of a text; ``source`` is what errors call it."""
    try:
        _refuse_unsafe(text, source)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it holds a character that YAML does not allow"
        raise HarnessError(f"{source}{line}: not valid YAML ({problem}); mend the line") from error
    places: Places = {}
    return (None if node is None else _plain(node, (), places, source)), places


def _refuse_unsafe(text: str, source: str) -> None:
    """Walk the flat events before any tree exists, so that neither an alias bomb nor deep nesting costs anything."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{source} line {event.start_mark.line + 1 if event.start_mark else 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise HarnessError(f"{where}: anchors and aliases are not read; write the value out")
        if tag := getattr(event, "tag", None):
            raise HarnessError(f"{where}: the tag '{tag}' is not read; write a plain value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise HarnessError(f"{where}: nested deeper than {MAX_DEPTH} levels; an experiment is flat")


def _plain(node: yaml.Node, at: Location, places: Places, source: str) -> Any:
    here = f"{source} line {node.start_mark.line + 1}"
    places.setdefault(at, here)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, (*at, i), places, source) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, at, places, source)
    kind = node.tag.rpartition(":")[2]
    if kind not in ("null", "bool", "int", "float"):
        return node.value
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except ValueError as error:
        raise HarnessError(f"{here}: '{node.value[:40]}' is not a number; write it out or quote it") from error


def _mapping(node: yaml.MappingNode, at: Location, places: Places, source: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, child in node.value:
        line = f"{source} line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise HarnessError(f"{line}: a key must be a plain word; mend the line")
        if key.value in values:
            raise HarnessError(f"{line}: the key '{key.value}' is given twice; keep one")
        places[(*at, key.value)] = line
        values[key.value] = _plain(child, (*at, key.value), places, source)
    return values


# --- overrides -------------------------------------------------------------------------------------------------


def _apply(tree: dict[str, Any], places: Places, override: str) -> None:
    """Set one value of the plain tree; the type check comes later, for file and overrides alike."""
    where = f"override '{override}'"
    key, equals, text = override.partition("=")
    if not equals or not key.strip("+"):
        raise HarnessError(f"{where} is not of the form key=value, e.g. run.executor=inline or methods+=my_memory")
    value, _ = parse(text, where)
    if key.endswith("+"):
        _append(tree, places, key[:-1], value, where)
        return
    *parents, last = _steps(tree, key.split("."), where)
    target: Any = tree
    for step in parents:
        target = target[step] if isinstance(target, list) else target.setdefault(step, {})
        if not isinstance(target, (dict, list)):
            raise HarnessError(f"{where}: '{step}' holds a plain value and has no keys; shorten the key")
    target[last] = value
    _forget(places, (*parents, last))
    places[(*parents, last)] = where


def _append(tree: dict[str, Any], places: Places, key: str, value: Any, where: str) -> None:
    name = "rows" if key == "methods" else key
    items = tree.setdefault(name, [])
    if not isinstance(items, list):
        raise HarnessError(f"{where}: '{key}' is not a list; only lists grow (methods, tasks, seeds, plugins)")
    for item in value if isinstance(value, list) else [value]:
        places[(name, len(items))] = where
        items.append(item)


def _steps(tree: Any, words: Sequence[str], where: str) -> list[Any]:
    """Turn the words of a dotted key into steps: an item of a list goes by its row or task name, or its number."""
    steps: list[Any] = []
    for word in words:
        if isinstance(tree, list):
            names = [item if isinstance(item, str) else item.get("row") or item.get("task") for item in tree]
            if word not in names:
                raise HarnessError(f"{where}: there is no '{word}' in the list; {nearest(word, filter(None, names))}")
            index = names.index(word)
            if isinstance(tree[index], str):
                tree[index] = {"row": word}
            steps.append(index)
            tree = tree[index]
        else:
            steps.append(word)
            tree = tree.get(word) if isinstance(tree, dict) else None
    return steps


def _forget(places: Places, at: Location) -> None:
    for known in [p for p in places if p[: len(at)] == at]:
        del places[known]


# --- explaining ------------------------------------------------------------------------------------------------


def _explain(error: ErrorDetails, model: type[BaseModel], base: Location, places: Places, path: Path) -> str:
    """One sentence of pydantic's finding; ``base`` is where ``model`` stands in the file."""
    at = tuple(error["loc"])
    where = _place(places, base + at, path)
    name = ".".join(map(str, base + at))
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key '{at[-1]}'; {nearest(str(at[-1]), _fields(model, at[:-1]))}"
    if error["type"] == "missing":
        return f"{where}: the key '{name}' is missing; add it"
    if error["type"] in ("string_pattern_mismatch", "string_too_long"):
        return f"{where}: '{name[:SLUG_LENGTH]}' must be a name of letters, digits and _ . @ -, at most 64; rename it"
    message = error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] == "value_error" else f", not {str(error['input'])[:40]!r}"
    return f"{where}: {name + ': ' if name else ''}{message}{got}"


def _place(places: Places, at: Location, path: Path) -> str:
    """The line of a value, or of the nearest thing around it that has one."""
    while at and at not in places:
        at = at[:-1]
    return places.get(at, str(path))


def _fields(model: Any, at: Location) -> Iterable[str]:
    """The keys that a model has at a location."""
    for step in map(str, at):
        field = model.model_fields.get(step) if isinstance(model, type) and issubclass(model, BaseModel) else None
        model = field.annotation if field else model
        model = next((a for a in typing.get_args(model) if isinstance(a, type) and issubclass(a, BaseModel)), model)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return ()
    return [field.alias or name for name, field in model.model_fields.items()]


def _check_names(experiment: Experiment, places: Places, path: Path) -> None:
    """Names and settings that only the registries know."""
    from harness import overlay
    from harness.data.settings import only_generated
    from harness.registry import plug, resolve
    from harness.tasks import Prompts, task, tasks

    def check(at: Location, look: Any, *arguments: Any) -> None:
        try:
            look(*arguments)
        except HarnessError as error:
            raise HarnessError(f"{_place(places, at, path)}: {error}") from error

    for i, plugin in enumerate(experiment.plugins):
        check(("plugins", i), plug, [plugin])
    if experiment.prompts:
        check(("prompts",), Prompts, Path(experiment.prompts))
    for i, row in enumerate(experiment.rows):
        check(("rows", i), resolve, row.method, row.with_)
    for i, spec in enumerate(experiment.tasks):
        check(("tasks", i, "task"), task, spec.task)
        settings = _check_settings(tasks()[spec.task].Settings, spec.settings, ("tasks", i, "settings"), places, path)
        check(("tasks", i, "settings"), only_generated, settings, spec.task, experiment.data_of(spec))
        metrics = [m.name for m in tasks()[spec.task].metrics]
        if spec.metric and spec.metric not in metrics:
            where = _place(places, ("tasks", i, "metric"), path)
            raise HarnessError(
                f"{where}: task '{spec.task}' has no metric '{spec.metric}'; {nearest(spec.metric, metrics)}"
            )
        beyond = [name for name in spec.conditions if name != "replayed"]
        if beyond and not tasks()[spec.task].has_history:
            where = _place(places, ("tasks", i, "conditions"), path)
            raise HarnessError(f"{where}: task '{spec.task}' has no history; remove the condition '{beyond[0]}'")
        if spec.overlay:
            check(("tasks", i, "overlay"), overlay.read, Path(spec.overlay), spec.task)
    training = experiment.training
    check(("training", "task"), task, training.task)
    settings = _check_settings(
        tasks()[training.task].Settings, training.settings, ("training", "settings"), places, path
    )
    check(("training", "settings"), only_generated, settings, training.task, experiment.data)
    if "train" not in tasks()[training.task].splits:
        hint = ", ".join(name for name, cls in tasks().items() if "train" in cls.splits)
        where = _place(places, ("training", "task"), path)
        raise HarnessError(f"{where}: task '{training.task}' has no training split; these have: {hint}")
    if experiment.primary and experiment.primary not in {t.name for t in experiment.tasks}:
        hint = nearest(experiment.primary, (t.name for t in experiment.tasks))
        raise HarnessError(f"{_place(places, ('primary',), path)}: the primary task is none of the tasks; {hint}")


def _check_settings(
    model: type[BaseModel], settings: dict[str, Any], base: Location, places: Places, path: Path
) -> Any:
    """The settings as the task reads them."""
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise HarnessError(_explain(error.errors()[0], model, base, places, path)) from error


def write_schema() -> Path:
    """Bring ``config/experiment.schema.json`` up to date."""
    temporary = SCHEMA.with_suffix(".part")
    temporary.write_text(schema(), encoding="utf-8")
    os.replace(temporary, SCHEMA)
    return SCHEMA

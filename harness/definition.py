"""The experiment behind records: what their own configurations say together.

Records of one folder may come from several runs, each with changes of its own. What a record was answered under counts
for its row and its task; what the runs merely named beside that is taken where nobody says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from harness.efficiency_records import EfficiencyRecord
from harness.errors import HarnessError
from harness.experiment import Experiment, TaskSpec
from harness.method import Condition
from harness.records import Record

Item = TypeVar("Item")

BESIDE = {"conditions", "details", "source"}
"""Of a task: what may differ between runs whose answers stand in one column, and is joined."""


FILE = "experiment.yaml"
"""Beside merged records: what they are of, for `harness tables` and all else that takes an experiment."""
CONDITIONS = get_args(Condition)
"""Their order in every file of config/; a record keeps none, for its JSON is sorted."""


@dataclass
class Part:
    """One configuration and the records that were made under it."""

    config: Experiment
    origin: str = ""
    """Where the records lie, for errors."""
    records: list[Record | EfficiencyRecord] = field(default_factory=list)

    @property
    def answered(self) -> list[Record]:
        return [r for r in self.records if isinstance(r, Record)]

    @property
    def rows(self) -> set[str]:
        """Rows that have records."""
        return {r.row for r in self.records}

    @property
    def tasks(self) -> set[str]:
        """Tasks that have records."""
        return {r.task for r in self.answered}

    @property
    def backbones(self) -> set[str]:
        return {r.backbone for r in self.records}


def parts(found: Iterable[Record | EfficiencyRecord], origin: str = "") -> list[Part]:
    """Records by their configuration, the most frequent one first.

    Raises:
        HarnessError: a configuration is of no form that this version reads.
    """
    groups: dict[str, Part] = {}
    for record in found:
        key = record.provenance.config_hash
        if key not in groups:
            groups[key] = Part(_read(record), origin)
        groups[key].records.append(record)
    return [groups[key] for key in sorted(groups, key=lambda key: (-len(groups[key].records), key))]


def _read(record: Record | EfficiencyRecord) -> Experiment:
    config = record.provenance.config
    tasks = [{**task, "conditions": _ordered(task.get("conditions", {}))} for task in config.get("tasks", ())]
    try:
        return Experiment.model_validate({**config, "tasks": tasks})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise HarnessError(
            f"the configuration in a record of {record.row} on {record.backbone} is not read by this version "
            f"({where}: {first['msg']}); read it with the version of commit {record.provenance.commit[:12]}"
        ) from error


def union(found: Sequence[Part], name: str) -> Experiment:
    """One experiment that names every row, task, backbone and seed of the parts, in their order.

    Settings of training, budget and runs are the first part's; what each fit really had stands in its record.

    Raises:
        HarnessError: there are no records, or one name means two things.
    """
    if not found:
        raise HarnessError(f"there is no record of '{name}'; run the pipeline first")
    first = found[0].config
    if len(found) == 1:
        return first.model_copy(update={"name": name})
    _agree(found, "data.seed", lambda part: part.config.data.seed)
    drawn = [part for part in found if any(r.arm == "donor" for r in part.answered)]
    _agree(drawn, "donors", lambda part: part.config.donors)
    tasks = _joined(found, "task", lambda part: part.tasks, lambda part: _tasks(part, first), _compared, _both)
    primaries = [part.config.primary for part in found if part.config.primary in {task.name for task in tasks}]
    return Experiment.model_validate(
        {
            **first.model_dump(mode="json", by_alias=True),
            "name": name,
            "backbones": {
                name: spec.model_dump(mode="json")
                for name, spec in _joined(
                    found, "backbone", lambda part: part.backbones, lambda part: part.config.backbones.items(),
                    lambda pair: pair[1].model_dump(exclude={"reported_as", "device_map"}), lambda mine, other: mine,
                )
            },
            "rows": [
                row.model_dump(mode="json", by_alias=True)
                for row in _joined(
                    found, "row", lambda part: part.rows, lambda part: part.config.rows,
                    lambda row: row.model_dump(), lambda mine, other: mine,
                )
            ],
            "tasks": [task.model_dump(mode="json", by_alias=True) for task in tasks],
            "seeds": list(dict.fromkeys(seed for part in found for seed in part.config.seeds)),
            "donors": drawn[0].config.donors if drawn else first.donors,
            "primary": primaries[0] if primaries else "",
            "plugins": list(dict.fromkeys(file for part in found for file in part.config.plugins)),
        }
    )  # fmt: skip


def _ordered(conditions: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: conditions[name] for name in sorted(conditions, key=lambda name: (*CONDITIONS, name).index(name))}


def _agree(found: Sequence[Part], name: str, value: Callable[[Part], Any]) -> None:
    for one, other in pairwise(found):
        if value(one) != value(other):
            raise HarnessError(
                f"{name} is {value(one)} in {_called(one)} and {value(other)} in {_called(other)}; keep them apart"
            )


def _joined(
    found: Sequence[Part],
    kind: str,
    used: Callable[[Part], set[str]],
    items: Callable[[Part], Iterable[Item]],
    compared: Callable[[Item], Any],
    both: Callable[[Item, Item], Item],
) -> list[Item]:
    """Items of all parts by name: those with records must agree, others stand in where no record says."""
    answered: dict[str, tuple[Item, Part]] = {}
    spare: dict[str, Item] = {}
    for part in found:
        for item in items(part):
            name = _name(item)
            spare.setdefault(name, item)
            if name not in used(part):
                continue
            if name not in answered:
                answered[name] = item, part
                continue
            known, source = answered[name]
            if compared(known) != compared(item):
                raise HarnessError(
                    f"the {kind} '{name}' of {_called(source)} is not that of {_called(part)} "
                    f"({_difference(compared(known), compared(item))}); rename one"
                )
            answered[name] = both(known, item), source
    return [answered[name][0] if name in answered else item for name, item in spare.items()]


def _name(item: Any) -> str:
    return item[0] if isinstance(item, tuple) else getattr(item, "name", None) or item.row


def _tasks(part: Part, first: Experiment) -> Iterator[TaskSpec]:
    """A part's tasks, each with the source of its data where that is not the first part's."""
    for task in part.config.tasks:
        source = part.config.data_of(task).source
        yield task if source == first.data.source else task.model_copy(update={"source": source})


def _compared(task: TaskSpec) -> dict[str, Any]:
    return task.model_dump(exclude=BESIDE)


def _both(mine: TaskSpec, other: TaskSpec) -> TaskSpec:
    """A task with the conditions and arms of either."""
    conditions = {
        name: tuple(dict.fromkeys((*mine.conditions.get(name, ()), *other.conditions.get(name, ()))))
        for name in dict.fromkeys((*mine.conditions, *other.conditions))
    }
    return mine.model_copy(update={"conditions": _ordered(conditions)})


def _called(part: Part) -> str:
    return part.origin or f"configuration {part.records[0].provenance.config_hash[:12]}"


def _difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """``limit: 5 and 12``: what two descriptions of one name differ in."""
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return "; ".join(f"{name}: {one.get(name)} and {other.get(name)}" for name in names)

"""What changed between two runs: what they were made of, and then what they answered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import records, statistics
from harness.errors import HarnessError
from harness.records import Record
from harness.statistics import Estimate

if TYPE_CHECKING:
    import pandas as pd

ABSENT = "none"
SHOWN = 8
"""Cells of one side that are named; the rest is counted, and stands in the JSON."""
BESIDE = (
    "commit", "dirty", "versions.", "machine.", "device", "threads", "config.name", "config.title", "config.primary",
    "config.merged", "config.run.executor", "config.run.workers", "config.run.cpus_per_worker",
    "config.run.gpus_per_worker", "config.run.fit_workers", "config.run.device", "config.plugins", "fit.restored",
    "fit.seconds", "fit.ranks", "fit.collectives", "experiment", "prompt set", "backbone.revision",
    "backbone.spec.reported_as", "backbone.spec.device_map", "backbone.placed", "data.note",
)  # fmt: skip
"""Facts that no answer is a function of, but for arithmetic; a name that ends in a dot is all below it."""
RAN = ("dtype", "attention")
"""What may run otherwise than the configuration, and so the address, asks."""
NOT_ASKED = ("conditions.", "details", "overlay", "metric")
"""Of a task: what no answer is a function of."""
ADDRESS = "address (code of the method, or settings of the task)"
NOT_TOLD = ("fit.losses", "fit.trials", "fit.data", "fit.budget", "fit.config", "config_hash", "addressed")
"""What is long, or follows from what is told."""
Key = tuple[str, ...]
QUESTION = [*statistics.QUESTION, "draw"]


@dataclass(frozen=True)
class Change:
    """A fact that differs."""

    fact: str
    left: str
    right: str
    cells: int
    """In how many cells that both runs have."""
    matters: bool
    """Answers are a function of it."""


@dataclass(frozen=True)
class Outcome:
    """How one cell's answers and scores changed, right minus left."""

    cell: str
    questions: int
    """Answers that both have."""
    prompts: int
    """Of them, how many were asked in other words."""
    answers: int
    """Of them, how many are other ones."""
    metric: str
    left: float | None
    right: float | None
    difference: Estimate | None
    """Paired by question; None where either has no samples."""

    @property
    def same(self) -> bool:
        return not self.answers and not self.prompts and self.left == self.right


@dataclass(frozen=True)
class Diff:
    """All that changed from one run to another."""

    cells: int
    only_left: list[str]
    only_right: list[str]
    changes: list[Change]
    outcomes: list[Outcome]

    @property
    def equal(self) -> bool:
        """Nothing that matters changed: no cell, no fact that answers are a function of, no answer, no score."""
        matter = any(change.matters for change in self.changes)
        return not (self.only_left or self.only_right or matter) and all(o.same for o in self.outcomes)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"equal": self.equal, **asdict(self)}


def diff(left: Path, right: Path) -> Diff:
    """Compare two runs: folders of one record each, of one job each, or of whole experiments.

    Raises:
        HarnessError: a folder holds no record, or they are of different kinds.
    """
    first, second = _records(left), _records(right)
    kinds = {len(key) for key in (*first, *second)}
    if len(kinds) > 1:
        raise HarnessError(f"{left} and {right} are folders of different kinds; name two records, two jobs or two runs")
    both = [key for key in first if key in second]
    return Diff(
        cells=len(both),
        only_left=["/".join(key) for key in first if key not in second],
        only_right=["/".join(key) for key in second if key not in first],
        changes=_changes([(first[key][1], second[key][1]) for key in both]),
        outcomes=[_outcome(key, first[key], second[key]) for key in both],
    )


def _records(folder: Path) -> dict[Key, tuple[Path, Record]]:
    """Records by their place below ``folder``; of a single one, the place is empty."""
    found = {path.relative_to(folder).parent.parts: (path, records.load(path)) for path in _paths(folder)}
    if not found:
        raise HarnessError(f"there is no record under {folder}; name the folder of a record, of a job or of a run")
    return found


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.rglob("record.json"))


def _changes(pairs: list[tuple[Record, Record]]) -> list[Change]:
    """Facts that differ, those that matter first; a fact that changed alike in many cells is told once."""
    found: dict[tuple[str, str, str, bool], int] = {}
    for one, other in pairs:
        left, right = _facts(one), _facts(other)
        if "wording" not in left or "wording" not in right:  # an older record knows the set alone
            left["prompts"], right["prompts"] = one.provenance.prompt_hash, other.provenance.prompt_hash
            left.pop("wording", None)
            right.pop("wording", None)
        _fold(left, right)
        moved = not one.address or one.address != other.address
        differ = {f: moved and _read(f, one) for f in {**left, **right} if left.get(f) != right.get(f)}
        differ |= {fact: True for fact in RAN if fact in differ}
        if one.address and other.address and moved and not any(differ.values()):
            left[ADDRESS], right[ADDRESS], differ[ADDRESS] = one.address, other.address, True
        for fact, matters in differ.items():
            key = fact, left.get(fact, ABSENT), right.get(fact, ABSENT), matters
            found[key] = found.get(key, 0) + 1
    changes = [Change(*key[:3], count, key[3]) for key, count in found.items()]
    return sorted(changes, key=lambda change: (not change.matters, change.fact, change.left, change.right))


def _read(fact: str, record: Record) -> bool:
    """Whether the record's answers can be a function of a fact: not of other rows, nor of other tasks."""
    if any(fact == name or (name.endswith(".") and fact.startswith(name)) for name in BESIDE):
        return False
    for room, own in (("config.rows.", record.row), ("config.tasks.", record.task)):
        if fact.startswith(room):
            below = fact.removeprefix(f"{room}{own}.")
            return below != fact and not below.startswith(NOT_ASKED)
    return True


def _fold(left: dict[str, str], right: dict[str, str]) -> None:
    """Tell a row or a task that only one side names in one word."""
    for room, key in (("config.rows.", ".row"), ("config.tasks.", ".task")):
        names = [{f[: -len(key)] for f in side if f.startswith(room) and f.endswith(key)} for side in (left, right)]
        for side, only in ((left, names[0] - names[1]), (right, names[1] - names[0])):
            for name in only:
                for fact in [f for f in side if f.startswith(f"{name}.")]:
                    del side[fact]
                side[name] = "named"


def _facts(record: Record) -> dict[str, str]:
    """What a record was made of, by dotted key."""
    made = record.provenance
    tree = {
        **made.model_dump(mode="json", exclude={"config_hash", "prompt_hash", "wording_hash"}),
        "experiment": record.experiment,
        "method": record.method,
        "prompt set": made.prompt_hash,
        **({"wording": made.wording_hash} if made.wording_hash else {}),
    }
    return {
        fact: value
        for fact, value in _flat(tree, "")
        if not any(fact == name or fact.startswith(f"{name}.") for name in NOT_TOLD)
    }


def _flat(value: Any, at: str) -> Iterator[tuple[str, str]]:
    """Dotted keys and plain values; an item of a list goes by its row's or task's name, or by its number."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{at}.{_item(inner, number)}")
    elif value not in (None, {}, []):
        yield at, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _item(value: Any, number: int) -> str:
    known = value if isinstance(value, dict) else {}
    return str(known.get("row") or known.get("as") or known.get("task") or number)


def _outcome(key: Key, left: tuple[Path, Record], right: tuple[Path, Record]) -> Outcome:
    """One cell's answers, paired by question and draw, and its score by the metric that both have."""
    (path, one), (other_path, other) = left, right
    metric = one.primary_metric if one.primary_metric in other.scores else other.primary_metric
    values = [r.scores[metric].value if metric in r.scores else None for r in (one, other)]
    frames = [_samples(r, p.parent) for r, p in ((one, path), (other, other_path))]
    questions = prompts = answers = 0
    difference = None
    if frames[0] is not None and frames[1] is not None:
        both = frames[0].merge(frames[1], on=QUESTION, suffixes=("", "_right"))
        questions = len(both)
        prompts, answers = (
            int((both[name] != both[f"{name}_right"]).sum()) if f"{name}_right" in both else 0
            for name in ("prompt_sha256", "answer_sha256")
        )
        difference = _paired(frames[0], frames[1], metric)
    name = "/".join(key) or f"{one.task}/{one.condition}/{one.arm}"
    return Outcome(name, questions, prompts, answers, metric, values[0], values[1], difference)


def _samples(record: Record, folder: Path) -> pd.DataFrame | None:
    """The samples beside a record; None where there are none.

    Raises:
        HarnessError: they are torn, or not as they were written.
    """
    return records.samples(record, folder) if (folder / "samples.parquet").is_file() else None


def _paired(left: pd.DataFrame, right: pd.DataFrame, metric: str) -> Estimate | None:
    """Mean of right minus left over the questions of both."""
    if not all(f"score.{metric}" in frame and len(frame) for frame in (left, right)):
        return None
    mine, theirs = (statistics.by_question(frame, metric) for frame in (left, right))
    both = theirs.join(mine["score"], how="inner", rsuffix="_left")
    if both.empty:
        return None
    return statistics.paired(both["score"], both["score_left"], both["root"], weights=both.get("weight"))


def lines(found: Diff) -> Iterator[str]:
    """What changed, in plain lines."""
    yield f"{found.cells:,} cell{'s' * (found.cells != 1)} in both"
    for side, names in (("left", found.only_left), ("right", found.only_right)):
        yield from (f"only {side}: {name}" for name in names[:SHOWN])
        if len(names) > SHOWN:
            yield f"only {side}: {len(names) - SHOWN:,} more"
    for matters, head in ((True, "answers follow from it"), (False, "beside it")):
        for change in (c for c in found.changes if c.matters is matters):
            where = "" if change.cells == found.cells else f" ({change.cells} of {found.cells} cells)"
            yield f"{head}: {change.fact}: {_short(change.left)} -> {_short(change.right)}{where}"
    changed = [outcome for outcome in found.outcomes if not outcome.same]
    yield from map(_told, changed)
    if same := len(found.outcomes) - len(changed):
        yield f"{same:,} cell{'s have' if same != 1 else ' has'} the same answers and scores"
    yield "equal in all that matters" if found.equal else "not equal"


def _short(value: str) -> str:
    """A digest by its first twelve digits, all else as it is."""
    return value[:12] if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", value) else value


def _told(outcome: Outcome) -> str:
    parts = [f"{outcome.answers:,} of {outcome.questions:,} answers changed"] if outcome.questions else []
    parts += [f"{outcome.prompts:,} prompts changed"] if outcome.prompts else []
    score = " -> ".join(ABSENT if v is None else f"{100 * v:.1f}" for v in (outcome.left, outcome.right))
    return f"{outcome.cell}: {', '.join([*parts, f'{outcome.metric} {score}{_interval(outcome.difference)}'])}"


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    ends = ""
    if estimate.low is not None and estimate.high is not None:
        ends = f" [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
    p = "" if estimate.p is None else f", p = {estimate.p:.3f}"
    return f" ({100 * estimate.value:+.1f}{ends}, {estimate.n:,} questions in {estimate.clusters:,} clusters{p})"

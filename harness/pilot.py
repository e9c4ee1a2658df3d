"""A pilot: what a run measured, beside what the closed forms say of the very tokens that it fed.

The ratio of the two is a rate. A plan multiplies its closed forms, which know the planned backbone and lengths, by the
rates of the same method on the same task, else of what is nearest to it. Rates hold for one kind of device; how long
questions and answers are, holds for any.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from harness import records
from harness.errors import HarnessError
from harness.experiment import Experiment, Job, row_of
from harness.loads import Device, Forms, Load, writing
from harness.records import Record
from harness.registry import resolve

Basis = Literal["pilot", "near", "constants"]
"""The row's method was measured on this task; it, or the task, was measured elsewhere; neither was."""
QUESTION_TOKENS = 48
"""Of a question and its template, where no pilot tells."""
ANSWER_SHARE = 0.5
"""Length of an answer over its cap, where no pilot tells."""
PROBE = Load(tokens=1000, calls=10)
"""What the seconds of gates are held against."""


@dataclass(frozen=True)
class Rate:
    """How a method answers a task."""

    write: float = 1.0
    """Measured seconds over those of the closed form; ``prefill`` and ``decode`` alike."""
    prefill: float = 1.0
    decode: float = 1.0
    other: float = 0.0
    """Seconds an answer, beside the backbone's."""
    answers: Answers | None = None
    """How long answers are; None: half of their cap."""
    basis: Basis = "constants"

    def length(self, cap: float) -> float:
        """Mean tokens of an answer that may have ``cap``."""
        return self.answers.length(cap) if self.answers else ANSWER_SHARE * cap


@dataclass(frozen=True)
class Answers:
    """Lengths of answers, of which some were cut by their cap."""

    tokens: tuple[int, ...] = ()
    cut: int = 0

    def __add__(self, other: Answers) -> Answers:
        return Answers(self.tokens + other.tokens, self.cut + other.cut)

    def length(self, cap: float) -> float:
        """Mean tokens under another cap; what was cut is taken to end later at the rate at which others ended."""
        known, ended = sum(min(n, cap) for n in self.tokens) / len(self.tokens), len(self.tokens) - self.cut
        beyond = max(0.0, cap - max(self.tokens)) * bool(self.cut)
        if ended and beyond:
            mean = sum(self.tokens) / ended
            beyond = mean * (1 - math.exp(-beyond / mean))
        return known + beyond * self.cut / len(self.tokens)


@dataclass(frozen=True)
class Ratio:
    """Something measured, and what it is held against; sums of both make a mean that is weighted rightly."""

    measured: float = 0.0
    against: float = 0.0


@dataclass(frozen=True)
class Measured:
    """One record."""

    method: str
    """The method or preset, as its row names it."""
    task: str
    condition: str
    device: Device
    parts: dict[str, Ratio]
    """``write``, ``prefill``, ``decode`` and ``other``, as in :class:`Rate`."""
    answers: Answers


@dataclass(frozen=True)
class Trained:
    """One fit, or the gates of one job."""

    method: str
    device: Device
    ratio: Ratio


@dataclass(frozen=True)
class Pilot:
    """The rates of a folder of results; without records, those of the constants."""

    cells: Sequence[Measured] = ()
    fits: Sequence[Trained] = ()
    gates: Sequence[Trained] = ()
    questions: dict[str, float] | None = None
    """Tokens of a question and its template, by task."""
    source: str = ""
    """One line: how many records of what, and on what machine."""

    def rate(self, method: str, task: str, condition: str, device: Device) -> Rate:
        """How fast a method is expected to serve a task."""
        here = [c for c in self.cells if c.device == device]
        same = [c for c in here if (c.method, c.task) == (method, task)]
        by_method, by_task = ([c for c in here if getattr(c, k) == v] for k, v in (("method", method), ("task", task)))
        reading = [*_narrowed(same, condition), *_narrowed(by_task, condition), *_narrowed(by_method, condition), here]
        writing = [same, by_method, here]
        asked = [c for c in self.cells if c.task == task]
        answers = [*_narrowed([c for c in asked if c.method == method], condition), asked]
        return Rate(
            write=_mean(writing, "write", 1.0),
            prefill=_mean(reading, "prefill", 1.0),
            decode=_mean(reading, "decode", 1.0),
            other=_mean(writing, "other", 0.0),
            answers=next((sum((c.answers for c in group), Answers()) for group in answers if group), None),
            basis="pilot" if same else "near" if here else "constants",
        )

    def fitting(self, method: str, device: Device) -> tuple[float, Basis]:
        """Measured seconds of a fit over those of the closed form."""
        return self._trained(self.fits, method, device, 1.0)

    def proving(self, method: str, forms: Forms) -> tuple[float, Basis]:
        """Seconds of a job's gates; none where no pilot tells."""
        rate, basis = self._trained(self.gates, method, forms.device, 0.0)
        return rate * forms.reading(PROBE), basis

    def question(self, task: str) -> float:
        """Tokens of a question and its template."""
        known = self.questions or {}
        return known.get(task) or (statistics.median(known.values()) if known else QUESTION_TOKENS)

    @staticmethod
    def _trained(found: Sequence[Trained], method: str, device: Device, default: float) -> tuple[float, Basis]:
        here = [t for t in found if t.device == device]
        same = [t for t in here if t.method == method]
        basis: Basis = "pilot" if same else "near" if here else "constants"
        return _weighted((t.ratio for t in same or here), default), basis


UNMEASURED = Pilot()
"""Plans by the constants alone."""


def _narrowed(found: Sequence[Measured], condition: str) -> list[Sequence[Measured]]:
    """Those of a condition first, then all."""
    return [[c for c in found if c.condition == condition], found]


def _mean(groups: Iterable[Sequence[Measured]], part: str, default: float) -> float:
    """Of the first group that tells of the part."""
    for group in groups:
        if any(c.parts[part].against for c in group):
            return _weighted((c.parts[part] for c in group), default)
    return default


def _weighted(ratios: Iterable[Ratio], default: float) -> float:
    every = [r for r in ratios if r.against]
    return sum(r.measured for r in every) / sum(r.against for r in every) if every else default


# --- reading -----------------------------------------------------------------------------------------------------


def read(folder: Path) -> Pilot:
    """The pilot in a folder of results, and below it.

    Raises:
        HarnessError: there is no record, or one is torn.
    """
    paths = sorted(folder.rglob("record.json"))
    every = {path: records.load(path) for path in paths}
    whole = {path: record for path, record in every.items() if record.status == "ok" and _answers(record)}
    found = list(whole.values())
    if not found:
        raise HarnessError(f"{folder} holds no answered cell; name a folder of results, as results/smoke")
    known = _questions(found)
    pilot = Pilot(questions=known)
    return Pilot(
        cells=[_measured(record, pilot.question(_task(record)), _lengths(path)) for path, record in whole.items()],
        fits=[_fit(record) for record in _fitted(found)],
        gates=list(_gates(paths)),
        questions=known,
        source=_source(found),
    )


def _source(found: Sequence[Record]) -> str:
    names = ", ".join(sorted({r.experiment for r in found}))
    machines = ", ".join(sorted({r.provenance.device for r in found}))
    return f"{len(found):,} records of {names}, measured on {machines}"


@cache
def _experiment(config: str) -> Experiment:
    return Experiment.model_validate_json(config)


def _experiment_of(record: Record) -> Experiment:
    try:
        return _experiment(json.dumps(record.provenance.config))
    except ValueError as error:
        raise HarnessError(
            f"a record of '{record.experiment}' has a configuration of another version; leave it out of the pilot"
        ) from error


def _row(record: Record) -> Any:
    return row_of(_experiment_of(record), Job(record.experiment, record.backbone, record.row, record.seed))


def _task(record: Record) -> str:
    """The task by its own name, whatever the experiment calls it."""
    return next(t.task for t in _experiment_of(record).tasks if t.name == record.task)


def _device(record: Record) -> Device:
    return "cuda" if record.costs.gpu_seconds else "cpu"


def _forms(record: Record) -> Forms:
    """The closed forms of where the record was made, whatever its configuration had reserved."""
    experiment = _experiment_of(record)
    gpus = (experiment.run.gpus_per_worker or 1) if _device(record) == "cuda" else 0
    run = experiment.run.model_copy(update={"gpus_per_worker": gpus})
    return Forms.of(experiment.model_copy(update={"run": run}), record.backbone)


def _awake(record: Record) -> float:
    """The share of its one processor that the cell had, on a machine where others worked too."""
    costs = record.costs
    if _device(record) == "cuda" or record.provenance.threads > 1 or not costs.wall_seconds:
        return 1.0
    return min(1.0, costs.cpu_seconds / costs.wall_seconds)


def _lengths(path: Path) -> Answers:
    """Of the answers beside a record."""
    import pyarrow.parquet

    columns = pyarrow.parquet.read_table(path.with_name("samples.parquet"), columns=["new_tokens", "hit_cap"])
    return Answers(tuple(columns["new_tokens"].to_pylist()), sum(columns["hit_cap"].to_pylist()))


def _answers(record: Record) -> int:
    """Answers given: a question counts once a donor."""
    return int(record.n_samples.get(record.task, {}).get("original", 0))


def _questions(found: Sequence[Record]) -> dict[str, float]:
    """Tokens of a prompt in which nothing but the question stands; the median, for some methods add their own."""
    told: dict[str, list[float]] = {}
    for record in found:
        if (record.condition, record.arm) == ("removed", "own"):
            told.setdefault(_task(record), []).append(record.costs.tokens_in / _answers(record))
    return {task: statistics.median(tokens) for task, tokens in told.items()}


def _measured(record: Record, question: float, lengths: Answers) -> Measured:
    costs, forms, answers = record.costs, _forms(record), _answers(record)
    row = _row(record)
    draws = _experiment_of(record).donors if record.arm == "donor" else 1
    histories = record.provenance.data["episodes"]
    context = max(0.0, costs.tokens_in / answers - question)
    load = forms.asking(histories * draws, answers, context, question, shared=record.condition != "own_text")
    length = costs.tokens_out / answers
    kept = costs.tokens_written / histories
    fed = resolve(row.method, row.with_)[1].write_load(round(kept), forms.device) if kept else 0
    written = forms.reading(writing(histories, fed, kept))
    awake = _awake(record)
    beside = costs.overhead_seconds + costs.read_seconds + (0 if written else costs.write_seconds * bool(kept))
    return Measured(
        method=row.method,
        task=_task(record),
        condition=record.condition,
        device=forms.device,
        parts={
            "write": Ratio(awake * costs.write_seconds, written),
            "prefill": Ratio(awake * costs.prefill_seconds, forms.reading(load)),
            "decode": Ratio(awake * costs.decode_seconds, forms.decoding(histories * draws, answers, context, length)),
            "other": Ratio(awake * beside, answers),
        },
        answers=lengths,
    )


def _fitted(found: Sequence[Record]) -> list[Record]:
    """A record of each fit whose seconds are known."""
    facts = {r.provenance.fit["address"]: r for r in found if r.provenance.fit and r.provenance.fit.get("seconds")}
    return list(facts.values())


def _fit(record: Record) -> Trained:
    fit, budget, forms = record.provenance.fit or {}, _experiment_of(record).budget, _forms(record)
    told = fit["tokens"] / (fit["steps"] * budget.batch_size * budget.accumulation)
    load = Load(fit["tokens"], fit["tokens"] * told / 2, 2 * fit["steps"] * budget.accumulation)
    said = forms.training(load)
    return Trained(_row(record).method, forms.device, Ratio(fit["seconds"], said))


def _gates(paths: Sequence[Path]) -> Iterable[Trained]:
    """What the gates of each job took, of jobs that answered anything."""
    for folder in sorted({path.parents[3] for path in paths}):
        marked = folder / "evaluated.json"
        if marked.is_file() and (seconds := json.loads(marked.read_text(encoding="utf-8")).get("gates_seconds")):
            record = records.load(next(path for path in paths if folder in path.parents))
            forms = _forms(record)
            yield Trained(_row(record).method, forms.device, Ratio(seconds, forms.reading(PROBE)))

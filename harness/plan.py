"""What an experiment will cost before it runs: tokens, seconds, GPU-hours and disk of each job.

The model is a rough one, meant to be right within a factor of two or so (:mod:`harness.loads`), and better where a
pilot says how far off it is (:mod:`harness.pilot`). An answer is half as long as its cap where no pilot says more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from harness.episodes import Episode
from harness.experiment import (
    Experiment,
    Job,
    TaskSpec,
    cells,
    jobs,
    measured_under,
    measurements,
    row_of,
)
from harness.loads import Forms, Load, writing
from harness.method import MethodConfig
from harness.pilot import UNMEASURED, Basis, Pilot
from harness.registry import resolve
from harness.tasks import select, task, tasks

CHARACTERS_A_TOKEN = 4
MESSAGE_TOKENS = 5
"""What a template puts around a message."""
TRAINED_SHARE = 0.01
"""Trained parameters, of the backbone's; a checkpoint keeps them and two moments in fp32."""
SUMMED = ("cells", "tokens", "seconds", "gpu_hours", "bytes", "questions")
"""What of an estimate can be added up."""
SAMPLE_BYTES = 300
RECORD_BYTES = 40_000
"""Of a record of speed and memory."""

OFFICIAL = {
    "locomo": (10, 1540, 20_000),
    "hotpotqa": (7405, 7405, 1_300),
    "qasper": (2219, 2219, 5_000),
    "ifeval": (541, 541, 0),
    "gpqa": (198, 198, 0),
    "gpqa@release": (198, 198, 0),
    "memory_agent_bench": (146, 3671, 186_000),
    "memory_agent_bench@release": (146, 3671, 29_700),
}
"""Histories, questions and tokens a history of the official files, where they are not at hand to be counted; asked as
the release asks, they are as many."""
CAPS = {"memory_agent_bench": 116, "memory_agent_bench@release": 116}
"""The mean cap of an answer in tokens, of tasks whose questions differ in it."""


@dataclass(frozen=True)
class Size:
    """How much a task asks: histories, questions, mean tokens a history as it is read and as it is written."""

    histories: int
    questions: int
    tokens: int
    written: int | None = None
    """Less than is read where a history goes on from another; None is all of it."""


@dataclass(frozen=True)
class Estimate:
    """What a fit or a cell is predicted to take."""

    job: Job
    step: str
    """``fit``, ``gates``, ``measure``, or the cell's task, condition and arm."""
    cells: int
    tokens: int
    seconds: float
    gpu_hours: float
    bytes: int
    questions: int = 0
    """Asked, each counted once however many donors it meets."""
    basis: Basis = "constants"

    @property
    def task(self) -> str:
        """The cell's task; of another step its name."""
        return self.step.split("/")[0]


def learns(experiment: Experiment, job: Job) -> bool:
    """Whether the job has a fit."""
    row = row_of(experiment, job)
    return bool(resolve(row.method, row.with_)[0].capabilities.fits)


def plan(experiment: Experiment, rates: Pilot = UNMEASURED) -> list[Estimate]:
    """The cost of every fit, cell and measurement, in the order of the file.

    Args:
        rates: What a pilot says of methods and tasks.
    """
    sizes = {spec.name: size(experiment, spec) for spec in experiment.tasks}
    found = []
    for job in jobs(experiment):
        if learns(experiment, job):
            found.append(_fit(experiment, job, rates))
        found += [*_gates(experiment, job, rates), *_cells(experiment, job, sizes, rates)]
    return found + [_measurement(experiment, job) for job in measurements(experiment)]


def size(experiment: Experiment, spec: TaskSpec) -> Size:
    """Count a task's questions: its own data where they can be had, else the official files' published sizes."""
    histories, questions, *tokens = _counted(experiment, spec)
    return Size(histories, questions, *(min(n, spec.max_history_tokens or n) for n in tokens))


def _counted(experiment: Experiment, spec: TaskSpec) -> tuple[int, ...]:
    """Histories, questions, and tokens as read and, where that is less, as written."""
    published = OFFICIAL.get(spec.task) or OFFICIAL.get(spec.task.removesuffix("@release"))
    if published and experiment.data_of(spec).source == "official":
        histories, questions, tokens = published
        histories, questions = task(spec.task).published(spec.settings) or (histories, questions)
        kept = min(questions, spec.limit or questions)
        return min(histories, kept, spec.episodes or histories), kept, tokens, tokens
    data = task(spec.task).load(experiment.data_of(spec), "test", spec.settings, spec.episodes)
    episodes = select(data, spec, experiment.data.seed)
    lengths = {e.id: _tokens(_spoken(e)) for e in episodes}
    read = sum(lengths.values())
    written = read - sum(lengths.get(e.continues or "", 0) for e in episodes)
    return (
        len(episodes),
        sum(len(e.questions) for e in episodes),
        math.ceil(read / len(episodes)),
        math.ceil(written / len(episodes)),
    )


def _tokens(texts: Iterable[str]) -> float:
    """About how many tokens messages are."""
    lengths = [len(text) for text in texts]
    return sum(lengths) / CHARACTERS_A_TOKEN + MESSAGE_TOKENS * len(lengths)


def _spoken(episode: Episode) -> list[str]:
    """What a reader of a history reads, its instruction too; nothing where there is no history."""
    history = episode.history
    return [history.system, *(m.content for m in history.messages)] if history.messages else []


def _fit(experiment: Experiment, job: Job, rates: Pilot) -> Estimate:
    training, budget, forms = experiment.training, experiment.budget, Forms.of(experiment, job.backbone)
    if experiment.data.source == "official" and training.task in OFFICIAL:
        history, asked = float(OFFICIAL[training.task][2]), 1.0
    else:
        data = task(training.task).load(experiment.data, "train", training.settings, min(training.episodes, 20))
        history = sum(_tokens(_spoken(e)) for e in data.episodes) / len(data.episodes)
        asked = sum(len(e.questions) for e in data.episodes) / len(data.episodes)
    step = budget.batch_size * budget.accumulation  # episodes, each with all its questions
    steps = budget.steps or math.ceil(budget.epochs * (training.episodes - training.dev) / step)
    steps *= max(1, len(training.learning_rates))  # each rate is a fit
    told = min(history, budget.max_write_tokens)
    question = min(rates.question(training.task), budget.max_read_tokens)
    row = row_of(experiment, job)
    again = asked if resolve(row.method, row.with_)[0].capabilities.fits == "replayed" else 1  # a history a question
    load = Load(again * told + asked * question, again * told**2 / 2) * (steps * step)
    load += Load(calls=2 * steps * budget.accumulation)  # a write and a read
    rate, basis = rates.fitting(row.method, forms.device)
    seconds = rate * forms.training(load)
    spent = seconds / experiment.run.fit_workers
    disk = int(forms.count * TRAINED_SHARE * 14)  # bf16 once, and a checkpoint of parameters and moments in fp32
    return Estimate(job, "fit", 0, round(load.tokens), spent, _gpu_hours(experiment, seconds), disk, basis=basis)


def _gates(experiment: Experiment, job: Job, rates: Pilot) -> Iterator[Estimate]:
    """What the job's gates take, where a pilot tells."""
    seconds, basis = rates.proving(row_of(experiment, job).method, Forms.of(experiment, job.backbone))
    if seconds:
        yield Estimate(job, "gates", 0, 0, seconds, _gpu_hours(experiment, seconds), 0, basis=basis)


def _cells(experiment: Experiment, job: Job, sizes: dict[str, Size], rates: Pilot) -> Iterator[Estimate]:
    """One estimate a cell; a history is written in the first of its task's cells that reads from a state.

    Shuffled, it is another history.
    """
    forms = Forms.of(experiment, job.backbone)
    row = row_of(experiment, job)
    config = resolve(row.method, row.with_)[1]
    unwritten, untraced = set(sizes), set(sizes)
    for cell in cells(experiment, job):
        spec, asked = next(t for t in experiment.tasks if t.name == cell.task), sizes[cell.task]
        rate = rates.rate(row.method, spec.task, cell.condition, forms.device)
        draws = experiment.donors if cell.arm == "donor" else 1
        context, question = _context(cell.condition, asked, config, spec.visible_tokens), rates.question(spec.task)
        shared = cell.condition != "own_text"
        read = forms.asking(asked.histories, asked.questions, context, question, shared=shared) * draws
        cap = spec.max_new_tokens or tasks()[spec.task].max_new_tokens
        length = rate.length(min(cap, CAPS.get(spec.task, cap)))
        decoding = draws * forms.decoding(asked.histories, asked.questions, context, length)
        written = Load()
        if cell.condition != "replayed" and (cell.task in unwritten or cell.arm == "shuffled"):
            unwritten.discard(cell.task)
            tokens = asked.written or asked.tokens
            written = writing(asked.histories, config.write_load(tokens, forms.device), asked.tokens)
        if cell.condition == "replayed" and cell.arm in ("donor", "mean") and cell.task in untraced:
            untraced.remove(cell.task)  # every history is read and answered once more, to keep what was read of it
            read += forms.asking(asked.histories, asked.histories, context, question)
            decoding += forms.decoding(asked.histories, asked.histories, context, length)
        seconds = rate.write * forms.reading(written) + rate.prefill * forms.reading(read) + rate.decode * decoding
        seconds += rate.other * draws * asked.questions
        yield Estimate(
            job,
            cell.step,
            1,
            round(read.tokens + written.tokens),
            seconds,
            _gpu_hours(experiment, seconds),
            SAMPLE_BYTES * draws * asked.questions,
            asked.questions,
            rate.basis,
        )


def _measurement(experiment: Experiment, job: Job) -> Estimate:
    """Every point as often as it is repeated: the bare backbone's whole prompt, and the row's own and its write."""
    spec, row = experiment.efficiency, row_of(experiment, job)
    assert spec is not None, "only an experiment that measures has measurements"
    cls, config = resolve(row.method, row.with_)
    forms = Forms.of(experiment, job.backbone)
    served = [c for asked in spec.conditions if (c := measured_under(cls.capabilities.arms, asked))]
    load, seconds = Load(), 0.0
    for length in spec.prompt_lengths:
        one = Size(1, 1, length)
        for condition in served:
            if condition != "replayed":
                load += writing(1, config.write_load(length, forms.device), length)
            for read in (condition, "replayed"):
                context = _context(read, one, config)
                load += forms.asking(1, 1, context, UNMEASURED.question("")) * len(spec.decode_lengths)
                seconds += sum(forms.decoding(1, 1, context, n) for n in spec.decode_lengths)
    turns = spec.warm_up + spec.repeats + 1  # in one more, memory is measured
    seconds = turns * (seconds + forms.reading(load))
    gpu_hours = _gpu_hours(experiment, seconds)
    return Estimate(job, "measure", 0, round(turns * load.tokens), seconds, gpu_hours, RECORD_BYTES)


def _context(condition: str, asked: Size, config: MethodConfig, visible: int | None = None) -> float:
    """Tokens that stand before a question."""
    seen = {
        "replayed": asked.tokens,
        "windowed": min(asked.tokens, visible or asked.tokens),
        "own_text": config.text_load(asked.tokens),
    }
    return seen.get(condition, 0)


def _gpu_hours(experiment: Experiment, seconds: float) -> float:
    return seconds / 3600 * experiment.run.gpus_per_worker


# --- telling ---------------------------------------------------------------------------------------------------


def lines(experiment: Experiment, estimates: list[Estimate]) -> Iterator[list[str]]:
    """The rows of the printed plan, the total last."""
    for e in estimates:
        seed = "" if e.step == "measure" else f"/seed{e.job.seed}"
        yield [f"{e.job.backbone}/{e.job.row}{seed}", e.step, str(e.cells or ""), *_amounts(e), e.basis]
    total = replace(
        estimates[0],
        step="",
        **{name: sum(getattr(e, name) for e in estimates) for name in SUMMED},
    )
    yield [f"{experiment.name}, {experiment.run.workers} workers", "all", str(total.cells), *_amounts(total), ""]


def _amounts(e: Estimate) -> list[str]:
    return [
        f"{e.questions:,}" if e.questions else "",
        f"{e.tokens:,}",
        f"{e.seconds:,.0f}",
        f"{e.gpu_hours:,.2f}",
        f"{e.bytes / 1e6:,.1f}",
    ]

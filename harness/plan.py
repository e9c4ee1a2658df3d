"""What an experiment will cost before it runs: tokens, seconds, GPU-hours and disk of each job.

The model is a rough one, meant to be right within a factor of two or so. Three things take time:

- **Operations.** A token costs twice the backbone's parameters, and what it attends to: four operations a width, a
  layer and a token looked back at. A history in sight is read once for all its questions, text put back once a
  question. A training step costs two forward passes, for the weights are frozen.
- **Bytes.** A decoding step reads the weights once for a whole batch, and each row's keys and values, which a growing
  cache also copies; an answer is half as long as its cap.
- **Calls.** A forward pass takes a least time a layer, however little it computes.

Speeds are what one CPU thread (SmolLM2-135M, fp32) and one H100-class GPU (bf16) may be expected to do. Widths follow
from the number of parameters, as in the shapes of :mod:`harness.shapes`.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HarnessError
from harness.experiment import (
    BackboneSpec,
    Cell,
    Experiment,
    Job,
    TaskSpec,
    cells,
    jobs,
    measured_under,
    measurements,
    row_of,
)
from harness.method import MethodConfig
from harness.registry import resolve
from harness.tasks import select, task, tasks

OPERATIONS = {"cpu": 5e10, "cuda": 2e14}
"""Operations a second in prefill, a CPU thread and a GPU."""
BYTES = {"cpu": 6.5e9, "cuda": 2e12}
"""Bytes of weights, keys and values read a second in decoding."""
LEAST = {"cpu": 0.0, "cuda": 8e-4}
"""Seconds a layer and forward pass at least: launches of kernels by a program in Python."""
CACHE_COPIES = 3
"""A cache that grows by a token is read, written anew, and read by attention."""
ASPECT = 80
"""Width over layers of a backbone: from 19 (SmolLM2-135M) to 114 (Qwen3-8B)."""
CHARACTERS_A_TOKEN = 4
QUESTION_TOKENS = 48
TRAINED_PARAMETERS = 1e5
"""About what a recipe under harness/recipes has."""
TRAINED_SHARE = 0.01
"""Trained parameters, of the backbone's; a checkpoint keeps them and two moments in fp32."""
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
    """``fit``, ``measure``, or the cell's task, condition and arm."""
    cells: int
    tokens: int
    seconds: float
    gpu_hours: float
    bytes: int
    questions: int = 0
    """Asked, each counted once however many donors it meets."""


def learns(experiment: Experiment, job: Job) -> bool:
    """Whether the job has a fit."""
    row = row_of(experiment, job)
    return bool(resolve(row.method, row.with_)[0].capabilities.fits)


def plan(experiment: Experiment) -> list[Estimate]:
    """The cost of every fit, cell and measurement, in the order of the file."""
    sizes = {spec.name: size(experiment, spec) for spec in experiment.tasks}
    found = []
    for job in jobs(experiment):
        if learns(experiment, job):
            found.append(_fit(experiment, job))
        found += _cells(experiment, job, sizes)
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
    characters = {e.id: sum(len(m.content) for m in e.history.messages) for e in episodes}
    read = sum(characters.values())
    written = read - sum(characters.get(e.continues or "", 0) for e in episodes)
    return (
        len(episodes),
        sum(len(e.questions) for e in episodes),
        math.ceil(read / CHARACTERS_A_TOKEN / len(episodes)),
        math.ceil(written / CHARACTERS_A_TOKEN / len(episodes)),
    )


def _fit(experiment: Experiment, job: Job) -> Estimate:
    training, budget = experiment.training, experiment.budget
    if experiment.data.source == "official" and training.task in OFFICIAL:
        history, asked = OFFICIAL[training.task][2], 1.0
    else:
        data = task(training.task).load(experiment.data, "train", training.settings, min(training.episodes, 20))
        history = sum(len(m.content) for e in data.episodes for m in e.history.messages) // CHARACTERS_A_TOKEN
        history //= len(data.episodes)
        asked = sum(len(e.questions) for e in data.episodes) / len(data.episodes)
    step = budget.batch_size * budget.accumulation
    steps = budget.steps or math.ceil(budget.epochs * (training.episodes - training.dev) * asked / step)
    steps *= max(1, len(training.learning_rates))  # each rate is a fit
    told, questions = min(history, budget.max_write_tokens), min(QUESTION_TOKENS, budget.max_read_tokens)
    count = parameters(experiment.backbones[job.backbone])
    tokens = steps * step * (told + questions)
    reading = _operations(count, tokens, steps * step * told**2 / 2) / _speed(experiment, OPERATIONS)
    calls = steps * budget.accumulation * 2 * _layers(count) * LEAST[_device(experiment)]  # a write and a read
    seconds = 2 * (reading + calls)
    disk = int(count * TRAINED_SHARE * 14)  # bf16 once, and a checkpoint of parameters and moments in fp32
    spent = seconds / experiment.run.fit_workers
    return Estimate(job, "fit", 0, tokens, spent, _gpu_hours(experiment, seconds), disk)


def _cells(experiment: Experiment, job: Job, sizes: dict[str, Size]) -> Iterator[Estimate]:
    """One estimate a cell; a history is written in the first of its task's cells that reads from a state.

    Shuffled, it is another history.
    """
    count = parameters(experiment.backbones[job.backbone])
    row = row_of(experiment, job)
    config = resolve(row.method, row.with_)[1]
    unwritten, untraced = set(sizes), set(sizes)
    for cell in cells(experiment, job):
        spec, asked = next(t for t in experiment.tasks if t.name == cell.task), sizes[cell.task]
        draws = experiment.donors if cell.arm == "donor" else 1
        context = _context(cell, asked, config, spec.visible_tokens)
        load = _asking(cell, asked, context) * draws
        if cell.condition != "replayed" and (cell.task in unwritten or cell.arm == "shuffled"):
            unwritten.discard(cell.task)
            load += _writing(asked, config.write_load(asked.written or asked.tokens, _device(experiment)))
        cap = spec.max_new_tokens or tasks()[spec.task].max_new_tokens
        cap = min(cap, CAPS.get(spec.task, cap))
        seconds = draws * _decoding(experiment, count, asked, context, cap // 2)
        if cell.condition == "replayed" and cell.arm in ("donor", "mean") and cell.task in untraced:
            untraced.remove(cell.task)  # every history is read and answered once more, to keep what was read of it
            once = replace(asked, questions=asked.histories)
            load += _asking(cell, once, context)
            seconds += _decoding(experiment, count, once, context, cap // 2)
        seconds += _operations(count, load.tokens, load.pairs) / _speed(experiment, OPERATIONS)
        disk = SAMPLE_BYTES * draws * asked.questions
        name = f"{cell.task}/{cell.condition}/{cell.arm}"
        yield Estimate(
            job, name, 1, round(load.tokens), seconds, _gpu_hours(experiment, seconds), disk, asked.questions
        )


def _measurement(experiment: Experiment, job: Job) -> Estimate:
    """Every point as often as it is repeated: the bare backbone's whole prompt, and the row's own and its write."""
    spec, row = experiment.efficiency, row_of(experiment, job)
    assert spec is not None, "only an experiment that measures has measurements"
    cls, config = resolve(row.method, row.with_)
    count = parameters(experiment.backbones[job.backbone])
    served = [c for asked in spec.conditions if (c := measured_under(cls.capabilities.arms, asked))]
    load, seconds = Load(0, 0), 0.0
    for length in spec.prompt_lengths:
        one = Size(1, 1, length)
        for condition in served:
            cell = Cell(job, "", condition, "own")
            if condition != "replayed":
                load += _writing(one, config.write_load(length, _device(experiment)))
            for read in (cell, replace(cell, condition="replayed")):
                context = _context(read, one, config)
                load += _asking(read, one, context) * len(spec.decode_lengths)
                seconds += sum(_decoding(experiment, count, one, context, n) for n in spec.decode_lengths)
    turns = spec.warm_up + spec.repeats + 1  # in one more, memory is measured
    seconds = turns * (seconds + _operations(count, load.tokens, load.pairs) / _speed(experiment, OPERATIONS))
    gpu_hours = _gpu_hours(experiment, seconds)
    return Estimate(job, "measure", 0, round(turns * load.tokens), seconds, gpu_hours, RECORD_BYTES)


@dataclass(frozen=True)
class Load:
    """What is fed: tokens, and pairs of a token with one that it looks back at."""

    tokens: float
    pairs: float

    def __add__(self, other: Load) -> Load:
        return Load(self.tokens + other.tokens, self.pairs + other.pairs)

    def __mul__(self, times: int) -> Load:
        return Load(self.tokens * times, self.pairs * times)


def _context(cell: Cell, asked: Size, config: MethodConfig, visible: int | None = None) -> float:
    """Tokens that stand before a question."""
    seen = {
        "replayed": asked.tokens,
        "windowed": min(asked.tokens, visible or asked.tokens),
        "own_text": config.text_load(asked.tokens),
    }
    return seen.get(cell.condition, 0)


def _asking(cell: Cell, asked: Size, context: float) -> Load:
    """A history that stands in the prompt is read once for all its questions; text put back, once a question."""
    times = asked.questions if cell.condition == "own_text" else asked.histories
    questions = asked.questions * QUESTION_TOKENS
    return Load(times * context + questions, times * context**2 / 2 + questions * context)


def _writing(asked: Size, fed: float) -> Load:
    """``fed`` tokens a history are written, or trained on; no more of them than it has look back at all of it."""
    return Load(asked.histories * fed, asked.histories * min(fed, asked.tokens) * asked.tokens / 2)


def _decoding(experiment: Experiment, count: float, asked: Size, context: float, steps: int) -> float:
    """Seconds of ``steps`` tokens of every answer, the questions of one history in batches."""
    width = 4 if experiment.run.dtype == "float32" else 2
    batches = asked.histories * math.ceil(asked.questions / asked.histories / experiment.run.batch_size)
    cache = CACHE_COPIES * asked.questions * (context + QUESTION_TOKENS) * 2 * _layers(count) * _width(count) / 3
    read = steps * width * (batches * count + cache) / _speed(experiment, BYTES)
    return read + steps * batches * _layers(count) * LEAST[_device(experiment)]


def _operations(count: float, tokens: float, pairs: float) -> float:
    """Of a forward pass over ``tokens``, which look back at ``pairs``."""
    return 2 * count * tokens + 4 * _layers(count) * _width(count) * pairs


def _width(count: float) -> float:
    """Of a layer of a backbone of ``count`` parameters, twelve times its square a layer; a third for keys or values."""
    return (count * ASPECT / 12) ** (1 / 3)


def _layers(count: float) -> float:
    return _width(count) / ASPECT


def _device(experiment: Experiment) -> str:
    return "cuda" if experiment.run.gpus_per_worker else "cpu"


def _speed(experiment: Experiment, table: dict[str, float]) -> float:
    run = experiment.run
    return table[_device(experiment)] * (run.gpus_per_worker or math.ceil(run.cpus_per_worker))


def _gpu_hours(experiment: Experiment, seconds: float) -> float:
    return seconds / 3600 * experiment.run.gpus_per_worker


def parameters(spec: BackboneSpec) -> float:
    """Rough number of parameters, without opening the model.

    Raises:
        HarnessError: a hub id that does not say its size, or a package or shape that is not there.
    """
    if spec.hub:
        found = re.search(r"(\d+(?:\.\d+)?)([BM])(?![A-Za-z])", spec.hub)
        return float(found[1]) * {"B": 1e9, "M": 1e6}[found[2]] if found else 1e9
    if spec.folder:
        return sum(file.stat().st_size for file in Path(spec.folder).glob("*.safetensors")) / 2
    if spec.gguf:
        package = importlib.util.find_spec(spec.gguf.replace("-", "_"))
        if package is None or not package.submodule_search_locations:
            raise HarnessError(f"the package '{spec.gguf}' is not installed; run `make env`")
        files = Path(package.submodule_search_locations[0]).glob("*.gguf")
        return sum(file.stat().st_size for file in files) / 0.7  # four to six bits a weight, embeddings more
    if spec.trained:
        return TRAINED_PARAMETERS
    shapes = Path(__file__).with_name("shapes")
    if not (shapes / f"{spec.random}.json").is_file():
        known = ", ".join(sorted(p.stem for p in shapes.glob("*.json")))
        raise HarnessError(f"unknown shape '{spec.random}'; known: {known}")
    shape = json.loads((shapes / f"{spec.random}.json").read_text(encoding="utf-8"))
    layer = 4 * shape["hidden_size"] ** 2 + 3 * shape["hidden_size"] * shape["intermediate_size"]
    return shape["vocab_size"] * shape["hidden_size"] + shape["num_hidden_layers"] * layer


# --- telling ---------------------------------------------------------------------------------------------------


def lines(experiment: Experiment, estimates: list[Estimate]) -> Iterator[list[str]]:
    """The rows of the printed plan, the total last."""
    for e in estimates:
        seed = "" if e.step == "measure" else f"/seed{e.job.seed}"
        yield [f"{e.job.backbone}/{e.job.row}{seed}", e.step, str(e.cells or ""), *_amounts(e)]
    total = Estimate(
        estimates[0].job,
        "",
        sum(e.cells for e in estimates),
        sum(e.tokens for e in estimates),
        sum(e.seconds for e in estimates),
        sum(e.gpu_hours for e in estimates),
        sum(e.bytes for e in estimates),
        sum(e.questions for e in estimates),
    )
    yield [f"{experiment.name}, {experiment.run.workers} workers", "all", str(total.cells), *_amounts(total)]


def _amounts(e: Estimate) -> list[str]:
    return [
        f"{e.questions:,}" if e.questions else "",
        f"{e.tokens:,}",
        f"{e.seconds:,.0f}",
        f"{e.gpu_hours:,.2f}",
        f"{e.bytes / 1e6:,.1f}",
    ]

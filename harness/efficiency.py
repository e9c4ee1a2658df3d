"""Speed and memory of a row beside the bare backbone, in one process, repetition by repetition in turn.

Every point asks one question of one history, which together are so many tokens long as a prompt, and decodes so many
tokens, whatever they are. Under ``replayed`` the prompt is read whole. Under ``removed`` and ``own_text`` the history
is written first, its time apart, and the question is asked of the memory. The bare backbone reads the whole prompt
always. Nothing is fitted: speed does not depend on what parameters hold.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import DynamicCache

from harness import generation, provenance, shortage
from harness.backbones import Backbone
from harness.efficiency_records import EfficiencyRecord, Peaks, Point, Run, Side, Status, figures, ratios
from harness.episodes import History, Message, Query, digest
from harness.errors import HarnessError, SkippedError, UnsupportedError
from harness.experiment import EfficiencySpec, Experiment, Job, measured_under, row_of
from harness.gates import GateError
from harness.meter import Lap, Meter
from harness.method import MemoryMethod, Steering
from harness.progress import Progress
from harness.records import Provenance
from harness.registry import resolve

SENTENCE = "The lamp of Ana is red."
"""Told over and over: a fact, so that memories of facts have one to keep."""
SENTENCES = 8
"""Of a message; the last has up to twice as many."""
QUESTION = "What is the lamp of Ana?"
EVIDENCE = "m0"
"""The message that a method is shown which is told where the answer stands."""


@dataclass(frozen=True)
class Material:
    """A history and a question that make a prompt of a given length."""

    history: History
    query: Query
    length: int
    """Tokens of the prompt with the history in sight."""
    written: int
    """Tokens of the history alone, in the chat template."""


def material(backbone: Backbone, length: int) -> Material:
    """The fixed sentence, repeated and cut so that history and question are a prompt of exactly ``length`` tokens.

    Raises:
        UnsupportedError: the question alone is longer, or no cut gives exactly so many.
    """

    def count(texts: Sequence[str]) -> int:
        return len(backbone.encode([*_messages(texts), Message(QUESTION)], answer_next=True)[0])

    whole = " ".join([SENTENCE] * SENTENCES)
    bare, one, two = (count([whole] * n) for n in range(3))
    before = [whole] * max(0, (length - one) // (two - one))
    room = length - count(before)
    if room <= 0 and before:  # templates need not add up
        before, room = before[:-1], length - count(before[:-1])
    if length <= bare or room <= 0:
        raise UnsupportedError(f"a prompt of {length} tokens has no room beside the question's {bare}; ask for more")
    told = " ".join([SENTENCE] * (2 * SENTENCES + length // max(1, two - one)))
    low, high = 1, len(told)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count([*before, told[:middle]]) >= length else (middle + 1, high)
    for end in range(low, min(low + 2 * len(SENTENCE), len(told)) + 1):  # words fall apart where they are cut
        last = f"{told[: end - 1]}." if told[end - 1].isspace() else told[:end]  # templates may strip a last space
        texts = [*before, last]
        if count(texts) == length:
            history = History(_messages(texts))
            written, _ = backbone.encode(history.messages)
            return Material(history, Query("", QUESTION, "efficiency"), length, len(written))
    raise UnsupportedError(f"no cut of the text makes a prompt of exactly {length} tokens; ask for another length")


def _messages(texts: Sequence[str]) -> tuple[Message, ...]:
    return tuple(Message(text, id=f"m{n}") for n, text in enumerate(texts))


def measure(experiment: Experiment, job: Job, backbone: Backbone, progress: Progress) -> EfficiencyRecord:
    """Measure every point of a row; what fails at one is told in its place.

    Raises:
        Exception: every point met an error; the first of them.
    """
    spec, row = experiment.efficiency, row_of(experiment, job)
    if spec is None:
        raise HarnessError(f"the experiment '{experiment.name}' measures nothing; give it the key 'efficiency'")
    bench = _Bench(experiment, job, backbone, spec, progress)
    gc.collect()  # once, for it takes longer than a point of a small model
    cls, _ = resolve(row.method, row.with_)
    points = [p for condition in spec.conditions for length in spec.prompt_lengths for p in bench.at(condition, length)]
    if all(point.status == "error" for point in points) and bench.first_error is not None:
        raise bench.first_error
    learned = cls.capabilities.fits is not None
    return EfficiencyRecord(
        experiment=experiment.name,
        backbone=job.backbone,
        row=job.row,
        method=cls.name,
        backbone_weights="random" if backbone.spec.random else "pretrained",
        method_weights="initial" if learned else "none",
        trainable_parameters=bench.parameters[0],
        extra_parameters=bench.parameters[1],
        memory="allocated on the device" if backbone.device.type == "cuda" else "resident set of the process",
        warm_up=spec.warm_up,
        repeats=spec.repeats,
        points=points,
        provenance=_provenance(experiment, backbone, spec),
        date=time.time(),
    )


@dataclass(frozen=True)
class _Asked:
    """A question as it is put, and what went before."""

    visible: Sequence[Message]
    query: Query
    steering: Steering
    start: int | None
    """Bytes in use at the start."""
    wrote: Lap | None = None
    read: Lap | None = None

    def run(self, prefill: Lap, decode: Lap) -> Run:
        return Run(
            write_seconds=self.wrote.seconds if self.wrote else None,
            read_seconds=self.read.seconds if self.read else 0.0,
            prefill_seconds=prefill.seconds,
            decode_seconds=decode.seconds,
        )

    def peaks(self, prefill: Lap, decode: Lap, reserved: int | None) -> Peaks:
        return Peaks(
            start_bytes=self.start,
            write_bytes=self.wrote.peak if self.wrote else None,
            read_bytes=self.read.peak if self.read else None,
            prefill_bytes=prefill.peak,
            decode_bytes=decode.peak,
            reserved_bytes=reserved,
        )


@dataclass
class _Kept:
    """What the repetitions of one side at one point have given."""

    runs: list[Run] = field(default_factory=list)
    memory: Peaks | None = None
    """Of the last one."""
    facts: dict[str, Any] = field(default_factory=dict)
    failure: tuple[Status, str] | None = None

    def side(self) -> Side | None:
        if self.failure or self.memory is None:
            return None
        found = figures(self.runs, self.memory, self.facts["new_tokens"])
        return Side(**self.facts, runs=self.runs, memory=self.memory, figures=found)


@dataclass
class _Bench:
    """One row on one backbone."""

    experiment: Experiment
    job: Job
    backbone: Backbone
    spec: EfficiencySpec
    progress: Progress
    parameters: tuple[int, int] = (0, 0)
    """Trainable ones, and those of other networks."""
    first_error: Exception | None = None
    materials: dict[int, Material] = field(default_factory=dict)
    turn: str = "warm up"
    """What a repetition is for: ``warm up``, ``time``, or ``size``, in which memory is measured and time is not."""

    def at(self, asked: str, length: int) -> list[Point]:
        """The points of one prompt length under one condition, one a decode length."""
        row = row_of(self.experiment, self.job)
        condition = measured_under(resolve(row.method, row.with_)[0].capabilities.arms, asked)
        own, bare = ({decode: _Kept() for decode in self.spec.decode_lengths} for _ in range(2))
        for decode in self.spec.decode_lengths:
            if length + decode > self.backbone.window:
                reason = f"{length} + {decode} tokens are beyond the backbone's window of {self.backbone.window}"
                own[decode].failure = ("unsupported", reason)
        if condition is None:
            reason = f"the row does not serve the condition '{asked}'"
            own = {decode: _Kept(failure=("unsupported", reason)) for decode in own}
        turns = ["warm up"] * self.spec.warm_up + ["time"] * self.spec.repeats + ["size"]
        for number, self.turn in enumerate(turns):
            sides = (lambda: self._bare(length, bare, own), lambda: self._row(condition or "", length, own))
            for side in sides if number % 2 else sides[::-1]:
                if not all(kept.failure for kept in own.values()):
                    side()
            self._tell(condition or asked, length, number + 1, len(turns))
        return [_point(condition or asked, length, decode, own[decode], bare[decode]) for decode in own]

    def _tell(self, condition: str, length: int, done: int, turns: int) -> None:
        self.progress.update("measure", done, turns, condition=condition, prompt=length)

    # --- one repetition ---

    def _bare(self, length: int, kept: dict[int, _Kept], own: dict[int, _Kept]) -> None:
        """The bare backbone reads the whole prompt and answers, at every decode length that the row still has."""
        with self._surviving(kept.values()):
            given, start = self._material(length), self._settled()
            for decode in [d for d in kept if not own[d].failure and not kept[d].failure]:
                with self._surviving([kept[decode]]):
                    self._settled()
                    asked = _Asked(given.history.messages, given.query, Steering(), start)
                    self._answered(asked, decode, kept[decode])

    def _row(self, condition: str, length: int, kept: dict[int, _Kept]) -> None:
        """The method is attached, writes, answers at every decode length, and is taken off again."""
        with self._surviving(kept.values()), self._method() as method:
            given, start = self._material(length), self._settled()
            query = replace(given.query, evidence=(EVIDENCE,)) if method.capabilities.gold else given.query
            meter, state, wrote = Meter(self.backbone.device), None, None
            if condition != "replayed":
                meter.begin()
                state = method.write(given.history)
                wrote = meter.end()
            for decode in [d for d in kept if not kept[d].failure]:
                with self._surviving([kept[decode]]):
                    self._settled()
                    meter.begin()
                    steering = method.steer(state, query, writes=condition == "replayed")
                    read = meter.end()
                    visible = {"replayed": given.history.messages, "own_text": steering.messages or ()}
                    asked = _Asked(visible.get(condition, ()), query, steering, start, wrote, read)
                    self._answered(asked, decode, kept[decode])
                    if wrote:
                        size = 0 if state is None else state.nbytes()
                        kept[decode].facts |= {"tokens_written": given.written, "state_bytes": size}

    def _settled(self) -> int | None:
        """Bytes in use, where memory is measured and what is free was given back first."""
        return Meter(self.backbone.device).settle() if self.turn == "size" else None

    @contextlib.contextmanager
    def _method(self) -> Iterator[MemoryMethod]:
        """The row's method on the backbone, with the parameters it starts with; taken off again at the end."""
        row = row_of(self.experiment, self.job)
        cls, config = resolve(row.method, row.with_)
        method = cls(config, self.backbone, self.spec.seed)
        try:
            yield method
            self.parameters = method.trainable_parameters(), method.extra_parameters()
        finally:
            method.close()

    def _answered(self, given: _Asked, decode: int, kept: _Kept) -> None:
        """One answer of ``decode`` tokens, measured."""
        prompt = generation.prompt(self.backbone, given.visible, given.query, given.steering.unit)
        meter, laps, tokens, cache = Meter(self.backbone.device), [], [], None
        make = given.steering.past_key_values

        def fresh() -> Any:
            nonlocal cache
            cache = make() if make else DynamicCache(config=self.backbone.model.config)
            return cache

        def heard(at: int, token: torch.Tensor) -> None:
            tokens.append(token)
            if at == 0:
                laps.append(meter.end())
                kept.facts |= {"kv_bytes": _keys_and_values(cache), "state_bytes": _states(cache)}
                meter.begin()
            if at == decode - 1:
                laps.append(meter.end())

        steering = replace(given.steering, past_key_values=fresh)
        meter.begin()
        generation.forced(self.backbone, prompt, steering, decode, heard)
        new = torch.cat(tokens).tolist()
        kept.facts |= {"prompt_tokens": len(prompt.ids), "new_tokens": len(new), "answer_sha256": digest(new)}
        if self.turn == "time":
            kept.runs.append(given.run(laps[0], laps[1]))
        elif self.turn == "size":
            kept.memory = given.peaks(laps[0], laps[1], meter.reserved())

    def _material(self, length: int) -> Material:
        if length not in self.materials:
            self.materials[length] = material(self.backbone, length)
        return self.materials[length]

    @contextlib.contextmanager
    def _surviving(self, kept: Any) -> Iterator[None]:
        """An exception becomes the failure of these points; a failed gate ends the job."""
        try:
            yield
        except GateError:
            raise
        except Exception as error:
            failure = _failure(error)
            if failure[0] == "error":
                self.first_error = self.first_error or error
            gc.collect()
            for one in kept:
                one.failure = one.failure or failure


def _failure(error: Exception) -> tuple[Status, str]:
    """How an exception is told in a record."""
    said = " ".join(str(error).split())
    if isinstance(error, UnsupportedError):
        return "unsupported", said
    if isinstance(error, SkippedError):
        return "skipped", said
    if shortage.of_memory(error):
        return "out_of_memory", said or "out of memory"
    return "error", said if isinstance(error, HarnessError) else f"{type(error).__name__}: {said}"


def _point(condition: Any, length: int, decode: int, own: _Kept, bare: _Kept) -> Point:
    point = Point(condition=condition, prompt_length=length, decode_length=decode)
    if own.failure:
        return point.model_copy(update={"status": own.failure[0], "reason": own.failure[1]})
    row, frozen = own.side(), bare.side()
    found = ratios(row, frozen) if row and frozen else {}
    why = bare.failure[1] if bare.failure else ""
    return point.model_copy(update={"row": row, "frozen": frozen, "frozen_reason": why, "ratios": found})


def _keys_and_values(cache: Any) -> int:
    """Bytes of the keys and values in a cache."""
    tensors = [t for layer in cache.layers for t in (layer.keys, layer.values) if t is not None]
    return sum(t.numel() * t.element_size() for t in tensors)


def _states(cache: Any) -> int:
    """Bytes of the memory states that a cache carries beside keys and values."""
    return sum(s.numel() * s.element_size() for s in getattr(cache, "states", ()))


def _provenance(experiment: Experiment, backbone: Backbone, spec: EfficiencySpec) -> Provenance:
    commit, dirty = provenance.code()
    config = experiment.model_dump(mode="json", by_alias=True)
    wording = digest([SENTENCE, SENTENCES, QUESTION])
    return Provenance(
        config=config,
        config_hash=digest(config),
        commit=commit,
        dirty=dirty,
        versions=provenance.versions(),
        backbone=backbone.describe(),
        data={"source": "generated", "file": "", "hash": wording, "note": "one sentence, repeated"},
        fit=None,
        prompt_hash=wording,
        dtype=str(backbone.dtype).removeprefix("torch."),
        attention=backbone.model.config._attn_implementation,
        batch_size=1,
        seed=spec.seed,
        device=provenance.device_name(backbone.device),
        threads=torch.get_num_threads(),
        wording_hash=wording,
        machine=provenance.machine(backbone.device),
    )

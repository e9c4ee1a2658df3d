"""What δ-mem costs beside the bare backbone: writing, decoding, a training step, memory.

Both do the same forwards over the same random tokens, in turn, in one process; a value is a ratio of medians: of CPU
seconds of one thread, on CUDA of wall-clock seconds between synchronisations. Parameters are as they start.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks._measured import Measured
from harness import Session, training
from harness.errors import HarnessError, nearest
from harness.experiment import RunSpec

GOALS = {
    "cpu": {"decode": 0.85, "training_step": 1.3, "memory": 1.10},
    "cuda": {"decode": 0.90, "training_step": 1.3, "memory": 1.02},
}
WRITE_GOALS = {"delta_mem_tsw": 1.10, "delta_mem_msw": 1.20, "delta_mem_ssw": 1.05}
PREFILL_GOAL = 1.06
"""Of writing on CUDA, every variant."""
MESSAGE = 64
"""Tokens of a message, for SSW."""


@dataclass(frozen=True)
class Sizes:
    """Tokens of each measurement, and how often it is repeated."""

    write: int = 8192
    prompt: int = 512
    decode: int = 128
    training: tuple[int, int] = (2048, 128)
    """Of the history and of the question with its answer."""
    repeats: int = 5


@dataclass
class Side:
    """A backbone, bare or with a memory, and how to make its cache."""

    session: Session

    def __post_init__(self) -> None:
        self.backbone = self.session.backbone
        self.memory = getattr(self.session.method, "memory", None)
        self.name = self.session.method.name if self.memory else None

    def cache(self, **options: Any) -> Any:
        return self.memory.memory_cache(**options) if self.memory else DynamicCache(config=self.backbone.model.config)

    def feed(self, ids: Tensor, cache: Any, owner: Tensor | None) -> Tensor:
        """Hidden states of one forward, [1, T, H]."""
        if self.memory and owner is not None:
            cache.announce(owner)
        return self.backbone.model.get_decoder()(input_ids=ids, past_key_values=cache).last_hidden_state


def measure(
    backbone: str, rows: Sequence[str], sizes: Sizes, ways: Sequence[str], dtype: str = "float32"
) -> list[Measured]:
    """δ-mem over bare, for each row (a preset of δ-mem) and each of ``ways``.

    Args:
        backbone: As in :meth:`harness.session.Session.open`.
        ways: Of ``write``, ``decode`` (throughput), ``training_step``, ``memory``.

    Raises:
        HarnessError: a way is unknown.
    """
    unknown = next((way for way in ways if way not in WAYS), None)
    if unknown:
        raise HarnessError(f"unknown way '{unknown}'; {nearest(unknown, WAYS)}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run = RunSpec.model_validate({"dtype": dtype})
        bare = Side(Session.open(backbone, "frozen", run=run))
        steered = {row: Side(Session.open(backbone, row, run=run)) for row in rows}
        ordered = [way for way in WAYS if way in ways]  # memory last, for it changes how the process allocates
        return [m for way in ordered for row in rows for m in _compared(bare, steered[row], row, way, sizes)]
    finally:
        torch.set_num_threads(threads)


def _compared(bare: Side, steered: Side, row: str, way: str, sizes: Sizes) -> list[Measured]:
    cuda = bare.backbone.device.type == "cuda"
    goals = {**GOALS["cuda" if cuda else "cpu"], "write": PREFILL_GOAL if cuda else WRITE_GOALS[row]}
    values: tuple[list[float], list[float]] = ([], [])
    for repeat in range(sizes.repeats + 1):
        for side, kept in zip((bare, steered), values, strict=True):
            with side.backbone.active(side.name):
                value = WAYS[way](side, sizes)
            if repeat:  # the first forward of a process is slower
                kept.append(value)
    without, with_memory = map(statistics.median, values)
    goal = {"at_least": goals[way]} if way == "decode" else {"at_most": goals[way]}
    return [
        Measured(f"{row}.{way}.bare", without, UNITS[way]),
        Measured(f"{row}.{way}.delta_mem", with_memory, UNITS[way]),
        Measured(f"{row}.{way}.ratio", with_memory / without, **goal),
    ]


# --- what is measured ---


@torch.no_grad()
def write(side: Side, sizes: Sizes) -> float:
    """Seconds of one logical write, fed in the method's chunks on a KV cache."""
    ids, owner, cache = _tokens(side, sizes.write), _messages(side, sizes.write), side.cache()
    with _clock(side) as seconds:
        for part in range(0, sizes.write, CHUNK):
            side.feed(ids[:, part : part + CHUNK], cache, owner[:, part : part + CHUNK])
        if side.memory:
            side.memory.commit(cache)
    return seconds[0]


@torch.no_grad()
def decode(side: Side, sizes: Sizes) -> float:
    """Tokens a second of greedy steps after a prompt; every token is written as well."""
    cache, head = side.cache(), side.backbone.model.get_output_embeddings()
    hidden = side.feed(_tokens(side, sizes.prompt), cache, _messages(side, sizes.prompt))
    with _clock(side) as seconds:
        for _ in range(sizes.decode):
            hidden = side.feed(head(hidden[:, -1:]).argmax(-1), cache, None)
    return sizes.decode / seconds[0]


def training_step(side: Side, sizes: Sizes) -> float:
    """Seconds forward and backward over a history and one question: to δ-mem's parameters, or to bare embeddings."""
    written, read = sizes.training
    ids, asked = _tokens(side, written), _tokens(side, read)
    mask, labels = torch.ones_like(asked), asked.masked_fill(torch.arange(read, device=asked.device) < read // 2, -100)
    reads = training.Reads(asked, mask, labels)
    with _clock(side) as seconds:
        loss = _steered_loss(side, ids, reads) if side.memory else _bare_loss(side, ids, reads)
        loss.backward()
    for parameter in side.backbone.model.parameters():
        parameter.grad = None
    return seconds[0]


def _steered_loss(side: Side, ids: Tensor, reads: training.Reads) -> Tensor:
    from methods.delta_mem import _fit

    method = side.session.method
    one = torch.ones(1, dtype=torch.long, device=ids.device)
    batch = _fit.Batch(ids, torch.ones_like(ids), _messages(side, ids.shape[1]), one, reads)
    return _fit.loss(method, batch)[0]


def _bare_loss(side: Side, ids: Tensor, reads: training.Reads) -> Tensor:
    """The same tokens through the bare backbone, with a gradient that reaches every layer of both passes."""
    model = side.backbone.model
    embedded = [model.get_input_embeddings()(x).requires_grad_() for x in (ids, reads.ids)]
    written, read = (model.get_decoder()(inputs_embeds=x, use_cache=False).last_hidden_state for x in embedded)
    target = reads.labels[:, 1:]
    logits = model.get_output_embeddings()(read[:, :-1][target != -100])
    return torch.nn.functional.cross_entropy(logits, target[target != -100]) + written.square().mean()


@torch.no_grad()
def memory(side: Side, sizes: Sizes) -> float:
    """Peak bytes of the write pass above those at its start, in MB."""
    gc.collect()
    with _peak(side) as megabytes:
        write(side, sizes)
    return max(megabytes[0], PAGE)


WAYS: dict[str, Callable[[Side, Sizes], float]] = {
    "write": write,
    "decode": decode,
    "training_step": training_step,
    "memory": memory,
}
UNITS = {"write": "s", "decode": "tokens/s", "training_step": "s", "memory": "MB"}
M_MMAP_THRESHOLD = -3
"""Of glibc's ``mallopt``: bytes from which memory is asked of the system and given back to it."""
PAGE = 4096 / 1e6
"""MB; less is not measured."""
CHUNK = 2048
"""Tokens a forward of a write: the default of δ-mem's ``write_chunk``."""


def _tokens(side: Side, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    ids = torch.randint(side.backbone.model.config.vocab_size - 4, (1, count), generator=generator)
    return ids.to(side.backbone.device)


def _messages(side: Side, count: int) -> Tensor:
    return (torch.arange(count, device=side.backbone.device) // MESSAGE).unsqueeze(0)


@contextlib.contextmanager
def _clock(side: Side) -> Any:
    """Seconds of the block, in a list of one once it is left."""
    seconds: list[float] = []
    if side.backbone.device.type == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        yield seconds
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    else:
        start = time.process_time()
        yield seconds
        seconds.append(time.process_time() - start)


@contextlib.contextmanager
def _peak(side: Side) -> Any:
    """Peak megabytes above the start of the block, on CUDA with the weights, in a list of one once it is left."""
    megabytes: list[float] = []
    if side.backbone.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield megabytes
        weights = sum(p.nbytes for p in side.backbone.model.parameters())
        megabytes.append((torch.cuda.max_memory_allocated() - before + weights) / 1e6)
    else:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)  # freed tensors go back at once, so that what is resident is in use
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak that Linux keeps of a process
        before = _resident("VmRSS")
        yield megabytes
        megabytes.append(_resident("VmHWM") - before)


def _resident(field: str) -> float:
    """A size from /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1e3

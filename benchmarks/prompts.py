"""Reading long histories and building prompts from them: seconds, and what prompts of one history hold in common."""

from __future__ import annotations

import resource
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._measured import Measured

if TYPE_CHECKING:
    from harness.encoding import Encoder
    from harness.episodes import Message

SECONDS, GIB = 20.0, 1.0
ONE_CONTEXT = 1.1
"""Memory of many questions' prompts over that of the first: the context is held once."""


def measure(backbone: str, source: str = "auto", *, questions: int = 100, tokens: int = 100_000) -> list[Measured]:
    """LoCoMo's whole conversations with all of their questions, then one long history with many questions.

    Args:
        backbone: Whose tokenizer is used; the model is not opened. Folder, hub id, package, or ``random:SHAPE``.
        source: Where LoCoMo comes from, as in an experiment's ``data``.
        questions: Asked of the long history.
        tokens: Its length, about.
    """
    from harness.encoding import Encoder

    encoder = Encoder(_tokenizer(backbone))
    return [*_locomo(encoder, source), *_one_history(encoder, questions, tokens)]


def _tokenizer(backbone: str) -> Any:
    from transformers import AutoTokenizer

    from harness.experiment import BackboneSpec
    from harness.random_weights import byte_tokenizer
    from harness.sources import locate

    if backbone.startswith("random:"):
        return byte_tokenizer()
    kind = "folder" if Path(backbone).is_dir() else "hub" if "/" in backbone else "gguf"
    folder, revision = locate(BackboneSpec.model_validate({kind: backbone}))
    return AutoTokenizer.from_pretrained(folder, revision=revision)


def _locomo(encoder: Encoder, source: str) -> list[Measured]:
    from harness.experiment import DataSpec
    from harness.tasks import task

    clock, cpu, locomo, count, length = time.perf_counter(), time.process_time(), task("locomo"), 0, 0
    for episode in locomo.load(DataSpec.model_validate({"source": source}), "test", {}).episodes:
        history = episode.history
        prompts = [
            encoder.asked(history.messages, locomo.question(q), system=history.system) for q in episode.questions
        ]
        count += len(prompts)
        length += sum(len(ids) for ids, _ in prompts)
    seconds, worked = time.perf_counter() - clock, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    return [
        Measured("locomo.questions", count),
        Measured("locomo.tokens_a_prompt", length / count),
        Measured("locomo.seconds", seconds, "s", at_most=SECONDS),
        Measured("locomo.cpu_seconds", worked, "s"),
        Measured("locomo.peak", peak, "GiB", at_most=GIB),
    ]


def _one_history(encoder: Encoder, questions: int, tokens: int) -> list[Measured]:
    history = _history(encoder, tokens)
    tracemalloc.start()
    try:
        prompts = [encoder.asked(history, "What is told of item 0?")]
        first = tracemalloc.get_traced_memory()[0]
        prompts += [encoder.asked(history, f"What is told of item {n}?") for n in range(1, questions)]
        every = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return [
        Measured("one_history.tokens", len(prompts[0][0])),
        Measured("one_history.first_prompt", first / 2**20, "MiB"),
        Measured("one_history.all_prompts", every / 2**20, "MiB"),
        Measured("one_history.ratio", every / first, at_most=ONE_CONTEXT),
    ]


def _history(encoder: Encoder, tokens: int) -> tuple[Message, ...]:
    """As many messages as fill about so many tokens."""
    each = len(encoder.encode([_told(n) for n in range(64)])[0]) / 64
    return tuple(_told(n) for n in range(max(1, round(tokens / each))))


def _told(n: int) -> Message:
    from harness.episodes import Message

    return Message(f"Item {n} is kept in drawer {97 * n % 89} of room {n % 31}.")

"""The gated delta rule, one state of rank 8 on one thread: each form against the token-by-token definition."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks._measured import Measured

Form = Callable[..., Any]
REPEATS, SECONDS = 5, 0.2
"""A median is of at least so many runs, and of as many as take so long: the first ones only warm caches."""
GOALS = {"forward": 4000.0, "forward_backward": 2000.0}
"""Of the compiled form at 8,192 tokens and beyond."""
SHORT, LONG = 2048, 32768
"""Tokens between which the cost of one is compared."""


def measure(lengths: Sequence[int]) -> list[Measured]:
    """Milliseconds and how many times faster, forward and forward with backward; then cost against length.

    The compiled form is reached by the door, whose choice it is on a CPU. Where there is CUDA, the chunked form, which
    the door chooses there, is measured on it as well.
    """
    import torch

    from methods.delta_mem._recurrence import chunked, reference, scan

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = _against_reference("", "cpu", {"chunked": chunked, "compiled": scan}, reference, lengths)
        if torch.cuda.is_available():
            found += _against_reference("cuda.", "cuda", {"chunked": chunked}, reference, lengths)
        short, long = (_milliseconds(scan, _inputs(length), False) / length for length in (SHORT, LONG))
    finally:
        torch.set_num_threads(threads)
    return [*found, Measured(f"time_a_token_{LONG}_over_{SHORT}", long / short, at_most=1.1)]


def _against_reference(
    prefix: str, device: str, forms: dict[str, Form], reference: Form, lengths: Sequence[int]
) -> list[Measured]:
    found = []
    for length in lengths:
        inputs = [x.to(device) for x in _inputs(length)]
        for way, goal in GOALS.items():
            name, backward = f"{prefix}{length}.{way}", way == "forward_backward"
            slow = _milliseconds(reference, inputs, backward)
            found.append(Measured(f"{name}.reference", slow, "ms"))
            for form, run in forms.items():
                fast = _milliseconds(run, inputs, backward)
                held = goal if form == "compiled" and length >= 8192 else None
                found += [
                    Measured(f"{name}.{form}", fast, "ms"),
                    Measured(f"{name}.{form}.ratio", slow / fast, at_least=held),
                ]
    return found


def _inputs(length: int, rank: int = 8) -> list[Any]:
    """Unit keys and queries, values, gates and a zero state, as a layer gives them."""
    import torch
    from torch.nn.functional import logsigmoid, normalize

    generator = torch.Generator().manual_seed(0)
    q, k, v, gate = (torch.randn(1, length, 1, rank, generator=generator) for _ in range(4))
    beta = (gate - 1.5).sigmoid()
    return [normalize(q, dim=-1), normalize(k, dim=-1), v, logsigmoid(1.5 - gate), beta, beta,
            torch.zeros(1, 1, rank, rank)]  # fmt: skip


def _run(form: Form, inputs: Sequence[Any], backward: bool) -> None:
    given = [x.detach().requires_grad_() for x in inputs] if backward else inputs
    reads, state = form(*given)
    if backward:
        (reads.sum() + state.sum()).backward()


def _milliseconds(form: Form, inputs: Sequence[Any], backward: bool) -> float:
    """The median over runs, of CPU time or on CUDA wall-clock, after a run of a few tokens that compiles."""
    import torch

    *tokens, state = inputs
    _run(form, [*(x[:, :2] for x in tokens), state], backward)
    wait, clock = (torch.cuda.synchronize, time.perf_counter) if state.is_cuda else (lambda: None, time.process_time)
    times: list[float] = []
    while len(times) < REPEATS or sum(times) < 1e3 * SECONDS:
        wait()
        start = clock()
        _run(form, inputs, backward)
        wait()
        times.append(1e3 * (clock() - start))
    return statistics.median(times)

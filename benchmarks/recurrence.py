"""The gated delta rule: the definition, token by token, against its chunked form, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks._measured import Measured

REPEATS = 3


def measure(lengths: Sequence[int]) -> list[Measured]:
    """How many times faster the chunked form is, forward and forward with backward; one layer, one state, rank 8."""
    import torch

    from methods.delta_mem._recurrence import chunked, reference

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = []
    for length in lengths:
        inputs = _inputs(length)
        for way, backward in (("forward", False), ("forward_backward", True)):
            slow = _seconds(lambda: _run(reference, inputs, backward), 1)  # noqa: B023
            fast = _seconds(lambda: _run(chunked, inputs, backward), REPEATS)  # noqa: B023
            name = f"{length}.{way}"
            found += [
                Measured(f"{name}.reference", 1e3 * slow, "ms"),
                Measured(f"{name}.chunked", 1e3 * fast, "ms"),
                Measured(f"{name}.ratio", slow / fast),
            ]
    torch.set_num_threads(threads)
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


def _run(form: Callable[..., Any], inputs: list[Any], backward: bool) -> None:
    given = [x.detach().requires_grad_(backward) for x in inputs]
    reads, state = form(*given)
    if backward:
        (reads.sum() + state.sum()).backward()


def _seconds(work: Callable[[], None], repeats: int) -> float:
    """The fastest of ``repeats`` runs."""
    times = []
    for _ in range(repeats):
        clock = time.perf_counter()
        work()
        times.append(time.perf_counter() - clock)
    return min(times)

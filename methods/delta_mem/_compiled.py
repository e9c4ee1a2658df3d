"""The compiled form of the recurrence as PyTorch sees it; importing this module imports numba."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from methods.delta_mem import _kernel

ALONE = 1 << 18
"""Multiplications of a pass below which a second thread costs more than it gives."""

MODES = ("standard", "lambda_outside", "no_lambda")
_ONE = {torch.float32: np.float32(1), torch.float64: np.float64(1)}


def attend(
    packed: Tensor,
    valid: Tensor | None,
    state: Tensor,
    beta_bias: Tensor,
    lambda_bias: Tensor | None,
    config: Any,
    writes: bool = True,
) -> tuple[Tensor, Tensor]:
    """One memory's reads and writes without gradients, from packed projections: in one call, for a few tokens.

    Beyond some hundred tokens torch's tanh and sigmoid before :func:`methods.delta_mem._recurrence.scan` are as fast.
    The caller sees to it that ``compiles(packed, state)`` holds; memory is read by the shapes that config gives.

    Args:
        packed: [B, T, P], projections of q, k, v, beta and, where ``lambda_bias`` is given, lambda, without biases;
            the entries of a token side by side.
        valid: [B, T] bool; None: every token is valid. Others read 0 and write nothing.
        state: [B, N, r, r], of packed's dtype, as are the biases; left as it is.
        beta_bias, lambda_bias: [N g]; no lambda where it is 1 - beta.
        config: A :class:`DeltaMemConfig`.
        writes: Whether tokens write; if not, the state returned is the one given.

    Returns:
        reads [B, T, N r], and the state after the last token.
    """
    B, T, _ = packed.shape
    r, N = config.r, config.num_state_heads
    state, valid = state.contiguous(), None if valid is None else valid.contiguous()
    reads, last = packed.new_empty(B, T, N * r), torch.empty_like(state) if writes else state
    _kernel.attend(
        (packed.data_ptr(), 0 if valid is None else valid.data_ptr(), beta_bias.data_ptr(),
         0 if lambda_bias is None else lambda_bias.data_ptr(), state.data_ptr(), last.data_ptr(), reads.data_ptr()),
        (packed.stride(0), packed.stride(1)), _ONE[packed.dtype], B, T, N, None if r == _kernel.LANES else r,
        config.rankwise_gates, lambda_bias is None, config.normalize_qk, MODES.index(config.state_update_mode), writes,
    )  # fmt: skip
    return reads, last


def scan(*given: Tensor, every: int) -> tuple[Tensor, Tensor]:
    """The recurrence on CPU tensors of one dtype, float32 or float64; differentiable once.

    Args:
        given: What a form takes.
        every: Tokens between two states kept for the backward pass.

    Raises:
        RuntimeError: Where shapes do not fit, since the kernels read memory by them.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in given):
        return _Scan.apply(*given, every)
    return _forward(given, None, every)


def _forward(given: Sequence[Tensor], ctx: Any, every: int) -> tuple[Tensor, Tensor]:
    _fit(*given)
    tokens, state = [_rows(x) for x in given[:6]], _matrices(given[6])
    q, saved = tokens[0], None
    B, T, N, r = q.shape
    reads, last = (
        torch.empty_like(q, memory_format=torch.contiguous_format),
        torch.empty_like(state, memory_format=torch.contiguous_format),
    )
    if ctx is not None:
        saved = q.new_empty(B, N, -(-T // every), -(-r // _kernel.LANES), r, _kernel.LANES)
        ctx.save_for_backward(*tokens, saved)
        ctx.every = every
    _run(_kernel.forward, (*tokens, reads), (state, last, saved), every)
    return reads, last


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor]:
        *tensors, every = given
        return _forward(tensors, ctx, every)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_reads: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        *tokens, saved = ctx.saved_tensors
        wanted = [
            torch.empty(x.shape, dtype=x.dtype) if needed else None
            for x, needed in zip((*tokens, d_last), ctx.needs_input_grad, strict=False)
        ]
        *d_tokens, d_state = wanted
        states = (_matrices(d_last), saved, d_state)
        _run(_kernel.backward, (*tokens, _rows(d_reads), *d_tokens), states, ctx.every)
        return (*wanted, None)


def _fit(q: Tensor, k: Tensor, v: Tensor, log_keep: Tensor, erase: Tensor, write: Tensor, state: Tensor) -> None:
    *BTN, r = q.shape
    gates = log_keep.shape == erase.shape == write.shape in {(*BTN, r), (*BTN, 1)}
    if not (gates and q.shape == k.shape == v.shape and state.shape == (BTN[0], BTN[2], r, r)):
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v, log_keep, erase, write, state))
        raise RuntimeError(f"q, k, v, log_keep, erase, write and state do not fit together; their shapes are {shapes}")


def _rows(x: Tensor) -> Tensor:
    """As it is if its last axis has unit stride, as the kernels need; they follow the strides of the others."""
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()


def _matrices(x: Tensor) -> Tensor:
    """The same of states, whose entries lie side by side."""
    return x if x.stride()[2:] == (x.shape[3], 1) else x.contiguous()


def _run(
    kernel: Callable[..., None], tokens: Sequence[Tensor | None], states: Sequence[Tensor | None], every: int
) -> None:
    """Call a kernel, the pairs of batch row and head shared among the threads that torch may use.

    The threads are Python's, as the kernels hold no interpreter lock: numba's own layers may not be entered by two
    threads at once, or bring a second OpenMP beside torch's.
    """
    q, gate = tokens[0], tokens[3]
    B, T, N, r = q.shape
    table = np.array(
        [(x.data_ptr(), x.stride(0), x.stride(2), x.stride(1)) if x is not None else (0, 0, 0, 0) for x in tokens]
        + [(x.data_ptr(), x.stride(0), x.stride(1), 0) if x is not None else (0, 0, 0, 0) for x in states]
    )
    rank = None if r == _kernel.LANES else r
    work = lambda first, last: kernel(  # noqa: E731
        table, _ONE[q.dtype], T, N, rank, gate.shape[-1] > 1, every, first, last
    )
    pairs = B * N
    threads = min(torch.get_num_threads(), pairs) if T * pairs * r * r >= ALONE else 1
    bounds = [pairs * i // max(threads, 1) for i in range(threads + 1)]
    others = [_threads().submit(work, *share) for share in itertools.pairwise(bounds[:-1])]
    if pairs:
        work(*bounds[-2:])
    for other in others:
        other.result()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="delta-mem")


os.register_at_fork(after_in_child=_threads.cache_clear)

"""The gated delta rule of δ-mem: one definition, several speeds, one door (:func:`scan`).

For every state head S ∈ R^{r×r} (rows are value dimensions, columns key dimensions; paper eq. 4 to 7):

    read_t = S_{t-1} q_t                                   (a token reads before it writes)
    S_t    = Diag(keep_t) S_{t-1} - Diag(erase_t) S_{t-1} k_t k_tᵀ + Diag(write_t) v_t k_tᵀ

Shapes, with B rows of a batch, T tokens, N state heads, rank r:

    q, k, v              [B, T, N, r]
    log_keep             [B, T, N, g]    log of keep, at most 0; g is r (rankwise gates) or 1
    erase, write         [B, T, N, g]
    state                [B, N, r, r]

A token that is not valid has log_keep = erase = write = 0, so that it leaves the state as it is; its read is
the caller's to zero. All forms compute in the dtype of ``state`` and are differentiable in every argument.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

CHUNK = 16
"""Tokens solved at once; 16 was the fastest of 16, 32, 64 on CPUs and has the smallest fp32 error."""
EVERY = 32
"""Tokens between two kept states of the compiled form: the states of such a stretch fit a core's first cache."""


WIDEST = 64
"""The largest rank of the compiled form, which keeps the states of some tokens on the stack."""


def scan(
    q: Tensor, k: Tensor, v: Tensor, log_keep: Tensor, erase: Tensor, write: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the recurrence by the fastest form that fits.

    Returns:
        reads [B, T, N, r], one before each token's write, and the state [B, N, r, r] after the last token.
    """
    given = (*(x.to(state.dtype) for x in (q, k, v, log_keep, erase, write)), state)
    if compiles(*given):
        return compiled(*given)
    return step(*given) if q.shape[1] == 1 else chunked(*given)


def compiles(*given: Tensor) -> bool:
    """Whether the kernels can take these tensors: on the CPU, all of float32 or all of float64, and plain.

    Not where something looks into the operations: torch.compile, fake tensors, torch.func, forward-mode derivatives.
    """
    dtype = given[-1].dtype
    return (
        dtype in (torch.float32, torch.float64)
        and all(type(x) in (Tensor, Parameter) and x.dtype == dtype and x.is_cpu for x in given)
        and given[-1].shape[-1] <= WIDEST
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and _kernels()
    )


@functools.cache
def _kernels() -> bool:
    """Whether numba is there and compiles; it is imported only now, as that takes half a second."""
    try:
        import numba
    except ImportError:
        return False
    return not numba.config.DISABLE_JIT


def reference(
    q: Tensor, k: Tensor, v: Tensor, log_keep: Tensor, erase: Tensor, write: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The definition above, token by token: slow, obvious, and what the other forms are tested against."""
    reads = []
    for t in range(q.shape[1]):
        reads.append(torch.einsum("bnij,bnj->bni", state, q[:, t]))
        predicted = torch.einsum("bnij,bnj->bni", state, k[:, t])
        value = write[:, t] * v[:, t] - erase[:, t] * predicted
        state = log_keep[:, t].exp().unsqueeze(-1) * state + value.unsqueeze(-1) * k[:, t].unsqueeze(-2)
    return torch.stack(reads, dim=1), state


def step(
    q: Tensor, k: Tensor, v: Tensor, log_keep: Tensor, erase: Tensor, write: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One token (T = 1), as decoding needs it: both products with S in one matrix product."""
    read, predicted = (state @ torch.stack((q[:, 0], k[:, 0]), dim=-1)).unbind(-1)
    value = write[:, 0] * v[:, 0] - erase[:, 0] * predicted
    state = log_keep[:, 0].exp().unsqueeze(-1) * state + value.unsqueeze(-1) * k[:, 0].unsqueeze(-2)
    return read.unsqueeze(1), state


def compiled(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_keep: Tensor,
    erase: Tensor,
    write: Tensor,
    state: Tensor,
    every: int = EVERY,
) -> tuple[Tensor, Tensor]:
    """The same by kernels for the CPU, forward and backward; see :mod:`methods.delta_mem._kernel`.

    Args:
        every: Tokens between the states that are kept for the backward pass, which runs the others anew.
    """
    from methods.delta_mem import _compiled

    return _compiled.scan(q, k, v, log_keep, erase, write, state, every=every)


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_keep: Tensor,
    erase: Tensor,
    write: Tensor,
    state: Tensor,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """The same by chunks of ``chunk`` tokens: inside one, all writes follow from one triangular solve a row.

    Row i of S is a delta rule of its own with scalar gates. Let L_t be the sum of log keep up to t within the
    chunk and w_t the scalar that token t adds along k_t. With S_0 the state before the chunk,

        w_t + erase_t Σ_{j<t} e^{L_{t-1}-L_j} (k_j·k_t) w_j = write_t v_t - erase_t e^{L_{t-1}} (S_0 k_t)
        read_t = e^{L_{t-1}} S_0 q_t + Σ_{j<t} e^{L_{t-1}-L_j} (k_j·q_t) w_j
        S_C    = e^{L_C} S_0 + Σ_j e^{L_C-L_j} w_j k_jᵀ

    Every exponent is at most 0, so nothing overflows, however long the chunk or small λ. The solve is linear in
    S_0 and is done for all chunks before S passes through them.
    """
    T, r = q.shape[1], q.shape[3]
    pad = -T % chunk
    # [B, N, rows, chunks, C] for gates and values, [B, N, chunks, C, r] for keys and queries
    q, k, v, log_keep, erase, write = (
        torch.nn.functional.pad(x, (0, 0, 0, 0, 0, pad)).unflatten(1, (-1, chunk))
        for x in (q, k, v, log_keep, erase, write)
    )
    q, k = (x.permute(0, 3, 1, 2, 4) for x in (q, k))
    v, log_keep, erase, write = (
        x.expand(-1, -1, -1, -1, r).permute(0, 3, 4, 1, 2) for x in (v, log_keep, erase, write)
    )

    total = log_keep.cumsum(-1)  # L_t
    before = total - log_keep  # L_{t-1}
    strict = torch.ones(chunk, chunk, dtype=torch.bool, device=q.device).tril(-1)
    gap = before.unsqueeze(-1) - total.unsqueeze(-2)
    decay = torch.where(strict, gap, 0.0).exp() * strict  # e^{L_{t-1}-L_j}, j < t: [B, N, r, chunks, C, C]

    kk, qk = k @ k.mT, q @ k.mT  # [B, N, chunks, C, C], entry (t, j)
    system = erase.unsqueeze(-1) * decay * kk.unsqueeze(2)  # strictly lower; the unit diagonal is implied
    from_v = (write * v).unsqueeze(-1)
    from_state = (erase * before.exp()).unsqueeze(-1) * k.unsqueeze(2)
    solved = torch.linalg.solve_triangular(
        system, torch.cat((from_v, from_state), dim=-1), upper=False, unitriangular=True
    )
    w_v, w_state = solved[..., 0], solved[..., 1:]  # w = w_v - w_state · S_0 row

    to_end = (total[..., -1:] - total).exp()  # e^{L_C-L_j}
    kept = total[..., -1].exp()
    states, writes = [], []
    for c in range(q.shape[2]):
        states.append(state)
        w = w_v[:, :, :, c] - torch.einsum("bnicj,bnij->bnic", w_state[:, :, :, c], state)
        writes.append(w)
        state = kept[:, :, :, c].unsqueeze(-1) * state + (w * to_end[:, :, :, c]) @ k[:, :, c]
    S, w = torch.stack(states, dim=3), torch.stack(writes, dim=3)  # [B, N, r, chunks, r], [B, N, r, chunks, C]

    carried = before.exp() * torch.einsum("bnihj,bnhtj->bniht", S, q)
    within = ((decay * qk.unsqueeze(2)) @ w.unsqueeze(-1)).squeeze(-1)
    reads = (carried + within).permute(0, 3, 4, 1, 2).flatten(1, 2)[:, :T]  # [B, T, N, r]
    return reads, state


FORMS = {"reference": reference, "chunked": chunked, "compiled": compiled}
"""The forms that take any number of tokens, by name, for tests and measurements."""

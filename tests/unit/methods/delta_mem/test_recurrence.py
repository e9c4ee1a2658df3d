"""The forms of the recurrence against the definition, and the definition against the paper's equations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.delta_mem._recurrence import chunked, reference, scan, step

NAMES = ("q", "k", "v", "log_keep", "erase", "write", "state")


def problem(T, *, B=2, N=2, r=8, rankwise=True, dtype=torch.float64, seed=0, log_lambda=None, beta=None):
    """Random arguments of a scan from a non-zero state; unit keys and queries, as the memory makes them."""
    rng = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)  # noqa: E731
    unit = lambda x: x / x.norm(dim=-1, keepdim=True)  # noqa: E731
    z = normal(B, T, N, r if rankwise else 1)
    log_keep = torch.nn.functional.logsigmoid(-z) if log_lambda is None else torch.full_like(z, log_lambda)
    write = z.sigmoid() if beta is None else torch.full_like(z, beta)
    made = (unit(normal(B, T, N, r)), unit(normal(B, T, N, r)), normal(B, T, N, r), log_keep, write, write)
    return tuple(x.to(dtype) for x in (*made, normal(B, N, r, r)))


def far(a, b):
    """Largest difference over outputs, relative to the largest entry of the second."""
    return max(
        float((x.double() - y.double()).abs().max() / y.double().abs().max().clamp_min(1e-30))
        for x, y in zip(a, b, strict=True)
    )


def paper(mode, q, k, v, beta, lam, S):
    """Equations 4 to 7, one row of S at a time in plain numbers; a mode says which factors of λ and β act."""
    reads = np.zeros(q.shape)
    S = S.copy()
    for b, t, n in np.ndindex(q.shape[:3]):
        for i in range(q.shape[3]):
            row, g = S[b, n, i], min(i, beta.shape[3] - 1)
            reads[b, t, n, i] = sum(row[j] * q[b, t, n, j] for j in range(len(row)))
            predicted = sum(row[j] * k[b, t, n, j] for j in range(len(row)))
            B, L = beta[b, t, n, g], lam[b, t, n, g]
            keep, erase = {"standard": (L, B), "lambda_outside": (L, L * B), "no_lambda": (1.0, B)}[mode]
            S[b, n, i] = [
                keep * s - erase * predicted * kj + B * v[b, t, n, i] * kj
                for s, kj in zip(row, k[b, t, n], strict=True)
            ]
    return reads, S


@pytest.mark.parametrize("rankwise", [True, False])
@pytest.mark.parametrize("mode", ["standard", "lambda_outside", "no_lambda"])
def test_every_form_is_the_papers_equations(mode, rankwise):
    q, k, v, log_keep, _, beta, S = problem(19, r=3, rankwise=rankwise)
    lam = log_keep.exp()
    expected = [torch.from_numpy(x) for x in paper(mode, *(x.numpy() for x in (q, k, v, beta, lam, S)))]
    erase = lam * beta if mode == "lambda_outside" else beta
    log_keep = torch.zeros_like(log_keep) if mode == "no_lambda" else log_keep
    for form in (reference, chunked, scan):
        assert far(form(q, k, v, log_keep, erase, beta, S), expected) < 1e-12


@pytest.mark.parametrize("T", [1, 2, 15, 16, 17, 63, 64, 65, 100, 1000])
def test_chunks_are_the_reference(T):
    args = problem(T, B=1 if T > 100 else 2)
    expected = reference(*args)
    for chunk in (16,) if T == 1000 else (1, 3, 16, 64):
        assert far(chunked(*args, chunk=chunk), expected) < 1e-10
    assert far(scan(*args), expected) < 1e-10
    single = tuple(x.float() for x in args)
    assert far(chunked(*single), expected) < 1e-5
    assert all(x.dtype == torch.float32 for x in scan(*single))


def test_a_step_is_the_reference_of_one_token():
    args = problem(1)
    assert far(step(*args), reference(*args)) < 1e-12


@pytest.mark.parametrize("rankwise", [True, False])
@pytest.mark.parametrize(
    ("log_lambda", "beta"), [(-1e-12, 1e-12), (-69.0, 1.0), (-1000.0, 1.0), (0.0, 1.0), (-0.5, 0.0), (0.0, 0.0)]
)
def test_gates_at_their_ends(log_lambda, beta, rankwise):
    args = problem(100, log_lambda=log_lambda, beta=beta, rankwise=rankwise)
    assert far(chunked(*args), reference(*args)) < 1e-10


def test_zero_gates_write_nothing_bit_for_bit():
    args = problem(40, log_lambda=0.0, beta=0.0)
    reads, state = scan(*args)
    assert torch.equal(state, args[-1])
    assert torch.allclose(reads, torch.einsum("bnij,btnj->btni", args[-1], args[0]), atol=1e-12)


@pytest.mark.parametrize("form", [reference, chunked])
def test_a_masked_token_leaves_no_trace(form):
    q, k, v, log_keep, erase, write, S = problem(33)
    valid = torch.rand(33, generator=torch.Generator().manual_seed(3)) < 0.6
    keep = valid[None, :, None, None]
    gates = [torch.where(keep, g, 0.0) for g in (log_keep, erase, write)]
    reads, state = form(q, k, v, *gates, S)
    expected = reference(*(x[:, valid] for x in (q, k, v, log_keep, erase, write)), S)
    assert far((reads[:, valid], state), expected) < 1e-12


@pytest.mark.parametrize("rankwise", [True, False])
def test_gradients_are_the_references(rankwise):
    grads = []
    for form in (reference, chunked):
        args = [x.clone().requires_grad_() for x in problem(65, B=1, rankwise=rankwise)]
        reads, state = form(*args)
        (reads.sin().sum() + state.cos().sum()).backward()
        grads.append([x.grad for x in args])
    for name, ours, theirs in zip(NAMES, grads[1], grads[0], strict=True):
        assert far([ours], [theirs]) < 1e-10, name


def test_gradcheck_of_the_chunked_form():
    args = [x.clone().requires_grad_() for x in problem(5, B=1, N=1, r=2)]
    assert torch.autograd.gradcheck(lambda *a: chunked(*a, chunk=3), args)


def test_gradients_stay_finite_where_a_gate_forgets_all():
    z = torch.full((1, 40, 1, 4), 500.0, requires_grad=True)
    q, k, v, *_, S = problem(40, B=1, N=1, r=4, dtype=torch.float32)
    reads, state = chunked(q, k, v, torch.nn.functional.logsigmoid(-z), z.sigmoid(), z.sigmoid(), S)
    (reads.sum() + state.sum()).backward()
    assert torch.isfinite(z.grad).all()


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 49), max_size=6), seed=st.integers(0, 10))
def test_however_it_is_cut_a_sequence_gives_one_state(cuts, seed):
    *tokens, state = problem(50, B=1, seed=seed)
    expected = reference(*tokens, state)
    bounds = [0, *sorted(set(cuts)), 50]
    reads = []
    for a, b in itertools.pairwise(bounds):
        some, state = scan(*(x[:, a:b] for x in tokens), state)
        reads.append(some)
    assert far((torch.cat(reads, dim=1), state), expected) < 1e-10


def test_state_heads_are_independent():
    order = torch.tensor([2, 0, 3, 1])
    *tokens, S = problem(30, N=4)
    reads, state = scan(*tokens, S)
    moved = scan(*(x[:, :, order] for x in tokens), S[:, order])
    assert far(moved, (reads[:, :, order], state[:, order])) < 1e-12


@pytest.mark.parametrize(
    ("mode", "share"),
    [("standard", 1 / 2), ("lambda_outside", 1 / (2 - 0.3)), ("no_lambda", 1.0)],
)
def test_one_association_repeated_converges_to_its_fixed_point(mode, share):
    """p = keep·p - erase·p + β·v: with λ = 1 - β what is read back of v is a half in the standard form."""
    beta, T, r = 0.3, 200, 4
    _, k, v, *_ = problem(1, B=1, N=1, r=r)
    gate = torch.full((1, T, 1, r), beta, dtype=torch.float64)
    log_keep = torch.zeros_like(gate) if mode == "no_lambda" else torch.full_like(gate, math.log(1 - beta))
    erase = gate * (1 - beta) if mode == "lambda_outside" else gate
    many = lambda x: x.expand(1, T, 1, r)  # noqa: E731
    reads, _ = scan(many(k), many(k), many(v), log_keep, erase, gate, torch.zeros(1, 1, r, r, dtype=torch.float64))
    assert float(reads[0, 0].abs().max()) == 0.0  # a token reads before it writes
    assert torch.allclose(reads[0, -1, 0], share * v[0, 0, 0], atol=1e-10)

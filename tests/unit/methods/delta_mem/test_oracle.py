"""The paper's equations written anew in numpy, a row of S at a time, and what follows from them for any numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.delta_mem._recurrence import FORMS, scan

MODES = ("standard", "lambda_outside", "no_lambda")
few = settings(max_examples=20, deadline=None, derandomize=True)
seeds = st.integers(0, 1000)


def row_by_row(mode, q, k, v, beta, lam, S):
    """Equation 12: row i of S is a vector of its own, s ← s (keep I - erase k kᵀ) + β v_i kᵀ, its gates numbers.

    Arrays q, k, v [B, T, N, r]; beta, lam [B, T, N, g]; S [B, N, r, r]. Returns reads [B, T, N, r] and S at the end.
    """
    B, T, N, r = q.shape
    reads, last = np.empty((B, T, N, r)), np.empty((B, N, r, r))
    for b, n, i in np.ndindex(B, N, r):
        s, gate = S[b, n, i], i if beta.shape[3] == r else 0
        for t in range(T):
            key, b_t, l_t = k[b, t, n], beta[b, t, n, gate], lam[b, t, n, gate]
            reads[b, t, n, i] = s @ q[b, t, n]
            keep = 1.0 if mode == "no_lambda" else l_t
            erase = l_t * b_t if mode == "lambda_outside" else b_t
            s = s @ (keep * np.eye(r) - erase * np.outer(key, key)) + b_t * v[b, t, n, i] * key
        last[b, n, i] = s
    return reads, last


def as_tensors(mode, q, k, v, beta, lam, S):
    """The same numbers as a scan takes them."""
    log_keep = np.zeros_like(lam) if mode == "no_lambda" else np.log(lam)
    erase = lam * beta if mode == "lambda_outside" else beta
    return [torch.from_numpy(np.ascontiguousarray(x)) for x in (q, k, v, log_keep, erase, beta, S)]


def drawn(seed, T, B=1, N=1, r=4, g=None, coupled=True):
    """Numbers of no particular kind: keys of any length, gates in (0, 1)."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.normal(size=(B, T, N, r)) / np.sqrt(r) for _ in range(3))
    beta, lam = (rng.uniform(0.02, 0.98, size=(B, T, N, g or r)) for _ in range(2))
    return q, k, v, beta, 1 - beta if coupled else lam, rng.normal(size=(B, N, r, r))


def close(found, expected):
    return all(
        np.allclose(np.asarray(x), np.asarray(y), rtol=1e-9, atol=1e-9) for x, y in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("coupled", [True, False], ids=["coupled", "free"])
@pytest.mark.parametrize("g", [1, 3])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_is_the_papers_equations(form, mode, g, coupled):
    numbers = drawn(0, 19, B=2, N=2, r=3, g=g, coupled=coupled)
    assert close(form(*as_tensors(mode, *numbers)), row_by_row(mode, *numbers))


@few
@given(
    seed=seeds,
    T=st.integers(1, 40),
    r=st.integers(1, 10),
    N=st.integers(1, 3),
    wide=st.booleans(),
    coupled=st.booleans(),
    mode=st.sampled_from(MODES),
)
def test_the_door_gives_the_papers_equations(seed, T, r, N, wide, coupled, mode):
    numbers = drawn(seed, T, N=N, r=r, g=r if wide else 1, coupled=coupled)
    assert close(scan(*as_tensors(mode, *numbers)), row_by_row(mode, *numbers))


@few
@given(cuts=st.lists(st.integers(0, 50), max_size=6), seed=seeds)
def test_however_it_is_cut_a_sequence_gives_one_state(cuts, seed):
    numbers = drawn(seed, 50)
    *tokens, state = as_tensors("standard", *numbers)
    reads = []
    for start, stop in itertools.pairwise([0, *sorted(cuts), 50]):
        some, state = scan(*(x[:, start:stop] for x in tokens), state)
        reads.append(some)
    assert close((torch.cat(reads, dim=1), state), row_by_row("standard", *numbers))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@few
@given(seed=seeds, T=st.integers(1, 40))
def test_a_zero_gate_writes_nothing_bit_for_bit(form, seed, T):
    q, k, v, beta, lam, S = drawn(seed, T)
    *tokens, state = as_tensors("standard", q, k, v, 0 * beta, np.ones_like(lam), S)
    reads, last = form(*tokens, state)
    assert torch.equal(last, state)
    assert close([reads], [np.einsum("bnij,btnj->btni", S, q)])


@few
@given(seed=seeds, order=st.permutations(range(4)))
def test_permuting_state_heads_permutes_reads(seed, order):
    *tokens, S = as_tensors("standard", *drawn(seed, 20, N=4))
    reads, last = scan(*tokens, S)
    moved, last_moved = scan(*(x[:, :, order] for x in tokens), S[:, order])
    assert torch.equal(moved, reads[:, :, order])
    assert torch.equal(last_moved, last[:, order])


@few
@given(seed=seeds, beta=st.floats(0.1, 0.9), lam=st.floats(0.1, 0.9), mode=st.sampled_from(MODES))
def test_one_association_repeated_converges(seed, beta, lam, mode):
    """With a unit key p = S k obeys p ← (keep - erase) p + β v, whose fixed point is β v / (1 - keep + erase).

    Where nothing decays (keep = 1, erase = β) that is v itself; where λ = 1 - β it is half of it.
    """
    _, k, v, _, _, S = drawn(seed, 1)
    k = k / np.linalg.norm(k, axis=-1, keepdims=True)
    T, many = 400, lambda x: np.repeat(x, 400, axis=1)
    gate, kept = np.full((1, T, 1, 4), beta), np.full((1, T, 1, 4), lam)
    reads, _ = scan(*as_tensors(mode, many(k), many(k), many(v), gate, kept, S))
    keep = 1.0 if mode == "no_lambda" else lam
    erase = lam * beta if mode == "lambda_outside" else beta
    factor = keep - erase
    fixed = beta / (1 - factor) * v[0, 0, 0]
    start = S[0, 0] @ k[0, 0, 0]
    for t in (0, 1, 10, T - 1):  # a token reads before it writes, so after t writes
        assert np.allclose(reads[0, t, 0], fixed + factor**t * (start - fixed), atol=1e-9)
    assert np.allclose(reads[0, -1, 0], fixed)


@pytest.mark.parametrize(
    ("mode", "share"), [("standard", 1 / 2), ("lambda_outside", 1 / (2 - 0.3)), ("no_lambda", 1.0)]
)
def test_what_is_read_back_of_a_value_with_coupled_gates(mode, share):
    _, k, v, _, _, S = drawn(1, 1)
    k = k / np.linalg.norm(k)
    many, gate = lambda x: np.repeat(x, 300, axis=1), np.full((1, 300, 1, 4), 0.3)
    reads, _ = scan(*as_tensors(mode, many(k), many(k), many(v), gate, 1 - gate, S))
    assert np.allclose(reads[0, -1, 0], share * v[0, 0, 0])

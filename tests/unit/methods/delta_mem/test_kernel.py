"""The compiled form beside its agreement with the others: threads, caches, errors, and one memory in one call."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch

from methods.delta_mem import _compiled, _kernel, _plain
from methods.delta_mem._config import DeltaMemConfig
from methods.delta_mem._layer import DeltaMemory
from methods.delta_mem._recurrence import compiled


@pytest.fixture
def threads():
    """Sets the number of threads that torch may use, for the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def gradients(args):
    given = [x.clone().requires_grad_() for x in args]
    reads, state = compiled(*given)
    (reads.square().sum() + state.sum()).backward()
    return [x.grad for x in given]


@pytest.mark.parametrize("count", [2, 3, 8])
def test_threads_share_the_heads_and_change_no_bit(problem, threads, monkeypatch, count):
    monkeypatch.setattr(_compiled, "ALONE", 0)
    args = problem(40, B=2, N=3, dtype=torch.float32)
    threads(1)
    alone = [*compiled(*args), *gradients(args)]
    threads(count)
    assert all(map(torch.equal, [*compiled(*args), *gradients(args)], alone))


def test_many_threads_may_call_at_once(problem, threads, monkeypatch):
    """As autograd's own threads and a caller's do, each sharing its heads among the workers."""
    monkeypatch.setattr(_compiled, "ALONE", 0)
    threads(2)
    args = problem(200, B=2, N=2, dtype=torch.float32)
    expected, found = gradients(args), []
    callers = [threading.Thread(target=lambda: found.extend(gradients(args) for _ in range(5))) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 30
    assert all(torch.equal(x, y) for given in found for x, y in zip(given, expected, strict=True))


def test_8192_tokens_in_fp32(problem, far):
    """Held against float64, in which the kernel is the reference to rounding."""
    args = problem(8192, B=1, N=1, dtype=torch.float32)
    assert far(compiled(*args), compiled(*(x.double() for x in args))) < 1e-6


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 2e-7), (torch.float64, 4e-16)])
def test_keep_is_the_exponential_of_its_log(dtype, close):
    """One token on a state of ones, nothing written: the last state is keep."""
    log_keep = torch.cat([-torch.logspace(-9, 1.9, 4000), torch.tensor([0.0, -0.0, -1e4, -torch.inf])]).to(dtype)
    none, state = torch.zeros(1, 1, len(log_keep), 1, dtype=dtype), torch.ones(1, len(log_keep), 1, 1, dtype=dtype)
    keep = compiled(none, none, none, log_keep.view_as(none), none, none, state)[1].flatten()
    expected = log_keep.double().exp()
    assert ((keep.double() - expected).abs() <= close * expected).all()
    assert keep[-4:].tolist() == [1.0, 1.0, 0.0, 0.0]


def test_nothing_wanted_is_nothing_kept(problem):
    args = problem(10)
    assert all(x.grad_fn is None for x in compiled(*args))
    given = [*args[:-1], args[-1].clone().requires_grad_()]
    compiled(*given)[1].sum().backward()
    assert given[0].grad is None
    assert given[-1].grad.shape == args[-1].shape


def test_a_second_derivative_is_refused(problem):
    args = [x.clone().requires_grad_() for x in problem(3)]
    gradient = torch.autograd.grad(compiled(*args)[1].square().sum(), args[2], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_arguments_stay_as_they_are(problem):
    args = problem(10)
    before = [x.clone() for x in args]
    compiled(*args)
    assert all(map(torch.equal, args, before))


@pytest.mark.parametrize(
    ("which", "shape"), [(1, (2, 9, 2, 8)), (3, (2, 10, 2, 4)), (4, (2, 10, 2, 1)), (6, (2, 2, 4, 8))]
)
def test_shapes_that_do_not_fit_are_refused(problem, which, shape):
    args = list(problem(10))
    args[which] = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="do not fit together"):
        compiled(*args)


def test_no_tokens_change_nothing(problem):
    args = [x[:, :0] for x in problem(3)[:-1]]
    state = problem(3)[-1].requires_grad_()
    reads, last = compiled(*args, state)
    assert reads.shape == (2, 0, 2, 8)
    assert torch.equal(last, state)
    last.sum().backward()
    assert torch.equal(state.grad, torch.ones_like(state))


def test_without_a_place_for_its_cache_a_kernel_still_compiles():
    names = {}
    exec(compile("def twice(x):\n    return 2 * x", "nowhere.py", "exec"), names)
    assert _kernel._compiled(names["twice"])(4) == 8


# --- one memory in one call ---

CONFIGS = [
    {},
    {"r": 8, "num_state_heads": 4},
    {"rankwise_gates": False, "num_state_heads": 2},
    {"couple_lambda": False},
    {"couple_lambda": False, "rankwise_gates": False, "num_state_heads": 2, "state_update_mode": "lambda_outside"},
    {"state_update_mode": "lambda_outside"},
    {"state_update_mode": "no_lambda"},
    {"normalize_qk": False, "r": 3, "num_state_heads": 2},
    {"r": 16, "num_state_heads": 2},
]


@pytest.fixture(params=CONFIGS, ids=str)
def memory(request):
    """A memory of hidden width 12 with random parameters."""
    config = DeltaMemConfig(**request.param)
    projection = SimpleNamespace(in_features=12, out_features=12)
    memory = DeltaMemory(config, SimpleNamespace(q_proj=projection, o_proj=projection)).requires_grad_(False)
    rng = torch.Generator().manual_seed(0)
    for parameter in memory.parameters():
        parameter.copy_(0.5 * torch.randn(parameter.shape, generator=rng))
    return memory


def packed(memory, x):
    rows = [memory.memory_q_proj, memory.memory_k_proj, memory.memory_v_proj, memory.beta_proj]
    return x @ torch.cat(rows if memory.config.couple_lambda else [*rows, memory.lambda_proj]).T


def drawn(memory, B, T):
    """Hidden states [B, T, 12] and states."""
    rng, config = torch.Generator().manual_seed(1), memory.config
    shapes = (B, T, 12), (B, config.num_state_heads, config.r, config.r)
    return [torch.randn(shape, generator=rng) for shape in shapes]


def lambda_bias(memory):
    return None if memory.config.couple_lambda else memory.lambda_bias


@pytest.mark.parametrize("T", [1, 7])
def test_attend_is_the_specification(memory, far, T):
    config = memory.config
    x, S = drawn(memory, 3, T)
    rng = torch.Generator().manual_seed(1)
    valid = torch.rand(3, 2 * T, generator=rng)[:, ::2] < 0.7
    valid[0], valid[1] = True, False
    before = S.clone()
    reads, last = _compiled.attend(packed(memory, x), valid, S, memory.beta_bias, lambda_bias(memory), config)
    assert torch.equal(S, before)
    assert torch.equal(last[1], S[1])
    assert not reads[~valid].any()
    for row in (0, 2):
        if valid[row].any():
            expected = _plain.scan(memory, x[row, valid[row]], S[row], None, True)
            assert far((reads[row, valid[row]], last[row]), expected) < 1e-5


def test_attend_reads_without_writing(memory, far):
    config = memory.config
    x, S = drawn(memory, 1, 5)
    queries = packed(memory, x)[..., : config.width]  # all that reading needs
    reads, last = _compiled.attend(queries, None, S, memory.beta_bias, lambda_bias(memory), config, writes=False)
    assert last is S
    assert far([reads[0]], [_plain.scan(memory, x[0], S[0], None, False)[0]]) < 1e-5


def test_attend_takes_tokens_together_as_one_by_one(memory):
    x, state = drawn(memory, 2, 6)
    z, rest = packed(memory, x), (memory.beta_bias, lambda_bias(memory), memory.config)
    together, last = _compiled.attend(z, None, state, *rest)
    for t in range(6):
        read, state = _compiled.attend(z[:, t : t + 1], None, state, *rest)
        assert torch.equal(read[:, 0], together[:, t])
    assert torch.equal(state, last)

"""Every form of the recurrence against the definition, forward and backward, and which of them the door chooses."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from methods.delta_mem import _recurrence
from methods.delta_mem._recurrence import FORMS, chunked, compiled, reference, scan, step

NAMES = ("q", "k", "v", "log_keep", "erase", "write", "state")
FAST = {name: form for name, form in FORMS.items() if name != "reference"}
SHAPES = [(1, 8), (4, 8), (1, 1), (2, 2), (1, 3), (2, 5), (1, 16)]  # N and r
GATES = [(-1e-12, 1e-12), (-700.0, 1.0), (-1e4, 1.0), (0.0, 1.0), (-0.5, 0.0), (0.0, 0.0)]  # log λ and β


@pytest.fixture(params=FAST.values(), ids=FAST)
def form(request):
    return request.param


def results(form, args, needed=NAMES):
    """Reads, last state, and the gradients of a loss that both bear on."""
    given = [x.clone().requires_grad_(name in needed) for name, x in zip(NAMES, args, strict=True)]
    reads, state = form(*given)
    (reads.sin().sum() + state.cos().sum()).backward()
    return [reads.detach(), state.detach(), *(x.grad for x in given if x.requires_grad)]


def exactly(args):
    """The definition in float64 on just these numbers."""
    return reference(*(x.double() for x in args))


@pytest.mark.parametrize("T", [1, 2, 63, 64, 65, 100, 1000])
def test_every_form_is_the_reference(problem, far, form, T):
    args = problem(T, B=1 if T > 100 else 2)
    assert far(form(*args), exactly(args)) < 1e-10
    single = [x.float() for x in args]
    found = form(*single)
    assert all(x.dtype == torch.float32 for x in found)
    assert far(found, exactly(single)) < (1e-6 if form is compiled else 1e-5)


@pytest.mark.parametrize("size", [1, 3, 16, 32, 64, 200])
def test_any_chunk_and_any_distance_of_checkpoints(problem, far, form, size):
    args = problem(65, B=1, N=1)
    sized = lambda *given: form(*given, size)  # noqa: E731
    assert far(results(sized, args), results(reference, args)) < 1e-10


@pytest.mark.parametrize("rankwise", [True, False], ids=["rankwise", "scalar"])
@pytest.mark.parametrize(("N", "r"), SHAPES)
def test_any_rank_and_number_of_heads_with_gradients(problem, far, form, N, r, rankwise):
    args = problem(37, N=N, r=r, rankwise=rankwise)
    expected = results(reference, args)
    assert far(results(form, args), expected) < 1e-10
    assert far(results(form, [x.float() for x in args]), expected) < 1e-5


@pytest.mark.parametrize("rankwise", [True, False], ids=["rankwise", "scalar"])
@pytest.mark.parametrize(("log_lambda", "beta"), GATES)
def test_gates_at_their_ends(problem, far, form, log_lambda, beta, rankwise):
    args = problem(50, B=1, N=1, log_lambda=log_lambda, beta=beta, rankwise=rankwise)
    for ours, theirs in zip(results(form, args), results(reference, args), strict=True):
        assert float((ours - theirs).abs().max()) < 1e-10 * max(1.0, float(theirs.abs().max()))


def test_gates_that_differ_from_one_another(problem, far, form):
    """Keep, erase and write each drawn alone: nothing is taken for its neighbour."""
    q, k, v, _, _, _, S = problem(40)
    log_keep, erase, write = (problem(40, seed=n)[3 + n % 3] for n in (3, 4, 5))
    args = (q, k, v, log_keep, erase, write, S)
    assert far(results(form, args), results(reference, args)) < 1e-10


@pytest.mark.parametrize("share", [0.6, 0.0])
def test_a_masked_token_leaves_no_trace(problem, far, form, share):
    q, k, v, log_keep, erase, write, S = problem(33)
    valid = torch.rand(33, generator=torch.Generator().manual_seed(3)) < share
    gates = [torch.where(valid[None, :, None, None], g, 0.0) for g in (log_keep, erase, write)]
    reads, state = form(q, k, v, *gates, S)
    if not share:
        assert torch.equal(state, S)
        return
    expected = reference(*(x[:, valid] for x in (q, k, v, log_keep, erase, write)), S)
    assert far((reads[:, valid], state), expected) < 1e-12


def test_rows_of_a_batch_may_be_masked_apart(problem, far, form):
    q, k, v, log_keep, erase, write, S = problem(20, B=3)
    valid = torch.arange(20)[None] >= torch.tensor([[0], [7], [20]])  # left padding, and a row without a token
    gates = [torch.where(valid[..., None, None], g, 0.0) for g in (log_keep, erase, write)]
    args = (q, k, v, *gates, S)
    assert far(results(form, args), results(reference, args)) < 1e-10
    assert torch.equal(form(*args)[1][2], S[2])


@pytest.mark.parametrize("rankwise", [True, False], ids=["rankwise", "scalar"])
def test_gradcheck(problem, form, rankwise):
    args = [x.clone().requires_grad_() for x in problem(4, B=1, N=1, r=2, rankwise=rankwise)]
    assert torch.autograd.gradcheck(lambda *given: form(*given, 3), args)


@pytest.mark.parametrize("needed", [("v",), ("k", "state"), ("log_keep", "write"), ("q", "erase")])
def test_gradients_of_some_arguments_only(problem, far, form, needed):
    args = problem(40)
    assert far(results(form, args, needed), results(reference, args, needed)) < 1e-10


def test_views_are_read_as_they_lie(problem, far, form):
    """Packed projections, gates expanded from one, a transposed state, tokens every other: strides of all kinds."""
    args = problem(30, N=4)
    q, k, v, log_keep, erase, write, S = (x.clone() for x in args)
    q, k, v = torch.stack((q, k, v), dim=-2).unbind(-2)
    log_keep = torch.stack((log_keep, log_keep), dim=2)[:, :, 1]
    erase, write = (x[..., :1].expand(-1, -1, -1, 8) for x in (erase, write))
    views = (q, k, v.mT.contiguous().mT, log_keep, erase, write, S.mT.contiguous().mT)
    plain = [x.contiguous() for x in views]
    assert far(form(*views), reference(*plain)) < 1e-12
    given = [x.detach().requires_grad_() for x in views]
    state = form(*given)[1]
    state.mT[..., :1].expand(-1, -1, -1, 8).sum().backward()  # a gradient without a stride of its own
    assert far([x.grad for x in given[1:]], [x.grad for x in _summed(plain)[1:]]) < 1e-10


def _summed(plain):
    given = [x.clone().requires_grad_() for x in plain]
    _, state = reference(*given)
    (8 * state[..., :1, :].sum()).backward()
    return given


def test_gradients_stay_finite_where_a_gate_forgets_all(problem, form):
    z = torch.full((1, 40, 1, 4), 500.0, requires_grad=True)
    q, k, v, *_, S = problem(40, B=1, N=1, r=4, dtype=torch.float32)
    reads, state = form(q, k, v, torch.nn.functional.logsigmoid(-z), z.sigmoid(), z.sigmoid(), S)
    (reads.sum() + state.sum()).backward()
    assert torch.isfinite(z.grad).all()


def test_a_step_is_the_reference_of_one_token(problem, far):
    args = problem(1)
    assert far(step(*args), reference(*args)) < 1e-12


# --- the door ---


@pytest.fixture
def chosen(monkeypatch):
    """The form that the door takes."""
    names = []

    def note(name, form):
        monkeypatch.setattr(_recurrence, name, lambda *args: (names.append(name), form(*args))[1])

    for form in (step, chunked, compiled):
        note(form.__name__, form)
    return names


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("T", [1, 20])
def test_the_door_compiles_what_the_kernels_can_take(problem, chosen, T, dtype):
    args = problem(T, dtype=dtype)
    assert scan(*(x.bfloat16() for x in args[:-1]), args[-1])[0].dtype == dtype
    assert chosen == ["compiled"]


def test_the_door_compiles_no_state_that_is_too_wide(problem, chosen):
    scan(*problem(2, B=1, N=1, r=_recurrence.WIDEST))
    scan(*problem(2, B=1, N=1, r=_recurrence.WIDEST + 1))
    assert chosen == ["compiled", "chunked"]


@pytest.mark.parametrize(("T", "name"), [(1, "step"), (20, "chunked")])
def test_the_door_does_without_numba(problem, far, chosen, monkeypatch, T, name):
    monkeypatch.setattr(_recurrence, "_kernels", lambda: False)
    args = problem(T)
    assert far(scan(*args), reference(*args)) < 1e-10
    assert chosen == [name]


def test_what_looks_into_operations_gets_operations(problem, far, chosen):
    """torch.func, forward-mode derivatives, meta and fake tensors: none of them sees into a kernel."""
    args = problem(20)
    batched = torch.func.vmap(scan)(*(torch.stack((x, x)) for x in args))
    assert far([x[1] for x in batched], reference(*args)) < 1e-10
    _, tangent = torch.func.jvp(lambda v: scan(*args[:2], v, *args[3:])[1], (args[2],), (args[2],))
    straight = scan(*args)[1] - scan(*args[:2], torch.zeros_like(args[2]), *args[3:])[1]  # linear in v
    assert far([tangent], [straight]) < 1e-10
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(args[2], args[2])
        state = scan(*args[:2], dual, *args[3:])[1]
        assert far([torch.autograd.forward_ad.unpack_dual(state).tangent], [straight]) < 1e-10
    assert scan(*(x.to("meta") for x in args))[1].shape == args[-1].shape
    assert chosen == ["chunked", "chunked", "compiled", "compiled", "chunked", "chunked"]


def test_numba_is_imported_when_a_kernel_is_wanted_and_not_before():
    body = ast.parse(Path(_recurrence.__file__).read_text(encoding="utf-8")).body
    names = [
        name for node in body if isinstance(node, ast.Import | ast.ImportFrom) for name in ast.unparse(node).split()
    ]
    assert "torch" in names
    assert not {"numba", "methods.delta_mem._compiled", "methods.delta_mem._kernel"} & set(names)

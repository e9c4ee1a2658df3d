"""What a state tells by layer: norms, and the gates that stood while it was written, beside a direct computation."""

from __future__ import annotations

import pytest
import torch

from harness.episodes import History, Message
from harness.registry import resolve
from methods.delta_mem._cache import Tally
from methods.delta_mem._state import DeltaState

HISTORY = History(tuple(Message(f"Fact {n}: " + "word " * (n % 5), id=str(n)) for n in range(9)), "Read.")
LATER = History((Message("And one more thing that is said later."),), "Read.")


@pytest.fixture
def make(tiny, shake):
    def build(row, **settings):
        cls, config = resolve(row, settings)
        method = cls(config, tiny(), 1)
        shake(method.memory)
        return method

    return build


def directly(method, history):
    """β and 1 - λ of each layer from what its attention module is given, mean over all that is written."""
    seen: dict[int, list[torch.Tensor]] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _m, args, kwargs, n=n: seen.setdefault(n, []).append((args or (kwargs["hidden_states"],))[0][0]),
            with_kwargs=True,
        )
        for n, layer in enumerate(method.memory.layers)
    ]
    method.write(history)
    for hook in hooks:
        hook.remove()
    _, owner = method.backbone.encode(history.messages, system=history.system, unit=method.unit)
    found = []
    for n, layer in enumerate(method.memory.layers):
        x, memory = torch.cat(seen[n]).double(), layer.memory
        if memory.config.memory_write_granularity != "token":
            owners = torch.tensor(owner)
            x = torch.stack([x[owners == m].mean(0) for m in sorted(set(owner) - {-1})])
        beta = (x @ memory.beta_proj.double().T + memory.beta_bias.double()).sigmoid()
        lam = 1 - beta
        if not memory.config.couple_lambda:
            lam = (x @ memory.lambda_proj.double().T + memory.lambda_bias.double()).sigmoid()
        found.append((float(beta.mean()), float(1 - lam.mean())))
    return found


@pytest.mark.parametrize("settings", [{}, {"couple_lambda": False}, {"rankwise_gates": False}, {"write_chunk": 7}])
@pytest.mark.parametrize("row", ["delta_mem_tsw", "delta_mem_ssw", "delta_mem_msw"])
def test_gates_are_those_of_a_direct_computation(row, settings, make):
    method = make(row, **settings)
    told = method.write(HISTORY).gates
    expected = directly(method, HISTORY)
    assert told.write == pytest.approx([beta for beta, _ in expected], abs=1e-5)
    assert told.forget == pytest.approx(
        [forget for _, forget in expected] if settings == {"couple_lambda": False} else [], abs=1e-5
    )
    assert len({round(g, 4) for g in told.write}) > 1, "layers that say the same show nothing"


def test_written_on_means_are_over_all_that_was_written(make):
    method = make("delta_mem_tsw")
    first = method.write(HISTORY)
    both, second = method.write(LATER, first), method.write(LATER)
    assert both.gates.writes == both.tokens == first.tokens + second.tokens
    weights = first.gates.writes / both.gates.writes
    # The later tokens' hidden states follow from the state that they read, so their gates do too, a little.
    expected = [weights * a + (1 - weights) * b for a, b in zip(first.gates.write, second.gates.write, strict=True)]
    assert both.gates.write == pytest.approx(expected, abs=0.05)


def test_telling_changes_no_state(make, monkeypatch):
    told = make("delta_mem_tsw").write(HISTORY)
    monkeypatch.setattr(Tally, "add", lambda *_: None)
    assert torch.equal(told.S, make("delta_mem_tsw").write(HISTORY).S)


def test_padding_is_no_write():
    tally, gates = Tally(), torch.tensor([[[[0.2, 0.4]], [[0.9, 0.9]]]])
    tally.add(gates, torch.log1p(-gates), torch.tensor([[True, False]]))
    assert tally.writes == 1
    assert tally.sums.tolist() == pytest.approx([0.3, 0.3])


def test_described_by_layer_and_kept_on_disk(make, tmp_path):
    state = make("delta_mem_msw", couple_lambda=False).write(HISTORY)
    layers = state.describe()["layers"]
    assert layers["norm"] == [round(float(s.norm()), 4) for s in state.S]
    assert {name: len(values) for name, values in layers.items()} == dict.fromkeys(
        ("norm", "write_gate", "forget_gate"), len(state.S)
    )
    state.save(tmp_path)
    assert DeltaState.load(tmp_path).describe() == state.describe()


def test_a_state_saved_before_gates_were_told_still_loads(make, tmp_path):
    state = make("delta_mem_tsw").write(HISTORY)
    state.save(tmp_path)
    (tmp_path / "state.json").write_text('{"tokens": 12}')
    loaded = DeltaState.load(tmp_path)
    assert (loaded.tokens, loaded.gates) == (12, None)
    assert list(loaded.describe()["layers"]) == ["norm"]
    assert torch.equal(loaded.S, state.S)


def test_an_empty_history_has_gates_of_nothing(make):
    gates = make("delta_mem_tsw").write(History((), "")).gates
    assert gates is not None
    assert all(0 <= g <= 1 for g in gates.write)

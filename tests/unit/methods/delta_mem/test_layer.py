"""One memory beside one attention module, against a dense second writing of specification 1.2 to 1.4; and 1.10."""

from __future__ import annotations

import math

import pytest
import torch
from peft import get_peft_model

from methods.delta_mem._model import DeltaMemConfig

CONFIGS = {
    "tsw": {},
    "msw": {"num_state_heads": 3},
    "scalar_gates": {"rankwise_gates": False, "num_state_heads": 2},
    "own_lambda": {"couple_lambda": False},
    "no_lambda": {"state_update_mode": "no_lambda"},
    "lambda_outside": {"state_update_mode": "lambda_outside", "couple_lambda": False},
    "raw_qk": {"normalize_qk": False, "online_gain": 0.01},
    "norm_of_o": {"delta_o_rmsnorm": True},
    "scale_layer": {"trainable_delta_scale": True},
    "scale_head": {"trainable_delta_scale": True, "delta_scale_granularity": "head", "delta_heads": list("qkvo")},
    "q": {"delta_heads": ["q"]},
    "kv": {"delta_heads": ["k", "v"]},
    "all": {"delta_heads": list("qkvo"), "r": 4, "alpha": 3.0},
    "ssw": {"memory_write_granularity": "message_mean"},
    "ssw_own_lambda": {"memory_write_granularity": "message_mean", "couple_lambda": False, "num_state_heads": 2},
}


def gate(x, weight, bias):
    return torch.sigmoid(weight @ x + bias)


def moved(memory, config, S, x):
    """The states [N, r, r] after one write of the vector x [H]."""
    r, out = config.r, []
    for n in range(config.num_state_heads):
        rows = slice(n * r, (n + 1) * r)
        k, v = memory.memory_k_proj[rows] @ x, memory.memory_v_proj[rows] @ x
        if config.normalize_qk:
            k = torch.tanh(k)
            k = k / max(float(k.norm()), 1e-6)
        gates = rows if config.rankwise_gates else slice(n, n + 1)
        beta = gate(x, memory.beta_proj[gates], memory.beta_bias[gates])
        lam = 1 - beta if config.couple_lambda else gate(x, memory.lambda_proj[gates], memory.lambda_bias[gates])
        keep = torch.ones_like(lam) if config.state_update_mode == "no_lambda" else lam
        erase = lam * beta if config.state_update_mode == "lambda_outside" else beta
        full = lambda g: torch.diag(g.expand(r))  # noqa: E731
        kk, vk = torch.outer(k, k), torch.outer(v, k)
        out.append(full(keep) @ S[n] - full(erase) @ S[n] @ kk + full(beta) @ vk)
    return torch.stack(out)


def read(memory, config, S, x):
    found = []
    for n in range(config.num_state_heads):
        q = memory.memory_q_proj[n * config.r : (n + 1) * config.r] @ x
        if config.normalize_qk:
            q = torch.tanh(q)
            q = q / max(float(q.norm()), 1e-6)
        found.append(S[n] @ q)
    return torch.cat(found)


def correction(memory, config, head, reading):
    if head not in config.delta_heads:
        return 0.0
    factor = 1.0
    if config.trainable_delta_scale:
        raw = memory.delta_scale_raw
        factor = torch.sigmoid(raw["qkvo".index(head) if len(raw) > 1 else 0]) * config.delta_scale_max
    delta = config.alpha / config.r * factor * (getattr(memory, f"delta_{head}_proj") @ reading)
    if head == "o" and config.delta_o_rmsnorm:
        delta = delta / (delta.pow(2).mean() + config.delta_o_rmsnorm_eps).sqrt() * memory.delta_o_rmsnorm_weight
    return delta


def attention(layer, readings, x, theta=10_000.0):
    """Llama's attention over [T, H], every projection corrected, one query at a time."""
    memory, config, plain = layer.memory, layer.memory.config, layer.base_layer
    size, groups = plain.head_dim, plain.num_key_value_groups

    def project(head, t):
        return getattr(plain, f"{head}_proj").weight @ x[t] + correction(memory, config, head, readings[t])

    def turn(vector, t):
        heads = vector.view(-1, size)
        angles = t * theta ** (-torch.arange(0, size, 2, dtype=x.dtype) / size)
        a, b = heads.chunk(2, dim=-1)
        return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), dim=-1)

    T = len(x)
    q = [turn(project("q", t), t) for t in range(T)]
    k = [turn(project("k", t), t) for t in range(T)]
    v = [project("v", t).view(-1, size) for t in range(T)]
    rows = []
    for t in range(T):
        heads = []
        for h in range(len(q[t])):
            weights = torch.softmax(torch.stack([q[t][h] @ k[s][h // groups] for s in range(t + 1)]) / size**0.5, 0)
            heads.append(sum(weights[s] * v[s][h // groups] for s in range(t + 1)))
        rows.append(plain.o_proj.weight @ torch.cat(heads) + correction(memory, config, "o", readings[t]))
    return torch.stack(rows)


def dense(layer, x, S, owner):
    """Output of the attention module [T, H] and the states after it; with ``owner``, message by message."""
    memory, config = layer.memory, layer.memory.config
    readings = []
    for vector in x:
        readings.append(read(memory, config, S, vector))
        if owner is None:
            S = moved(memory, config, S, vector)
    for j in sorted({j for j in owner or () if j >= 0}):
        S = moved(memory, config, S, torch.stack([v for v, o in zip(x, owner, strict=True) if o == j]).mean(0))
    return attention(layer, readings, x), S


@pytest.mark.parametrize("name", CONFIGS)
def test_a_dense_second_writing_agrees(name, attached, feed):
    model = attached("llama", **CONFIGS[name])
    model.model.double()
    layer = model.layers[0]
    config, seen = layer.memory.config, []
    layer.register_forward_hook(
        lambda _, args, kwargs, out: seen.append((kwargs.get("hidden_states", *args)[0], out[0][0])), with_kwargs=True
    )
    owner = [-1, -1, 0, 0, 0, 2, 2, -1, 5] if config.memory_write_granularity == "message_mean" else None
    first, _ = feed(model, torch.arange(9)[None] * 7, owner=owner and torch.tensor([owner]))
    second = model.memory_cache(first.states)
    before = first.states[0][0]
    feed(model, torch.arange(5)[None] * 3, cache=second)  # not announced, so token by token in every variant
    with torch.no_grad():
        S = torch.zeros_like(before)
        for (x, out), messages, state in zip(seen, (owner, None), (before, second.states[0][0]), strict=True):
            expected, S = dense(layer, x, S, messages)
            assert torch.allclose(out, expected, atol=1e-6)  # the backbone's own RoPE is in fp32
            assert torch.allclose(state, S, atol=1e-10, rtol=1e-9)
    assert float(S.norm()) > 1e-2


def test_the_defaults_are_the_released_settings():
    config = DeltaMemConfig()
    assert (config.r, config.alpha, config.delta_heads, config.beta_bias_init) == (8, 16.0, ["q", "o"], -1.5)
    assert config.output_init == "base_slice_fixed"
    assert config.online_gain == 0.05
    assert config.couple_lambda
    assert config.rankwise_gates
    assert config.normalize_qk
    assert (config.trainable_delta_scale, config.delta_o_rmsnorm) == (False, False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"state_update_mode": "none"},
        {"memory_write_granularity": "sentence"},
        {"output_init": "ones"},
        {"delta_heads": ["x"]},
        {"trainable_delta_scale": True, "delta_scale_init": 2.0},
    ],
)
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must"):
        DeltaMemConfig(**wrong)


def fresh(tiny, family="llama", **config):
    return get_peft_model(tiny(family).model, DeltaMemConfig(**config)).base_model


def test_initial_projections_and_gates(tiny):
    for layer in fresh(tiny, couple_lambda=False).layers:
        memory = layer.memory
        bound = 1 / math.sqrt(32)
        for parameter in (memory.memory_q_proj, memory.memory_k_proj, memory.memory_v_proj):
            weight = parameter.detach()
            assert 0.9 * bound < float(weight.abs().max()) <= bound
            assert abs(float(weight.std()) - bound / math.sqrt(3)) < 0.1 * bound
        assert not memory.beta_proj.any()
        assert not memory.lambda_proj.any()
        assert (memory.beta_bias == -1.5).all()
        assert (memory.lambda_bias == 1.5).all()


@pytest.mark.parametrize(("init", "width"), [("base_slice", 8), ("base_slice_fixed", 3), ("zero", 0)])
def test_correction_heads_start_as_unit_columns_of_the_base_weight(tiny, init, width):
    model = fresh(tiny, output_init=init, base_slice_ref_width=3, num_state_heads=2, delta_heads=list("qkvo"))
    for layer in model.layers:
        for head in "qkvo":
            delta = getattr(layer.memory, f"delta_{head}_proj")
            base = getattr(layer.base_layer, f"{head}_proj").weight
            assert not delta[:, width:].any()
            for column in range(width):
                expected = 0.05 * base[:, column] / base[:, column].norm()
                assert torch.allclose(delta[:, column], expected, atol=1e-7)


def test_random_correction_heads(tiny):
    weight = fresh(tiny, output_init="random", online_gain=0.5).layers[0].memory.delta_q_proj
    assert 0.45 / math.sqrt(8) < float(weight.detach().abs().max()) <= 0.5 / math.sqrt(8)


def test_a_trained_scale_starts_at_its_setting(tiny):
    memory = fresh(tiny, trainable_delta_scale=True, delta_scale_init=0.5, delta_scale_max=4.0).layers[0].memory
    assert float(memory._trained_scale("q").detach()) == pytest.approx(0.5)


def test_a_seed_fixes_the_parameters_and_nothing_else_is_drawn(tiny):
    backbone = tiny("llama")
    before = torch.get_rng_state()
    parameters = []
    for seed in (1, 1, 2):
        model = get_peft_model(backbone.model, DeltaMemConfig(seed=seed)).base_model
        parameters.append([p.clone() for layer in model.layers for p in layer.memory.parameters()])
        backbone.model = model.unload()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(parameters[0], parameters[1], strict=True))
    assert not torch.equal(parameters[0][0], parameters[2][0])
    half = len(parameters[0]) // 2
    assert not torch.equal(parameters[0][0], parameters[0][half])  # layers differ


@pytest.mark.parametrize(
    "config",
    [{"delta_heads": list("qkvo"), "rankwise_gates": False}, {"num_state_heads": 2, "delta_heads": ["k", "v"]}],
)
def test_parameters_are_the_closed_form(tiny, config):
    model = fresh(tiny, "qwen3", **config)
    N, r, H = model.peft_config["default"].num_state_heads, 8, 32
    g = 1 if config.get("rankwise_gates") is False else r
    out = {"q": 32, "k": 16, "v": 16, "o": 32}
    closed = N * r * 3 * H + N * g * (H + 1) + N * r * sum(out[h] for h in config["delta_heads"])
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * closed

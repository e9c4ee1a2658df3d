"""The authors' adapter format: its 49 keys, what a missing one means, what is refused, and both ways."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftConfig
from transformers import AutoConfig

from harness.errors import HarnessError
from methods.delta_mem import _adapter, _official, _tools
from methods.delta_mem._adapter import Adapter, attention_modules, check, shapes
from methods.delta_mem._model import DeltaMemConfig

KEYS = {
    "rank": 8, "alpha": 16.0, "beta_bias_init": -1.5, "normalize_qk": True, "couple_lambda": True,
    "rankwise_gates": True, "state_update_mode": "standard", "output_init": "zero", "base_slice_ref_width": 8,
    "online_gain": 0.05, "num_state_heads": 1, "memory_write_granularity": "token", "target_modules": ["self_attn"],
    "target_layers": [], "delta_heads": ["q", "k", "v", "o"], "delta_o_rmsnorm": False, "delta_o_rmsnorm_eps": 1e-6,
    "trainable_delta_scale": False, "delta_scale_init": 1.0, "delta_scale_max": 2.0,
    "delta_scale_granularity": "layer", "delta_scale_parameterization": "alpha_over_rank",
    "num_memory_partitions": 1, "num_global_memory_partitions": 0, "memory_partition_routing": "soft",
    "memory_partition_basis": "shared", "tie_memory_partition_read_write": False,
    "memory_partition_read_mode": "softmax", "slot_read_top_k": 0, "global_memory_mode": "shared_rw",
    "global_memory_read_top_k": 0, "global_memory_merge_mode": "gated_residual", "memory_reader_layers": [],
    "memory_readout_mode": "delta", "memory_write_source": "learned_hidden",
    "memory_write_proposals_per_message": 2, "synthetic_memory_slots": 1, "latent_memory_layers": [],
    "memory_partition_sigmoid_gate_bias_init": -2.0, "global_memory_gate_bias_init": -2.0,
    "global_memory_read_logit_bias": 0.0, "memory_reader_hidden_size": 1024, "memory_reader_residual_scale": 0.1,
    "memory_reader_read_only": True, "latent_memory_hidden_size": 1024, "latent_memory_residual_scale": 0.1,
    "latent_memory_slots": 4, "latent_memory_init_std": 0.002, "latent_gate_init": 0.01,
}  # fmt: skip
"""Specification 2, key by key."""

CASES = {
    "tsw": {},
    "ssw": {"memory_write_granularity": "message_mean"},
    "sentences": {"memory_write_granularity": "sentence_mean"},
    "msw": {"num_state_heads": 4},
    "all_heads": {"delta_heads": ["o", "v", "k", "q"]},
    "kv": {"delta_heads": ["k", "v"], "num_state_heads": 2},
    "layers": {"layers_to_transform": [1, 3]},
    "scalar_gates": {"rankwise_gates": False, "num_state_heads": 4},
    "free_lambda": {"couple_lambda": False},
    "lambda_outside": {"state_update_mode": "lambda_outside", "beta_bias_init": -2.0},
    "no_lambda": {"state_update_mode": "no_lambda", "normalize_qk": False},
    "norm": {"delta_o_rmsnorm": True, "delta_o_rmsnorm_eps": 1e-5},
    "scale": {"trainable_delta_scale": True, "delta_scale_init": 0.5, "delta_scale_max": 3.0},
    "scale_a_head": {"trainable_delta_scale": True, "delta_scale_granularity": "head"},
    "start": {"output_init": "base_slice", "online_gain": 0.1, "base_slice_ref_width": 2, "r": 4, "alpha": 8.0},
}


def attention(H=32, kv=16):
    linear = lambda out: SimpleNamespace(in_features=H, out_features=out)  # noqa: E731
    return SimpleNamespace(q_proj=linear(H), k_proj=linear(kv), v_proj=linear(kv), o_proj=linear(H))


def drawn(layers=4, seed=0, **settings):
    """A native adapter of random bf16 numbers, as on the tiny Qwen3 of four layers."""
    config = DeltaMemConfig(**settings)
    rng = torch.Generator().manual_seed(seed)
    tensors = {
        f"model.layers.{i}.self_attn.{name}": torch.randn(shape, generator=rng).bfloat16()
        for i in config.layers_to_transform or range(layers)
        for name, shape in shapes(config, attention()).items()
    }
    adapter = Adapter(Path("nowhere"), "native", config, tensors)
    return dataclasses.replace(adapter, tensors={n: t for n, t in tensors.items() if not adapter.inactive(n)})


@pytest.fixture
def backbone(tmp_path):
    """A folder with no more than a configuration: the tiny Qwen3 that :func:`drawn` is for."""
    config = AutoConfig.for_model(
        "qwen3", hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, vocab_size=64,
    )  # fmt: skip
    config.save_pretrained(tmp_path / "backbone")
    return str(tmp_path / "backbone")


@pytest.fixture
def stored(tmp_path):
    """Writes an official folder: the released adapter's few keys, with changes, and tensors, with changes."""

    def write(keys=None, tensors=None, folder="official", **settings):
        adapter = drawn(**settings)
        values = {"rank": 8, "alpha": 16, "delta_heads": ["q", "o"], "target_layers": []} | (keys or {})
        changed = {**adapter.tensors, **(tensors or {})}
        (tmp_path / folder).mkdir()
        (tmp_path / folder / _official.CONFIG).write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
        torch.save({n: t for n, t in changed.items() if t is not None}, tmp_path / folder / _official.TENSORS)
        return tmp_path / folder

    return write


# --- keys ---


def test_the_format_has_49_keys_with_the_class_defaults():
    live = _official.options({}, Path("file")).model_dump()
    assert len(KEYS) == 49
    assert {**live, **_official.FIXED, **_official.STORED} == KEYS
    assert (len(live), len(_official.FIXED), len(_official.STORED)) == (22, 16, 11)


def test_each_key_with_an_effect_is_a_field_of_ours_and_the_reverse():
    ours = {f.name for f in dataclasses.fields(DeltaMemConfig)} - {f.name for f in dataclasses.fields(PeftConfig)}
    assert _official.NAMES.keys() == _official.Options.model_fields.keys() - {"delta_scale_parameterization"}
    assert ours - set(_official.NAMES.values()) == {"seed", "state_dtype"}
    assert set(_official.NAMES.values()) <= ours


def test_a_missing_key_has_the_formats_default_and_not_ours(stored):
    folder = stored({k: ... for k in ("rank", "alpha", "delta_heads", "target_layers")}, delta_heads=list("qkvo"))
    adapter = _official.read(folder)
    assert adapter.config.delta_heads == ["q", "k", "v", "o"] != DeltaMemConfig().delta_heads
    assert adapter.config.output_init == "zero" != DeltaMemConfig().output_init
    assert adapter.config.layers_to_transform is None
    assert (adapter.config.r, adapter.config.alpha, adapter.config.num_state_heads) == (8, 16.0, 1)
    assert set(adapter.defaulted) == set(KEYS)


def test_what_is_written_is_every_key_and_no_other(tmp_path):
    _official.write(drawn(layers_to_transform=[2], num_state_heads=4, seed=5), tmp_path / "out")
    values = json.loads((tmp_path / "out" / _official.CONFIG).read_text())
    assert values == KEYS | {
        "target_layers": [2],
        "num_state_heads": 4,
        "delta_heads": ["q", "o"],
        "output_init": "base_slice_fixed",
    }


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("ranks", 8, "sets ranks to 8, a key that the format does not know; correct or remove it"),
        ("rank", "8", 'sets rank to "8": input should be a valid integer; correct it'),
        ("rank", True, "sets rank to true: input should be a valid integer"),
        ("rank", 0, "sets rank to 0: input should be greater than or equal to 1"),
        ("alpha", float("nan"), "sets alpha to NaN: input should be a finite number"),
        ("normalize_qk", 1, "sets normalize_qk to 1: input should be a valid boolean"),
        ("state_update_mode", "other", "sets state_update_mode to \"other\": input should be 'standard', "),
        ("memory_write_granularity", "word", 'sets memory_write_granularity to "word": '),
        ("delta_heads", [], "sets delta_heads to []: list should have at least 1 item"),
        ("delta_heads", ["q", "x"], "sets delta_heads to "),
        ("target_layers", [-1], "sets target_layers to [-1]: "),
        ("delta_scale_parameterization", "free", "sets delta_scale_parameterization to "),
        ("delta_scale_init", 2.0, ": delta_scale_init 2.0 is not below delta_scale_max; correct it"),
        ("num_memory_partitions", 2, "sets num_memory_partitions to 2, but the option has no effect and must be 1; "),
        ("num_memory_partitions", True, "the option has no effect and must be 1; set it to that or leave it out"),
        ("latent_memory_layers", [1], "sets latent_memory_layers to [1], but the option has no effect and must be []"),
        ("memory_reader_hidden_size", 8.0, "sets memory_reader_hidden_size to 8.0, which should be a number like 1024"),
        ("latent_gate_init", "0", 'sets latent_gate_init to "0", which should be a number like 0.01'),
    ],
)
def test_a_wrong_key_is_one_sentence(key, value, said):
    with pytest.raises(HarnessError) as error:
        _official.options({key: value}, Path("folder/file.json"))
    assert said in str(error.value)
    assert str(error.value).startswith("folder/file.json")


@pytest.mark.parametrize("key", [key for key in KEYS if key not in _official.Options.model_fields])
def test_keys_without_effect_are_taken_at_their_default(key):
    _official.options({key: KEYS[key]}, Path("file"))


def test_stored_keys_may_have_any_value_and_change_nothing(stored):
    folder = stored({"latent_memory_slots": 9, "latent_gate_init": 1, "memory_reader_read_only": False})
    plain = _official.read(stored(folder="plain"))
    assert _official.read(folder).config == plain.config


# --- files ---


def test_every_file_that_is_no_adapter_is_refused(tmp_path, stored):
    with pytest.raises(HarnessError, match="holds neither"):
        _tools.read(tmp_path)
    folder = stored()
    for text in ("{", "[1]", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")):
        (folder / _official.CONFIG).write_text(text)
        with pytest.raises(HarnessError, match="get the adapter again"):
            _tools.read(folder)
    (folder / _official.CONFIG).write_text("{}")
    (folder / _adapter.CONFIG).write_text('{"peft_type": "LORA", "r": 8}')
    with pytest.raises(HarnessError, match="holds both"):
        _tools.read(folder)
    (folder / _official.CONFIG).unlink()
    with pytest.raises(HarnessError, match="cannot be read as a δ-mem adapter"):
        _tools.read(folder)


@pytest.mark.parametrize("cut", [0, 1, 400, 2000])
def test_a_torn_tensor_file_is_refused(cut, stored):
    folder = stored()
    file = folder / _official.TENSORS
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(HarnessError, match="cannot be read as tensors alone"):
        _official.read(folder)


class Payload:
    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


def test_a_pickle_payload_is_never_executed(stored, tmp_path):
    folder = stored()
    torch.save({"a": Payload(tmp_path / "executed")}, folder / _official.TENSORS)
    with pytest.raises(HarnessError, match="cannot be read as tensors alone"):
        _official.read(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 1}, {"a": torch.zeros(1, dtype=torch.int64)}])
def test_tensors_have_names_and_are_numbers(content, stored):
    folder = stored()
    torch.save(content, folder / _official.TENSORS)
    with pytest.raises(HarnessError, match="get the adapter again"):
        _official.read(folder)


# --- tensors ---

AT = "model.layers.2.self_attn."


@pytest.mark.parametrize("with_backbone", [True, False])
@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({AT + "memory_k_proj": None}, r"lacks the tensor model\.layers\.2\.self_attn\.memory_k_proj"),
        ({AT + "delta_o_proj": None}, r"lacks the tensor .*delta_o_proj"),
        ({AT + "beta_bias": torch.zeros(1)}, r"holds .*beta_bias as \[1\] and its configuration.* makes it \[8\]"),
        ({AT + "lambda_bias": torch.zeros(8)}, "holds .*lambda_bias, which its configuration has no use for"),
        ({AT + "delta_k_proj": torch.zeros(16, 4)}, r"delta_k_proj as \[16, 4\] .*makes it \[16, 8\]"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(with_backbone, tensors, said, stored, backbone):
    adapter = _official.read(stored(tensors=tensors))
    with pytest.raises(HarnessError, match=said):
        check(adapter, _tools.parameters.outline(_tools._spec(backbone)).model if with_backbone else None)


@pytest.mark.parametrize(
    ("keys", "settings", "said"),
    [
        ({}, {"layers": 5}, r"has tensors for 'model\.layers\.4\.self_attn', where this backbone"),
        ({}, {"layers": 3}, r"lacks the tensor model\.layers\.3\."),
        ({"target_layers": [7]}, {"layers_to_transform": [7]}, "has no module self_attn in layer 7"),
        ({"target_modules": ["attn"]}, {}, "has no module attn; name the backbone"),
    ],
)
def test_layers_are_those_of_the_backbone(keys, settings, said, stored, backbone, tmp_path):
    with pytest.raises(HarnessError, match=said):
        _tools.convert(stored(keys, **settings), tmp_path / "out", "native", backbone)
    assert not (tmp_path / "out").exists()


def test_layers_are_those_of_the_configuration(stored):
    with pytest.raises(HarnessError, match=r"for the layers \[0, 1, 2, 3\] and a configuration for \[1\]"):
        check(_official.read(stored({"target_layers": [1]})))


def test_an_inactive_head_that_is_not_zero_is_noted_and_has_no_place_in_ours(stored, tmp_path):
    folder = stored(tensors={AT + "delta_k_proj": torch.ones(16, 8)})
    (note,) = _tools.convert(folder, tmp_path / "native", "native")
    assert note.startswith("1 tensors of inactive heads are not zero (first: model.layers.2.self_attn.delta_k_proj)")
    assert not any("delta_k" in name for name in _tools.read(tmp_path / "native").tensors)


def test_the_released_adapter_has_324_tensors_of_5456160_numbers():
    model = _tools.parameters.outline(_tools._spec("qwen3-4b")).model
    config = _official.to_native(_official.options({"delta_heads": ["q", "o"]}, Path("file")))
    found = [shape for a in attention_modules(model, config).values() for shape in shapes(config, a).values()]
    assert len(found) == 324
    assert sum(torch.Size(shape).numel() for shape in found) == 5_456_160


# --- both ways ---


@pytest.mark.parametrize("case", CASES)
def test_there_and_back_is_bit_exact(case, backbone, tmp_path):
    adapter = drawn(**CASES[case])
    _adapter.write_native(adapter, tmp_path / "a")
    assert _tools.convert(tmp_path / "a", tmp_path / "b", "official", backbone) == []
    assert _tools.convert(tmp_path / "b", tmp_path / "c", "native") == []
    again = _tools.read(tmp_path / "c")
    assert dataclasses.asdict(again.config) == dataclasses.asdict(_tools.read(tmp_path / "a").config)
    assert again.tensors.keys() == adapter.tensors.keys()
    assert all(torch.equal(again.tensors[n], t) for n, t in adapter.tensors.items())
    assert {t.dtype for t in again.tensors.values()} == {torch.bfloat16}
    official = torch.load(tmp_path / "b" / _official.TENSORS, weights_only=True)
    complete = {f"{path}.{name}" for path in adapter.modules for name in shapes(adapter.config, attention())}
    assert official.keys() == complete
    assert not any(official[name].any() for name in complete - adapter.tensors.keys())


def test_what_the_format_cannot_hold_is_said(tmp_path):
    _adapter.write_native(drawn(seed=1), tmp_path / "a")
    file = tmp_path / "a" / _adapter.CONFIG
    file.write_text(file.read_text().replace('"seed": 42', '"seed": 1'))
    notes = _tools.convert(tmp_path / "a", tmp_path / "b", "official")
    assert notes == [
        "seed has no place in the format and was left out",
        "tensors of inactive heads were left out; --backbone writes them as zeros, as the release does",
    ]
    assert not any("delta_k" in name for name in _official.read(tmp_path / "b").tensors)
    with pytest.raises(HarnessError, match="is in the format 'official' already"):
        _tools.convert(tmp_path / "b", tmp_path / "c", "official")


def test_tensors_are_bf16_unless_kept(stored, tmp_path):
    odd = torch.full((8,), 1.001)
    folder = stored(tensors={AT + "beta_bias": odd, AT + "memory_q_proj": torch.zeros(8, 32)})
    (note,) = _tools.convert(folder, tmp_path / "rounded", "native")
    assert note == "1 tensors were rounded to bfloat16; --keep-dtype leaves them as they are"
    assert {t.dtype for t in _tools.read(tmp_path / "rounded").tensors.values()} == {torch.bfloat16}
    assert _tools.convert(folder, tmp_path / "kept", "native", keep_dtype=True) == []
    assert torch.equal(_tools.read(tmp_path / "kept").tensors[AT + "beta_bias"], odd)


def test_nothing_is_overwritten_and_nothing_half_written_stays(tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    with pytest.raises(HarnessError, match="is there already"):
        _official.write(drawn(), tmp_path / "taken")

    def full(tensors, file):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(HarnessError, match="No space left on device"):
        _official.write(drawn(), tmp_path / "full")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_a_value_that_the_format_refuses_is_not_written(tmp_path):
    with pytest.raises(HarnessError, match="delta_scale_init"):
        _official.write(drawn(delta_scale_init=5.0), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- segments of a trace ---

TOKENS = torch.zeros(2, 3, dtype=torch.long)
SOME = torch.tensor([[4, 4, 9], [-1, 2, 4]])
NONE = torch.full_like(TOKENS, -1)


@pytest.mark.parametrize(
    ("granularity", "messages", "sentences", "expected"),
    [
        ("token", SOME, SOME, None),
        ("message_mean", SOME, None, [[1, 1, 2], [-1, 0, -1]]),
        ("message_mean", None, SOME, None),
        ("message_mean", SOME[:, :2], None, None),
        ("message_mean", NONE, SOME, None),
        ("sentence_mean", TOKENS, SOME, [[1, 1, 2], [-1, 0, -1]]),
        ("sentence_mean", SOME, TOKENS, [[0, 0, 0], [-1, 0, -1]]),
        ("sentence_mean", TOKENS, None, None),
        ("sentence_mean", None, TOKENS, None),
        ("sentence_mean", NONE, TOKENS, None),
        ("sentence_mean", TOKENS, NONE, None),
    ],
)
def test_segments_are_the_active_ids_in_order_and_none_of_them_means_tokens(granularity, messages, sentences, expected):
    given = {
        "write_ids": TOKENS,
        "write_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        "write_message_ids": messages,
        "write_sentence_ids": sentences,
    }
    found = _tools.segments(granularity, {name: ids for name, ids in given.items() if ids is not None})
    assert (None if found is None else found.tolist()) == expected


def test_a_mask_that_leaves_no_token_means_tokens():
    given = {"write_ids": TOKENS, "write_mask": TOKENS, "write_message_ids": TOKENS}
    assert _tools.segments("message_mean", given) is None

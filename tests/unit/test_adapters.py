"""``harness adapter``: what it says, how it refuses, and that a trace is what direct calls of the model give."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from harness.cli import app
from methods.delta_mem._model import DeltaMemConfig

RNG = torch.Generator().manual_seed(3)
WRITE, READ = torch.randint(0, 259, (2, 21), generator=RNG), torch.randint(0, 259, (2, 9), generator=RNG)
MESSAGES = {"memory_write_granularity": "message_mean"}
SENTENCES = {"memory_write_granularity": "sentence_mean"}


def call(*words: Any):
    return CliRunner().invoke(app, ["adapter", *map(str, words)])


def close(a, b, limit=1e-5):
    return a.shape == b.shape and float((a - b).norm() / b.norm().clamp_min(1e-30)) < limit


@pytest.fixture
def saved(tiny, tmp_path):
    """Saves a tiny backbone without a tokenizer, and an adapter on it of drawn bf16 parameters: both folders."""

    def save(family="qwen3", name="native", change=None, **settings):
        model = tiny(family).model
        if not (tmp_path / family).exists():
            model.save_pretrained(tmp_path / family)
        peft = get_peft_model(model, DeltaMemConfig(**settings))
        rng = torch.Generator().manual_seed(7)
        for layer in peft.base_model.layers:
            for parameter in layer.memory.parameters():
                parameter.data = (0.3 * torch.randn(parameter.shape, generator=rng)).bfloat16().float()
        if change:
            change(peft.base_model.layers)
        peft.save_pretrained(str(tmp_path / name))
        return tmp_path / family, tmp_path / name

    return save


@pytest.fixture
def trace(tmp_path):
    """Runs ``harness adapter trace`` on tensors: what it saved, and its notes."""

    def run(folders, **inputs):
        save_file({"write_ids": WRITE, "read_ids": READ, **inputs}, tmp_path / "in.safetensors")
        words = ["--inputs", tmp_path / "in.safetensors", "--out", tmp_path / "out.safetensors"]
        result = call("trace", "--backbone", folders[0], "--adapter", folders[1], *words)
        assert result.exit_code == 0, result.output
        return load_file(tmp_path / "out.safetensors"), result.stderr

    return run


def row_by_row(folders, layers, segments=None, start=(0, 0), end=(21, 21), read_start=(0, 0)):
    """The same by PEFT's verbs and direct calls, a row at a time and without padding."""
    base = AutoModelForCausalLM.from_pretrained(folders[0], dtype=torch.float32, attn_implementation="eager")
    memory = PeftModel.from_pretrained(base, str(folders[1])).eval().base_model
    written, read, states = [], [], []
    for b in range(2):
        at = torch.arange(start[b], end[b])
        cache = memory.memory_cache()
        if segments is not None:
            cache.announce(segments[b : b + 1, at])
        with torch.no_grad():
            written.append(memory.model(input_ids=WRITE[b : b + 1, at], position_ids=at[None], past_key_values=cache))
            memory.commit(cache)
            states.append(cache.states)
            cache, at = memory.memory_cache(cache.states, writes=False), torch.arange(read_start[b], 9)
            read.append(memory.model(input_ids=READ[b : b + 1, at], position_ids=at[None], past_key_values=cache))
    found = {f"state.{layer}": torch.cat([s[n] for s in states]) for n, layer in enumerate(layers)}
    return [w.logits[0] for w in written], [r.logits[0] for r in read], found


@pytest.mark.parametrize(
    ("family", "side", "settings"),
    [
        ("qwen3", "none", {"num_state_heads": 4, "layers_to_transform": [1]}),
        ("smollm3", "left", {"delta_heads": ["k", "o"], "rankwise_gates": False, "couple_lambda": False}),
        (
            "llama",
            "right",
            {"delta_heads": ["q", "k", "v", "o"], "trainable_delta_scale": True, "delta_o_rmsnorm": True},
        ),
    ],
)
def test_a_trace_of_token_writes_is_what_direct_calls_give(family, side, settings, saved, trace):
    folders = saved(family, **settings)
    masks = {"write_mask": torch.ones_like(WRITE), "read_mask": torch.ones_like(READ)}
    rows: dict[str, Any] = {}
    if side == "left":
        masks["write_mask"][1, :6], masks["read_mask"][1, :2] = 0, 0
        rows = {"start": (0, 6), "read_start": (0, 2)}  # positions count the padding, as plain forwards do
    elif side == "right":
        masks["write_mask"][1, 15:] = 0
        rows = {"end": (21, 15)}
    found, said = trace(folders, **(masks if side != "none" else {}))
    layers = settings.get("layers_to_transform", range(4 if family == "smollm3" else 2))
    written, read, states = row_by_row(folders, layers, **rows)
    assert said == ""
    assert found.keys() == {"write.logits", "read.logits", *states}
    assert all(close(found[name], state) for name, state in states.items())
    for b in range(2):
        assert close(found["write.logits"][b][masks["write_mask"][b].bool()], written[b])
        assert close(found["read.logits"][b][masks["read_mask"][b].bool()], read[b])


def test_a_trace_of_messages_takes_any_ids_in_their_order(saved, trace):
    """Ids that start anywhere, jump, interleave and differ a row; padding within a message does not count."""
    folders = saved(num_state_heads=2, **MESSAGES)
    ids = torch.tensor([[-1] * 3 + [10**9] * 6 + [7] * 6 + [10**9] * 6, [40] * 9 + [7] * 12])
    mask = torch.ones_like(WRITE)
    mask[1, 18:] = 0
    found, said = trace(folders, write_mask=mask, write_message_ids=ids)
    dense = torch.tensor([[-1] * 3 + [1] * 6 + [0] * 6 + [1] * 6, [1] * 9 + [0] * 12])
    _, read, states = row_by_row(folders, range(2), dense, end=(21, 18))
    assert said == ""
    assert all(close(found[name], state) for name, state in states.items())
    assert all(close(found["read.logits"][b], read[b]) for b in range(2))
    frozen = AutoModelForCausalLM.from_pretrained(folders[0], attn_implementation="eager")
    assert torch.equal(found["write.logits"], frozen(input_ids=WRITE, attention_mask=mask).logits)


def test_a_trace_of_sentences_needs_both_ids(saved, trace):
    folders = saved(**SENTENCES)
    sentences = torch.tensor([[5] * 8 + [-1] + [6] * 12, [3] * 21])
    messages = torch.tensor([[-1] * 4 + [0] * 17, [2] * 10 + [-1] * 11])
    found, _ = trace(folders, write_message_ids=messages, write_sentence_ids=sentences)
    dense = torch.tensor([[-1] * 4 + [1] * 4 + [-1] + [2] * 12, [0] * 10 + [-1] * 11])
    _, _, states = row_by_row(folders, range(2), dense)
    assert all(close(found[name], state) for name, state in states.items())


def test_without_an_active_segment_a_trace_writes_tokens(saved, trace):
    found, said = trace(saved(**MESSAGES), write_message_ids=torch.full((2, 21), -1))
    tokens, _ = trace(saved(name="tokens"))
    assert all(torch.equal(found[name], tokens[name]) for name in tokens)
    assert "note: no segment ids apply to write_ids, so tokens were written" in said


def test_both_formats_give_one_trace_and_one_verification(saved, trace, tmp_path):
    backbone, native = saved(num_state_heads=4, delta_heads=["q", "v"])
    official = tmp_path / "official"
    assert call("convert", native, official, "--to", "official", "--backbone", backbone).exit_code == 0
    first, second = trace((backbone, native))[0], trace((backbone, official))[0]
    assert all(torch.equal(first[name], second[name]) for name in first)
    result = call("verify", official, "--backbone", backbone, "--other", native)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = dict(line.split("\t", 1) for line in result.stdout.splitlines())
    assert lines["tensors"] == "18, each of the backbone's shape\tholds"
    assert lines["zero state against frozen"] == "0.0e+00\tholds"
    assert lines["other"] == "0.0e+00 apart, at most 1e-05\tholds"
    assert float(lines["smallest correction norm"].split()[0]) > 0


def test_bf16_parameters_are_used_in_fp32_as_they_are(saved, trace, tmp_path):
    backbone, native = saved()
    words = ["convert", native, tmp_path / "wide", "--to", "official", "--keep-dtype"]
    assert call(*words).exit_code == 0
    narrow = tmp_path / "narrow"
    assert call("convert", native, narrow, "--to", "official").exit_code == 0
    types = [{t.dtype for t in torch.load(f / "delta_mem_adapter.pt").values()} for f in (tmp_path / "wide", narrow)]
    assert types == [{torch.float32}, {torch.bfloat16}]
    wide, found = trace((backbone, tmp_path / "wide"))[0], trace((backbone, narrow))[0]
    assert all(torch.equal(wide[name], found[name]) for name in wide)
    assert {t.dtype for t in found.values()} == {torch.float32}


def _nothing(layers):
    layers[1].memory.delta_o_proj.data.zero_()


def _no_writes(layers):
    layers[0].memory.memory_v_proj.data.zero_()


def _not_a_number(layers):
    layers[0].memory.beta_bias.data[0] = float("nan")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_nothing, "native corrects nothing at a head of a layer; train it, or get the adapter again"),
        (_no_writes, "native leaves the state of a layer at zero; train it, or get the adapter again"),
        (_not_a_number, "native holds 1 numbers that are not finite; get the adapter again"),
    ],
)
def test_a_failed_check_is_one_sentence_below_the_figures(change, said, saved):
    backbone, native = saved(change=change)
    result = call("verify", native, "--backbone", backbone)
    assert result.exit_code == 2
    assert result.stderr.endswith(f"{said}\n")
    assert "\tfails\n" in result.stdout


def test_another_adapter_is_told_apart(saved):
    backbone, native = saved()
    _, other = saved(name="other", change=lambda layers: layers[0].memory.beta_bias.data.add_(1))
    result = call("verify", native, "--backbone", backbone, "--other", other)
    assert result.exit_code == 2
    assert "gives other states or logits than" in result.stderr


def test_inspect_says_what_an_adapter_is(saved, tmp_path):
    _, native = saved(num_state_heads=4, layers_to_transform=[1], couple_lambda=False)
    call("convert", native, tmp_path / "official", "--to", "official", "--backbone", tmp_path / "qwen3")
    config = tmp_path / "official" / "delta_mem_config.json"
    few = {k: v for k, v in json.loads(config.read_text()).items() if k not in ("online_gain", "slot_read_top_k")}
    config.write_text(json.dumps(few))
    ours, theirs = (
        dict(line.split("\t") for line in call("inspect", folder).stdout.splitlines())
        for folder in (native, tmp_path / "official")
    )
    assert ours["variant"] == theirs["variant"] == "MSW: tokens into 4 states"
    assert theirs["layers"] == "1: 1"
    assert theirs["gates"] == "one a row, λ of its own"
    assert (ours["format"], ours["tensors"], theirs["format"], theirs["tensors"]) == ("PEFT", "9", "the authors'", "11")
    assert ours["parameters"] == theirs["parameters"] == f"{32 * (3 * 32 + 2 * 33 + 2 * 32):,}"
    assert theirs["inactive heads in the file"] == "k v"
    assert (ours["dtype"], theirs["dtype"]) == ("float32 (9)", "bfloat16 (11)")
    assert theirs["keys not in the file"] == "online_gain; 1 without effect"


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"write_ids": None}, "needs write_ids, int64 [batch, tokens]; add it"),
        ({"read_ids": READ.int()}, "needs read_ids, int64 [batch, tokens]; add it"),
        ({"read_mask": torch.ones(2, 3)}, "has a mask [2, 3] for read_ids [2, 9]; mend it"),
        ({"read_ids": READ[:1]}, "has another number of rows in write_ids than in read_ids; make them equal"),
        ({"write_ids": WRITE + 259}, "has write_ids outside of the backbone's vocabulary of 259; correct them"),
    ],
)
def test_wrong_inputs_of_a_trace_are_refused(inputs, said, saved, tmp_path):
    folders = saved() if "vocabulary" in said else ("nowhere", "nowhere")  # the inputs are looked at first
    given = {"write_ids": WRITE, "read_ids": READ, **inputs}
    save_file({k: v for k, v in given.items() if v is not None}, tmp_path / "in.safetensors")
    words = ["--inputs", tmp_path / "in.safetensors", "--out", tmp_path / "out.safetensors"]
    result = call("trace", "--backbone", folders[0], "--adapter", folders[1], *words)
    assert (result.exit_code, result.stderr) == (2, f"harness: {tmp_path / 'in.safetensors'} {said}\n")
    assert not (tmp_path / "out.safetensors").exists()


def test_an_input_that_is_not_used_is_noted(saved, trace):
    assert "holds write_masks, which is not used" in trace(saved(), write_masks=torch.ones_like(WRITE))[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspect", "nowhere"], "holds neither adapter_config.json nor delta_mem_config.json"),
        (["inspect", "nowhere", "--method", "lora"], "method 'lora' has no tools for adapter files"),
        (["inspect", "nowhere", "--method", "delta_men"], "did you mean 'delta_mem'?"),
        (["verify", "{native}", "--backbone", "./nowhere"], "backbone folder './nowhere' holds no config.json"),
        (["verify", "{native}", "--backbone", "tiny-llama"], "'tiny-llama' is a shape without weights"),
        (["convert", "{native}", "{native}", "--to", "official"], "is there already and would be overwritten"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(words, said, saved):
    native = saved()[1] if "convert" in words else "nowhere"
    result = call(*(word.format(native=native) for word in words))
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1

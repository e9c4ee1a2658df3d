"""Parameters of methods, counted on the shapes of the paper's backbones without their weights."""

from __future__ import annotations

import json
from functools import cache

import pytest

from harness import parameters
from harness.backbones import Backbone
from harness.errors import HarnessError
from harness.experiment import BackboneSpec

TOTALS = {"qwen3-4b": 4_022_468_096, "qwen3-8b": 8_190_735_360, "smollm3-3b": 3_075_098_624}
TRAINED = {
    "qwen3-4b": {"delta_mem_tsw": 4_866_336, "delta_mem_msw": 19_465_344, "lora": 5_898_240},
    "qwen3-8b": {"lora": 7_667_712},
    "smollm3-3b": {"delta_mem_msw": 14_156_928, "lora": 3_833_856},
}  # fmt: skip
"""Specification 3."""


@cache
def outlined(shape: str) -> Backbone:
    return parameters.outline(BackboneSpec(random=shape))


@pytest.mark.parametrize("shape", TOTALS)
def test_the_papers_backbones_have_their_size_and_no_weights(shape):
    assert parameters.size(outlined(shape)) == TOTALS[shape]
    assert all(p.is_meta for p in outlined(shape).model.parameters())


@pytest.mark.parametrize("shape", TRAINED)
def test_what_methods_train_is_the_closed_form(shape):
    found = list(parameters.counts(outlined(shape), TRAINED[shape]))
    assert {c.row: c.trainable for c in found} == TRAINED[shape]
    assert [c.share * TOTALS[shape] for c in found] == pytest.approx([c.trainable for c in found])
    assert parameters.size(outlined(shape)) == TOTALS[shape]  # each was taken off again


def test_positions_and_rotation_are_the_published_ones():
    found = {shape: outlined(shape).model.config for shape in TOTALS}
    assert [c.max_position_embeddings for c in found.values()] == [262_144, 40_960, 65_536]
    assert [c.rope_parameters["rope_theta"] for c in found.values()] == [5e6, 1e6, 5e6]


def test_every_fourth_layer_of_smollm3_has_no_rotation():
    assert outlined("smollm3-3b").model.config.no_rope_layers == [1, 1, 1, 0] * 9


def test_every_method_and_preset_is_counted():
    tiny = parameters.outline(parameters.named("tiny-llama"))
    found = {c.row: c.trainable for c in parameters.counts(tiny)}
    assert found["frozen"] == found["bm25_rag"] == 0
    assert found["delta_mem_msw"] == 4 * found["delta_mem_tsw"] > 0
    assert found["lora"] == 2 * 8 * (128 + 96 + 96 + 128)  # two layers, q and o 64 wide, k and v 32


def test_a_backbone_goes_by_shape_hub_id_experiment_or_folder(tmp_path):
    assert parameters.named("qwen3-8b") == parameters.named("Qwen/Qwen3-8B") == BackboneSpec(random="qwen3-8b")
    paper = parameters.named("paper/smollm3_3b")
    assert paper.hub == "HuggingFaceTB/SmolLM3-3B"
    assert parameters.size(parameters.outline(paper)) == TOTALS["smollm3-3b"]  # the kept shape: no network
    facts = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 5,
             "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(facts))
    folder = parameters.named(str(tmp_path))
    assert folder.folder == str(tmp_path)
    assert parameters.size(parameters.outline(folder)) == 5 * 8 + 4 * 64 + 3 * 64 + 3 * 8


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qwen3-4", "did you mean 'qwen3-4b'"),
        ("paper/qwen3", "the experiment 'paper' has no backbone 'qwen3'"),
        ("papper/qwen3_4b", "did you mean 'paper'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, said):
    with pytest.raises(HarnessError, match=said):
        parameters.named(name)

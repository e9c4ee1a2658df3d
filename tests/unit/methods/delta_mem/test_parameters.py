"""The size of a memory on the paper's backbones, for every set of heads: specification 3, by hand and by formula."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Any

import pytest
import torch

from harness.experiment import BackboneSpec
from harness.parameters import outline
from methods.delta_mem._config import DeltaMemConfig
from methods.delta_mem._layer import DeltaMemory

WIDTHS = {"qwen3-4b": (2560, 4096, 1024), "qwen3-8b": (4096, 4096, 1024), "smollm3-3b": (2048, 2048, 512)}
"""H; outputs of q_proj; of k_proj and v_proj. Those of o_proj are H."""
SPECIFIED = {
    "q": (4_129_056, 16_516_224, 5_898_528, 23_594_112, 2_949_408, 11_797_632),
    "k": (3_244_320, 12_977_280, 5_013_792, 20_055_168, 2_507_040, 10_028_160),
    "v": (3_244_320, 12_977_280, 5_013_792, 20_055_168, 2_507_040, 10_028_160),
    "o": (3_686_688, 14_746_752, 5_898_528, 23_594_112, 2_949_408, 11_797_632),
    "qk": (4_423_968, 17_695_872, 6_193_440, 24_773_760, 3_096_864, 12_387_456),
    "qv": (4_423_968, 17_695_872, 6_193_440, 24_773_760, 3_096_864, 12_387_456),
    "qo": (4_866_336, 19_465_344, 7_078_176, 28_312_704, 3_539_232, 14_156_928),
    "kv": (3_539_232, 14_156_928, 5_308_704, 21_234_816, 2_654_496, 10_617_984),
    "qko": (5_161_248, 20_644_992, 7_373_088, 29_492_352, 3_686_688, 14_746_752),
    "qkv": (4_718_880, 18_875_520, 6_488_352, 25_953_408, 3_244_320, 12_977_280),
    "qkvo": (5_456_160, 21_824_640, 7_668_000, 30_672_000, 3_834_144, 15_336_576),
}
"""One state and four on each backbone in turn."""
SUBSETS = ["".join(heads) for n in range(1, 5) for heads in combinations("qkvo", n)]


@cache
def attention_of(shape: str) -> tuple[Any, ...]:
    """The self-attention of every layer."""
    return tuple(layer.self_attn for layer in outline(BackboneSpec(random=shape)).model.model.layers)


def counted(shape: str, layers: int | None = None, **config: Any) -> int:
    with torch.device("meta"):
        memories = [DeltaMemory(DeltaMemConfig(**config), a) for a in attention_of(shape)[:layers]]
    return sum(p.numel() for memory in memories for p in memory.parameters())


@pytest.mark.parametrize("shape", WIDTHS)
@pytest.mark.parametrize("states", [1, 4])
def test_every_set_of_heads_has_its_closed_form(shape, states):
    H, q, kv = WIDTHS[shape]
    R = states * 8
    for heads in SUBSETS:
        out = sum({"q": q, "k": kv, "v": kv, "o": H}[head] for head in heads)
        assert counted(shape, delta_heads=list(heads), num_state_heads=states) == 36 * R * (3 * H + H + 1 + out)


@pytest.mark.parametrize("column", range(6))
def test_the_closed_form_is_the_specifications_table(column):
    H, q, kv = list(WIDTHS.values())[column // 2]
    R = 8 * (1, 4)[column % 2]
    for heads, expected in SPECIFIED.items():
        out = sum({"q": q, "k": kv, "v": kv, "o": H}[head] for head in heads)
        assert 36 * R * (4 * H + 1 + out) == expected[column]


def test_a_third_of_the_layers_has_a_third_of_the_parameters():
    assert counted("qwen3-4b", layers=12, delta_heads=["q", "o"]) == 1_622_112


@pytest.mark.parametrize(
    ("config", "more"),
    [
        ({"couple_lambda": False}, 8 * 2561),
        ({"rankwise_gates": False}, -7 * 2561),
        ({"delta_o_rmsnorm": True}, 2560),
        ({"trainable_delta_scale": True}, 1),
        ({"trainable_delta_scale": True, "delta_scale_granularity": "head"}, 4),
    ],
)
def test_an_option_adds_what_it_needs(config, more):
    assert counted("qwen3-4b", layers=1, **config) == counted("qwen3-4b", layers=1) + more

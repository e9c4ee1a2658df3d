"""Models of a named shape whose weights are drawn from a seed, and the byte tokenizer that goes with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from harness.episodes import digest
from harness.errors import HarnessError, nearest

SHAPES = Path(__file__).parent / "shapes"

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def shape(name: str) -> dict[str, Any]:
    """The configuration that a file under ``harness/shapes`` holds.

    Raises:
        HarnessError: there is none of that name.
    """
    known = {p.stem: p for p in SHAPES.glob("*.json")}
    if name not in known:
        raise HarnessError(f"unknown shape '{name}'; {nearest(name, known)}")
    return json.loads(known[name].read_text())


def draw(name: str, options: dict[str, Any]) -> tuple[Any, PreTrainedTokenizerFast, str]:
    """A model of a shape, its tokenizer, and the digest of shape and seed; the global generator is left as it is."""
    facts = shape(name)
    seed = facts.pop("seed", 0)
    config = AutoConfig.for_model(**facts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, **options)
    return model, byte_tokenizer(), digest([name, facts, seed])


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes and three ChatML tokens: enough for models whose weights mean nothing."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"pad_token": "<|endoftext|>", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = CHATML
    return fast

"""Tiny backbones with random weights, and a few episodes: all that the tests of the core need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.episodes import Episode
from harness.experiment import DataSpec, RunSpec

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "smollm3")


@pytest.fixture
def tiny() -> Callable[..., Any]:
    """Opens a fresh backbone of a shape under harness/shapes, or of a family, in a moment and without a file."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from harness.backbones import Backbone, open_backbone
    from harness.experiment import BackboneSpec
    from harness.random_weights import byte_tokenizer

    torch.set_num_threads(1)

    def by_shape(shape: str = "tiny-llama", **run: Any) -> Backbone:
        return open_backbone(BackboneSpec(random=shape), RunSpec(device="cpu", **run))

    def by_family(family: str, attention: str = "sdpa", **settings: Any) -> Backbone:
        sizes = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4 if family == "smollm3" else 2,  # every fourth layer of SmolLM3 has no RoPE
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 259,
            "max_position_embeddings": 4096,
            "bos_token_id": 256,
            "eos_token_id": 257,
            "pad_token_id": 258,
        }
        config = AutoConfig.for_model(family, **sizes, **({"head_dim": 8} if family == "qwen3" else {}), **settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
        model.requires_grad_(False).eval()
        return Backbone(BackboneSpec(random="tiny-llama"), model, byte_tokenizer(), f"{family}-random")

    return lambda name="tiny-llama", **options: (by_family if name in FAMILIES else by_shape)(name, **options)


@pytest.fixture(scope="session")
def episodes() -> tuple[Episode, ...]:
    """Six generated episodes of two facts and two questions each."""
    from harness.tasks import task

    return task("write_clear_read").load(DataSpec(source="generated"), "test", {}, 6).episodes


@pytest.fixture(scope="session")
def token_classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny BERT with random weights that tells two classes of tokens, letters mostly."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!;:'\"-()"
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *("##" + c for c in letters), "the", "is", "##ed"]
    words = Tokenizer(models.WordPiece({w: n for n, w in enumerate(vocab)}, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForTokenClassification(BertConfig(vocab_size=len(vocab), num_labels=2, **sizes))
    folder = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    return str(folder)

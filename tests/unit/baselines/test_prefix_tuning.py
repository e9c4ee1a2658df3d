"""Prefix tuning: its size, its start, what it is trained on."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from harness import generation, training
from harness.backbones import Backbone
from harness.episodes import Message, Query
from harness.errors import HarnessError
from harness.experiment import BackboneSpec, Budget
from harness.parameters import outline
from harness.progress import Progress
from harness.random_weights import byte_tokenizer
from harness.registry import resolve


def build(backbone, seed=1, **settings):
    cls, config = resolve("prefix_tuning", settings)
    return cls(config, backbone, seed)


@pytest.mark.parametrize(("tokens", "expected"), [(1, 73_728), (66, 4_866_048)])
def test_its_size_on_qwen3_4b(tokens, expected):
    backbone = outline(BackboneSpec(random="qwen3-4b"))
    with torch.device("meta"):
        method = build(backbone, virtual_tokens=tokens)
        assert method.trainable_parameters() == expected == tokens * 36 * 2 * 8 * 128


def test_its_size_on_smollm2_is_the_rank_8_lora():
    shape = {"num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3}
    sizes = []
    with torch.device("meta"):
        for row in ("lora", "prefix_tuning"):
            model = LlamaForCausalLM(LlamaConfig(**shape, intermediate_size=1536, vocab_size=49152))
            cls, config = resolve(row)
            backbone = Backbone(BackboneSpec(random="tiny-llama"), model, byte_tokenizer(), "")
            sizes.append(cls(config, backbone, 1).trainable_parameters())
    assert sizes == [921_600, 80 * 11_520]


@pytest.mark.parametrize("family", ["llama", "qwen3", "smollm3"])
def test_a_start_from_text_is_that_text_in_the_prompt(tiny, family):
    """Untrained, the prefix is the beginning of a system message of the same text."""
    method = build(tiny(family), virtual_tokens=40)
    ids, _ = method.backbone.encode((), system=method._text(40))
    query = Query("", "And?")
    asked = generation.prompt(method.backbone, (), query)
    scores = [
        generation.loglikelihood(method.backbone, generation.Prompt(before + asked.ids, [-1] * 999), steering, [[65]])
        for before, steering in (([], method.steer(None, query)), (ids[:40], type(method.steer(None, query))()))
    ]
    assert scores[0][0][0] == pytest.approx(scores[1][0][0], abs=1e-5)


def test_two_histories_answer_bit_identically(tiny, episodes):
    method = build(tiny())
    states = [method.write(e.history) for e in episodes[:2]]
    query = Query("", "What?")
    asked = generation.prompt(method.backbone, (), query)
    first, second = (
        generation.loglikelihood(method.backbone, asked, method.steer(s, query), [[65, 66]]) for s in states
    )
    assert states == [None, None]
    assert first == second


def test_it_is_trained_on_what_lora_is_trained_on(tiny, episodes, tmp_path, monkeypatch):
    budget, seen, plain = Budget(steps=1, batch_size=2, accumulation=1), {}, training.answer_loss
    for row in ("lora", "prefix_tuning"):
        cls, config = resolve(row)
        method = cls(config, tiny(), 1)

        def watch(model, batch, row=row, **options):
            seen[row] = batch
            return plain(model, batch, **options)

        monkeypatch.setattr(training, "answer_loss", watch)
        report = method.fit(episodes[:2], budget, tmp_path / row, Progress(None))
        seen[row, "tokens"] = report.tokens
    assert torch.equal(seen["lora"].ids, seen["prefix_tuning"].ids)
    assert torch.equal(seen["lora"].labels, seen["prefix_tuning"].labels)
    assert torch.equal(seen["lora"].mask, seen["prefix_tuning"].mask[:, 80:])
    assert seen["lora", "tokens"] == seen["prefix_tuning", "tokens"]


def test_training_lowers_the_loss_and_its_checkpoint_is_taken_up(tiny, episodes, tmp_path):
    budget = Budget(steps=6, batch_size=2, accumulation=1, learning_rate=5e-2, warmup_ratio=0, save_every=3)
    method = build(tiny())
    losses = method.fit(episodes, budget, tmp_path, Progress(None)).losses
    assert losses[-1] < losses[0]
    again = build(tiny(), seed=2)
    assert again.fit(episodes, budget, tmp_path, Progress(None)).losses == losses
    assert torch.equal(again._cache().layers[0].keys, method._cache().layers[0].keys)


def test_it_is_stored_in_bf16_and_a_strange_file_is_refused(tiny, tmp_path):
    method = build(tiny(), virtual_tokens=3)
    method.save(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert [t.dtype for t in stored.values()] == [torch.bfloat16]
    with pytest.raises(HarnessError, match="another shape"):
        build(tiny(), virtual_tokens=4).load(tmp_path)
    save_file({"other": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(HarnessError, match="another shape"):
        build(tiny(), virtual_tokens=3).load(tmp_path)


def test_the_prefix_stands_before_the_history(tiny):
    method = build(tiny(), virtual_tokens=5)
    prompts = [generation.prompt(method.backbone, (Message("Hello."),), Query("", "What?"))]
    answers, _ = generation.answer(method.backbone, prompts, method.steer(None, Query("", "?")), max_new_tokens=2)
    assert answers[0].prompt_tokens == len(prompts[0].ids) + 5


def test_more_tokens_than_the_window_are_refused(tiny):
    cls, config = resolve("prefix_tuning", {"virtual_tokens": 4096})
    with pytest.raises(HarnessError, match="lower virtual_tokens"):
        cls(config, tiny("llama"), 0)


def test_no_token_is_refused():
    with pytest.raises(HarnessError, match="virtual_tokens"):
        resolve("prefix_tuning", {"virtual_tokens": 0})

"""Backbones: where they come from, how a conversation becomes tokens, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import GenerationConfig

from harness import backbones
from harness.episodes import Message
from harness.errors import HarnessError
from harness.experiment import BackboneSpec, RunSpec
from harness.registry import resolve

CHAT = [
    Message("Hello."),
    Message("Hi!", role="assistant"),
    Message("Bye.", time="May 7"),
    Message("So?", time="May 7"),
]


def test_random_weights_follow_from_the_shape_and_nothing_else_is_drawn(tiny):
    before = torch.get_rng_state()
    a, b, other = tiny(), tiny(), tiny("tiny-qwen3")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True))
    assert a.digest == b.digest != other.digest
    assert not a.model.training
    assert not any(p.requires_grad for p in a.model.parameters())


def test_tokens_belong_to_the_message_they_are_part_of(tiny):
    backbone = tiny()
    ids, owner = backbone.encode(CHAT, system="Be kind.", answer_next=True)
    part = lambda j: backbone.tokenizer.decode([i for i, o in zip(ids, owner, strict=True) if o == j])  # noqa: E731
    assert part(0) == "<|im_start|>user\nHello.<|im_end|>\n"
    assert part(1) == "<|im_start|>assistant\nHi!<|im_end|>\n"
    assert part(2) == "<|im_start|>user\n[May 7]\nBye.<|im_end|>\n"
    assert part(3) == "<|im_start|>user\nSo?<|im_end|>\n"
    assert part(-1) == "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>assistant\n"
    at = part(-1).index("<|im_start|>assistant")
    text = "".join([part(-1)[:at], *map(part, range(4)), part(-1)[at:]])
    assert ids == backbone.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_an_empty_conversation_has_no_tokens(tiny):
    assert tiny().encode([]) == ([], [])


@pytest.mark.parametrize("text", ["", "größe 漢字 🙂", "<|im_end|>", "\n\n", "x" * 300])
def test_the_byte_tokenizer_loses_nothing(text, tiny):
    tokenizer = tiny().tokenizer
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert len(tokenizer) == 259


def test_a_folder_is_opened_and_known_by_its_bytes(tiny, tmp_path):
    original = tiny()
    original.model.save_pretrained(tmp_path)
    original.tokenizer.save_pretrained(tmp_path)
    again = backbones.open_backbone(BackboneSpec(folder=str(tmp_path)), RunSpec(device="cpu"))
    assert again.encode(CHAT) == original.encode(CHAT)
    ids = torch.tensor([again.encode(CHAT)[0]])
    assert torch.equal(again.model(ids).logits, original.model(ids).logits)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-4}))
    changed = backbones.open_backbone(BackboneSpec(folder=str(tmp_path)), RunSpec(device="cpu"))
    assert changed.digest != again.digest


def test_a_template_is_put_where_there_is_none(tiny, tmp_path):
    original = tiny()
    original.model.save_pretrained(tmp_path)
    original.tokenizer.chat_template = None
    original.tokenizer.save_pretrained(tmp_path)
    again = backbones.open_backbone(BackboneSpec(folder=str(tmp_path)), RunSpec(device="cpu"))
    assert again.encode(CHAT) == tiny().encode(CHAT)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"random": "tiny-lama"}, "unknown shape 'tiny-lama'; did you mean 'tiny-llama'"),
        ({"folder": "nowhere"}, "holds no config.json"),
        ({"gguf": "no-such-package"}, "is not installed"),
        ({"gguf": "harness"}, "holds 0 GGUF files"),
    ],
)
def test_a_source_that_is_not_to_be_had_is_refused(spec, message):
    with pytest.raises(HarnessError, match=message):
        backbones.open_backbone(BackboneSpec(**spec), RunSpec(device="cpu"))


def test_a_folder_without_weights_is_refused(tiny, tmp_path):
    tiny().model.config.save_pretrained(tmp_path)
    tiny().tokenizer.save_pretrained(tmp_path)
    with pytest.raises(HarnessError, match="cannot be opened"):
        backbones.open_backbone(BackboneSpec(folder=str(tmp_path)), RunSpec(device="cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused():
    with pytest.raises(HarnessError, match="none is visible"):
        backbones.open_backbone(BackboneSpec(random="tiny-llama"), RunSpec(device="cuda"))


def test_a_second_adapter_waits_until_the_first_is_closed(tiny):
    backbone = tiny()
    cls, config = resolve("lora")
    first = cls(config, backbone, 1)
    with pytest.raises(HarnessError, match="still attached"):
        cls(config, backbone, 2)
    first.close()
    cls(config, backbone, 2).close()


def test_an_adapter_acts_inside_its_block_only_also_after_an_error(tiny):
    backbone = tiny()
    cls, config = resolve("delta_mem_tsw")
    method = cls(config, backbone, 1)
    ids = torch.tensor([[1, 2, 3]])
    bare = backbone.model(ids).logits
    with pytest.raises(HarnessError, match="carries no state"), backbone.active(method.name):
        backbone.model(ids)
    assert torch.equal(backbone.model(ids).logits, bare)


def test_the_record_says_what_the_backbone_is(tiny):
    facts = tiny().describe()
    assert facts["pinned"]
    assert facts["spec"] == {"random": "tiny-llama"}
    assert facts["parameters"] == sum(p.numel() for p in tiny().model.parameters())
    grown = tiny()
    grown.model.attached = torch.nn.Linear(4, 4)
    assert grown.describe()["parameters"] == facts["parameters"]  # an adapter is not of the backbone
    assert not backbones.Backbone(BackboneSpec(hub="a/b"), tiny().model, tiny().tokenizer, "").describe()["pinned"]


def test_a_checkpoints_own_way_of_decoding_is_dropped_but_for_its_ends(tmp_path):
    backbone = backbones.open_backbone(BackboneSpec(random="tiny-llama"), RunSpec(device="cpu"))
    backbone.model.generation_config = GenerationConfig(eos_token_id=[7, 9], repetition_penalty=2.0, num_beams=3)
    backbone.model.save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    found = backbones.open_backbone(BackboneSpec(folder=str(tmp_path)), RunSpec(device="cpu"))
    assert found.model.generation_config.repetition_penalty is None
    assert found.model.generation_config.num_beams is None
    assert {7, 9} <= set(found.eos_token_ids)


FRAMED = [Message(text, frame="Read this.") for text in ("One.", "Two. Three.", "Four?")]


def test_messages_of_one_frame_are_one_message_to_a_memory_and_told_apart_as_parts(tiny):
    backbone = tiny()
    ids, owner = backbone.encode(FRAMED, system="Be kind.", answer_next=True)
    said = "<|im_start|>user\nRead this.\n\nOne.\n\nTwo. Three.\n\nFour?<|im_end|>\n<|im_start|>assistant\n"
    assert backbone.tokenizer.decode(ids) == f"<|im_start|>system\nBe kind.<|im_end|>\n{said}"
    assert set(owner) == {-1, 0}
    again, parts = backbone.encode(FRAMED, system="Be kind.", answer_next=True, unit="part")
    assert again == ids
    part = lambda j: backbone.tokenizer.decode([i for i, o in zip(ids, parts, strict=True) if o == j])  # noqa: E731
    assert [part(0), part(1), part(2)] == ["\n\nOne.", "\n\nTwo. Three.", "\n\nFour?"]
    _, sentences = backbone.encode(FRAMED, system="Be kind.", answer_next=True, unit="sentence")
    assert max(sentences) == 4  # the frame's, the first's, two of the second's and the last's


def test_without_a_frame_parts_are_messages(tiny):
    assert tiny().encode(CHAT, unit="part") == tiny().encode(CHAT)


def test_weights_that_no_digest_covers_are_refused(tiny, tmp_path):
    """A folder's digest is of its safetensors; those of a pickle beside them could change and nobody would see."""
    original = tiny()
    original.model.save_pretrained(tmp_path)
    original.tokenizer.save_pretrained(tmp_path)
    torch.save(original.model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(HarnessError, match=r"no file named model\.safetensors"):
        backbones.open_backbone(BackboneSpec(folder=str(tmp_path)), RunSpec(device="cpu"))

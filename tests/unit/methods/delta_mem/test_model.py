"""The memory in whole models: masks, chunks, caches, decoding, and PEFT's verbs, on every architecture."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.peft_types import PeftType
from transformers import DynamicCache

from harness.errors import HarnessError
from methods.delta_mem._cache import MemoryCache
from methods.delta_mem._model import DeltaMemConfig, token_mask
from methods.delta_mem._peft import DELTA_MEM, _extend

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "smollm3")
VARIANTS = {"tsw": {}, "ssw": {"memory_write_granularity": "message_mean"}, "msw": {"num_state_heads": 4}}
EVERYWHERE = [(f, v) for f in FAMILIES for v in VARIANTS]

IDS = torch.randint(0, 256, (1, 23), generator=torch.Generator().manual_seed(5))
OTHER = torch.randint(0, 256, (1, 17), generator=torch.Generator().manual_seed(6))
OWNER = torch.tensor([[-1] * 4 + [0] * 6 + [1] * 7 + [2] * 6])
ASKED = IDS[:, ::3]


def close(a, b, limit=1e-5):
    return float((a - b).norm() / b.norm().clamp_min(1e-30)) < limit


def asked(model, feed, states, row=0):
    """Logits of a question read from one row of the states, writes off."""
    cache = model.memory_cache([s[row : row + 1] for s in states], writes=False)
    return feed(model, ASKED, cache=cache)[1]


def pad(rows, fill, width, side):
    padding = lambda row: torch.full((width - row.shape[1],), fill)  # noqa: E731
    return torch.stack([torch.cat((padding(r), r[0]) if side == "left" else (r[0], padding(r))) for r in rows])


@pytest.mark.parametrize(("family", "variant"), EVERYWHERE)
def test_padding_batches_and_chunks_change_nothing(family, variant, attached, feed):
    model = attached(family, **VARIANTS[variant])
    whole, hidden = feed(model, IDS, owner=OWNER)
    other, _ = feed(model, OTHER, owner=OWNER[:, :17])
    answer = asked(model, feed, whole.states)
    frozen = asked(model, feed, model.zero_states())
    assert not close(answer, frozen, 1e-2)  # so that the equalities below say something

    for side in ("left", "right"):
        for chunk in (None, 5):
            ids = pad((IDS, OTHER), 258, 29, side)
            mask = pad((torch.ones_like(IDS), torch.ones_like(OTHER)), 0, 29, side)
            owner = pad((OWNER, OWNER[:, :17]), -1, 29, side)
            cache, logits = feed(model, ids, mask=mask, owner=owner, chunk=chunk)
            assert cache.seen.tolist() == [23, 17]
            assert close(logits[0][mask[0].bool()], hidden[0])
            for mine, first, second in zip(cache.states, whole.states, other.states, strict=True):
                assert close(mine[:1], first)
                assert close(mine[1:], second)
            assert close(asked(model, feed, cache.states), answer)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("chunk", [1, 2, 7, 22])
def test_chunks_on_a_kv_cache_are_one_logical_write(variant, chunk, attached, feed):
    model = attached("qwen3", **VARIANTS[variant])
    whole, logits = feed(model, IDS, owner=OWNER)
    parts, pieces = feed(model, IDS, owner=OWNER, chunk=chunk)
    assert close(pieces, logits)
    assert all(close(a, b) for a, b in zip(parts.states, whole.states, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_sliding_window_is_chunked_alike(variant, tiny, attached, feed):
    model = attached(backbone=tiny("mistral", sliding_window=8), **VARIANTS[variant])
    whole, logits = feed(model, IDS, owner=OWNER)
    parts, pieces = feed(model, IDS, owner=OWNER, chunk=5)
    assert close(pieces, logits)
    assert all(close(a, b) for a, b in zip(parts.states, whole.states, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_sdpa_and_eager_agree_in_a_padded_batch(family, attached, feed):
    ids = pad((IDS, OTHER), 258, 23, "left")
    mask = pad((torch.ones_like(IDS), torch.ones_like(OTHER)), 0, 23, "left")
    found = [feed(attached(family, attention), ids, mask=mask, chunk=9) for attention in ("sdpa", "eager")]
    real = mask.bool()
    assert close(found[0][1][real], found[1][1][real])
    assert all(close(a, b) for a, b in zip(found[0][0].states, found[1][0].states, strict=True))


def test_message_writes_read_the_state_from_before(attached, feed):
    """A fresh history is read with a zero state: its logits are the frozen backbone's, bit for bit."""
    model = attached("llama", **VARIANTS["ssw"])
    cache, logits = feed(model, IDS, owner=OWNER)
    model.disable_adapter_layers()
    assert torch.equal(logits, model.model(input_ids=IDS).logits)
    assert all(s.any() for s in cache.states)


def test_tokens_of_no_message_write_nothing(attached, feed):
    model = attached("llama", **VARIANTS["ssw"])
    cache, _ = feed(model, IDS, owner=torch.full_like(IDS, -1))
    assert not any(s.any() for s in cache.states)


def test_an_unannounced_forward_ends_the_logical_call(attached, feed):
    model = attached("llama", **VARIANTS["ssw"])
    committed, _ = feed(model, IDS, owner=OWNER)
    open_call = model.memory_cache()
    open_call.announce(OWNER)
    with torch.no_grad():
        model.model(input_ids=IDS, past_key_values=open_call)
        assert not any(s.any() for s in open_call.states)
        for cache in (committed, open_call):
            model.model(input_ids=OTHER[:, :1], past_key_values=cache)  # decoding: one token, one write
    assert all(torch.equal(a, b) for a, b in zip(open_call.states, committed.states, strict=True))


def test_reading_without_writes_leaves_the_state(attached, feed):
    model = attached("llama")
    written, _ = feed(model, IDS)
    cache, _ = feed(model, OTHER, cache=model.memory_cache(written.states, writes=False))
    assert all(torch.equal(a, b) for a, b in zip(cache.states, written.states, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_zero_state_is_the_frozen_backbone_bit_for_bit(family, attached, feed):
    model = attached(family, delta_heads=list("qkvo"))
    _, logits = feed(model, IDS, writes=False)
    model.disable_adapter_layers()
    _, bare = feed(model, IDS, cache=DynamicCache(config=model.model.config))
    assert torch.equal(logits, bare)


def test_only_some_layers(attached, feed):
    model = attached("smollm3", layers_to_transform=[1, 3])
    cache, _ = feed(model, IDS, chunk=6)
    assert len(cache.states) == 2
    assert all(s.any() for s in cache.states)


# --- the door ---


def test_the_door_refuses_a_call_without_a_state(attached):
    model = attached("llama")
    for options in ({}, {"past_key_values": DynamicCache(config=model.model.config)}, {"use_cache": False}):
        with pytest.raises(HarnessError, match="carries no state"):
            model.model(input_ids=IDS, **options)


def test_the_door_refuses_prepared_masks_and_wrong_batches(attached):
    model = attached("llama")
    prepared = torch.ones(1, 1, 23, 23, dtype=torch.bool)
    with pytest.raises(HarnessError, match="2-D attention mask"):
        model.model(input_ids=IDS, attention_mask=prepared, past_key_values=model.memory_cache())
    with pytest.raises(HarnessError, match="1 rows but the batch has 2"):
        model.model(input_ids=IDS.repeat(2, 1), past_key_values=model.memory_cache())


def test_a_refused_call_leaves_the_model_usable(attached, feed):
    model = attached("llama")
    expected = feed(model, IDS)[1]
    with pytest.raises(HarnessError):
        model.model(input_ids=IDS)
    with pytest.raises(RuntimeError):  # breaks inside the decoder: the door must not stay open
        model.model(input_ids=IDS, past_key_values=model.memory_cache([s[..., :4, :4] for s in model.zero_states()]))
    assert model.door.call is None
    assert torch.equal(feed(model, IDS)[1], expected)


def test_masks_of_any_two_dimensional_kind():
    cpu = torch.device("cpu")
    for mask in (torch.tensor([[0, 1, 1]]), torch.tensor([[False, True, True]]), torch.tensor([[0.0, 1.0, 1.0]])):
        assert token_mask(mask, 2, cpu) is None
        assert token_mask(mask, 3, cpu).tolist() == [[False, True, True]]
    assert token_mask(None, 2, cpu) is None


def test_embeddings_may_stand_in_for_ids(attached):
    model = attached("llama")
    embedded = model.model.get_input_embeddings()(IDS)
    a, b = model.memory_cache(), model.memory_cache()
    with torch.no_grad():
        model.model(inputs_embeds=embedded, past_key_values=a)
        model.model(input_ids=IDS, past_key_values=b)
    assert all(torch.equal(x, y) for x, y in zip(a.states, b.states, strict=True))


# --- the cache ---


def test_rows_of_state_move_with_the_keys(attached, feed):
    model = attached("llama", **VARIANTS["ssw"])
    cache = model.memory_cache(batch_size=2)
    cache.announce(OWNER[:, :17].repeat(2, 1))
    with torch.no_grad():
        model.model(input_ids=torch.cat((IDS[:, :17], OTHER)), past_key_values=cache)
    one_each = copy.deepcopy(cache)
    model.commit(one_each)
    cache.batch_repeat_interleave(2)
    assert cache.layers[0].keys.shape[0] == 4
    cache.batch_select_indices(torch.tensor([0, 3]))
    cache.reorder_cache(torch.tensor([1, 0]))
    model.commit(cache)
    assert cache.seen.tolist() == [17, 17]
    assert torch.equal(cache.layers[0].keys, one_each.layers[0].keys[[1, 0]])
    for moved, kept in zip(cache.states, one_each.states, strict=True):
        assert torch.allclose(moved, kept[[1, 0]], atol=1e-7)


def test_a_deep_copy_is_a_snapshot(attached, feed):
    model = attached("llama")
    cache, _ = feed(model, IDS)
    before = [s.clone() for s in cache.states]
    kept = copy.deepcopy(cache)
    with torch.no_grad():
        model.model(input_ids=OTHER, past_key_values=cache)
    assert kept.get_seq_length() == 23
    assert all(torch.equal(a, b) for a, b in zip(kept.states, before, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(cache.states, before, strict=True))


def test_cropping_and_assisted_decoding_are_refused(attached, feed):
    model = attached("llama")
    with pytest.raises(HarnessError, match="rolled back"):
        model.memory_cache().crop(3)
    repeated = torch.tensor([[5, 6, 7, 5, 6, 7, 5, 6]])
    with pytest.raises(HarnessError, match="assisted decoding"):
        model.model.generate(
            repeated,
            past_key_values=model.memory_cache(),
            prompt_lookup_num_tokens=3,
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=None,
        )


@pytest.mark.parametrize("follows", [True, False])
def test_a_beam_keeps_its_own_state(follows, attached, feed, monkeypatch):
    """Each beam's score is what its tokens score when they are fed alone; without reordering it is not."""
    if not follows:
        monkeypatch.setattr(MemoryCache, "reorder_cache", DynamicCache.reorder_cache)
    model = attached("llama")
    cache = model.memory_cache()
    cache.batch_repeat_interleave(4)
    with torch.no_grad():
        found = model.model.generate(
            IDS,
            past_key_values=cache,
            num_beams=4,
            num_return_sequences=4,
            max_new_tokens=12,
            length_penalty=0.0,
            eos_token_id=None,
            output_scores=True,
            return_dict_in_generate=True,
        )
    apart = []
    for sequence, score in zip(found.sequences, found.sequences_scores, strict=True):
        _, logits = feed(model, sequence[None, :-1])
        chosen = logits.log_softmax(-1)[0, 22:].gather(1, sequence[23:, None])
        apart.append(abs(float(chosen.sum() - score)))
    assert (max(apart) < 1e-3) == follows


def test_batched_greedy_decoding_is_row_by_row_decoding(attached):
    model = attached("qwen3")
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 258}
    alone = [
        model.model.generate(ids, past_key_values=model.memory_cache(), **options)[0, ids.shape[1] :]
        for ids in (IDS, OTHER)
    ]
    together = model.model.generate(
        pad((IDS, OTHER), 258, 23, "left"),
        attention_mask=pad((torch.ones_like(IDS), torch.ones_like(OTHER)), 0, 23, "left"),
        past_key_values=model.memory_cache(batch_size=2),
        **options,
    )[:, 23:]
    assert torch.equal(together, torch.stack(alone))


# --- PEFT's verbs ---


def test_the_type_is_added_to_pefts_list_once():
    members = len(PeftType)
    assert _extend("DELTA_MEM") is DELTA_MEM is PeftType("DELTA_MEM") is PeftType.DELTA_MEM
    assert len(PeftType) == members == len(set(PeftType))
    assert PeftType.LORA == "LORA"
    assert copy.deepcopy(DELTA_MEM) is DELTA_MEM


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_adapter_comes_back(variant, tiny, attached, feed, tmp_path):
    backbone = tiny("qwen3")
    model = attached(backbone=backbone, **VARIANTS[variant])
    expected = feed(model, IDS, owner=OWNER)
    peft = next(iter([get_peft_model(tiny("qwen3").model, DeltaMemConfig(**VARIANTS[variant]))]))
    for mine, theirs in zip(peft.base_model.layers, model.layers, strict=True):
        mine.memory.load_state_dict(theirs.memory.state_dict())
    peft.save_pretrained(str(tmp_path))
    assert {p.name for p in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    again = PeftModel.from_pretrained(tiny("qwen3").model, str(tmp_path)).eval().base_model
    assert again.peft_config["default"].num_state_heads == model.peft_config["default"].num_state_heads
    cache, logits = feed(again, IDS, owner=OWNER)
    assert torch.equal(logits, expected[1])
    assert all(torch.equal(a, b) for a, b in zip(cache.states, expected[0].states, strict=True))


def test_two_adapters_on_one_model(tiny, shake, feed):
    backbone = tiny("llama")
    bare = backbone.model(input_ids=IDS).logits
    peft = get_peft_model(backbone.model, DeltaMemConfig(seed=1))
    shake(peft.base_model, seed=1)
    first = feed(peft.base_model, IDS)[1]
    peft.add_adapter("second", DeltaMemConfig(seed=2, num_state_heads=2))
    assert torch.equal(feed(peft.base_model, IDS)[1], first)
    peft.set_adapter("second")
    shake(peft.base_model, seed=2)
    cache, second = feed(peft.base_model, IDS)
    assert cache.states[0].shape[1] == 2
    assert not close(second, first, 1e-2)
    trained = {n for n, p in peft.named_parameters() if p.requires_grad}
    assert trained
    assert all(".second." in n for n in trained)
    peft.set_adapter("default")
    assert torch.equal(feed(peft.base_model, IDS)[1], first)
    with peft.disable_adapter():
        assert torch.equal(peft(input_ids=IDS).logits, bare)
    assert torch.equal(peft.unload()(input_ids=IDS).logits, bare)


def test_unload_restores_the_backbone_and_removes_every_hook(tiny, shake, feed):
    backbone = tiny("llama")
    modules = dict(backbone.model.named_modules())
    bare = backbone.model(input_ids=IDS).logits
    peft = get_peft_model(backbone.model, DeltaMemConfig())
    shake(peft.base_model)
    feed(peft.base_model, IDS)
    restored = peft.unload()
    assert torch.equal(restored(input_ids=IDS).logits, bare)
    assert dict(restored.named_modules()).keys() == modules.keys()
    for name, module in restored.named_modules():
        assert module is modules[name]
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_merging_is_refused_with_the_reason(attached):
    model = attached("llama")
    for merge in (model.merge_and_unload, model.merge_adapter, model.layers[0].merge):
        with pytest.raises(ValueError, match="depend on a state"):
            merge()
    with pytest.raises(ValueError, match="nothing to unmerge"):
        model.layers[0].unmerge()


def test_a_backbone_without_separate_projections_is_refused(tiny):
    backbone = tiny("llama")
    for block in backbone.model.model.layers:
        del block.self_attn.o_proj
    with pytest.raises(HarnessError, match="no linear o_proj"):
        get_peft_model(backbone.model, DeltaMemConfig())


def test_other_peft_methods_still_work_beside_the_extension(tiny):
    peft = get_peft_model(tiny("llama").model, LoraConfig(target_modules=["q_proj"]))
    assert peft(input_ids=IDS).logits.isfinite().all()

"""Settings of δ-mem beyond the three variants: segments, precision, who writes, which layers."""

from __future__ import annotations

import copy

import pytest
import torch

from harness import generation
from harness.episodes import History, Message, Query
from harness.errors import HarnessError
from harness.registry import resolve
from methods.delta_mem import Settings, _layer

IDS = torch.randint(0, 256, (1, 40), generator=torch.Generator().manual_seed(5))
SAID = (Message("Ann has a cat. Bob has a dog."), Message("Cid has a bird."))


@pytest.fixture
def make(tiny, shake):
    """A method on a tiny backbone, shaken."""

    def build(shape="tiny-llama", **settings):
        cls, config = resolve("delta_mem", settings)
        method = cls(config, tiny(shape), 1)
        shake(method.memory)
        return method

    return build


def test_sentence_writes_are_message_writes_of_one_sentence_messages(make):
    """What is written differs only by the template's tokens, which are in no sentence."""
    method = make(writes="sentence_mean")
    state = method.write(History(SAID))
    ids, owner = method.backbone.encode(SAID, unit="sentence")
    assert max(owner) == 2
    cache = method.memory.memory_cache()
    method.feed(cache, ids, owner, chunk=9)
    method.memory.commit(cache)
    assert torch.allclose(state.S, torch.cat(cache.states), atol=1e-5)
    messages = make(writes="message_mean").write(History(SAID))
    assert not torch.allclose(state.S, messages.S, atol=1e-2)
    assert method.steer(state, Query("", "Who?")).unit == "sentence"


def test_a_prompt_is_told_in_the_unit_that_a_memory_writes(make):
    method = make(writes="sentence_mean")
    query = Query("", "Who has a dog?")
    prompt = generation.prompt(method.backbone, SAID, query, method.steer(None, query, writes=True).unit)
    assert max(prompt.owner) == 3  # three sentences, and the question


@pytest.mark.parametrize("writes", ["token", "message_mean"])
def test_a_state_in_bf16_is_stored_so_and_computed_wider(writes, make):
    wide, narrow = make(writes=writes), make(writes=writes, state_dtype="bfloat16")
    a, b = (m.write(History(SAID)) for m in (wide, narrow))
    assert (a.S.dtype, b.S.dtype) == (torch.float32, torch.bfloat16)
    assert a.nbytes() == 2 * b.nbytes()
    assert torch.equal(a.S.bfloat16(), b.S)  # one forward rounds once, at its end
    cache = narrow.memory.memory_cache(b.rows(), writes=False)
    with narrow.backbone.active(narrow.name), torch.no_grad():
        narrow.backbone.model(input_ids=IDS, past_key_values=cache)
    assert torch.equal(cache.states[0][0], b.S[0])


@pytest.mark.parametrize("answer_writes", [True, False])
def test_whether_an_answer_is_written_is_an_option(answer_writes, make):
    method = make(answer_writes=answer_writes)
    cache = method.steer(None, Query("", "?"), writes=True).past_key_values()
    with method.backbone.active(method.name), torch.no_grad():
        method.backbone.model(input_ids=IDS[:, :30], past_key_values=cache)
        after_prompt = [s.clone() for s in cache.states]
        method.backbone.model(input_ids=IDS[:, 30:31], past_key_values=cache)
    moved = [not torch.equal(a, b) for a, b in zip(after_prompt, cache.states, strict=True)]
    assert all(s.any() for s in after_prompt)
    assert moved == [answer_writes] * len(moved)


@pytest.mark.parametrize(
    ("layers", "count", "indices"),
    [("front", 36, range(12)), ("middle", 36, range(12, 24)), ("back", 36, range(24, 36)), ("back", 4, [2, 3])],
)
def test_a_third_of_the_layers(layers, count, indices):
    from methods.delta_mem import _indices

    assert _indices(layers, count) == list(indices)
    thirds = [_indices(third, count) for third in ("front", "middle", "back")]
    assert [n for third in thirds for n in third] == list(range(count))


def test_a_layer_that_is_not_there_is_refused(make):
    with pytest.raises(HarnessError, match="no layer 2"):
        make(layers=[2])
    with pytest.raises(HarnessError, match="2 layers has no thirds"):
        make(layers="back")


def test_settings_that_came_later_leave_published_addresses_alone():
    """Published fits were addressed by these fields; what is at its default must not join them."""
    first = {"rank", "alpha", "states", "writes", "heads", "layers", "rankwise_gates", "couple_lambda", "normalize_qk",
             "update", "beta_bias", "output_init", "online_gain", "write_chunk"}  # fmt: skip
    assert set(Settings().model_dump()) == first
    assert set(Settings(recompute=64).model_dump()) == first | {"recompute"}


@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-qwen3"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"states": 4}, {"couple_lambda": False, "update": "lambda_outside"}, {"rankwise_gates": False, "rank": 3}],
    ids=str,
)
def test_the_compiled_call_of_decoding_is_the_long_way(shape, settings, make, monkeypatch):
    method = make(shape, **settings)
    ids = torch.cat((IDS, IDS.flip(1)))
    mask = torch.ones_like(ids)
    mask[1, :5] = 0

    def logits():
        cache, found = method.memory.memory_cache(batch_size=2), []
        with method.backbone.active(method.name), torch.no_grad():
            for at in range(0, 40, 8):
                found.append(
                    method.backbone.model(
                        input_ids=ids[:, at : at + 8], attention_mask=mask[:, : at + 8], past_key_values=cache
                    ).logits
                )
        return torch.cat(found, dim=1)[mask.bool()], torch.cat(cache.states)

    few = logits()
    monkeypatch.setattr(_layer, "FEW", 0)
    for a, b in zip(few, logits(), strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-5


def test_weights_are_prepared_for_a_cache_and_anew_for_the_next(make, shake):
    method = make()

    def written():
        cache = method.memory.memory_cache()
        with method.backbone.active(method.name), torch.no_grad():
            method.backbone.model(input_ids=IDS, past_key_values=cache)
        return cache

    first = written()
    assert copy.deepcopy(first).prepared[0] is first.prepared[0]  # rows are copied, weights are not
    shake(method.memory, seed=7)  # through .data, which leaves no trace that could be watched
    assert not torch.allclose(first.states[0], written().states[0], atol=1e-3)

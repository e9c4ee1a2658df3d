"""Layers on two devices: torch's fake tensors know where each would lie, and refuse what mixes two."""

from __future__ import annotations

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch._subclasses.fake_tensor import FakeTensorMode

from harness.backbones import place_of
from harness.registry import resolve
from methods.delta_mem import _layer, _model, _recurrence
from methods.delta_mem._state import stacked

HERE, THERE = torch.device("cpu"), torch.device("cpu:1")


def lay(model):
    """Put the second layer, and what is beside it, on another device; the model's modules get accelerate's hooks."""
    for name, module in model.named_modules():
        device = THERE if name.startswith("model.layers.1") else HERE
        for store in (module._parameters, module._buffers):
            for key, tensor in store.items():
                if tensor is not None:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    weight = store is module._parameters
                    store[key] = torch.nn.Parameter(empty, requires_grad=False) if weight else empty
        if "delta_mem" not in name:
            add_hook_to_module(module, AlignDevicesHook(execution_device=device, skip_keys="past_key_values"))


@pytest.fixture
def as_on_gpus(monkeypatch):
    """No look at values, which fake tensors have not, and no kernel for CPUs."""
    monkeypatch.setattr(_model, "token_mask", lambda mask, T, device: mask[:, -T:].to(device, torch.bool))
    monkeypatch.setattr(_model, "memberships", lambda segments, mask: torch.ones(*segments.shape, 1))
    for module in (_layer, _recurrence):
        monkeypatch.setattr(module, "compiles", lambda *tensors: False)


@pytest.mark.parametrize("row", ["delta_mem_tsw", "delta_mem_ssw", "delta_mem_msw"])
def test_a_state_lies_where_its_layer_is_and_nothing_mixes_two_devices(row, tiny, as_on_gpus):
    backbone = tiny("llama", attention="eager")
    cls, config = resolve(row)
    method = cls(config, backbone, 1)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), backbone.active(method.name):
        lay(backbone.model)
        decoder = backbone.model.get_decoder()
        assert [place_of(layer.self_attn.base_layer.q_proj) for layer in decoder.layers] == [HERE, THERE]
        ids, mask = torch.zeros(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)
        cache = method.memory.memory_cache(batch_size=2, keep_kv=False)  # an empty key cache lies nowhere
        cache.announce(torch.zeros(2, 8, dtype=torch.long))
        decoder(input_ids=ids, past_key_values=cache, attention_mask=mask)
        method.memory.commit(cache)
        assert [state.device for state in cache.states] == [HERE, THERE]
        value = stacked(cache.states)  # as a value, a state lies on one device
        assert value.device == HERE
        again = method.memory.memory_cache(list(value[:, None].repeat(1, 2, 1, 1, 1)), keep_kv=False)
        assert [state.device for state in again.states] == [HERE, THERE]
        again.batch_select_indices(torch.zeros(1, dtype=torch.long))
        decoder(input_ids=ids[:1, :1], past_key_values=again, attention_mask=mask[:1, :1])
        assert [state.device for state in again.states] == [HERE, THERE]

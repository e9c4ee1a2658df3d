"""δ-mem as a PEFT method: ``get_peft_model(model, DeltaMemConfig())`` and all of PEFT's verbs.

Importing this module registers the method, which ``PeftModel.from_pretrained`` needs done beforehand.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import register_peft_method
from torch import Tensor, nn
from transformers import DynamicCache

from harness.backbones import place_of
from harness.errors import HarnessError
from methods.delta_mem._cache import MemoryCache
from methods.delta_mem._config import DeltaMemConfig
from methods.delta_mem._layer import Call, DeltaMemLayer, Door


class DeltaMemModel(BaseTuner):
    """A frozen causal LM with a memory beside each self-attention module."""

    prefix = "delta_mem_"
    tuner_layer_cls = DeltaMemLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _pre_injection_hook(self, model: nn.Module, config: DeltaMemConfig, adapter_name: str) -> None:
        self.door = Door()
        self.layers: list[DeltaMemLayer] = []
        decoder = model.get_decoder()
        self._door_hooks = [
            decoder.register_forward_pre_hook(self._enter, with_kwargs=True),
            decoder.register_forward_hook(self._leave, with_kwargs=True, always_call=True),
        ]

    def _create_and_replace(
        self,
        peft_config: DeltaMemConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        if isinstance(target, DeltaMemLayer):
            target.update_layer(adapter_name, peft_config)
            return
        missing = [f"{h}_proj" for h in "qkvo" if not isinstance(getattr(target, f"{h}_proj", None), nn.Linear)]
        if missing:
            raise HarnessError(
                f"{current_key} ({type(target).__name__}) has no linear {', '.join(missing)}, which δ-mem corrects; "
                "use a backbone with separate q, k, v and o projections"
            )
        layer = DeltaMemLayer(target, self.door, len(self.layers))
        layer.update_layer(adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self.layers.append(layer)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """Put a module in another's place. PEFT's own assumes that the base layer has one weight."""
        if isinstance(child, DeltaMemLayer):
            child.unhook()
        setattr(parent, child_name, new_module)

    def unload(self) -> nn.Module:
        """Take every memory off; the backbone is then the frozen one, bit for bit."""
        for hook in self._door_hooks:
            hook.remove()
        return super().unload()

    def _check_merge_allowed(self) -> None:
        raise ValueError("δ-mem cannot be merged: its corrections depend on a state, not on weights alone")

    # --- the door: what all memories see of one forward ---

    def _enter(self, decoder: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if not self.layers or self.layers[0].disable_adapters:
            return
        cache = kwargs.get("cache", kwargs.get("past_key_values"))  # as transformers calls it since 5.24
        if not isinstance(cache, MemoryCache):
            raise HarnessError(
                "a δ-mem adapter is active but the call carries no state, so the memory would be silently off; "
                "pass past_key_values=model.memory_cache(...), or disable the adapter"
            )
        tokens = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs.get("inputs_embeds")
        tokens = args[0] if tokens is None else tokens
        B, T = tokens.shape[:2]
        mask = token_mask(kwargs.get("attention_mask"), T, tokens.device)
        if cache.states[0].shape[0] != B:
            raise HarnessError(
                f"the δ-mem state has {cache.states[0].shape[0]} rows but the batch has {B}; "
                "expand the state explicitly with batch_repeat_interleave"
            )
        segments = cache.enter()
        if segments is None:
            self.commit(cache)
        members = None if segments is None or not self._writes_segments else memberships(segments, mask)
        self.door.call = Call(self.active_adapters[0], mask, cache, members)

    def _leave(self, decoder: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        if self.door.call is not None:
            call, self.door.call = self.door.call, None
            call.cache.leave(call.mask, output.last_hidden_state.shape[1] if output is not None else 0)

    @property
    def _active_config(self) -> DeltaMemConfig:
        return self.peft_config[self.active_adapters[0]]

    @property
    def _writes_segments(self) -> bool:
        return self._active_config.memory_write_granularity != "token"

    # --- states ---

    def zero_states(self, batch_size: int = 1) -> list[Tensor]:
        """The state before anything was written: one [B, N, r, r] of zeros a memory layer.

        In fp32, or fp64 for such a backbone; in bf16 where ``state_dtype`` says so.
        """
        config, projections = self._active_config, [layer.base_layer.q_proj for layer in self.layers]
        shape = (batch_size, config.num_state_heads, config.r, config.r)
        wide = torch.promote_types(projections[0].weight.dtype, torch.float32)
        dtype = torch.bfloat16 if config.state_dtype == "bfloat16" else wide
        return [torch.zeros(shape, device=place_of(projection), dtype=dtype) for projection in projections]

    def memory_cache(self, states: list[Tensor] | None = None, *, batch_size: int = 1, **options: Any) -> MemoryCache:
        """A cache to start from, with ``states`` (default zero), each where its layer is; options as in
        :class:`MemoryCache`.
        """
        if states is None:
            states = self.zero_states(batch_size)
        else:
            places = [place_of(layer.base_layer.q_proj) for layer in self.layers]
            states = [state.to(place) for state, place in zip(states, places, strict=True)]
        return MemoryCache(self.model.config, states, **{"writes": True, **options})

    def commit(self, cache: DynamicCache) -> None:
        """End a logical call: the messages announced since the last one are written, in order."""
        if isinstance(cache, MemoryCache):
            for layer in self.layers:
                if cache.pending[layer.index] is not None:
                    layer.memory.commit(cache, layer.index)


def token_mask(attention_mask: Any, T: int, device: torch.device) -> Tensor | None:
    """Which of this call's tokens are real, [B, T] bool, from the 2-D mask alone (specification 1.6; DESIGN 4).

    None where all are; on CUDA, where looking would make the host wait, only if there is no mask.

    Raises:
        HarnessError: another form of mask. What a 4-D mask means differs between attention backends, and
            guessing is how a memory gets silently turned off.
    """
    if attention_mask is None:
        return None
    if not isinstance(attention_mask, Tensor) or attention_mask.dim() != 2:
        raise HarnessError("δ-mem needs the 2-D attention mask [batch, tokens]; pass that instead of a prepared one")
    mask = attention_mask[:, -T:].to(device=device, dtype=torch.bool)
    return None if device.type == "cpu" and bool(mask.all()) else mask


def memberships(segments: Tensor, mask: Tensor | None) -> Tensor:
    """[B, T, M], 1 where a real token belongs to a segment, from ids [B, T] with -1 for none."""
    active = segments >= 0 if mask is None else (segments >= 0) & mask
    count = max(int(segments.max()) + 1, 1)
    return torch.nn.functional.one_hot(segments.clamp_min(0), count) * active.unsqueeze(-1)


register_peft_method(name="delta_mem", config_cls=DeltaMemConfig, model_cls=DeltaMemModel)

"""δ-mem on a tiny backbone, shaken out of its small initial values so that every part of it shows in the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def shake() -> Callable[..., None]:
    """Adds seeded noise to the parameters of the active memories."""
    import torch

    def move(model: Any, size: float = 0.3, seed: int = 1) -> None:
        rng = torch.Generator().manual_seed(seed)
        for layer in model.layers:
            for parameter in layer.memory.parameters():
                noise = torch.randn(parameter.shape, generator=rng)
                parameter.data.add_((size * noise).to(parameter))

    return move


@pytest.fixture
def attached(tiny, shake) -> Callable[..., Any]:
    """Builds a tiny model and puts a shaken memory on it: the DeltaMemModel, steering."""
    from peft import get_peft_model

    from methods.delta_mem._model import DeltaMemConfig

    def build(family: str = "llama", attention: str = "sdpa", backbone: Any = None, **config: Any) -> Any:
        backbone = backbone or tiny(family, attention=attention)
        memory = get_peft_model(backbone.model, DeltaMemConfig(**config)).eval().base_model
        shake(memory)
        return memory

    return build


@pytest.fixture
def feed() -> Callable[..., Any]:
    """Feeds tokens, whole or in chunks on a KV cache, as one logical call: (cache, logits [B, T, vocabulary])."""
    import torch

    def run(
        memory: Any,
        ids: Any,
        *,
        owner: Any = None,
        mask: Any = None,
        chunk: int | None = None,
        cache: Any = None,
        **options: Any,
    ) -> Any:
        B, T = ids.shape
        mask = torch.ones_like(ids) if mask is None else mask
        cache = memory.memory_cache(batch_size=B, **options) if cache is None else cache
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        logits = []
        with torch.no_grad():
            for at in range(0, T, chunk or T):
                part = slice(at, at + (chunk or T))
                if owner is not None:
                    cache.announce(owner[:, part])
                logits.append(
                    memory.model(
                        input_ids=ids[:, part],
                        attention_mask=mask[:, : part.stop],
                        position_ids=positions[:, part],
                        past_key_values=cache,
                    ).logits
                )
            if owner is not None:
                memory.commit(cache)
        return cache, torch.cat(logits, dim=1)

    return run

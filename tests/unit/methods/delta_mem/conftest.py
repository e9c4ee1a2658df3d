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


@pytest.fixture(scope="session")
def problem() -> Callable[..., Any]:
    """Makes arguments of a scan: unit keys and queries as the memory makes them, gates, a state that is not zero."""
    import torch

    def make(T, *, B=2, N=2, r=8, rankwise=True, dtype=torch.float64, seed=0, log_lambda=None, beta=None):
        rng = torch.Generator().manual_seed(seed)
        normal = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)  # noqa: E731
        unit = lambda x: x / x.norm(dim=-1, keepdim=True)  # noqa: E731
        z = normal(B, T, N, r if rankwise else 1)
        log_keep = torch.nn.functional.logsigmoid(-z) if log_lambda is None else torch.full_like(z, log_lambda)
        write = z.sigmoid() if beta is None else torch.full_like(z, beta)
        made = (unit(normal(B, T, N, r)), unit(normal(B, T, N, r)), normal(B, T, N, r), log_keep, write.clone(), write)
        return tuple(x.to(dtype) for x in (*made, normal(B, N, r, r)))

    return make


@pytest.fixture(scope="session")
def far() -> Callable[..., float]:
    """Largest difference over outputs, relative to the largest entry of the second."""

    def distance(a, b):
        return max(
            float((x.double() - y.double()).abs().max() / y.double().abs().max().clamp_min(1e-30))
            for x, y in zip(a, b, strict=True)
        )

    return distance

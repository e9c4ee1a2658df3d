"""Adapters as values: trained on pairs, kept as tensors, put into the attached one, merged."""

from __future__ import annotations

import contextlib
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.method import MemoryState

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from baselines.context2lora import Context2Lora, Settings
    from harness.training import Reads

Adapter = dict[str, "Tensor"]
"""Low-rank factors in bf16 by the name of their parameter."""
Merge = Literal["ties", "linear", "cat"]


@dataclass(frozen=True, eq=False)
class Adapters(MemoryState):
    """One adapter a history, or one a chunk with the vector that the router compares questions with."""

    adapters: tuple[Adapter, ...]
    keys: np.ndarray | None
    """Unit vectors of the chunks [N, D], fp32; None for one adapter a history."""
    facts: dict[str, Any]
    """Pairs by source, steps, the last loss: for the record."""

    def nbytes(self) -> int:
        """Two bytes a parameter, and the chunks' vectors."""
        tensors = sum(t.numel() * t.element_size() for a in self.adapters for t in a.values())
        return tensors + (0 if self.keys is None else self.keys.nbytes)

    def describe(self) -> dict[str, Any]:
        parameters = sum(t.numel() for t in self.adapters[0].values())
        return {"kind": "adapter", "adapters": len(self.adapters), "parameters": parameters, **self.facts}

    def save(self, directory: Path) -> None:
        import torch
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        tensors = {f"{n}.{name}": t for n, a in enumerate(self.adapters) for name, t in a.items()}
        keys = {} if self.keys is None else {"keys": torch.from_numpy(self.keys)}
        save_file({**tensors, **keys}, directory / "adapters.safetensors")
        (directory / "facts.json").write_text(json.dumps(self.facts, sort_keys=True))

    @classmethod
    def load(cls, directory: Path) -> Adapters:
        from safetensors.torch import load_file

        tensors = load_file(directory / "adapters.safetensors")
        keys = tensors.pop("keys", None)
        count = 1 + max(int(name.partition(".")[0]) for name in tensors)
        found: tuple[Adapter, ...] = tuple({} for _ in range(count))
        for name in sorted(tensors):
            n, _, parameter = name.partition(".")
            found[int(n)][parameter] = tensors[name]
        facts = json.loads((directory / "facts.json").read_text())
        return cls(found, None if keys is None else keys.numpy(), facts)


@dataclass(frozen=True)
class Wear:
    """Puts chosen adapters of a state into the attached one; equal for the same state and choice."""

    method: Context2Lora
    state: Adapters
    chosen: tuple[int, ...]

    @contextlib.contextmanager
    def __call__(self, model: Any) -> Iterator[None]:
        worn = merged([self.state.adapters[n] for n in self.chosen], self.method.config.merge)
        own = {name: p.data for name, p in factors(self.method.peft).items()}
        try:
            for name, p in factors(self.method.peft).items():
                p.data = worn[name].to(p.device, p.dtype)
            yield
        finally:
            for name, p in factors(self.method.peft).items():
                p.data = own[name]


def factors(peft: Any) -> dict[str, Any]:
    """The parameters of the attached adapter by name."""
    return {name: p for name, p in peft.named_parameters() if "lora_" in name}


def merged(adapters: Sequence[Adapter], how: Merge) -> Adapter:
    """One adapter of several, each with weight 1 / n, as PEFT's ``add_weighted_adapter`` merges them.

    ``ties`` keeps the larger half of each factor and the sign with the larger total; ``cat`` is the exact mean, of n
    times the rank. The scaling alpha / r is left to the layer that wears the result.
    """
    import torch
    from peft.utils.merge_utils import task_arithmetic, ties

    if len(adapters) == 1:
        return adapters[0]
    weights = torch.full((len(adapters),), len(adapters) ** -0.5)
    found = {}
    for name in adapters[0]:
        parts = [a[name].float() for a in adapters]
        if how == "ties":
            found[name] = ties(parts, weights, density=0.5, majority_sign_method="total")
        elif how == "linear":
            found[name] = task_arithmetic(parts, weights)
        else:
            found[name] = torch.cat([p * weights[0] for p in parts], dim=0 if "lora_A" in name else 1)
    return found


def train(method: Context2Lora, rows: Sequence[tuple[list[int], int]], seed: int) -> tuple[Adapter, float]:
    """Train the attached adapter from a fresh start on (token ids, where the answer begins).

    A loop of its own: transformers.Trainer wants a folder, a data set and a callback for each of many small fits.
    AdamW without decay, warm-up and cosine, gradients clipped at 1, as the official code.

    Returns:
        The adapter, rounded to bf16, and the loss of the last step (nats a token).
    """
    import torch
    from peft.tuners.lora import LoraLayer
    from transformers import get_cosine_schedule_with_warmup

    from harness import training

    config, backbone, steps = method.config, method.backbone, method.config.steps_for(len(rows))
    devices = [backbone.device] if backbone.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.enable_grad(),
        backbone.active(method.name),
        contextlib.ExitStack() as stack,
    ):
        torch.manual_seed(seed)
        for module in method.peft.modules():
            if isinstance(module, LoraLayer):
                module.reset_lora_parameters(method.peft.active_adapter, init_lora_weights=True)
        parameters = [*factors(method.peft).values()]
        optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
        warmup = math.ceil(config.warmup_ratio * steps)
        schedule = get_cosine_schedule_with_warmup(optimiser, warmup, steps)
        method.peft.train()
        stack.callback(method.peft.eval)  # dropout would go on after a write that fails
        last = float("nan")
        for batch in _batches(rows, config, steps, seed, lambda some: training.reads(backbone, some, 2048)):
            loss = training.answer_loss(method.peft, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            method.effort.gradient_steps += 1
            method.effort.lm_calls += len(batch.ids)
            method.effort.tokens_read += int(batch.mask.sum())
            last = loss.item()
        kept = {
            name: p.detach().to("cpu", torch.bfloat16, copy=True).contiguous()
            for name, p in factors(method.peft).items()
        }
    return kept, last


def _batches(
    rows: Sequence[tuple[list[int], int]], config: Settings, steps: int, seed: int, collate: Any
) -> Iterator[Reads]:
    """As many batches as there are steps, pass after pass over the shuffled rows."""
    rng = random.Random(seed)
    queue: list[int] = []
    size = min(config.batch_size, len(rows))
    for _ in range(steps):
        while len(queue) < size:
            queue += rng.sample(range(len(rows)), len(rows))
        yield collate([rows[n] for n in queue[:size]])
        queue = queue[size:]

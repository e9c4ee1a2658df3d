"""What δ-mem keeps of a history, as values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.method import MemoryState


@dataclass(frozen=True, eq=False)
class DeltaState(MemoryState):
    """S after a history: one state a layer and head."""

    S: Tensor
    """[layers, N, r, r]"""
    tokens: int
    """History tokens written."""

    def nbytes(self) -> int:
        return self.S.numel() * self.S.element_size()

    def describe(self) -> dict[str, Any]:
        norms = self.S.flatten(1).norm(dim=1)
        return {
            "kind": "matrix",
            "shape": list(self.S.shape),
            "tokens": self.tokens,
            "norm": round(float(norms.mean()), 4),
        }

    def rows(self, batch_size: int = 1) -> list[Tensor]:
        """One [B, N, r, r] a layer, every row this state."""
        return [s.unsqueeze(0).repeat(batch_size, 1, 1, 1) for s in self.S]

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        save_file({"S": self.S.contiguous()}, directory / "state.safetensors")
        (directory / "state.json").write_text(json.dumps({"tokens": self.tokens}))

    @classmethod
    def load(cls, directory: Path) -> DeltaState:
        tokens = json.loads((directory / "state.json").read_text())["tokens"]
        return cls(load_file(directory / "state.safetensors")["S"], tokens)


@dataclass(frozen=True, eq=False)
class Trace(MemoryState):
    """What a memory read at each position of some prompt and of its answer: the donor under ``replayed``."""

    prompt: Tensor
    """[layers, T, R]"""
    answer: Tensor
    """[layers, A, R]"""

    def nbytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in (self.prompt, self.answer))

    def describe(self) -> dict[str, Any]:
        return {"kind": "reads", "prompt": list(self.prompt.shape), "answer": list(self.answer.shape)}

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {"prompt": self.prompt.contiguous(), "answer": self.answer.contiguous()}
        save_file(tensors, directory / "reads.safetensors")

    @classmethod
    def load(cls, directory: Path) -> Trace:
        return cls(**load_file(directory / "reads.safetensors"))


def stacked(states: list[Tensor]) -> Tensor:
    """[layers, N, r, r] of the only row of a batch."""
    return torch.stack([s[0] for s in states])


@dataclass(frozen=True)
class Start:
    """Makes fresh caches that start from a state; equal starts let questions share a batch."""

    memory: Any
    state: MemoryState | None
    writes: bool
    generated: bool = True
    """Whether the answer's tokens are written with the prompt's."""

    def __call__(self) -> Any:
        if isinstance(self.state, Trace):
            return self.memory.memory_cache(writes=False, replayed=(self.state.prompt, self.state.answer))
        rows = self.state.rows() if isinstance(self.state, DeltaState) else None
        return self.memory.memory_cache(rows, writes=self.writes, generated=self.generated)

"""What δ-mem keeps of a history, as values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.method import MemoryState
from methods.delta_mem._cache import Tally, together


@dataclass(frozen=True)
class Gates:
    """How wide the gates stood while a history was written: told of a state, not needed to go on from it."""

    write: tuple[float, ...]
    """β a layer, mean over writes and gate entries."""
    forget: tuple[float, ...]
    """1 - λ alike, where λ is a gate of its own; else none."""
    writes: int
    """Tokens or, of message writes, messages."""

    @classmethod
    def of(cls, tallies: list[Tally], coupled: bool) -> Gates:
        """From what the memories of a cache have summed."""
        writes = tallies[0].writes
        sums = [(t.sums / writes).tolist() if t.sums is not None and writes else [0.0, 0.0] for t in tallies]
        return cls(tuple(s[0] for s in sums), () if coupled else tuple(s[1] for s in sums), writes)

    def __add__(self, other: Gates) -> Gates:
        """Of both histories, one after the other."""
        total = max(self.writes + other.writes, 1)

        def mean(ours: tuple[float, ...], theirs: tuple[float, ...]) -> tuple[float, ...]:
            return tuple((a * self.writes + b * other.writes) / total for a, b in zip(ours, theirs, strict=True))

        return Gates(mean(self.write, other.write), mean(self.forget, other.forget), self.writes + other.writes)


@dataclass(frozen=True, eq=False)
class DeltaState(MemoryState):
    """S after a history: one state a layer and head."""

    S: Tensor
    """[layers, N, r, r]"""
    tokens: int
    """History tokens written."""
    gates: Gates | None = None
    """None of a state that was saved before they were told, and of one that nobody has written: a mean."""

    def nbytes(self) -> int:
        return self.S.numel() * self.S.element_size()

    def describe(self) -> dict[str, Any]:
        norms = self.S.flatten(1).norm(dim=1)
        return {
            "kind": "matrix",
            "shape": list(self.S.shape),
            "tokens": self.tokens,
            "norm": round(float(norms.mean()), 4),
            "layers": self._layers(norms),
        }

    def _layers(self, norms: Tensor) -> dict[str, list[float]]:
        """What there is to tell of each layer: ``norm``, ``write_gate`` and, uncoupled, ``forget_gate``."""
        told = {"norm": norms.tolist()}
        if self.gates is not None:
            told |= {"write_gate": list(self.gates.write), "forget_gate": list(self.gates.forget)}
        return {name: [round(value, 4) for value in values] for name, values in told.items() if values}

    def rows(self, batch_size: int = 1) -> list[Tensor]:
        """One [B, N, r, r] a layer, every row this state."""
        return [s.unsqueeze(0).repeat(batch_size, 1, 1, 1) for s in self.S]

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        save_file({"S": self.S.contiguous()}, directory / "state.safetensors")
        gates = {"gates": asdict(self.gates)} if self.gates else {}
        (directory / "state.json").write_text(json.dumps({"tokens": self.tokens, **gates}))

    @classmethod
    def load(cls, directory: Path) -> DeltaState:
        told = json.loads((directory / "state.json").read_text())
        known = told.get("gates")
        gates = Gates(tuple(known["write"]), tuple(known["forget"]), known["writes"]) if known else None
        return cls(load_file(directory / "state.safetensors")["S"], told["tokens"], gates)


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
    return torch.stack(together(s[0] for s in states))


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

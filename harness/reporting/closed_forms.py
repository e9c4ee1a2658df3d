"""Trainable parameters in closed form: arithmetic on a backbone's shape, without torch.

A test holds them against the modules themselves (:mod:`harness.parameters`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

SHAPES = Path(__file__).parents[1] / "shapes"


class Shape(NamedTuple):
    """What of a backbone's configuration its parameters depend on."""

    layers: int
    hidden: int
    query: int
    """Width of all query heads together."""
    key: int
    """Width of all key heads together, and of all value heads."""
    head: int
    inner: int
    """Width within an MLP."""
    vocabulary: int

    @property
    def heads(self) -> dict[str, int]:
        """Output width of each projection."""
        return {"q": self.query, "k": self.key, "v": self.key, "o": self.hidden}

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Input and output width of the seven linear maps of a layer."""
        attention = {name: (self.query if name == "o" else self.hidden, width) for name, width in self.heads.items()}
        return attention | {
            "gate": (self.hidden, self.inner),
            "up": (self.hidden, self.inner),
            "down": (self.inner, self.hidden),
        }


def shape(name: str = "qwen3-4b") -> Shape:
    """Of a file under ``harness/shapes``."""
    told = json.loads((SHAPES / f"{name}.json").read_text(encoding="utf-8"))
    head = told["head_dim"]
    return Shape(
        layers=told["num_hidden_layers"],
        hidden=told["hidden_size"],
        query=told["num_attention_heads"] * head,
        key=told["num_key_value_heads"] * head,
        head=head,
        inner=told["intermediate_size"],
        vocabulary=told["vocab_size"],
    )


def backbone(of: Shape) -> int:
    """A Qwen3 with tied embeddings: linear maps, two norms a layer, one a head of q and k, one at the end."""
    linears = sum(inputs * outputs for inputs, outputs in of.linears.values())
    return of.layers * (linears + 2 * of.hidden + 2 * of.head) + of.hidden + of.vocabulary * of.hidden


def delta_mem(of: Shape, rank: int = 8, states: int = 1, heads: str = "qo") -> int:
    """q, k, v and write gate of each state from the hidden state, a bias a gate, and a read-out a corrected head."""
    return of.layers * states * rank * (4 * of.hidden + 1 + sum(of.heads[head] for head in heads))


def lora(of: Shape, rank: int = 8, targets: tuple[str, ...] = ("q", "k", "v", "o")) -> int:
    """r (d_in + d_out) an adapted map."""
    return of.layers * rank * sum(sum(of.linears[target]) for target in targets)


def memgen(of: Shape, rank: int = 8, latents: int = 16) -> int:
    """Weaver and trigger (an adapter each on all seven maps), two maps between embeddings, latents, norms, a head."""
    adapters = 2 * lora(of, rank, tuple(of.linears))
    between = 2 * (of.hidden**2 + of.hidden)
    norms = 2 * (2 * of.hidden + 1)
    return adapters + between + latents * of.hidden + norms + 2 * of.hidden + 2


def mlp_memory(of: Shape, blocks: int | None = None) -> int:
    """Gated MLPs of the backbone's own size, as many as it has layers, each with a norm; a last norm; an own head."""
    block = 3 * of.hidden * of.inner + of.hidden
    return (blocks or of.layers) * block + of.hidden + of.vocabulary * of.hidden

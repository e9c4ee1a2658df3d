"""The validity gates of δ-mem (RIGOR 1): is the memory on, alike in every way of running it, and isolated?

They run on a probe of the job's own episodes, under the run's backbone, dtype and attention backend, before the
first episode. Equality gates run twice: sharp, in fp32, and in situ, in the run's dtype.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from harness.backbones import Backbone
from harness.episodes import Episode, Message
from harness.gates import (
    DRAWS,
    GateOutcome,
    attention,
    frozen_backbone,
    in_dtype,
    in_fp32,
    in_situ,
    last_bits,
    relative,
    require,
    sharp,
)
from methods.delta_mem import _plain
from methods.delta_mem._cache import together

if TYPE_CHECKING:
    from methods.delta_mem import DeltaMem

TOKENS = 96
"""Tokens of a probe at most: enough for several chunks and messages."""
PLAIN_TOKENS = 40
"""Tokens that the plain second writing goes through, one by one."""


@dataclass(frozen=True)
class Way:
    """One of the ways to feed the same history."""

    gap: int = 0
    """Tokens of padding."""
    pad: str = "left"
    chunk: int | None = None
    """Tokens at a time; all of them by default."""
    beside: bool = False
    """Another history in the same batch."""
    attention: str = ""
    """Backend; the run's by default."""


WAYS = {
    "padding_left": Way(gap=7),
    "padding_right": Way(gap=7, pad="right"),
    "batch": Way(beside=True),
    "chunks": Way(chunk=13),
    "eager": Way(attention="eager"),
    "sdpa": Way(attention="sdpa"),
}


@dataclass
class Probe:
    """A history and a question, as tokens."""

    ids: list[int]
    owner: list[int]
    question: list[int]


@dataclass
class Outcome:
    """What one way of running gives: the state after the write, and logits of a read from it."""

    states: Tensor
    """[layers, N, r, r]"""
    written: Tensor
    """Hidden states of the write's real tokens, [T, H]."""
    logits: Tensor
    """[T, vocabulary], of the question read from the state."""

    def pairs(self, other: Outcome) -> list[tuple[Tensor, Tensor]]:
        return [(self.states, other.states), (self.written, other.written), (self.logits, other.logits)]


def run(method: DeltaMem, episodes: Sequence[Episode]) -> list[GateOutcome]:
    """All gates, cheapest first.

    Raises:
        GateError: one failed.
    """
    probes = [_probe(method, e) for e in episodes[:2]]
    if len(probes) < 2 or probes[0].ids == probes[1].ids:  # two histories may end alike
        probes[1:] = [Probe(probes[0].ids[::-1], probes[0].owner, probes[0].question)]
    first, second = probes
    backbone = method.backbone
    bare = {"input_ids": torch.tensor([first.question], device=backbone.device)}
    with torch.no_grad():
        frozen = backbone.model(**bare).logits
        own = _whole(method, first)
        zero = _read(method, [torch.zeros_like(s) for s in method.memory.zero_states()], first.question)
        results = _activity(method, first, own, zero)
        results += _isolation(method, first, second, own, zero, frozen)
        results += _equality(method, first, second, own, zero)
    results.append(frozen_backbone(backbone, frozen, bare))
    return results


def _probe(method: DeltaMem, episode: Episode) -> Probe:
    backbone = method.backbone
    ids, owner = backbone.encode(episode.history.messages, system=episode.history.system, unit=method.unit)
    question, _ = backbone.encode([Message(episode.questions[0].text)], system=episode.history.system, answer_next=True)
    return Probe(ids[-TOKENS:], owner[-TOKENS:], question[-TOKENS:])


# --- ways of running ---


def _write(
    method: DeltaMem, rows: Sequence[Probe], way: Way = Way(), memory: bool = True
) -> tuple[Any, Tensor, Tensor]:
    """Cache, hidden states and mask of a batch, fed in one of the ways, with the memory or to the bare backbone."""
    backbone = method.backbone
    width = max(len(p.ids) for p in rows) + way.gap
    left = way.pad == "left"
    place = lambda row, fill: [fill] * (width - len(row)) + row if left else row + [fill] * (width - len(row))  # noqa: E731
    tensor = lambda rows: torch.tensor(rows, device=backbone.device)  # noqa: E731
    ids = tensor([place(p.ids, backbone.pad_token_id) for p in rows])
    mask = tensor([place([1] * len(p.ids), 0) for p in rows])
    owner = tensor([place(p.owner, -1) for p in rows])
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    cache = method.memory.memory_cache(batch_size=len(rows)) if memory else DynamicCache(config=backbone.model.config)
    hidden = []
    with backbone.active(method.name) if memory else contextlib.nullcontext():
        for at in range(0, width, way.chunk or width):
            end = min(width, at + (way.chunk or width))
            if memory:
                cache.announce(owner[:, at:end])
            hidden.append(
                backbone.model.get_decoder()(
                    input_ids=ids[:, at:end],
                    attention_mask=mask[:, :end],
                    position_ids=positions[:, at:end],
                    past_key_values=cache,
                ).last_hidden_state
            )
        if memory:
            method.memory.commit(cache)
    return cache, torch.cat(hidden, dim=1), mask.bool()


def _read(method: DeltaMem, states: Sequence[Tensor], question: Sequence[int]) -> Tensor:
    """Logits [T, vocabulary] of a question read from states, writes off."""
    cache = method.memory.memory_cache([s[:1] for s in states], writes=False)
    with method.backbone.active(method.name):
        ids = torch.tensor([list(question)], device=method.backbone.device)
        return method.backbone.model(input_ids=ids, past_key_values=cache).logits[0]


def _fed_by(method: DeltaMem, way: Way, probe: Probe, other: Probe) -> Outcome:
    """What a history gives that is written in one of the ways."""
    with _backend(method.backbone, way):
        cache, hidden, mask = _write(method, _rows(way, probe, other), way)
        one = [s[:1] for s in cache.states]
        return Outcome(torch.cat(together(one)), hidden[0][mask[0]], _read(method, one, probe.question))


def _bare(method: DeltaMem, way: Way, probe: Probe, other: Probe) -> Tensor:
    """Logits [T, vocabulary] of a history's tokens by the frozen backbone, fed in the same way."""
    with _backend(method.backbone, way):
        _, hidden, mask = _write(method, _rows(way, probe, other), way, memory=False)
        return method.backbone.model.get_output_embeddings()(hidden[0][mask[0]])


def _rows(way: Way, probe: Probe, other: Probe) -> list[Probe]:
    return [probe, other] if way.beside else [probe]


def _backend(backbone: Backbone, way: Way) -> contextlib.AbstractContextManager[None]:
    return attention(backbone, way.attention) if way.attention else contextlib.nullcontext()


def _whole(method: DeltaMem, probe: Probe) -> Outcome:
    return _fed_by(method, Way(), probe, probe)


# --- gates ---


def _activity(method: DeltaMem, probe: Probe, own: Outcome, zero: Tensor) -> list[GateOutcome]:
    """The state moves on every chunk with a writable token, and a non-zero state corrects."""
    half = Probe(probe.ids[: len(probe.ids) // 2], probe.owner[: len(probe.ids) // 2], probe.question)
    early = torch.cat(together(s[:1] for s in _write(method, [half])[0].states))
    moved = min(
        float(early.flatten(1).norm(dim=1).min()),
        float((own.states - early).flatten(1).norm(dim=1).min()),
    )
    effect = relative(own.logits, zero)
    return [
        require("activity.state", moved > 0, "a layer's state does not move while a history is written", moved, 0.0),
        require("activity.read", effect > 0, "reading from a written state changes no logit", effect, 0.0),
    ]


def _isolation(
    method: DeltaMem, first: Probe, second: Probe, own: Outcome, zero: Tensor, frozen: Tensor
) -> list[GateOutcome]:
    """Same history, same state; nothing crosses between episodes; a zero state is the frozen backbone."""
    other = _whole(method, second)
    again = _whole(method, first)
    same = float((again.states - own.states).abs().max())
    apart = relative(other.states, own.states)
    nothing = relative(zero, frozen[0])
    return [
        require("isolation.same_history", same == 0, f"the same history gave two states, {same:.1e} apart", same, 0.0),
        require("isolation.other_history", apart > 0, "two histories gave one state", apart, 0.0),
        require(
            "isolation.zero_state",
            nothing == 0,
            f"a zero state with writes off differs from the frozen backbone by {nothing:.1e}",
            nothing,
            0.0,
        ),
    ]


def _equality(method: DeltaMem, first: Probe, second: Probe, own: Outcome, zero: Tensor) -> list[GateOutcome]:
    """Padding, batch, chunks and attention backend change nothing: sharp in fp32, then in the run's dtype."""
    backbone = method.backbone
    by = lambda: {name: _fed_by(method, way, first, second) for name, way in WAYS.items()}  # noqa: E731
    results = []
    with in_fp32(backbone):
        base, outcomes = _whole(method, first), by()
        results.append(sharp("equality.feed.sharp", [(_fed(method, first), base.states)]))
        results.append(sharp("equality.definition.sharp", _definition(method, first)))
    results += [sharp(f"equality.{name}.sharp", outcome.pairs(base)) for name, outcome in outcomes.items()]
    effect, noise = relative(own.logits, zero), 0.0
    if backbone.dtype != torch.float32:
        outcomes, noise = by(), _noise(method, first, own)
        rounded = relative(own.logits, base.logits)
        results.append(in_dtype("equality.dtype.in_situ", rounded, noise, effect, backbone.dtype))
    plain = _bare(method, Way(), first, second)
    for name, outcome in outcomes.items():
        difference = relative(outcome.logits, own.logits)
        bare = relative(_bare(method, WAYS[name], first, second), plain)
        results.append(in_situ(f"equality.{name}.in_situ", difference, bare, noise, effect, backbone.dtype))
    return results


def _noise(method: DeltaMem, probe: Probe, own: Outcome) -> float:
    """What the last bits of embeddings do to the answer, written and read anew."""
    found = []
    for seed in range(DRAWS):
        with last_bits(method.backbone, seed):
            found.append(relative(_whole(method, probe).logits, own.logits))
    return max(found)


def _fed(method: DeltaMem, probe: Probe) -> Tensor:
    """States [layers, N, r, r] by the path that an evaluation writes on, cut into several chunks."""
    cache = method.memory.memory_cache()
    method.feed(cache, probe.ids, probe.owner, chunk=13)
    method.memory.commit(cache)
    return torch.cat(together(cache.states))


def _definition(method: DeltaMem, probe: Probe) -> list[tuple[Tensor, Tensor]]:
    """States and corrections of the first and last memory beside those of a plain second writing."""
    probe = Probe(probe.ids[-PLAIN_TOKENS:], probe.owner[-PLAIN_TOKENS:], probe.question[-PLAIN_TOKENS:])
    pairs = []
    for layer in (method.memory.layers[0], method.memory.layers[-1]):
        memory = layer.memory
        with _plain.watched(layer) as seen:
            states = _write(method, [probe])[0].states
            _read(method, states, probe.question)
        owner = probe.owner if memory.config.memory_write_granularity != "token" else None
        S = torch.zeros_like(states[layer.index][0])
        for (x, found), messages, writes in zip(seen, (owner, None), (True, False), strict=True):
            reads, S = _plain.scan(memory, x, S, messages, writes)
            pairs += [(found[head], delta) for head, delta in _plain.corrections(memory, reads).items()]
        pairs.append((states[layer.index][0], S))
    return pairs

"""The validity gates of δ-mem (RIGOR 1): is the memory on, alike in every way of running it, and isolated?

They run on a probe of the job's own episodes, under the run's backbone, dtype and attention backend, before the
first episode. Equality gates run twice: sharp, in fp32, and in situ, in the run's dtype.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.backbones import Backbone
from harness.episodes import Episode, Message
from harness.gates import GateOutcome, attention, frozen_backbone, in_situ, relative, require, sharp
from methods.delta_mem import _plain
from methods.delta_mem._cache import together

if TYPE_CHECKING:
    from methods.delta_mem import DeltaMem

TOKENS = 96
"""Tokens of a probe at most: enough for several chunks and messages."""
PLAIN_TOKENS = 40
"""Tokens that the plain second writing goes through, one by one."""


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
    method: DeltaMem, rows: Sequence[Probe], chunk: int | None = None, pad: str = "left", gap: int = 0
) -> tuple[list[Tensor], Tensor, Tensor]:
    """States, hidden states and mask of a batch, padded by at least ``gap``, fed whole or in chunks."""
    backbone = method.backbone
    width = max(len(p.ids) for p in rows) + gap
    place = lambda row, fill: [fill] * (width - len(row)) + row if pad == "left" else row + [fill] * (width - len(row))  # noqa: E731
    tensor = lambda rows: torch.tensor(rows, device=backbone.device)  # noqa: E731
    ids = tensor([place(p.ids, backbone.pad_token_id) for p in rows])
    mask = tensor([place([1] * len(p.ids), 0) for p in rows])
    owner = tensor([place(p.owner, -1) for p in rows])
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    cache = method.memory.memory_cache(batch_size=len(rows))
    hidden = []
    with backbone.active(method.name):
        for at in range(0, width, chunk or width):
            end = min(width, at + (chunk or width))
            cache.announce(owner[:, at:end])
            hidden.append(
                backbone.model.get_decoder()(
                    input_ids=ids[:, at:end],
                    attention_mask=mask[:, :end],
                    position_ids=positions[:, at:end],
                    past_key_values=cache,
                ).last_hidden_state
            )
        method.memory.commit(cache)
    return cache.states, torch.cat(hidden, dim=1), mask.bool()


def _read(method: DeltaMem, states: Sequence[Tensor], question: Sequence[int]) -> Tensor:
    """Logits [T, vocabulary] of a question read from states, writes off."""
    cache = method.memory.memory_cache([s[:1] for s in states], writes=False)
    with method.backbone.active(method.name):
        ids = torch.tensor([list(question)], device=method.backbone.device)
        return method.backbone.model(input_ids=ids, past_key_values=cache).logits[0]


def _outcome(method: DeltaMem, probe: Probe, row: int, written: tuple[list[Tensor], Tensor, Tensor]) -> Outcome:
    states, hidden, mask = written
    one = [s[row : row + 1] for s in states]
    return Outcome(torch.cat(together(one)), hidden[row][mask[row]], _read(method, one, probe.question))


def _whole(method: DeltaMem, probe: Probe) -> Outcome:
    return _outcome(method, probe, 0, _write(method, [probe]))


@contextlib.contextmanager
def _fp32(backbone: Backbone) -> Iterator[None]:
    """The model in fp32 inside the block: the same weights, since every bf16 number is an fp32 number.

    Tensors are widened and narrowed one by one: what is fp32 in a bf16 model (RoPE's frequencies) must stay so.
    """
    model = backbone.model
    narrow = [(t, t.dtype) for t in (*model.parameters(), *model.buffers()) if t.dtype in (torch.bfloat16, torch.half)]
    for tensor, _ in narrow:
        tensor.data = tensor.data.float()
    try:
        yield
    finally:
        for tensor, dtype in narrow:
            tensor.data = tensor.data.to(dtype)


# --- gates ---


def _activity(method: DeltaMem, probe: Probe, own: Outcome, zero: Tensor) -> list[GateOutcome]:
    """The state moves on every chunk with a writable token, and a non-zero state corrects."""
    half = Probe(probe.ids[: len(probe.ids) // 2], probe.owner[: len(probe.ids) // 2], probe.question)
    early = torch.cat(together(s[:1] for s in _write(method, [half])[0]))
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
    ways: dict[str, Callable[[], Outcome]] = {
        "padding_left": lambda: _outcome(method, first, 0, _write(method, [first], gap=7)),
        "padding_right": lambda: _outcome(method, first, 0, _write(method, [first], pad="right", gap=7)),
        "batch": lambda: _outcome(method, first, 0, _write(method, [first, second])),
        "chunks": lambda: _outcome(method, first, 0, _write(method, [first], chunk=13)),
        "eager": lambda: _with_attention(method, first, "eager"),
        "sdpa": lambda: _with_attention(method, first, "sdpa"),
    }
    results = []
    with _fp32(backbone):
        base = _whole(method, first)
        outcomes = {name: way() for name, way in ways.items()}
        results.append(sharp("equality.feed.sharp", [(_fed(method, first), base.states)]))
        results.append(sharp("equality.definition.sharp", _definition(method, first)))
    results += [sharp(f"equality.{name}.sharp", outcome.pairs(base)) for name, outcome in outcomes.items()]
    if backbone.dtype != torch.float32:
        outcomes = {name: way() for name, way in ways.items()}
    effect = relative(own.logits, zero)
    for name, outcome in outcomes.items():
        difference = relative(outcome.logits, own.logits)
        bare = _bare(backbone, first, name)
        results.append(in_situ(f"equality.{name}.in_situ", difference, bare, effect, backbone.dtype))
    return results


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
            states = _write(method, [probe])[0]
            _read(method, states, probe.question)
        owner = probe.owner if memory.config.memory_write_granularity != "token" else None
        S = torch.zeros_like(states[layer.index][0])
        for (x, found), messages, writes in zip(seen, (owner, None), (True, False), strict=True):
            reads, S = _plain.scan(memory, x, S, messages, writes)
            pairs += [(found[head], delta) for head, delta in _plain.corrections(memory, reads).items()]
        pairs.append((states[layer.index][0], S))
    return pairs


def _with_attention(method: DeltaMem, probe: Probe, implementation: str) -> Outcome:
    with attention(method.backbone, implementation):
        return _whole(method, probe)


def _bare(backbone: Backbone, probe: Probe, way: str) -> float:
    """What the frozen backbone itself differs by between the run's way and ``way``, on the question's logits."""

    def logits(gap: int = 0, rows: int = 1) -> Tensor:
        question = [backbone.pad_token_id] * gap + probe.question
        ids: Any = torch.tensor([question] * rows, device=backbone.device)
        mask = torch.tensor([[0] * gap + [1] * len(probe.question)] * rows, device=backbone.device)
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        return backbone.model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[0, gap:]

    base = logits()
    if way in ("eager", "sdpa"):
        with attention(backbone, way):
            return relative(logits(), base)
    return relative(logits(gap=7) if way.startswith("padding") else logits(rows=2), base)

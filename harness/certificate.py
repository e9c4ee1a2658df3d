"""The gates that every method passes before its first answer, and the certificate that its records carry.

A method's own gates look inside of it. These look at answers alone, on the very path that the run's answers take: the
first token's scores of a question must not depend on what stands beside it in a batch, on padding, or on the attention
backend beyond what the bare backbone's do; a history must give the same memory whenever it is written; and when all is
over the backbone must be what it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from harness import generation
from harness.backbones import Backbone
from harness.episodes import Episode, History, Query, digest
from harness.gates import (
    DRAWS,
    HALVES,
    GateError,
    GateOutcome,
    attention,
    frozen_backbone,
    in_situ,
    last_bits,
    relative,
    require,
)
from harness.method import MemoryMethod, MemoryState, Steering
from harness.records import Certificate
from harness.shortage import Batches

LETTERS = 400
"""Letters of a probe's history at most, so that gates cost little beside the run."""
STREAMED = "replayed"
"""The condition under which a memory is written while the prompt is read."""
LONGER = "Answer as briefly as you can. "
"""Before a question, so that its neighbour in a batch is padded."""
BACKENDS = ("sdpa", "eager")


@dataclass(frozen=True)
class _Asked:
    """A question as a method acts on it."""

    prompt: generation.Prompt
    longer: generation.Prompt
    """The same with more words, for a batch of unequal prompts."""
    steering: Steering


class _Heard(LogitsProcessor):
    """Keeps the first token's scores, after a method's own processor."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.scores: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = self.before(input_ids, scores) if self.before else scores
        self.scores.append(scores.detach().clone())
        return scores


def run(method: MemoryMethod, probe: Sequence[Episode], condition: str) -> list[GateOutcome]:
    """The method's own gates, then those on answers.

    Args:
        probe: One or two episodes, with questions worded as they will be asked.
        condition: One that the run asks for.

    Raises:
        GateError: one failed; no record may be written.
    """
    backbone = method.backbone
    first, *others = [_short(episode) for episode in probe]
    bare = {"input_ids": torch.tensor([[*_question(backbone, first).ids]], device=backbone.device)}
    with torch.no_grad():
        before = backbone.model(**bare).logits
    found = method.gates(probe)
    try:
        state = method.write(first.history) if condition != STREAMED else None
        asked = _asked(method, first, state, condition)
        alone = _scores(backbone, [asked.prompt], asked.steering)[0]
        found += _isolation(method, first, others, state, condition, alone)
        found += _equality(backbone, asked, alone)
    except GateError:
        raise
    except Exception as error:  # the same will befall its questions, which count it one by one; its words may quote one
        said = f"not proven, for the probe met {type(error).__name__}"
        return [*found, GateOutcome(name="isolation.answers", status="warn", note=said)]
    if not any(gate.name == "isolation.backbone" for gate in found):
        found.append(frozen_backbone(backbone, before, bare))
    return found


def _short(episode: Episode) -> Episode:
    """The beginning of an episode's history, and its first question."""
    kept, left = [], LETTERS
    for message in episode.history.messages:
        if left <= 0:
            break
        kept.append(replace(message, content=message.content[:left]))
        left -= len(message.content)
    return replace(episode, history=History(tuple(kept), episode.history.system), questions=episode.questions[:1])


def _query(episode: Episode, gold: bool = False) -> Query:
    question = episode.questions[0]
    frame = next((m.frame for m in episode.history.messages), None)
    return Query(episode.history.system, question.text, question.id, question.evidence if gold else (), frame)


def _question(backbone: Backbone, episode: Episode) -> generation.Prompt:
    return generation.prompt(backbone, (), replace(_query(episode), frame=None))


def _asked(method: MemoryMethod, episode: Episode, state: MemoryState | None, condition: str) -> _Asked:
    query = _query(episode, method.capabilities.gold)
    streamed = condition == STREAMED
    steering = method.steer(None if streamed else state, query, writes=streamed)
    shown = {"own_text": steering.messages or (), "removed": ()}.get(condition, episode.history.messages)
    query = query if shown else replace(query, frame=None)
    longer = replace(query, text=LONGER + query.text)
    prompt, padding = (generation.prompt(method.backbone, shown, q, steering.unit) for q in (query, longer))
    return _Asked(prompt, padding, steering)


def _scores(backbone: Backbone, prompts: Sequence[generation.Prompt], steering: Steering) -> list[Tensor]:
    """Scores [V] of the first token of each answer, by the path that answers take."""
    heard = _Heard(steering.logits_processor)
    watched = replace(steering, logits_processor=heard)
    batches = Batches(len(prompts))
    found, _ = generation.attempt(backbone, prompts, watched, batches, max_new_tokens=1)
    if batches.least < len(prompts) or any(isinstance(one, Exception) for one in found):
        raise MemoryError(f"a gate asks {len(prompts)} questions at a time")
    return list(torch.cat(heard.scores))


def _isolation(
    method: MemoryMethod,
    first: Episode,
    others: Sequence[Episode],
    state: MemoryState | None,
    condition: str,
    alone: Tensor,
) -> list[GateOutcome]:
    """The same history gives the same answers: asked again, after another was written, and written anew."""
    for other in others:
        with contextlib.suppress(Exception):  # as above
            foreign = method.write(other.history) if condition != STREAMED else None
            across = _asked(method, other, foreign, condition)
            _scores(method.backbone, [across.prompt], across.steering)
    again = _asked(method, first, state, condition)
    crossed = _apart(_scores(method.backbone, [again.prompt], again.steering)[0], alone)
    why = f"what was asked of another history moved the answers by {crossed:.1e}"
    found = [require("isolation.answers", crossed == 0, why, crossed, 0.0)]
    if condition != STREAMED and state is not None:
        anew = _asked(method, first, method.write(first.history), condition)
        moved = _apart(_scores(method.backbone, [anew.prompt], anew.steering)[0], alone)
        why = f"a history written twice gave answers {moved:.1e} apart"
        found.append(require("isolation.written_anew", moved == 0, why, moved, 0.0))
    return found


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).nan_to_num().abs().max())


def _equality(backbone: Backbone, asked: _Asked, alone: Tensor) -> list[GateOutcome]:
    """Batch, padding and attention backend move the answers by no more than arithmetic does."""
    bare = Steering()
    plain = _scores(backbone, [asked.prompt], bare)[0]
    effect = relative(alone, plain) if any(asked.steering.acts) else float("inf")
    ways: dict[str, tuple[Tensor, Tensor]] = {}
    for name, beside in (("batch", asked.prompt), ("padding", asked.longer)):
        rows = [asked.prompt, beside]
        ways[name] = _scores(backbone, rows, asked.steering)[0], _scores(backbone, rows, bare)[0]
    for backend in BACKENDS:
        if backend == backbone.model.config._attn_implementation:
            continue
        with attention(backbone, backend):
            steered, unsteered = (_scores(backbone, [asked.prompt], s)[0] for s in (asked.steering, bare))
        ways[backend] = steered, unsteered
    noise = 0.0
    for seed in range(DRAWS) if backbone.dtype in HALVES else ():
        with last_bits(backbone, seed):
            noise = max(noise, relative(_scores(backbone, [asked.prompt], asked.steering)[0], alone))
    return [
        in_situ(
            f"equality.answers_{name}",
            relative(steered, alone),
            relative(unsteered, plain),
            noise,
            effect,
            backbone.dtype,
        )
        for name, (steered, unsteered) in ways.items()
    ]


def certify(method: MemoryMethod, gates: Sequence[GateOutcome], fit: str, batch_size: int) -> Certificate:
    """What the gates were passed under; equal configurations have equal digests, whenever and wherever they ran.

    Args:
        fit: Address of the fit, or empty.
        batch_size: Of the run.
    """
    backbone = method.backbone
    under = {
        "backbone": backbone.digest,
        "method": method.name,
        "config": method.config.model_dump(mode="json"),
        "fit": fit,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "attention": backbone.model.config._attn_implementation,
        "batch_size": batch_size,
        "device": backbone.device.type,
    }
    return Certificate(
        digest=digest(under),
        dtype=under["dtype"],
        attention=under["attention"],
        passed=sorted(g.name for g in gates if g.status == "pass"),
        warned=sorted(g.name for g in gates if g.status == "warn"),
    )

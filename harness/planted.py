"""Planted facts: what a memory must at least hold, measured where a score of a small model would see nothing.

Invented facts are told, each is asked for, and the statistic of a question is the log-probability of the right
colour minus the mean of the nine others. A model that guesses has a statistic that does not depend on the history;
a memory raises it, long before it changes the greedy answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.data.names import NAMES
from harness.episodes import Episode, History, Message, Query, Question
from harness.errors import HarnessError
from harness.tasks.write_clear_read import COLOURS, THINGS

if TYPE_CHECKING:
    from harness.method import Condition, MemoryMethod

TOLD = "{name}'s {thing} is {colour}."
SYSTEM = "Answer with one word."
ASKED = "What colour is {name}'s {thing}?"
VALUES = COLOURS[:10]
"""One token each, alone and after a space, in SmolLM2's and Qwen3's vocabularies; one is right, nine are not."""
QUESTIONS = 40
FIRST_SEED = 100
"""Of the family that verdicts are given on. Settings of some memories were chosen on seeds below, none on these."""
LEVEL = 0.01


@dataclass(frozen=True)
class Verdict:
    """Whether a method's margins lie above those of another."""

    difference: float
    """Mean over questions, nats."""
    p: float
    """Two-sided, by sign-flip over questions."""
    n: int

    @property
    def beats(self) -> bool:
        """The margins are higher, at ``LEVEL``."""
        return self.difference > 0 and self.p < LEVEL


def planted(seed: int, facts: int = 8) -> Episode:
    """An episode of invented facts, each with its own person, thing and colour, and a question a fact."""
    if not 1 <= facts <= len(VALUES):
        raise HarnessError(
            f"an episode can hold 1 to {len(VALUES)} planted facts, not {facts}; each has its own colour"
        )
    rng = random.Random(f"planted/{facts}/{seed}")
    # The names of the test splits: what is learned from the training splits knows none of them.
    drawn = zip(rng.sample(NAMES[1::2], facts), rng.sample(THINGS, facts), rng.sample(VALUES, facts), strict=True)
    told, asked, name = [], [], f"planted-{facts}-{seed}"
    for n, (person, thing, colour) in enumerate(drawn):
        told.append(Message(TOLD.format(name=person, thing=thing, colour=colour), id=str(n)))
        question = ASKED.format(name=person, thing=thing)
        asked.append(Question(f"{name}-{n}", question, (colour,), evidence=(str(n),)))
    return Episode(name, History(tuple(told), SYSTEM), tuple(asked), root=name, source="generated")


def family(facts: int = 8) -> list[Episode]:
    """Forty questions: five histories of eight facts, or twenty of two for a memory that was trained on two."""
    return [planted(FIRST_SEED + n, facts) for n in range(QUESTIONS // facts)]


def margins(method: MemoryMethod, episode: Episode, condition: Condition, *, told: bool = False) -> NDArray:
    """Log-probability of the right colour minus the mean of the others [Q], nats.

    Args:
        told: Compare with the other colours of this history alone. A memory that knows which colours were told, but
            not whose they are, has a margin over all others and none over these.
    """
    state = None if condition == "replayed" else method.write(episode.history)
    colours = [c for q in episode.questions for c in q.answers] if told else VALUES
    found = []
    for question in episode.questions:
        logs = _logs(method, episode, question, condition, state, colours)
        right = logs.pop(question.answers[0])
        found.append(right - float(np.mean([*logs.values()])))
    return np.array(found)


def _logs(
    method: MemoryMethod, episode: Episode, question: Question, condition: Condition, state: object, colours: Sequence
) -> dict[str, float]:
    """Log-probability of each colour as the beginning of the answer, nats."""
    from harness import generation

    evidence = question.evidence if method.capabilities.gold else ()
    query = Query(episode.history.system, question.text, question.id, evidence)
    streamed = condition == "replayed"
    steering = method.steer(None if streamed else state, query, writes=streamed)  # type: ignore[arg-type]
    shown = {"own_text": steering.messages or (), "removed": ()}.get(condition, episode.history.messages)
    prompt = generation.prompt(method.backbone, shown, query, steering.unit)
    # Without a space in front: the chat template opens the answer on a new line.
    ids = [method.backbone.tokenizer(c, add_special_tokens=False)["input_ids"] for c in colours]
    scored = generation.loglikelihood(method.backbone, prompt, steering, ids)
    return {c: log for c, (log, _) in zip(colours, scored, strict=True)}


def compare(left: Sequence[float] | NDArray, right: Sequence[float] | NDArray) -> Verdict:
    """Margins of one method against another's on the same questions in the same order, by sign-flip.

    The unit is the question: five histories have thirty-two patterns of signs, so a test over histories could not
    come below p = .06 (two-sided). What is tested is therefore whether these facts were kept, each with its own
    person, thing and colour, and not how the next history would fare.
    """
    from harness import statistics

    difference = np.asarray(left, float) - np.asarray(right, float)
    if not len(difference):
        raise HarnessError("there are no margins to compare; plant at least one fact")
    return Verdict(float(difference.mean()), statistics.sign_flip(difference), len(difference))

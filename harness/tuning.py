"""Equal tuning: every trained row tries the same learning rates and is judged on the same held-out questions.

The questions are of the training split, never of the test's; what is compared is the likelihood of the gold answers,
asked as the method is trained to answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from harness import generation
from harness.episodes import Episode, Query
from harness.errors import HarnessError
from harness.experiment import Budget, TrainSpec
from harness.method import MemoryMethod
from harness.truncation import fit_to


@dataclass(frozen=True)
class Trial:
    """One learning rate, fitted and judged."""

    learning_rate: float
    dev_loss: float
    """Mean negative log-likelihood of a held-out answer, nats a token."""
    seconds: float
    tokens: int


def split(episodes: Sequence[Episode], spec: TrainSpec) -> tuple[Sequence[Episode], Sequence[Episode]]:
    """The episodes that are trained on, and the last ``spec.dev``, which are held out.

    Raises:
        HarnessError: none would be left to train on.
    """
    if spec.dev >= len(episodes):
        raise HarnessError(
            f"training.dev holds out {spec.dev} of {len(episodes)} training episodes, which leaves none; lower it"
        )
    return (episodes[: -spec.dev], episodes[-spec.dev :]) if spec.dev else (episodes, ())


def dev_loss(method: MemoryMethod, episodes: Sequence[Episode], limit: int) -> float:
    """Mean negative log-likelihood of the gold answers, nats a token, the end of the turn included.

    Args:
        episodes: Held out; questions worded as the method is trained.
        limit: History tokens kept, from the end.
    """
    backbone, shown = method.backbone, method.capabilities.fits == "replayed"
    total, tokens = 0.0, 0
    for episode in (fit_to(e, backbone, limit, "tail") for e in episodes):
        history = episode.history
        state = None if shown else method.write(history)
        for q in episode.questions:
            query = Query(history.system, q.text, q.id)
            steering = method.steer(state, query, writes=shown)
            asked = generation.prompt(backbone, history.messages if shown else (), query, steering.unit)
            ids = [*backbone.tokenizer(q.answers[0], add_special_tokens=False)["input_ids"], backbone.turn_end_id]
            total -= generation.loglikelihood(backbone, asked, steering, [ids])[0][0]
            tokens += len(ids)
    return total / tokens


def best(
    method: Callable[[], AbstractContextManager[MemoryMethod]],
    fit: Callable[[MemoryMethod, Budget], dict[str, Any]],
    dev: Sequence[Episode],
    budget: Budget,
    rates: Sequence[float],
) -> tuple[Budget, list[dict[str, Any]]]:
    """The budget with the learning rate whose fit finds the held-out answers likeliest, and every trial.

    Args:
        method: Opens a fresh method.
        fit: Fits it within a budget, or restores that fit, and gives the facts of the fit.
    """
    trials = []
    for rate in rates:
        with method() as fresh:
            facts = fit(fresh, budget.model_copy(update={"learning_rate": rate}))
            loss = dev_loss(fresh, dev, budget.max_write_tokens)
        trials.append(Trial(rate, round(loss, 6), facts.get("seconds", 0.0), facts.get("tokens", 0)))
    chosen = min(trials, key=lambda trial: (math.isnan(trial.dev_loss), trial.dev_loss)).learning_rate
    return budget.model_copy(update={"learning_rate": chosen}), [asdict(trial) for trial in trials]

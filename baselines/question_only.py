"""The frozen backbone and the bare question: the floor, what is known or guessed without any history."""

from __future__ import annotations

from harness.episodes import History, Query
from harness.method import Capabilities, MemoryMethod, MemoryState, Steering


class QuestionOnly(MemoryMethod):
    """No memory and no history."""

    name = "question_only"
    summary = "the backbone as it is, question alone: the floor"
    capabilities = Capabilities(family="reference", arms={"removed": ("own",)})

    def write(self, history: History, state: MemoryState | None = None) -> None:
        return None

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        return Steering()

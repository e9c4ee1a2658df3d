"""The frozen backbone with the whole history in its prompt: what every memory beside it is held against."""

from __future__ import annotations

from harness.episodes import History, Query
from harness.method import Capabilities, MemoryMethod, MemoryState, Steering


class Frozen(MemoryMethod):
    """No memory but the prompt."""

    name = "frozen"
    summary = "the backbone as it is, history in the prompt"
    capabilities = Capabilities(family="reference", arms={"replayed": ("own",)})

    def write(self, history: History, state: MemoryState | None = None) -> None:
        return None

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        return Steering()

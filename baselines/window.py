"""The last tokens of the history: recency alone, the partner at equal budget of retrieval and compression.

State: the last ``budget_tokens`` of text. Read: they stand in the prompt, whatever is asked.
"""

from __future__ import annotations

from pydantic import Field

from baselines._textual import Texts
from harness import chunks
from harness.episodes import History, Query
from harness.method import Capabilities, MemoryMethod, MemoryState, MethodConfig, Steering


class Settings(MethodConfig):
    budget_tokens: int = Field(
        512, ge=1, description="Tokens kept, dates among them, from the end. No official value; here one chunk of RAG."
    )


class Kept(Texts):
    """The end of a history."""


class Window(MemoryMethod):
    """No memory but the most recent text."""

    name = "window"
    summary = "the last tokens of the history, in the prompt"
    Config = Settings
    capabilities = Capabilities(
        family="reference", arms={"own_text": ("own", "donor"), "windowed": ("own",)}, sight_only=True
    )

    config: Settings

    def write(self, history: History, state: MemoryState | None = None) -> Kept | None:
        """Keep whole messages from the end, and of the one before them what still fits. None of an empty history."""
        messages = (*(state.messages if isinstance(state, Kept) else ()), *history.messages)
        if not messages:
            return None
        return Kept(chunks.whole(chunks.ending(messages, self.config.budget_tokens, self.backbone)))

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        """Nothing of a state: under ``windowed`` the harness shows the end of the history, to all methods the same."""
        if not isinstance(state, Kept):
            return Steering(messages=())
        return Steering(messages=state.messages, notes={"budget_tokens": self.config.budget_tokens})

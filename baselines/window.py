"""The last tokens of the history: recency alone, the partner at equal budget of retrieval and compression.

State: the last ``budget_tokens`` of text. Read: they stand in the prompt, whatever is asked.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from baselines._textual import Texts
from harness import chunks
from harness.episodes import History, Message, Query
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
    capabilities = Capabilities(family="reference", arms={"own_text": ("own", "donor")})

    config: Settings

    def write(self, history: History, state: MemoryState | None = None) -> Kept | None:
        """Keep whole messages from the end, and of the one before them what still fits. None of an empty history."""
        messages = (*(state.messages if isinstance(state, Kept) else ()), *history.messages)
        if not messages:
            return None
        budget, size = self.config.budget_tokens, len(messages)
        count = chunks.most(budget, size, lambda n: self._told(messages[size - n :]))
        kept = messages[size - count :]
        if count < size:
            kept = (*self._end_of(messages[size - count - 1], kept), *kept)
        return Kept(chunks.whole(kept))

    def _end_of(self, message: Message, kept: tuple[Message, ...]) -> tuple[Message, ...]:
        """As many last tokens of a message as fit before those kept; none where its date alone does not."""
        text = message.content
        spans = self.backbone.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

        def end(n: int) -> Message:
            return replace(message, content=text[spans[-n][0] :])

        count = chunks.most(self.config.budget_tokens, len(spans), lambda n: self._told((end(n), *kept)))
        return (end(count),) if count else ()

    def _told(self, messages: tuple[Message, ...]) -> int:
        return chunks.told_tokens(messages, self.backbone)

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        messages = state.messages if isinstance(state, Kept) else ()
        return Steering(messages=messages, notes={"budget_tokens": self.config.budget_tokens})

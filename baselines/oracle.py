"""The gold evidence: of the history, the messages that hold the answer; the upper bound of every textual memory.

State: the messages. Read: those that the data name as the question's evidence, in the order in which they were said.
"""

from __future__ import annotations

from baselines._textual import Texts
from harness import chunks
from harness.episodes import History, Query
from harness.errors import UnsupportedError
from harness.method import UNIT_TOKENS, Capabilities, MemoryMethod, MemoryState, MethodConfig, Steering


class Settings(MethodConfig):
    """Nothing to set."""

    def text_load(self, tokens: int) -> float:
        """Two messages, as a rule."""
        return min(tokens, 2 * UNIT_TOKENS)


class Known(Texts):
    """A whole history."""


class Oracle(MemoryMethod):
    """Is shown where the answer stands."""

    name = "oracle"
    summary = "the messages that hold the answer, as the data name them, in the prompt: the upper bound"
    Config = Settings
    capabilities = Capabilities(family="reference", arms={"own_text": ("own",)}, gold=True)

    def write(self, history: History, state: MemoryState | None = None) -> Known | None:
        """Keep all messages. None of an empty history."""
        units = (*(state.units if isinstance(state, Known) else ()), *chunks.whole(history.messages))
        return Known(units) if units else None

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        """The evidence; what a cut took from the history is left out, and counted.

        Raises:
            UnsupportedError: the data name no evidence for the question.
        """
        if not isinstance(state, Known):
            return Steering(messages=())
        if not query.evidence:
            raise UnsupportedError(
                f"the data name no evidence for question '{query.question_id}'; leave the row 'oracle' out for its task"
            )
        found = tuple(m for m in state.messages if m.id in query.evidence)
        lost = set(query.evidence) - {m.id for m in found}
        return Steering(messages=found, notes={"retrieved": [m.id for m in found], "evidence_lost": len(lost)})

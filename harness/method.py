"""The protocol of a memory method: fit once, write a history, steer the answer to a question.

A method never builds prompts, decodes or scores; the harness does, alike for every method. A state is an
immutable value, so that it can be shared between questions, swapped for a donor's, batched and saved.
Importing this module, or the module of any method, imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from harness.episodes import Episode, History, Message, Query
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.backbones import Backbone
    from harness.experiment import Budget
    from harness.gates import GateOutcome
    from harness.progress import Progress
    from harness.training import FitReport

Condition = Literal["replayed", "windowed", "removed", "own_text"]
Arm = Literal["own", "donor", "mean", "shuffled", "zero"]
Unit = Literal["message", "sentence"]
"""What a segment of a conversation is, for memories that write segments."""
UNIT_TOKENS = 100
"""Tokens of a message, about, where a plan has to guess what a few of them hold: a paragraph, or two or three turns."""
STATEMENT_TOKENS = 8
"""Tokens of a short sentence, about, where a plan has to guess how many facts a history tells."""
Family = Literal["reference", "textual", "parametric", "outside_channel", "online_state"]


class MethodConfig(BaseModel):
    """Typed hyper-parameters of a method; every field names its unit, default and source."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    READING: ClassVar[frozenset[str]] = frozenset()
    """Settings that act on answers alone; rows that differ in nothing else share one fit."""

    def learned_with(self) -> dict[str, Any]:
        """The settings that learned parameters are a function of."""
        return self.model_dump(mode="json", exclude=set(self.READING))

    def write_load(self, tokens: int, device: str) -> float:
        """Tokens that the backbone is fed when a history of ``tokens`` is written, for the plan; roughly.

        A token that is trained on counts twice, as in a fit. Nothing where a write asks nothing of the backbone.
        """
        return 0.0

    def text_load(self, tokens: int) -> float:
        """Tokens of text that are put back for a question about a history of ``tokens``, for the plan; roughly."""
        return min(tokens, getattr(self, "budget_tokens", None) or tokens)


@dataclass(frozen=True)
class Capabilities:
    """What a method can be asked for."""

    family: Family
    arms: Mapping[Condition, tuple[Arm, ...]]
    """The conditions it serves, and under each the arms it has."""
    fits: Condition | None = None
    """Learns parameters once a backbone, from questions asked under this condition; None learns nothing."""
    gold: bool = False
    """Is shown which messages hold the answer: an upper bound, never a memory."""
    sight_only: bool = False
    """Under ``windowed`` it has nothing but what is in sight, so that nothing is written: a memory's partner."""


@dataclass
class Effort:
    """What a method has done beside answering, counted by itself; the harness keeps the differences."""

    lm_calls: int = 0
    """Forward passes or generations of the backbone that it asked for, a batch counted once a row."""
    tokens_read: int = 0
    """Tokens fed in them."""
    tokens_generated: int = 0
    gradient_steps: int = 0

    def __sub__(self, other: Effort) -> Effort:
        return Effort(**{name: getattr(self, name) - getattr(other, name) for name in vars(self)})

    def __add__(self, other: Effort) -> Effort:
        return Effort(**{name: getattr(self, name) + getattr(other, name) for name in vars(self)})


class MemoryState(ABC):
    """What a method keeps of a history. Immutable."""

    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that must be kept for this history (never the backbone's weights)."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """A few JSON values for the record: kind, counts, norms.

        ``layers``, where there is such a thing: lists of one number a layer, by name (as in ``Record.layers``).
        """

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write safetensors and JSON into ``directory``."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> MemoryState:
        """The state that ``save`` wrote."""


Weaver = Callable[[Any], Any]
"""Given the token ids so far [1, T], prompt and answer, the input embeddings [1, K, d] that come after them, or None.

Asked once at the end of the prompt and once after each token of the answer but an end.
"""


@dataclass(frozen=True)
class Steering:
    """How a memory acts on one question. Every field unset is the frozen backbone."""

    messages: tuple[Message, ...] | None = None
    """Text put in the place of the history (condition ``own_text``); None leaves the condition's own."""
    past_key_values: Callable[[], Any] | None = None
    """Makes a fresh transformers Cache to start from: a prefix, or a cache that carries the memory's state."""
    adapter: str | None = None
    """Name of the PEFT adapter that is active while the question is answered."""
    unit: Unit = "message"
    """The segments of the prompt that a cache which carries a memory is told of."""
    hooks: Callable[[Any], AbstractContextManager[Any]] | None = None
    """Given the bare model, a context manager that installs forward hooks and removes them on leaving."""
    logits_processor: Any = None
    """A transformers LogitsProcessor that mixes next-token scores."""
    weave: Callable[[], Weaver] | None = None
    """Makes a fresh :class:`Weaver` for one answer; such questions are answered one by one."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """For the record: retrieved ids, kept ratio, ..."""

    @property
    def acts(self) -> tuple[Any, ...]:
        """What acts on the forward passes; questions for which it is equal can share a batch."""
        return self.adapter, self.past_key_values, self.hooks, self.logits_processor, self.weave


class MemoryMethod(ABC):
    """One way to give a language model memory. Subclass it in one file under ``methods/``."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for ``harness methods`` and the docs."""
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Row names that stand for this method with these settings."""
    capabilities: ClassVar[Capabilities]
    FIT_VERSION: ClassVar[int] = 1
    """Raised whenever the same episodes and settings would now give other parameters."""

    def __init__(self, config: MethodConfig, backbone: Backbone, seed: int) -> None:
        self.config = config
        self.backbone = backbone
        self.seed = seed
        self.effort = Effort()

    def fit(self, episodes: Sequence[Episode], budget: Budget, workdir: Path, progress: Progress) -> FitReport:
        """Learn parameters, resuming from ``workdir`` where an earlier fit was cut off.

        Questions come in the wording of ``capabilities.fits``: their text is the user message itself.
        """
        raise HarnessError(f"method '{self.name}' learns nothing; remove the fit of its row")

    @abstractmethod
    def write(self, history: History, state: MemoryState | None = None) -> MemoryState | None:
        """Ingest a history; with a state, continue it online. None where nothing is kept.

        Raises:
            UnsupportedError: the method cannot hold this history.
            SkippedError: something that it needs is not here.
        """

    @abstractmethod
    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        """How the memory acts on ``query``; with ``writes`` the tokens read are also written."""

    def trace(self, history: History, query: Query) -> MemoryState:
        """What the memory read at each position of another episode's prompt: the donor of ``replayed``."""
        raise HarnessError(f"method '{self.name}' has no donor arm under 'replayed'; remove the arm from the task")

    def mean(self, memories: Sequence[MemoryState], own: MemoryState | None) -> MemoryState:
        """What many histories' memories have in common: the control ``mean``.

        Args:
            memories: States of other histories or, with ``own`` None, traces of other episodes.
            own: The state whose size the mean is given.
        """
        raise HarnessError(f"method '{self.name}' has no mean arm; remove the arm from the task")

    def gates(self, probe: Sequence[Episode]) -> list[GateOutcome]:
        """Run the method's own validity gates on a small probe.

        Raises:
            GateError: one failed; no record may be written.
        """
        return []

    def trainable_parameters(self) -> int:
        """Number of parameters that ``fit`` learns."""
        return 0

    def extra_parameters(self) -> int:
        """Parameters of other networks that are loaded beside the backbone: an embedder, a memory network."""
        return 0

    def save(self, directory: Path) -> None:
        """Write the learned parameters (safetensors and JSON); nothing where nothing is learned."""

    def load(self, directory: Path) -> None:
        """Read what ``save`` wrote."""

    def close(self) -> None:
        """Detach from the backbone, which is then the frozen one again, bit for bit."""

    @classmethod
    def adapter_tools(cls) -> Any:
        """The module behind ``harness adapter``: functions ``inspect``, ``convert``, ``verify`` and ``trace``."""
        raise HarnessError(f"method '{cls.name}' has no tools for adapter files; name a method that has, with --method")


class AdapterMethod(MemoryMethod):
    """A method whose learned parameters are one PEFT adapter, attached under the method's name."""

    def save(self, directory: Path) -> None:
        self.backbone.save_adapter(self.name, directory)

    def load(self, directory: Path) -> None:
        self.backbone.load_adapter(self.name, directory)

    def close(self) -> None:
        self.backbone.detach(self.name)

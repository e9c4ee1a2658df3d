"""What a job writes its histories to, each once, and what writing and answering took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from harness import arms, shortage
from harness.episodes import Episode, Query, continued
from harness.method import Effort, MemoryMethod, MemoryState

BY_EPISODE = ("states", "layers", "batches")
"""What :class:`Spent` tells of each episode."""


@dataclass
class Spent:
    """What the answers to some questions took, their writes apart. Seconds are wall clock."""

    write: float = 0.0
    written: int = 0
    """Tokens of the histories that were written."""
    writing: Effort = field(default_factory=Effort)
    """What the method says that its writes took."""
    states: dict[str, int] = field(default_factory=dict)
    """Bytes of what was written, by episode."""
    layers: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """What the states say by layer, by episode."""
    batches: dict[str, int] = field(default_factory=dict)
    """Down to how many questions a batch was halved, by episode and draw; nothing where memory sufficed."""
    read: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    reading: Effort = field(default_factory=Effort)
    """What the method says that it did beside its writes."""
    cpu: float = 0.0
    """CPU seconds of all of it."""

    @property
    def seconds(self) -> float:
        """Of writing, reading and answering together."""
        return self.write + self.read + self.prefill + self.decode

    def __add__(self, other: Spent) -> Spent:
        summed = {name: getattr(self, name) + getattr(other, name) for name in vars(self) if name not in BY_EPISODE}
        return Spent(**summed, **{name: getattr(self, name) | getattr(other, name) for name in BY_EPISODE})

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Spent:
        """From what ``dataclasses.asdict`` made of it."""
        efforts = {name: Effort(**stored[name]) for name in ("writing", "reading")}
        return cls(**{**stored, **efforts})


@dataclass
class Memories:
    """States of histories, each written once a job; one that goes on from another is written on from its state."""

    method: MemoryMethod
    known: Mapping[str, Episode] = field(default_factory=dict)
    """Episodes that others may continue, by id, also those of which nothing is asked."""
    states: dict[str, MemoryState | None] = field(default_factory=dict)
    refused: dict[str, Exception] = field(default_factory=dict)
    """Histories that could not be written, by episode; none is tried twice."""
    traces: dict[str, MemoryState] = field(default_factory=dict)
    means: dict[tuple[str, bool], MemoryState] = field(default_factory=dict)
    """By episode, and whether of traces."""
    spent: Spent = field(default_factory=Spent)
    """On writes since it was last taken away."""
    charged: set[str] = field(default_factory=set)
    """Episodes whose writes an earlier process has accounted for: they are made again and cost nothing again."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of every state that was ever written, by episode."""
    layers: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """What those states say by layer, by episode; nothing where they say none."""
    writing_seconds: float = 0.0
    """In all writes, charged or not."""

    def of(self, episode: Episode) -> MemoryState | None:
        """The state after the episode's history, written on from that of the episode which it continues."""
        if episode.id in self.refused:
            raise self.refused[episode.id]
        unwritten: list[Episode] = []
        at: Episode | None = episode
        while at is not None and at.id not in self.states:
            unwritten.append(at)
            at = continued(at, self.known)
        try:
            for at in reversed(unwritten):
                self.states[at.id] = self._written(at)
        except Exception as error:
            self.refused[episode.id] = shortage.told(error)
            raise
        return self.states[episode.id]

    def _written(self, episode: Episode) -> MemoryState | None:
        """Write what the episode's history adds to the one before, whose state is there."""
        if episode.id in self.refused:
            raise self.refused[episode.id]
        before, new = continued(episode, self.known), episode.history
        if before is not None:
            new = replace(new, messages=new.messages[len(before.history.messages) :])
        with self._writing(free=episode.id in self.charged):
            try:
                state = self.method.write(new, self.states[before.id]) if before is not None else self.method.write(new)
            except Exception as error:
                self.refused[episode.id] = shortage.told(error)
                raise
        self.spent.states[episode.id] = self.sizes[episode.id] = state.nbytes() if state is not None else 0
        if state is not None and (told := state.describe().get("layers")):
            self.spent.layers[episode.id] = self.layers[episode.id] = told
        if state is not None and episode.id not in self.charged:
            encoded, _ = self.method.backbone.encode(new.messages, system=new.system)
            self.spent.written += len(encoded)
        return state

    @contextmanager
    def _writing(self, *, free: bool = False) -> Iterator[None]:
        """Time and effort spent inside this block are a write's; with ``free`` they count nowhere."""
        clock, before = time.perf_counter(), replace(self.method.effort)
        try:
            yield
        finally:
            seconds = time.perf_counter() - clock
            self.writing_seconds += seconds
            if free:
                self.method.effort = before
            else:
                self.spent.write += seconds
                self.spent.writing += self.method.effort - before

    def take(self) -> Spent:
        """What was spent on writes since the last call."""
        found, self.spent = self.spent, Spent()
        return found

    def account(self, spent: Spent) -> None:
        """An earlier process has written these states and told what they cost."""
        self.charged |= spent.states.keys()
        self.sizes |= spent.states
        self.layers |= spent.layers

    def mean_bytes(self) -> int:
        """Of what is kept of a history; histories of which nothing is kept do not count."""
        kept = [size for size in self.sizes.values() if size]
        return round(sum(kept) / len(kept)) if kept else 0

    def mean_layers(self, episodes: Sequence[Episode]) -> dict[str, list[float]]:
        """What the states of these episodes say by layer, mean over those that were written and say it."""
        told = [self.layers[e.id] for e in episodes if e.id in self.layers]
        names = dict.fromkeys(name for layers in told for name in layers)
        columns = {name: list(zip(*(t[name] for t in told if name in t), strict=True)) for name in names}
        return {name: [round(sum(values) / len(values), 4) for values in by] for name, by in columns.items()}

    def shuffled(self, episode: Episode) -> MemoryState | None:
        """The state after the episode's messages in another order, written whole."""
        history = arms.shuffled(episode, self.method.seed)
        return self.of(replace(episode, id=f"{episode.id}/shuffled", history=history, continues=None))

    def mean(
        self, episode: Episode, episodes: Sequence[Episode], asked: Callable[[Episode], Query] | None = None
    ) -> MemoryState:
        """The mean of all others' states, as large as the episode's own; with ``asked`` of their traces."""
        key = episode.id, asked is not None
        if key not in self.means:
            others = arms.others(episodes, episode)
            own = None if asked else self.of(episode)
            memories = [self.trace(e, asked(e)) if asked else self.of(e) for e in others]
            self.means[key] = self.method.mean([m for m in memories if m is not None], own)
        return self.means[key]

    def trace(self, episode: Episode, query: Query) -> MemoryState:
        """What the memory read over the episode's whole prompt."""
        if episode.id not in self.traces:
            with self._writing():
                self.traces[episode.id] = self.method.trace(episode.history, query)
        return self.traces[episode.id]

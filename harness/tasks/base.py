"""What a task is: where its episodes come from, how they are asked, how an answer is scored.

Importing this module, or any task's, imports no torch, no lm_eval and no datasets.
"""

from __future__ import annotations

import random
import string
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ValidationError

from harness import config
from harness.data.files import TaskData
from harness.data.settings import TaskSettings
from harness.episodes import Episode, Question, digest, lineage
from harness.errors import HarnessError, nearest
from harness.experiment import DataSpec, TaskSpec

Split = Literal["test", "train"]

WORDING = Path(__file__).with_name("prompts.yaml")


@dataclass(frozen=True)
class Metric:
    """A number from 0 to 1 that a task gives each answer."""

    name: str
    rule: Literal["official", "release"] = "official"
    """Whether the benchmark's own rule scores, or the one of the paper's released scripts."""
    higher_is_better: bool = True


class Prompts:
    """The wording of every task, from ``prompts.yaml`` or a file that takes its place.

    Raises:
        HarnessError: the file is missing or no YAML, or a key or placeholder is unknown or missing.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or WORDING
        self._wording = _read_wording(self.file)
        if file is not None:
            _check_wording(self._wording, _read_wording(WORDING), self.file)
        self.hash = digest(self._wording)

    def digest_of(self, task: str) -> str:
        """Of one task's wording: that of another does not make its answers others."""
        return digest(self._wording.get(task, {}))

    def render(self, task: str, key: str, **values: str) -> str:
        """The text ``task.key`` with its placeholders filled in.

        Raises:
            HarnessError: the file has no such text.
        """
        try:
            return self._wording[task][key].format(**values)
        except KeyError as error:
            raise HarnessError(f"{self.file} has no text '{task}.{key}'; add it") from error


def _read_wording(file: Path) -> dict[str, dict[str, str]]:
    try:
        return _wording_of(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise HarnessError(
            f"the prompts file {file} cannot be read ({error.strerror}); name one that exists"
        ) from error


@lru_cache(maxsize=8)  # every task has the same file open
def _wording_of(file: Path, changed: int) -> dict[str, dict[str, str]]:
    wording, _ = config.read(file)
    if not isinstance(wording, dict) or not all(isinstance(texts, dict) for texts in wording.values()):
        raise HarnessError(f"the prompts file {file} is no mapping of tasks to texts; copy {WORDING.name} and edit it")
    for task, texts in wording.items():
        for key, text in texts.items():
            if not isinstance(text, str):
                raise HarnessError(f"{file}: the text '{task}.{key}' is no string; put it in quotes")
    return wording


def _check_wording(given: dict, known: dict, file: Path) -> None:
    """The same keys and, in each text, the same placeholders as the packaged wording."""
    texts, wanted = _flat(given), _flat(known)
    for key in texts:
        if key not in wanted:
            raise HarnessError(f"{file}: unknown text '{key}'; {nearest(key, wanted)}")
    for key, text in wanted.items():
        if key not in texts:
            raise HarnessError(f"{file}: the text '{key}' is missing; copy it from {WORDING.name}")
        if _placeholders(texts[key], key, file) != (fields := _placeholders(text, key, WORDING)):
            names = ", ".join(f"{{{name}}}" for name in sorted(fields)) or "none"
            raise HarnessError(f"{file}: the text '{key}' has wrong placeholders; it must use: {names}")


def _flat(wording: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {f"{task}.{key}": text for task, texts in wording.items() for key, text in texts.items()}


def _placeholders(text: str, key: str, file: Path) -> set[str]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise HarnessError(f"{file}: the text '{key}' has an open brace; write {{{{ for a plain one") from error


class Task(ABC):
    """What is asked and how it is scored. Subclass it in one file under ``harness/tasks``."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for ``harness tasks`` and the docs."""
    unit: ClassVar[str]
    """What one message of a history is."""
    wording: ClassVar[str] = ""
    """The section of ``prompts.yaml`` that its texts stand in; empty is the one of its own name."""
    metrics: ClassVar[tuple[Metric, ...]]
    primary_metric: ClassVar[str]
    max_new_tokens: ClassVar[int]
    truncate: ClassVar[Literal["head", "tail", "head_and_tail"]] = "tail"
    """What is kept of a long history."""
    stop: ClassVar[tuple[str, ...]] = ("\n",)
    """Texts that end an answer."""
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    Settings: ClassVar[type[TaskSettings]] = TaskSettings
    has_history: ClassVar[bool] = True
    """False where the questions are asked of nothing: such a task is worth the condition ``replayed`` alone."""
    secret: ClassVar[bool] = False
    """Whether no text of questions or answers may reach a file or a log: only ids, digests and scores do."""
    licence: ClassVar[str] = ""
    """Under which the text of the official data may be shown, and whom to credit; without one it is shown nowhere."""

    def __init__(self, prompts: Prompts) -> None:
        self.prompts = prompts

    def load(self, data: DataSpec, split: Split, settings: Mapping[str, Any], count: int | None = None) -> TaskData:
        """The episodes of a split.

        Args:
            count: How many to generate; of a training file, how many to keep, shortest first. A test file is read
                whole, and :func:`select` draws from it.

        Raises:
            HarnessError: the task has no such split or setting, or a file is missing or wrong.
        """
        if split not in self.splits:
            raise HarnessError(f"task '{self.name}' has no {split} split; it has: {', '.join(self.splits)}")
        loaded = self._load(data, split, self._checked(settings), count)
        system = self.system()
        return replace(
            loaded,
            has_history=self.has_history,
            note="; ".join(filter(None, (loaded.note, self.note()))),
            episodes=tuple(
                replace(e, history=replace(e.history, system=e.history.system or system)) for e in loaded.episodes
            ),
        )

    def files(self, settings: Mapping[str, Any]) -> tuple[Path, ...]:
        """Files that the settings name, beside those of the data folder; a step is done again when one changes."""
        return ()

    @abstractmethod
    def _load(self, data: DataSpec, split: Split, settings: Any, count: int | None) -> TaskData:
        """``load`` with checked settings; histories that bring no instruction get the task's afterwards."""

    def _checked(self, settings: Mapping[str, Any]) -> TaskSettings:
        try:
            return self.Settings(**settings)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or " and ".join(self.Settings.model_fields)
            if first["type"] == "extra_forbidden":
                hint = nearest(where, self.Settings.model_fields)
            else:
                hint = f"give another value ({first['msg'].removeprefix('Value error, ')})"
            raise HarnessError(f"task '{self.name}' has a wrong setting '{where}'; {hint}") from error

    def note(self) -> str:
        """What a reader of the scores must know of how this machine gives them; nothing, for most."""
        return ""

    @classmethod
    def published(cls, settings: Mapping[str, Any]) -> tuple[int, int] | None:
        """Histories and questions that the official data has under these settings, where they choose among it."""
        return None

    def system(self) -> str:
        """The instruction (system message) under which a history is read and its questions are answered."""
        return self.prompts.render(self.wording or self.name, "system")

    def question(self, q: Question, *, removed: bool = False) -> str:
        """The user message that asks ``q``; ``removed`` where the history is not in sight."""
        return self.prompts.render(
            self.wording or self.name, "question_removed" if removed else "question", question=q.text
        )

    def empty(self) -> str:
        """What stands in the place of the history in a prompt with an empty context; nothing, for most."""
        return ""

    def answer(self, text: str) -> str:
        """A raw generation made ready for scoring: its first non-empty line."""
        return next((line.strip() for line in text.splitlines() if line.strip()), "")

    @abstractmethod
    def score(self, answer: str, q: Question) -> dict[str, float]:
        """A value from 0 to 1 for each of ``metrics``, of an answer that ``answer`` made ready."""

    @classmethod
    def question_of(cls, row: Mapping[str, Any]) -> Question:
        """The question that a line of ``harness score`` answers, as far as :meth:`score` looks at it.

        A task whose score needs more than gold answers and a category takes it from the row here, or raises.

        Raises:
            HarnessError: a field is missing or wrong; whoever reads the lines puts file and line before it.
        """
        return Question("", "", golds(row), text_of(row, "category", default=""))

    def titles(self, episode: Episode) -> tuple[str, ...]:
        """Names of the documents in a history, by which it may be met elsewhere; none where they have no titles."""
        return ()


def golds(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Every accepted answer of a line of ``harness score``: its ``gold``, a string, a number or a list of them.

    Raises:
        HarnessError: the field is missing, empty, or holds something else.
    """
    if "gold" not in row:
        raise HarnessError("the field 'gold' is missing; give the accepted answer, or a list of them")
    accepted = row["gold"] if isinstance(row["gold"], list) else [row["gold"]]
    if not accepted:
        raise HarnessError("the field 'gold' is an empty list; give at least one accepted answer, or take the line out")
    for gold in accepted:
        if isinstance(gold, bool) or not isinstance(gold, str | int | float):
            kind = type(gold).__name__
            raise HarnessError(f"the field 'gold' holds {kind}; give a string, a number or a list of these")
        if not str(gold).strip():
            raise HarnessError("the field 'gold' holds an empty text; give an accepted answer, or take the line out")
    return tuple(map(str, accepted))


def text_of(row: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """A field of a line of ``harness score`` that must be a string.

    Raises:
        HarnessError: it is missing and there is no ``default``, or it is something else.
    """
    value = row.get(key, default)
    if isinstance(value, str):
        return value
    if key not in row:
        raise HarnessError(f"the field '{key}' is missing; add it to the line")
    raise HarnessError(f"the field '{key}' is {type(value).__name__}, not str; put it in quotes")


def select(data: TaskData, spec: TaskSpec, seed: int) -> tuple[Episode, ...]:
    """The histories and questions that an experiment uses, in the order of the data.

    The draw is seeded. It goes round the root documents and, among them, round the categories, so that a small
    ``limit`` still covers many of both; ``episodes`` takes histories of different roots first, and histories that go
    on from each other as one.

    Raises:
        HarnessError: a history is empty, or no question is left.
    """
    asked = [e for e in data.episodes if e.questions]
    if not asked:
        raise HarnessError(f"{data.file} gives task '{spec.task}' no question to ask; name a file that has some")
    for episode in asked:
        if data.has_history and not any(m.content.strip() for m in episode.history.messages):
            raise HarnessError(
                f"{data.file}: the history of '{episode.id}' is empty; give it a message or take its questions out"
            )
    rng = random.Random(f"select/{spec.task}/{seed}")
    known = {e.id: e for e in data.episodes}
    starts = {e.id: [e, *lineage(e, known)][-1].id for e in asked}
    first = {starts[e.id]: e for e in reversed(asked)}
    if spec.episodes is not None and spec.episodes < len(first):
        chosen = _spread([e for e in asked if first[starts[e.id]] is e], spec.episodes, rng)
        asked = [e for e in asked if first[starts[e.id]].id in chosen]
    if spec.limit is None or spec.limit >= sum(len(e.questions) for e in asked):
        return tuple(asked)
    drawn = _draw(asked, spec.limit, rng)
    kept = (e.with_questions(q for q in e.questions if (e.id, q.id) in drawn) for e in asked)
    return tuple(e for e in kept if e.questions)


def _spread(episodes: list[Episode], count: int, rng: random.Random) -> set[str]:
    """Ids of ``count`` episodes: one of every root before a second one of any."""
    turn: Counter[str] = Counter()
    ranked = []
    for place, episode in enumerate(rng.sample(episodes, len(episodes))):
        ranked.append((turn[episode.root], place, episode.id))
        turn[episode.root] += 1
    return {name for _, _, name in sorted(ranked)[:count]}


def _draw(episodes: list[Episode], limit: int, rng: random.Random) -> set[tuple[str, str]]:
    """``limit`` pairs (episode id, question id), each from the root, then the category, that has given least."""
    pools: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for episode in rng.sample(episodes, len(episodes)):
        for q in rng.sample(episode.questions, len(episode.questions)):
            pools[episode.root, q.category].append((episode.id, q.id))
    roots: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    drawn: set[tuple[str, str]] = set()
    while len(drawn) < limit:
        root, category = min(pools, key=lambda pool: (roots[pool[0]], categories[pool[1]]))
        drawn.add(pools[root, category].pop())
        roots[root] += 1
        categories[category] += 1
        if not pools[root, category]:
            del pools[root, category]
    return drawn

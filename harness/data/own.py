"""The user's own data: a file of JSON lines, an episode a line. ``docs/own-data.md`` describes the form.

Everything that is wrong is told with file, line and field, before anything is asked of a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from harness.data.files import TaskData, unrepeated
from harness.episodes import CLEAN, Episode, History, Message, Question, widening
from harness.errors import HarnessError, nearest

MAX_LINE = 16 * 2**20
"""Bytes of an episode: some four million tokens."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _text(value: Any) -> Any:
    """Numbers are read as text: ids and answers are often written without quotes."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _said(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("it is empty; write its text or take it out")
    return value


def _free(category: str) -> str:
    if CLEAN in widening(category):
        raise ValueError(f"'{CLEAN}' is the category of all that an overlay leaves in; give it another name")
    return category


Text = Annotated[str, BeforeValidator(_said)]
Name = Annotated[str, BeforeValidator(_said), BeforeValidator(_text), Field(max_length=200, pattern=r"^[^\x00-\x1f]+$")]
Answer = Annotated[str, BeforeValidator(_said), BeforeValidator(_text)]
Category = Annotated[str, Field(max_length=100, pattern=r"^[^/,\x00-\x1f]+(/[^/,\x00-\x1f]+)*$"), AfterValidator(_free)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MessageRow(_Row):
    """A message; a plain string is one of the user's."""

    content: Text
    role: Literal["user", "assistant"] = "user"
    time: Text | None = None
    id: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return {"content": value} if isinstance(value, str) else value


class QuestionRow(_Row):
    """A question, asked after a message or at the end."""

    question: Text
    answers: tuple[Answer, ...] = Field((), min_length=1)
    answer: Answer | None = None
    choices: tuple[Answer, ...] = Field((), min_length=2, max_length=len(LETTERS))
    id: Name | None = None
    category: Category = ""
    evidence: tuple[Name, ...] = ()
    after: Name | None = None

    @model_validator(mode="after")
    def _answered(self) -> QuestionRow:
        if bool(self.answers) == bool(self.answer):
            raise ValueError("give 'answer', or 'answers' where several count as right, and not both")
        if self.choices and not {*self.golds} <= {*self.choices}:
            wrong = next(gold for gold in self.golds if gold not in self.choices)
            raise ValueError(f"the answer '{_short(wrong)}' is none of the choices; write it as the choice is written")
        return self

    @property
    def golds(self) -> tuple[str, ...]:
        return (self.answer,) if self.answer else self.answers


class EpisodeRow(_Row):
    """A line of the file."""

    messages: tuple[MessageRow, ...] = Field(min_length=1)
    questions: tuple[QuestionRow, ...] = Field(min_length=1)
    id: Name | None = None
    root: Name | None = None
    system: Text | None = None


ROWS: dict[str, type[BaseModel]] = {"messages": MessageRow, "questions": QuestionRow}


@dataclass(frozen=True)
class Wording:
    """How an experiment has the questions asked; None leaves the task's own words."""

    system: str | None = None
    question: str | None = None
    question_removed: str | None = None


@dataclass(frozen=True)
class Asked(Question):
    """A question of the user's, with the wording that came with it."""

    choices: tuple[str, ...] = ()
    shown: str | None = None
    """The user message with the history in sight, where the experiment words it."""
    removed: str | None = None


def load(path: Path, wording: Wording) -> TaskData:
    """The episodes of a file: of each line, one that ends where questions are asked, the longer continuing the shorter.

    Raises:
        HarnessError: the file is missing or wrong; the sentence names file, line, field and mend.
    """
    digest, episodes = hashlib.sha256(), []
    lines: dict[str, int] = {}
    for number, line in _lines(path):
        digest.update(line)
        if line.strip():
            where = f"{path} line {number}"
            for episode in _episodes(_row(line, where), f"{path.stem}:{number}", wording, where):
                _once(episode, number, lines, where)
                episodes.append(episode)
    if not episodes:
        raise HarnessError(f"{path} is empty; write an episode a line, as docs/own-data.md shows")
    return TaskData(tuple(episodes), "own", str(path), digest.hexdigest())


def shortest(data: TaskData, count: int) -> TaskData:
    """The ``count`` shortest episodes, by characters of history; fewer are said in the note."""
    ordered = sorted(data.episodes, key=lambda e: sum(len(m.content) for m in e.history.messages))
    note = f"{len(ordered):,} of the {count:,} episodes asked for, all there are" if count > len(ordered) else ""
    return replace(data, episodes=tuple(ordered[:count]), note=note)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as stream:
            number = 0
            while line := stream.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise HarnessError(
                        f"{path} line {number} is longer than {MAX_LINE // 2**20} MiB; write each episode on a line of "
                        "its own, and a longer history in several"
                    )
                yield number, line
    except OSError as error:
        raise HarnessError(
            f"{path} cannot be read ({error.strerror}); name a file, from the folder in which the command is run"
        ) from error


def _row(line: bytes, where: str) -> EpisodeRow:
    """A line as an episode, checked."""
    try:
        text = line.decode("utf-8-sig" if where.endswith(" line 1") else "utf-8")
    except UnicodeDecodeError as error:
        raise HarnessError(f"{where} is not UTF-8 text (byte {error.start + 1}); save the file as UTF-8") from error
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: unrepeated(pairs, where), parse_constant=_no_number)
        if "\\u" in text:  # half of a character can be escaped, and nowhere be written
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise HarnessError(f"{where} holds half a character ({error.object[error.start]!r}); write it out") from error
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg}, character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise HarnessError(
            f"{where} is cut off or no JSON ({reason}); write each episode as one object on a line of its own"
        ) from error
    if not isinstance(value, dict):
        raise HarnessError(f"{where} is no object; write each episode as one object on a line of its own")
    try:
        return EpisodeRow.model_validate(value)
    except ValidationError as error:
        raise HarnessError(f"{where}{_explained(error.errors()[0])}") from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _explained(error: ErrorDetails) -> str:
    """What pydantic found, told by field: ``, question 2: the field 'question' is missing; add it``."""
    parts: list[str] = []
    row: type[BaseModel] = EpisodeRow
    for step in error["loc"]:
        if isinstance(step, int):
            row = ROWS.get(parts[-1], row)
            parts[-1] = f"{parts[-1].removesuffix('s')} {step + 1}"
        else:
            parts.append(str(step))
    kind, last = error["type"], parts[-1] if parts else ""
    around = "".join(f", {part}" for part in parts[:-1])
    if kind == "extra_forbidden":
        return f"{around}: unknown key '{_short(last)}'; {nearest(last, row.model_fields)}"
    if kind == "missing":
        return f"{around}: the field '{last}' is missing; add it"
    at = "".join(f", {part}" for part in parts)
    message = error["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{at}: {message}"
    if kind == "string_pattern_mismatch":
        message = "no line breaks or tabs are allowed here (nor commas and empty parts in a category)"
    if kind in ("too_short", "too_long"):
        least, most = error["ctx"].get("min_length"), error["ctx"].get("max_length")
        return f"{at}: it holds {f'fewer than {least}' if least else f'more than {most}'}; mend it"
    if kind in ("model_type", "tuple_type"):
        message = f"it is no {'list' if kind == 'tuple_type' else 'object'}"
    return f"{at}: {message[:1].lower()}{message[1:]}, not {_short(json.dumps(error['input'], default=str))}; mend it"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


def _episodes(row: EpisodeRow, unnamed: str, wording: Wording, where: str) -> Iterator[Episode]:
    """The history up to each message after which something is asked, in order; the whole of it keeps the name.

    Args:
        unnamed: Name of a line that brings none; with the file in it, as two files may be held against each other.
    """
    name = row.id or unnamed
    messages = tuple(Message(m.content, m.role, m.time, m.id or str(n)) for n, m in enumerate(row.messages, 1))
    places = {str(m.id): n for n, m in enumerate(messages)}
    if len(places) < len(messages):
        ids = [m.id for m in messages]
        twice = next(n for n, name in enumerate(ids) if name in ids[:n])
        raise HarnessError(
            f"{where}, message {twice + 1}: the id '{ids[twice]}' is another message's (one without an id goes by its "
            "number); give it another"
        )
    asked: dict[int, list[Question]] = {}
    for n, question in enumerate(row.questions, 1):
        at = f"{where}, question {n}"
        end = _place(question.after, places, at, "after") if question.after else len(messages) - 1
        for evidence in question.evidence:
            if _place(evidence, places, at, "evidence") > end:
                raise HarnessError(f"{at}: its evidence '{evidence}' is told after it is asked; move 'after'")
        asked.setdefault(end, []).append(_question(question, f"{name}/{question.id or n}", wording))
    before = None
    for end, questions in sorted(asked.items()):
        here = name if end == len(messages) - 1 else f"{name}@{messages[end].id}"
        history = History(messages[: end + 1], row.system or wording.system or "")
        yield Episode(here, history, tuple(questions), row.root or name, "own", continues=before)
        before = here


def _place(name: str, places: dict[str, int], at: str, field: str) -> int:
    if name not in places:
        hint = nearest(name, places) if len(places) <= 20 else "name one that is"
        raise HarnessError(f"{at}: '{field}' names the message '{_short(name)}', which is not there; {hint}")
    return places[name]


def _question(row: QuestionRow, name: str, wording: Wording) -> Asked:
    text = "\n".join([row.question, *(f"{letter}. {c}" for letter, c in zip(LETTERS, row.choices, strict=False))])
    shown = wording.question and wording.question.replace("{question}", text)
    removed = wording.question_removed and wording.question_removed.replace("{question}", text)
    return Asked(
        name,
        text,
        row.golds,
        row.category,
        row.evidence,
        choices=row.choices,
        shown=shown,
        removed=removed or shown,
    )


def _once(episode: Episode, number: int, lines: dict[str, int], where: str) -> None:
    """Refuse names that are taken: answers are kept by them."""
    for what, name in [("episode", episode.id), *(("question", q.id) for q in episode.questions)]:
        key = f"{what} {name}"
        if key in lines:
            taken = "" if lines[key] == number else f" of line {lines[key]}"
            raise HarnessError(f"{where}: the name '{name}' is another {what}'s{taken}; give one of them another id")
        lines[key] = number

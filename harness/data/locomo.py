"""LoCoMo (Maharana et al., 2024): ten very long dated conversations of two people, and questions about them."""

from __future__ import annotations

import functools
import re
from typing import Any

from harness.data.files import DataFile, Raw, TaskData, fetch, field, loaded, optional, rows_of, strings
from harness.data.generated import locomo as generated
from harness.data.settings import only_generated
from harness.episodes import Episode, History, Message, Question
from harness.errors import HarnessError
from harness.experiment import DataSpec

FILES = (DataFile("locomo/locomo10.json"),)

CATEGORIES = {1: "multi_hop", 2: "temporal", 3: "open_domain", 4: "single_hop"}
"""Category 5, adversarial, is not asked: 444 of its 446 questions have no gold answer, and the paper leaves it out."""

GENERATED = 4
"""Conversations generated where the experiment names no number."""


def load(data: DataSpec, count: int | None = None, knobs: generated.Conversations | None = None) -> TaskData:
    """Every conversation of the official file, or ``count`` generated ones.

    Raises:
        HarnessError: the file is missing, or a row is not of the schema.
    """
    only_generated(knobs, "locomo", data)
    rows = functools.partial(generated.rows, count or GENERATED, knobs=knobs)
    return read(fetch(data, FILES, rows))


def read(raw: Raw) -> TaskData:
    """Conversations as episodes: a message a turn, root and episode id the ``sample_id``."""
    return loaded(raw, [_episode(row, raw, f"{raw.file}, row {n}") for n, row in enumerate(rows_of(raw))])


def _episode(row: Any, raw: Raw, where: str) -> Episode:
    name = field(row, "sample_id", str, where)
    where = f"{where} ({name})"
    messages = tuple(_messages(field(row, "conversation", dict, where), where))
    if not messages:
        raise HarnessError(f"{where}: the conversation has no turn; fetch the file again or take the row out")
    turns = {m.id for m in messages}
    questions = []
    for n, qa in enumerate(field(row, "qa", list, where)):
        asked = f"{where}, qa {n}"
        category = field(qa, "category", int, asked)
        if category in CATEGORIES:
            questions.append(_question(f"{name}-q{n}", qa, CATEGORIES[category], turns, asked))
    return Episode(name, History(messages), tuple(questions), root=name, source=raw.source)


def _messages(conversation: dict, where: str) -> list[Message]:
    # There are dates without a session, so the sessions lead and each looks up its date.
    numbers = sorted(int(m[1]) for key in conversation if (m := re.fullmatch(r"session_(\d+)", key)))
    messages = []
    for number in numbers:
        date = field(conversation, f"session_{number}_date_time", str, where)
        for n, turn in enumerate(field(conversation, f"session_{number}", list, where)):
            told = _told(turn, f"{where}, session_{number}, turn {n}")
            messages.append(Message(told, time=date, id=field(turn, "dia_id", str, where)))
    return messages


def _told(turn: Any, where: str) -> str:
    told = f"{field(turn, 'speaker', str, where)}: {field(turn, 'text', str, where)}"
    picture = optional(turn, "blip_caption", str, where)
    return f"{told} (shares a picture: {picture})" if picture else told


def _question(name: str, qa: dict, category: str, turns: set[str | None], where: str) -> Question:
    # Six gold answers are numbers; and `evidence` has ids run together ("D8:6; D9:17"), padded ("D30:05") and lost.
    answer = str(field(qa, "answer", (str, int), where))
    ids = re.findall(r"D(\d+):(\d+)", " ".join(strings(qa, "evidence", where)))
    evidence = dict.fromkeys(f"D{int(session)}:{int(turn)}" for session, turn in ids)
    found = tuple(e for e in evidence if e in turns)
    return Question(name, field(qa, "question", str, where), (answer,), category, found)

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


class Form:
    """How a conversation is told: a message a turn, oldest session first, each session dated as every history is."""

    newest_first = False
    """The order of the sessions; a session's turns go forward in either."""

    def turn(self, speaker: str, text: str, picture: str) -> str:
        """A turn; ``picture`` is the caption of the one that it shares, or empty."""
        return f"{speaker}: {text}" + (f" (shares a picture: {picture})" if picture else "")

    def heading(self, date: str) -> str | None:
        """What tells a session's date; None tells it as every history does."""
        return None

    def frame(self, conversation: dict, where: str) -> str | None:
        """Opening of the one chat message that all turns of a conversation share; None gives each its own."""
        return None


def load(
    data: DataSpec, count: int | None = None, knobs: generated.Conversations | None = None, form: Form | None = None
) -> TaskData:
    """Every conversation of the official file, or ``count`` generated ones.

    Raises:
        HarnessError: the file is missing, or a row is not of the schema.
    """
    only_generated(knobs, "locomo", data)
    rows = functools.partial(generated.rows, count or GENERATED, knobs=knobs)
    return read(fetch(data, FILES, rows), form)


def read(raw: Raw, form: Form | None = None) -> TaskData:
    """Conversations as episodes: a message a turn, root and episode id the ``sample_id``."""
    told = form or Form()
    return loaded(raw, [_episode(row, raw, f"{raw.file}, row {n}", told) for n, row in enumerate(rows_of(raw))])


def _episode(row: Any, raw: Raw, where: str, form: Form) -> Episode:
    name = field(row, "sample_id", str, where)
    where = f"{where} ({name})"
    messages = tuple(_messages(field(row, "conversation", dict, where), where, form))
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


def _messages(conversation: dict, where: str, form: Form) -> list[Message]:
    # There are dates without a session, so the sessions lead and each looks up its date.
    numbers = sorted(int(m[1]) for key in conversation if (m := re.fullmatch(r"session_(\d+)", key)))
    frame = form.frame(conversation, where)
    messages = []
    for number in reversed(numbers) if form.newest_first else numbers:
        date = field(conversation, f"session_{number}_date_time", str, where)
        for n, turn in enumerate(field(conversation, f"session_{number}", list, where)):
            at = f"{where}, session_{number}, turn {n}"
            speaker, text = field(turn, "speaker", str, at), field(turn, "text", str, at)
            told = form.turn(speaker, text, optional(turn, "blip_caption", str, at) or "")
            name = field(turn, "dia_id", str, where)
            messages.append(Message(told, time=date, id=name, frame=frame, heading=form.heading(date)))
    return messages


def _question(name: str, qa: dict, category: str, turns: set[str | None], where: str) -> Question:
    # Six gold answers are numbers; and `evidence` has ids run together ("D8:6; D9:17"), padded ("D30:05") and lost.
    answer = str(field(qa, "answer", (str, int), where))
    ids = re.findall(r"D(\d+):(\d+)", " ".join(strings(qa, "evidence", where)))
    evidence = dict.fromkeys(f"D{int(session)}:{int(turn)}" for session, turn in ids)
    found = tuple(e for e in evidence if e in turns)
    return Question(name, field(qa, "question", str, where), (answer,), category, found)

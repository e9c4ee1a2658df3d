"""The one scorer of others' answers: both rules, intervals over root documents, the file's claims beside them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from harness import overlay as overlays
from harness import records, rescoring
from harness.answers import scores_of
from harness.episodes import CLEAN, Question
from harness.errors import HarnessError
from harness.others import formats
from harness.others import golds as gold_answers
from harness.others.claims import Claim, Claims
from harness.others.golds import Golds
from harness.others.table import Answer, Found
from harness.tasks import task as named
from harness.tasks.base import Task

OWN_ROOTS = ("hotpotqa", "gpqa", "ifeval")
"""Tasks whose question is its own source document."""


@dataclass(frozen=True)
class Cap:
    """How many answers hit the cap of tokens."""

    hits: int
    known: int
    """Answers of which the file tells it, by a finish reason or by lengths."""
    bounded: int
    """Others whose text is too short to have hit it: of at most as many bytes as the cap has tokens."""
    n: int

    @property
    def rate(self) -> float | None:
        """The share; None where it is unknown of some."""
        return self.hits / self.n if self.known + self.bounded == self.n else None

    def sentence(self) -> str:
        """In words."""
        if self.rate is not None:
            how = "" if self.known == self.n else ", as far as the text is all that was generated"
            return f"{100 * self.rate:.2f}% of the answers hit the cap of tokens{how}"
        if self.known + self.bounded == 0:
            return "how many answers hit the cap of tokens is unknown: the file has neither lengths nor finish reasons"
        most = self.n - self.known - self.bounded + self.hits
        return f"how many answers hit the cap of tokens is unknown, {100 * most / self.n:.2f}% at most"


@dataclass(frozen=True)
class Rescored:
    """What a file of answers is worth by our rules."""

    file: str
    format: str
    task: str
    answers: int
    scores: dict[str, records.Score]
    claims: list[Claim]
    cap: Cap
    empty: float
    identical: float
    """Share of the most frequent answer, whatever its case."""
    usual: float
    """Share of the most frequent gold answer."""
    golds: Golds | None
    official: bool
    """Whether the official gold answers scored, in the place of the file's."""
    notes: list[str]


@dataclass
class _Table:
    """The answers as they are scored; no text is kept."""

    scored: Task
    claims: Claims
    rows: dict[str, list] = field(default_factory=lambda: defaultdict(list))
    scores: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    texts: Counter[bytes] = field(default_factory=Counter)
    golds: Counter[str] = field(default_factory=Counter)
    seen: dict[tuple[str, int], tuple[str, bytes]] = field(default_factory=dict)
    """Where each question and draw stands, and the digest of its answer; in the order of ``rows``."""
    empty: int = 0
    hits: int = 0
    known: int = 0
    bounded: int = 0

    def add(self, answer: Answer, question: Question, root: str, name: str) -> None:
        key = (name, answer.draw)
        told = hashlib.sha256(answer.prediction.encode("utf-8", "surrogatepass")).digest()
        if answer.again:
            self._repeat(answer, question, key, told)
            return
        if key in self.seen:
            raise HarnessError(
                f"{answer.where}: the question {name!r:.80} is answered in {self.seen[key][0]} already; keep one"
            )
        ready = self.scored.answer(answer.prediction)
        earned = scores_of(self.scored, ready, question, answer.where)
        self.seen[key] = answer.where, told
        columns = (name, "", root, question.category, answer.draw)
        for column, value in zip(("question_id", "history_id", "root", "category", "draw"), columns, strict=True):
            self.rows[column].append(value)
        for metric, value in earned.items():
            self.scores[metric].append(value)
        self.claims.add(answer.claimed, earned)
        plain = answer.prediction.strip().casefold()
        self.empty += not plain
        self.texts[hashlib.sha256(plain.encode("utf-8", "surrogatepass")).digest()] += 1
        self.golds[question.answers[0].casefold()] += 1
        self._cap(answer)

    def _repeat(self, answer: Answer, question: Question, key: tuple[str, int], told: bytes) -> None:
        where, before = self.seen[key]
        if before != told:
            raise HarnessError(
                f"{answer.where}: the question {key[0]!r:.80} has another answer than in {where}; keep one run a file"
            )
        self.claims.add(
            answer.claimed, scores_of(self.scored, self.scored.answer(answer.prediction), question, answer.where)
        )

    def _cap(self, answer: Answer) -> None:
        if answer.hit_cap is not None or (answer.tokens is not None and answer.cap is not None):
            self.known += 1
            self.hits += (answer.tokens or 0) >= (answer.cap or 0) if answer.hit_cap is None else answer.hit_cap
        elif answer.whole and answer.cap is not None:
            self.bounded += len(answer.prediction.encode("utf-8", "surrogatepass")) < answer.cap

    def frame(self) -> pd.DataFrame:
        """With the columns of a record's samples that scores are made of."""
        columns = {}
        for metric in self.scored.metrics:
            columns.update(rescoring.columns(metric.name, self.scores[metric.name]))
        # Sorted, so that sums of floats do not know the order of the file.
        return pd.DataFrame({**self.rows, **columns}).sort_values(["question_id", "draw"], ignore_index=True)


def rescore(path: Path, task: str | None = None, overlay: Path | None = None, official: bool = False) -> Rescored:
    """Score a file's answers by every rule of their task.

    Args:
        task: Whose rules; None takes the task that the file tells.
        overlay: A file of questions whose gold answers are known to be wrong: scores then also without them.
        official: Score against the data folder's gold answers in the place of the file's.

    Raises:
        HarnessError: the format is unknown, or something in the file, the overlay or the folder is wrong.
    """
    found = formats.read(path, task)
    scored = named(found.task)
    known = gold_answers.official(scored, found, official)
    table = _Table(scored, Claims(scored, found))
    rooted = 0
    for answer in found.answers:
        match = known.find(answer) if known else None
        question = _question(scored, answer, match, found, known, official)
        rooted += bool(answer.root or match)
        root, name = (match[1], match[0].id) if match else (answer.root or answer.id, answer.id)
        table.add(answer, question, root, name)
    if not table.seen:
        raise HarnessError(f"{path} holds no answer to score; name another file")
    if not rooted and scored.name.partition("@")[0] not in OWN_ROOTS:
        found.notes.append("no answer names its source document, so that each counts as a cluster of its own")
    frame = rescoring.mark(table.frame(), _overlay(overlay, scored, table, found))
    n = len(table.seen)
    scores = rescoring.scores(scored, frame)
    claims = table.claims.told(scores)
    if table.claims.unread:
        found.notes.append(f"scores that are not compared: {', '.join(sorted(table.claims.unread))}")
    return Rescored(
        str(path),
        found.format,
        found.task,
        n,
        scores,
        claims,
        Cap(table.hits, table.known, table.bounded, n),
        table.empty / n,
        max(table.texts.values()) / n,
        max(table.golds.values()) / n,
        known if found.known is None else None,
        official or found.known is not None,
        sorted(found.notes) + ([note] if (note := scored.note()) else []),
    )


def _question(
    scored: Task, answer: Answer, match: tuple[Question, str] | None, found: Found, known: Golds | None, official: bool
) -> Question:
    """The question that an answer is scored against: the file's own, with the category of the official one."""
    if found.known is not None or official:
        if match is None:
            mend = "run the cell again" if found.known is not None else "leave --official-golds out"
            raise HarnessError(f"{answer.where}: the question {answer.id!r:.80} is none of the official ones; {mend}")
        if found.known is None and known and not answer.again:
            known.compare(_own(scored, answer, match), match[0])
        return match[0]
    question = _own(scored, answer, match)
    if known and not answer.again:
        known.compare(question, match[0] if match else None)
    return question


def _own(scored: Task, answer: Answer, match: tuple[Question, str] | None) -> Question:
    category = {"category": match[0].category} if match and not answer.row.get("category") else {}
    try:
        return scored.question_of({**answer.row, **category})
    except HarnessError as error:
        raise HarnessError(f"{answer.where}: {error}") from error


def _overlay(file: Path | None, scored: Task, table: _Table, found: Found) -> overlays.Overlay | None:
    if file is None:
        return None
    overlay = overlays.read(file, scored.name)
    met = len(set(overlay.wrong) & set(table.rows["question_id"]))
    if not met:
        raise HarnessError(
            f"{file} names no question of the answers; give them the official ids, or set DELTA_MEM_DATA so "
            "that they are found by their texts"
        )
    found.notes.append(f"'{CLEAN}' leaves out {met} of the {len(overlay.wrong)} questions of {file}")
    return overlay

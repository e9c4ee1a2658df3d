"""HotpotQA, distractor setting (Yang et al., 2018): questions over ten paragraphs, two of which hold the answer."""

from __future__ import annotations

import functools
from typing import Any

from harness.data.files import DataFile, HubRows, Raw, TaskData, fetch, field, loaded, rows_of, strings
from harness.data.generated import hotpotqa as generated
from harness.data.settings import only_generated
from harness.episodes import Episode, History, Message, Question
from harness.errors import HarnessError
from harness.experiment import DataSpec

_THINNED = "a sample of 256 of 7,405 questions, yes/no thinned out: not to be set beside a published score"

FILES = (
    DataFile("hotpotqa/hotpot_dev_distractor_v1.json"),
    DataFile("hotpotqa/hotpot_qa_distractor_validation.jsonl.gz"),
    DataFile("hotpotqa/hotpot_qa_distractor_validation.sample256.jsonl.gz", note=_THINNED),
    DataFile("hotpotqa/hotpot_dev_distractor_v1.first100.json", note="the first 100 of 7,405 questions"),
)
HUB = HubRows("hotpotqa/hotpot_qa", "distractor", "validation", "1908d6afbbead072334abe2965f91bd2709910ab")

GENERATED = 60
"""Questions generated where the experiment names no number."""


class Form:
    """How paragraphs are told: a message each, its title in front."""

    def paragraph(self, number: int, title: str, text: str) -> str:
        """The paragraph that is ``number`` of its question's, counted from 1."""
        return f"{title}: {text}"

    def frame(self) -> str | None:
        """Opening of the one chat message that all paragraphs share; None gives each its own."""
        return None


def load(
    data: DataSpec, count: int | None = None, knobs: generated.Chains | None = None, form: Form | None = None
) -> TaskData:
    """Every question of the official file or of the hub, or ``count`` generated ones.

    Raises:
        HarnessError: the data cannot be had, or a row is not of the schema.
    """
    only_generated(knobs, "hotpotqa", data)
    rows = functools.partial(generated.rows, count or GENERATED, knobs=knobs)
    return read(fetch(data, FILES, rows, HUB), form)


def read(raw: Raw, form: Form | None = None) -> TaskData:
    """Questions as episodes: a message a paragraph with its title as id, root and episode id the question's."""
    told = form or Form()
    return loaded(raw, [_episode(row, raw, f"{raw.file}, row {n}", told) for n, row in enumerate(rows_of(raw))])


def _episode(row: Any, raw: Raw, where: str, form: Form) -> Episode:
    name = field(row, "id" if isinstance(row, dict) and "id" in row else "_id", str, where)
    where = f"{where} ({name})"
    paragraphs = _pairs(field(row, "context", (dict, list), where), "title", "sentences", f"{where}, context")
    messages = []
    for n, (title, sentences) in enumerate(paragraphs, 1):
        # Sentences bring their own leading space.
        if text := "".join(strings({"sentences": sentences}, "sentences", f"{where}, '{title}'")).strip():
            messages.append(Message(form.paragraph(n, title, text), id=title, frame=form.frame()))
    if not messages:
        raise HarnessError(f"{where}: the context has no paragraph; fetch the file again or take the row out")
    facts = _pairs(
        field(row, "supporting_facts", (dict, list), where), "title", "sent_id", f"{where}, supporting_facts"
    )
    question = Question(
        name,
        field(row, "question", str, where),
        (str(field(row, "answer", (str, int), where)),),
        field(row, "type", str, where),
        tuple(dict.fromkeys(title for title, _ in facts)),
    )
    return Episode(name, History(tuple(messages)), (question,), root=name, source=raw.source)


def _pairs(value: Any, first: str, second: str, where: str) -> list[tuple[str, Any]]:
    """Pairs from either schema: columns ``{first: [...], second: [...]}`` or a list of two-element lists."""
    if isinstance(value, list):
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
            raise HarnessError(f"{where} is no list of pairs ({first}, {second}); compare docs/data.md")
        value = {first: [pair[0] for pair in value], second: [pair[1] for pair in value]}
    columns = strings(value, first, where), field(value, second, list, where)
    if len(columns[0]) != len(columns[1]):
        raise HarnessError(f"{where}: '{first}' and '{second}' differ in length; fetch the file again")
    return list(zip(*columns, strict=True))

"""MemoryAgentBench (Hu, Wang, McAuley, 2026): long contexts that are read once and asked many times.

Four splits of one schema, row by row told apart by ``metadata.source``. A row becomes one episode, so that its context
is held once, however many questions it has.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harness.data.files import (
    DataFile,
    HubRows,
    Raw,
    TaskData,
    fetch_all,
    field,
    folder,
    generates,
    loaded,
    read,
    rows_of,
    strings,
)
from harness.data.memory_agent_bench import generated, rebuilt
from harness.data.memory_agent_bench.inventory import CATEGORIES, SOURCES, Source, chosen, size_of
from harness.data.memory_agent_bench.movies import named, title
from harness.data.memory_agent_bench.units import chunks, head_and_tail, parts
from harness.episodes import Episode, History, Message, Question, digest
from harness.errors import HarnessError
from harness.experiment import DataSpec

FILES = tuple(DataFile(f"memory_agent_bench/data/{split}-00000-of-00001.parquet") for split in CATEGORIES)
HUB = tuple(HubRows("ai-hyz/MemoryAgentBench", "default", split, "main") for split in CATEGORIES)
REBUILT = ("950647629abc644a7d05e124e6b67dbbfdab1bebc71b3b36513347a931a98820",)
"""sha256 of files in the official schema whose contexts are known to be put together again by others."""
ENTITIES = ("redial/entity2id.json", "redial/entity2id.json.gz")

GENERATED = 12
"""Rows generated where the experiment names no number: two of each form."""


class Sizes(generated.Knobs, rebuilt.Parts):
    """Which rows are read, and the sizes of those that are made here."""

    sources: tuple[str, ...] = Field((), description="Categories (AR, TTL, LRU, SF) or sub-data sets; none takes all.")
    ablations: bool = Field(True, description="With the shorter EventQA and FactConsolidation rows: 3,671, not 2,071.")
    questions: int | None = Field(None, ge=1, description="Questions of each sub-data set at most, in seeded order.")
    unit: Literal["natural", "chunk", "whole"] = Field(
        "natural", description="A message is a document, fact, ..., a chunk of whole sentences, or all of the context."
    )
    chunk_tokens: int = Field(4096, ge=16, description="Of a chunk at most, counted as four characters each.")
    max_characters: int | None = Field(
        None, ge=64, description="Longer contexts lose their middle, as the release has it."
    )


def load(data: DataSpec, sizes: Sizes, count: int | None = None) -> TaskData:
    """The rows of the official files or of the hub, with those that are rebuilt, or ``count`` generated ones.

    Raises:
        HarnessError: the data cannot be had, a name is unknown, or a row is not of the schema.
    """
    wanted = {source.name for source in chosen(sizes.sources, ablations=sizes.ablations)}
    make = partial(generated.rows, count or GENERATED, sizes, frozenset(wanted))
    raws = fetch_all(data, FILES, make, HUB, REBUILT)
    made = [source for source in chosen(sizes.rebuild) if source.name in wanted] if sizes.rebuild else []
    if generates(data):  # every row is made, so that none is to be rebuilt
        made, sizes = [], sizes.model_copy(update={"rebuild": ()})
    if made:
        root = folder()
        if root is None:
            raise HarnessError("`rebuild` needs the parts in a folder; set DELTA_MEM_DATA to one, or leave it out")
        raws.append(rebuilt.rows(made, sizes, root, data.seed))
    if not raws:
        raise HarnessError(f"{folder()} holds no {FILES[0].name}, nor another split; put one there or set `rebuild`")
    return read_rows(raws, sizes, data.seed)


def read_rows(raws: Sequence[Raw], sizes: Sizes, seed: int = 0) -> TaskData:
    """Rows of several files as one set of episodes.

    The whole counts as ``rebuilt`` where any row is, and the note says which.
    """
    wanted = {source.name for source in chosen(sizes.sources, ablations=sizes.ablations)}
    replaced = {source.name for source in chosen(sizes.rebuild)} if sizes.rebuild else set()
    seen: Counter[str] = Counter()
    episodes: list[Episode] = []
    joined = _joined(raws)
    for raw in raws:
        for n, row in enumerate(rows_of(raw)):
            where = f"{raw.file}, row {n}"
            source = _source(row, where)
            if source.name in wanted and (raw.file == rebuilt.NAME or source.name not in replaced):
                episodes.append(_episode(row, source, seen[source.name], raw, sizes, where))
                seen[source.name] += 1
    if not episodes:
        asked = ", ".join(sizes.sources) or "the headline set"
        raise HarnessError(f"{joined.file} has no row of {asked}; choose other `sources`, or `rebuild` them")
    found = loaded(replace(joined, source=_grade(episodes)), episodes, "; ".join(_remarks(joined, episodes, sizes)))
    return replace(found, episodes=tuple(_fewer(episodes, sizes.questions, seed)))


def _joined(raws: Sequence[Raw]) -> Raw:
    if len(raws) == 1:
        return raws[0]
    notes = dict.fromkeys(raw.note for raw in raws if raw.note)
    files = " and ".join(raw.file for raw in raws)
    return Raw([], raws[0].source, files, digest([raw.hash for raw in raws]), "; ".join(notes))


def _grade(episodes: Sequence[Episode]) -> Any:
    """The worst of what the episodes are."""
    return max((e.source for e in episodes), key=("official", "rebuilt", "generated").index)


def _remarks(raw: Raw, episodes: Sequence[Episode], sizes: Sizes) -> list[str]:
    """What a reader of the table must know: what is rebuilt, what is missing, and what is not as published."""
    if all(e.source == "generated" for e in episodes):
        return []
    counts: Counter[str] = Counter()
    made = []
    for episode in episodes:
        counts[_short(episode)] += len(episode.questions)
        if episode.source == "rebuilt":
            made.append(_short(episode))
    asked = chosen(sizes.sources, ablations=sizes.ablations)
    remarks = [f"rebuilt: {', '.join(dict.fromkeys(made))}"] if made else []
    if missing := [source.short for source in asked if source.short not in counts]:
        remarks.append(f"not there: {', '.join(missing)}")
    remarks += [
        f"{source.short} has {counts[source.short]:,} questions, not the published {source.questions:,}"
        for source in asked
        if source.short in counts and counts[source.short] != source.questions
    ]
    if remarks:
        totals = []
        for split, category in CATEGORIES.items():
            full = [source for source in asked if source.split == split]
            have = sum(counts[source.short] for source in full)
            totals.append(f"{category} {have:,} of {sum(s.questions for s in full):,}")
        remarks.append(f"questions: {', '.join(totals)}")
    if sizes.questions is not None:
        remarks.append(f"at most {sizes.questions:,} questions of each sub-data set are asked")
    return remarks


def _short(episode: Episode) -> str:
    return episode.questions[0].category.rpartition("/")[2]


def _fewer(episodes: Sequence[Episode], questions: int | None, seed: int) -> list[Episode]:
    """At most so many questions of each sub-data set, from as many of its rows as may be, in the order of the data."""
    if questions is None:
        return list(episodes)
    groups: defaultdict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        groups[_short(episode)].append(episode)
    kept: set[str] = set()
    for name, group in groups.items():
        rng = random.Random(f"memory_agent_bench/{name}/{seed}")
        shuffled = [rng.sample(e.questions, len(e.questions)) for e in rng.sample(group, len(group))]
        turns = [q.id for n in range(max(map(len, shuffled))) for own in shuffled for q in own[n : n + 1]]
        kept.update(turns[:questions])
    few = (e.with_questions(q for q in e.questions if q.id in kept) for e in episodes)
    return [e for e in few if e.questions]


def _source(row: Any, where: str) -> Source:
    name = field(field(row, "metadata", dict, where), "source", str, f"{where}, metadata")
    if name not in SOURCES:
        raise HarnessError(
            f"{where}, metadata: the field 'source' is '{name}', which is no sub-data set of MemoryAgentBench (an "
            "older dump has others); fetch the files of ai-hyz/MemoryAgentBench again"
        )
    return SOURCES[name]


def _episode(row: dict, source: Source, number: int, raw: Raw, sizes: Sizes, where: str) -> Episode:
    name = f"{source.short}-{number}"
    where = f"{where} ({source.name})"
    context = field(row, "context", str, where)
    if not context.strip():
        raise HarnessError(f"{where}: the field 'context' is empty; fetch the file again or `rebuild` {source.short}")
    if sizes.max_characters is not None:
        context = head_and_tail(context, sizes.max_characters, "\n\n[... context truncated ...]\n\n")
    questions = tuple(_questions(row, source, name, where))
    cut = {"natural": lambda: parts(context, source.unit, sizes.chunk_tokens), "whole": lambda: [context]}
    pieces = cut.get(sizes.unit, lambda: chunks(context, sizes.chunk_tokens))()
    messages = tuple(Message(piece, id=f"{source.unit} {n}") for n, piece in enumerate(pieces))
    return Episode(name, History(messages), questions, _root(source, questions, number), raw.source)


def _questions(row: dict, source: Source, episode: str, where: str) -> list[Question]:
    # Ids of our own: `qa_pair_ids` may be null, and rows of one sub-data set share them.
    texts, golds = strings(row, "questions", where), field(row, "answers", list, where)
    if len(texts) != len(golds) or not texts:
        raise HarnessError(f"{where}: {len(texts)} questions have {len(golds)} lists of answers; fetch the file again")
    found = []
    for n, text in enumerate(texts):
        given = strings({"answers": golds[n]}, "answers", f"{where}, question {n}")
        answers = tuple(answer for answer in given if answer.strip())
        if not answers:
            raise HarnessError(f"{where}, question {n}: 'answers' has no gold answer; fetch the file again")
        if source.rule == "recall":
            answers = tuple(title(a, entities(), f"{where}, question {n}") for a in answers)
        found.append(Question(f"{episode}-q{n}", text, answers, source.category, (), source.max_new_tokens))
    return found


def _root(source: Source, questions: Sequence[Question], number: int) -> str:
    """The source document. Rows with one book, or with one list of facts, share it."""
    if source.short.startswith("factconsolidation"):
        return f"factconsolidation_{size_of(source)}" + (f"-{number}" if number else "")
    if source.short.startswith("eventqa"):
        # Every length of a book begins with it, and the first question tells the book's first event.
        first = re.search(r"^1\. .+$", questions[0].text, re.MULTILINE)
        return f"eventqa-{digest(first[0])[:8]}" if first else f"eventqa-{number}"
    return f"{source.short}-{number}"


def entities() -> dict[int, str]:
    """Movie titles by the ids that gold recommendations are given in.

    Raises:
        HarnessError: the file of ids, which is part of the benchmark's code and not of the data set, is not there.
    """
    root = folder()
    found = next((root / name for name in ENTITIES if (root / name).is_file()), None) if root else None
    if found is None:
        raise HarnessError(
            f"the gold answers of 'redial' are numbers that {ENTITIES[0]} resolves, and DELTA_MEM_DATA names no folder "
            "with it; put the benchmark's file there or choose `sources` without redial"
        )
    return _entities(found)


@cache
def _entities(path: Path) -> dict[int, str]:
    ids = read(path)
    if not isinstance(ids, dict) or not all(isinstance(n, int) for n in ids.values()):
        raise HarnessError(f"{path} is no object of names and numbers; fetch it again")
    return named(ids)

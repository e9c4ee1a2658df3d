"""GPQA-Diamond (Rein et al., 2023): 198 questions of graduate level with four options each. There is no history.

Its authors ask that no question be found in plain text online. Nothing of a row is kept here but in memory, and an
error names file, row and field, never what stands there.
"""

from __future__ import annotations

import functools
import hashlib
import random
from typing import Any

from harness.data.files import DataFile, HubRows, Raw, TaskData, fetch, field, loaded, rows_of
from harness.data.generated import gpqa as generated
from harness.episodes import Episode, History, Question
from harness.errors import HarnessError
from harness.experiment import DataSpec

FILES = (DataFile("gpqa/gpqa_diamond.csv"),)
HUB = HubRows("Idavidrein/gpqa", "gpqa_diamond", "train", "633f5ee89ab8ad4522a9f850766b73f62147ffdd")

GENERATED = 24
"""Questions generated where the experiment names no number."""
SEED = 42
"""Of the order of the options, beside the record's id: the paper's release."""
LETTERS = "ABCD"
OPTIONS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def load(data: DataSpec, count: int | None = None) -> TaskData:
    """Every question of the user's file or of the gated hub data set, or ``count`` generated ones.

    Raises:
        HarnessError: the data cannot be had, or a row is not of the schema.
    """
    rows = functools.partial(generated.rows, count or GENERATED)
    return read(fetch(data, FILES, rows, HUB))


def read(raw: Raw) -> TaskData:
    """An episode a question, without a history; the category is the domain."""
    episodes, known = [], set()
    for n, row in enumerate(rows_of(raw)):
        where = f"{raw.file}, row {n}"
        name = field(row, "Record ID", str, where)
        texts = {key: field(row, key, str, where) for key in ("Question", *OPTIONS)}
        for key, text in (*texts.items(), ("Record ID", name)):
            if not text.strip():
                raise HarnessError(f"{where}: the field '{key}' is empty; fetch the file again")
        if name in known:
            raise HarnessError(f"{where}: its Record ID is there twice; fetch the file again")
        known.add(name)
        order = shuffled(name)
        doc = {"Question": texts["Question"], "choices": [texts[OPTIONS[k]] for k in order]}
        gold = f"({LETTERS[order.index(0)]})"
        domain = field(row, "High-level domain", str, where) if "High-level domain" in row else ""
        asked = Question(name, texts["Question"], (gold,), domain.strip(), doc={**doc, "answer": gold})
        episodes.append(Episode(name, History(()), (asked,), root=name, source=raw.source))
    return loaded(raw, episodes)


def shuffled(record: str) -> list[int]:
    """The order of a record's options, 0 being the correct one: a function of its id alone."""
    order = list(range(len(LETTERS)))
    seed = hashlib.md5(f"{record}:{SEED}".encode(), usedforsecurity=False).hexdigest()[:8]
    random.Random(int(seed, 16)).shuffle(order)
    return order


def document(row: Any) -> dict[str, Any]:
    """Options and gold letter of a line of ``harness score``, in the shape that the official rule reads."""
    options = row.get("options")
    if not isinstance(options, list) or len(options) != len(LETTERS) or not all(isinstance(o, str) for o in options):
        raise HarnessError("the field 'options' must be a list of four strings; give the options in order")
    gold = row.get("gold")
    if gold not in tuple(LETTERS):
        raise HarnessError("the field 'gold' must be a letter from A to D; give that of the correct option")
    return {"Question": "", "choices": options, "answer": f"({gold})"}

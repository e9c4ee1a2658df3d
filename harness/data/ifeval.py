"""IFEval (Zhou et al., 2023): prompts with instructions whose following a program can check. There is no history."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from harness.data.files import DataFile, HubRows, Raw, TaskData, fetch, field, loaded, rows_of, strings
from harness.data.generated import ifeval as generated
from harness.episodes import Episode, History, Question
from harness.errors import HarnessError, nearest
from harness.experiment import DataSpec

FILES = (DataFile("ifeval/input_data.jsonl"),)
HUB = HubRows("google/IFEval", "default", "train", "966cd89545d6b6acfd7638bc708b98261ca58e84")

GENERATED = 36
"""Prompts generated where the experiment names no number."""

_RELATION = {"relation": str}
ARGUMENTS: dict[str, dict[str, type]] = {
    "keywords:existence": {"keywords": list},
    "keywords:frequency": {"keyword": str, "frequency": int, **_RELATION},
    "keywords:forbidden_words": {"forbidden_words": list},
    "keywords:letter_frequency": {"letter": str, "let_frequency": int, "let_relation": str},
    "language:response_language": {"language": str},
    "length_constraints:number_sentences": {"num_sentences": int, **_RELATION},
    "length_constraints:number_paragraphs": {"num_paragraphs": int},
    "length_constraints:number_words": {"num_words": int, **_RELATION},
    "length_constraints:nth_paragraph_first_word": {"num_paragraphs": int, "nth_paragraph": int, "first_word": str},
    "detectable_content:number_placeholders": {"num_placeholders": int},
    "detectable_content:postscript": {"postscript_marker": str},
    "detectable_format:number_bullet_lists": {"num_bullets": int},
    "detectable_format:constrained_response": {},
    "detectable_format:number_highlighted_sections": {"num_highlights": int},
    "detectable_format:multiple_sections": {"section_spliter": str, "num_sections": int},
    "detectable_format:json_format": {},
    "detectable_format:title": {},
    "combination:two_responses": {},
    "combination:repeat_prompt": {"prompt_to_repeat": str},
    "startend:end_checker": {"end_phrase": str},
    "startend:quotation": {},
    "change_case:capital_word_frequency": {"capital_frequency": int, "capital_relation": str},
    "change_case:english_capital": {},
    "change_case:english_lowercase": {},
    "punctuation:no_comma": {},
}
"""The 25 types of instruction and what each is told; a checker that misses one would draw it at random."""


def load(data: DataSpec, count: int | None = None) -> TaskData:
    """Every prompt of the official file or of the hub, or ``count`` generated ones.

    Raises:
        HarnessError: the data cannot be had, or a row is not of the schema.
    """
    rows = functools.partial(generated.rows, count or GENERATED)
    return read(fetch(data, FILES, rows, HUB))


def read(raw: Raw) -> TaskData:
    """An episode a prompt, without a history; the category tells how many instructions it has."""
    episodes, known = [], set()
    for n, row in enumerate(rows_of(raw)):
        where = f"{raw.file}, row {n}"
        doc = document(row, where)
        name = str(doc["key"])
        if name in known:
            raise HarnessError(f"{where}: the key {name} is there twice; fetch the file again")
        known.add(name)
        asked = Question(name, doc["prompt"], (", ".join(doc["instruction_id_list"]),), _category(doc), doc=doc)
        episodes.append(Episode(name, History(()), (asked,), root=name, source=raw.source))
    return loaded(raw, episodes)


def document(row: Any, where: str) -> dict[str, Any]:
    """A row in lm-eval's shape, checked; arguments that are None, as the hub pads them, are dropped.

    Raises:
        HarnessError: a field is missing or wrong, a type of instruction is unknown, or lacks an argument.
    """
    ids = strings(row, "instruction_id_list", where)
    given = field(row, "kwargs", list, where)
    if not ids or len(given) != len(ids):
        raise HarnessError(f"{where}: 'kwargs' has {len(given)} entries for {len(ids)} instructions; fetch it again")
    arguments = [_arguments(ids[n], given[n], f"{where}, kwargs {n}") for n in range(len(ids))]
    prompt = field(row, "prompt", str, where)
    return {"key": field(row, "key", int, where), "prompt": prompt, "instruction_id_list": ids, "kwargs": arguments}


def _arguments(kind: str, given: Any, where: str) -> dict[str, Any]:
    if kind not in ARGUMENTS:
        raise HarnessError(f"{where}: unknown instruction '{kind}'; {nearest(kind, ARGUMENTS)}")
    if not isinstance(given, Mapping):
        raise HarnessError(f"{where}: the arguments of '{kind}' are {type(given).__name__}, not dict; fetch it again")
    found = {key: value for key, value in given.items() if value is not None}
    for key in found:
        if key not in ARGUMENTS[kind]:
            raise HarnessError(f"{where}: '{kind}' takes no '{key}'; compare docs/data.md")
    for key, wanted in ARGUMENTS[kind].items():
        field(found, key, (int, float) if wanted is int else wanted, where)
    return found


def _category(doc: Mapping[str, Any]) -> str:
    count = len(doc["instruction_id_list"])
    return f"{count}_instruction{'s' if count > 1 else ''}"

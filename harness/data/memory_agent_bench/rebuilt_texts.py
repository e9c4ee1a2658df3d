"""Contexts of conversations and of facts, for rows that are rebuilt."""

from __future__ import annotations

import gzip
import random
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.data.files import field, strings
from harness.errors import HarnessError

Asked = list[tuple[str, list[str]]]
"""Questions with their gold answers."""


def plain(root: Path, name: str, encoding: str = "utf-8") -> str:
    """The text of a file, gzipped or not.

    Raises:
        HarnessError: it is missing or cannot be read.
    """
    path = root / name
    if not path.is_file():
        raise HarnessError(f"{root} holds no {name}, which `rebuild` needs; put it there or leave its rows out")
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode(encoding)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise HarnessError(f"{path} cannot be read ({error}); fetch it again") from error


def unmarked(annotated: str) -> str:
    """An utterance of NLU without its marks: ``[date : today]`` is ``today``."""
    return re.sub(r"\[[^:\]]*:\s*([^\]]*?)\s*\]", r"\1", annotated).strip()


def sessions(row: dict, known: Mapping[str, dict], pool: int, rng: random.Random, make: Callable[..., dict]) -> dict:
    """Sessions of LongMemEval in order of time: those of the first questions, as many as ``pool`` holds, and others.

    Args:
        row: The official row without its context.
        known: LongMemEval's records by question id.
    """
    ids = field(row["metadata"], "question_ids", list, "the row of LongMemEval")
    kept: dict[str, tuple[str, list]] = {}
    asked, details = [], []
    for n, name in enumerate(ids):
        own = _dated(known[name]) if name in known else {}
        if own and len(kept.keys() | own.keys()) <= pool:
            kept |= own
            asked.append((row["questions"][n], row["answers"][n]))
            details.append((name, row["metadata"]["question_dates"][n], row["metadata"]["question_types"][n]))
    if not asked:
        raise HarnessError(f"{pool} sessions answer no question of LongMemEval; give `pool` a larger number")
    others = [
        s for name, record in known.items() if name not in ids for s in _dated(record).items() if s[0] not in kept
    ]
    kept |= dict(rng.sample(others, min(pool - len(kept), len(others))))
    ordered = sorted(kept.values(), key=lambda session: session[0])
    context = "\n".join(f"Session Date: {date}\n" + "".join(map(_turn, turns)) for date, turns in ordered)
    names, dates, types = (list(column) for column in zip(*details, strict=True))
    haystack = [[[{"content": "", "has_answer": None, "role": "", **t} for t in turns] for _, turns in ordered]]
    return make(
        context, asked, haystack_sessions=haystack, question_ids=names, question_dates=dates, question_types=types
    )


def _dated(record: dict) -> dict[str, tuple[str, list]]:
    where = f"LongMemEval, {record['question_id']}"
    columns = [field(record, f"haystack_{name}", list, where) for name in ("session_ids", "dates", "sessions")]
    return {name: (date, turns) for name, date, turns in zip(*columns, strict=True)}


def _turn(turn: dict) -> str:
    return f"{turn['role']}: {turn['content']}\n"


def dialogues(
    questions: Sequence[str], turns: Sequence[dict], file: str, pool: int, rng: random.Random
) -> tuple[str, Asked]:
    """``pool`` dialogues of ReDial that no question comes from, and the questions with all their movies."""
    movies: dict[str, list[str]] = {}
    longest: dict[str, tuple[int, str]] = {}
    of: dict[str, str] = {}
    for n, turn in enumerate(turns):
        where = f"{file}, row {n}"
        asked = field(turn, "input", str, where).strip()
        movies.setdefault(asked, list(map(str, field(turn, "rec", list, where))))
        dialogue = field(turn, "dialog_id", str, where)
        of[asked] = dialogue
        text = f"{asked} {field(turn, 'resp', str, where)}"
        longest[dialogue] = max(longest.get(dialogue, (0, "")), (len(text), text))
    if lost := [q for q in questions if q.strip() not in movies]:
        raise HarnessError(f"{file} has not the dialogues of {len(lost)} questions of redial; fetch the file again")
    tested = {of[q.strip()] for q in questions}
    free = sorted(longest.keys() - tested)
    shown = rng.sample(free, min(pool, len(free)))
    context = "\n\n".join(f"Dialogue {n}:\n{longest[name][1]}" for n, name in enumerate(shown, 1))
    return context, [(q, movies[q.strip()]) for q in questions]


def facts(cases: Sequence[dict], file: str, count: int, rng: random.Random) -> tuple[str, Asked, Asked]:
    """A numbered list of about ``count`` facts, a later one replacing an earlier; single questions, and chains.

    Cases are taken in random order where their edits agree with those before. What a case had before it was edited
    stands in the list too: each replaced fact, and the links that its chain had.
    """
    new: dict[str, str] = {}
    old: dict[str, dict[str, None]] = {}
    single: Asked = []
    chained: Asked = []
    for n in rng.sample(range(len(cases)), len(cases)):
        case, where = cases[n], f"{file}, row {n}"
        edits = {_key(e): e["target_new"]["str"] for e in field(case, "requested_rewrite", list, where)}
        path = {hop["cloze"]: hop["answer"] for hop in field(case, "new_single_hops", list, where)}
        if any(new.get(key, value) != value for key, value in (path | edits).items()):
            continue
        for edit in case["requested_rewrite"]:
            if _key(edit) not in new:
                single.append((edit["question"], [edit["target_new"]["str"]]))
            old.setdefault(_key(edit), {})[edit["target_true"]["str"]] = None
        for hop in field(case, "single_hops", list, where):
            old.setdefault(hop["cloze"], {}).setdefault(hop["answer"])
        new |= path | edits
        golds = [field(case, "new_answer", str, where), *strings(case, "new_answer_alias", where)]
        chained.append((strings(case, "questions", where)[0], golds))
        if len(new) + sum(map(len, old.values())) >= count:
            break
    told = [(key, value) for key, values in old.items() for value in values if value != new.get(key)]
    told += new.items()
    values: dict[str, list[str]] = {}
    for key, value in told:
        values.setdefault(key, []).append(value)
    order = [key for key, _ in rng.sample(told, len(told))]
    lines = [f"{n}. {key} {values[key].pop(0)}.\n" for n, key in enumerate(order)]
    return "".join(["Here is a list of facts:\n", *lines]), single, chained


def _key(edit: dict) -> str:
    return edit["prompt"].format(edit["subject"])

"""A benchmark's result JSON: rows of prediction and answer, in the fields of the benchmark's own data.

No page documents what the paper's release writes. Read are a list of rows, an object with one such list, LoCoMo's
own form (conversations with their ``qa``) and JSON lines; a row has ``prediction``, its gold ``answer`` (``answers``,
``gold``) and what the benchmark's data has: ``id``, ``category`` or ``type``, ``question``. Scores in it are taken for
the release's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.data.memory_agent_bench.inventory import SOURCES
from harness.episodes import digest
from harness.errors import HarnessError, nearest
from harness.others.files import Rows
from harness.others.own import answer
from harness.others.table import Found, first_name, name_of, share
from harness.tasks import tasks

FORMAT = "benchmark JSON (rows of prediction and answer)"
GOLDS = ("answer", "answers", "gold")
IDS = ("id", "_id", "question_id", "key", "Record ID", "qa_pair_id")
METRICS = {
    "hotpotqa": {"em": "em_release", "exact_match": "em_release", "f1": "f1_release"},
    "locomo": {"f1": "f1_release", "score": "f1_release"},
    "gpqa": {"accuracy": "acc_release", "acc": "acc_release", "correct": "acc_release"},
    "ifeval": {"strict": "prompt_level_strict_acc", "accuracy": "prompt_level_strict_acc"},
    "memory_agent_bench": {"accuracy": "score_release", "score": "score_release", "f1": "score_release"},
}
"""What a score claims to be, by task."""
ADVERSARIAL = 5
_TYPES = ("bridge", "comparison")


def fits(content: Any) -> bool:
    return bool(_lists(content))


def fits_line(row: Any) -> bool:
    return isinstance(row, dict) and "prediction" in row and any(key in row for key in GOLDS)


def _lists(content: Any) -> list[list[Any]]:
    """The lists of rows in a file."""
    tops = [content] if isinstance(content, list) else [*content.values()] if isinstance(content, dict) else []
    return [top for top in tops if isinstance(top, list) and top and any(_holds(row) for row in top)]


def _holds(row: Any) -> bool:
    nested = row.get("qa") if isinstance(row, dict) else None
    return fits_line(row) or (isinstance(nested, list) and any(map(fits_line, nested)))


def read(path: Path, content: Any, task: str | None) -> Found:
    """The answers of a file that is one JSON value.

    Raises:
        HarnessError: it has several lists of rows, or no task can be told.
    """
    lists = _lists(content)
    if len(lists) > 1:
        raise HarnessError(f"{path} has {len(lists)} lists of answers; keep one task and one list a file")
    rows = list(_rows(path, lists[0]))
    head = content if isinstance(content, dict) else {}
    found = _found(path, iter(rows), rows[0][1], task or _said(head))
    found.totals = _totals(head, found.metrics)
    return found


def lines(path: Path, rows: Rows, first: dict[str, Any], task: str | None) -> Found:
    """The answers of JSON lines, streamed."""
    return _found(path, rows, first, task)


def _found(path: Path, rows: Rows, first: Mapping[str, Any], task: str | None) -> Found:
    ours = task or _said(first) or _told(first)
    if ours is None:
        raise HarnessError(f"{path}: its rows tell no task; say whose rules score it with --task")
    if ours not in tasks():
        raise HarnessError(f"{path}: unknown task '{ours}'; {nearest(ours, tasks())}")
    found = Found(FORMAT, ours, (), METRICS.get(ours.partition("@")[0], {}), rule="release")
    found.answers = _answers(rows, found)
    return found


def _said(row: Mapping[str, Any]) -> str | None:
    """The task that a file or row names itself."""
    told = next((row[key] for key in ("task", "benchmark") if isinstance(row.get(key), str)), "")
    name = told.lower().replace("-", "_").replace(" ", "_")
    return name if name in tasks() else None


def _told(row: Mapping[str, Any]) -> str | None:
    """The task that a row's fields tell."""
    if "instruction_id_list" in row:
        return "ifeval"
    if row.get("type") in _TYPES:
        return "hotpotqa"
    if "sample_id" in row and isinstance(row.get("category"), int):
        return "locomo"
    return "memory_agent_bench" if row.get("source") in SOURCES else None


def _rows(path: Path, rows: list[Any]) -> Rows:
    for n, row in enumerate(rows):
        if not isinstance(row, dict):
            raise HarnessError(f"{path}, row {n}: {type(row).__name__} and no object; give an object a row")
        nested = row.get("qa")
        if not isinstance(nested, list):
            yield f"{path}, row {n}", row
            continue
        for k, qa in enumerate(nested):
            if not isinstance(qa, dict):
                raise HarnessError(f"{path}, row {n}, qa {k}: {type(qa).__name__} and no object; give an object a row")
            yield f"{path}, row {n}, qa {k}", {"sample_id": row.get("sample_id"), "id": _place(row, k), **qa}


def _place(conversation: Mapping[str, Any], number: int) -> str | None:
    name = name_of(conversation.get("sample_id"))
    return f"{name}-q{number}" if name else None


def _answers(rows: Rows, found: Found) -> Iterator[Any]:
    seen: Counter[str] = Counter()
    unread: set[str] = set()
    adversarial = 0
    for where, row in rows:
        told = _said(row)
        if told is not None and told != found.task.partition("@")[0] and told != found.task:
            raise HarnessError(f"{where}: the row is of '{told}', others of '{found.task}'; keep one task a file")
        if found.task.startswith("locomo") and row.get("category") == ADVERSARIAL:
            adversarial += 1
            continue
        gold = next((key for key in GOLDS if key in row), "")
        if not gold and "instruction_id_list" not in row:
            raise HarnessError(f"{where}: the field 'answer' is missing; add the gold answer to the row")
        name = first_name(row, IDS)
        if not name:
            content = digest(row)[:16]
            seen[content] += 1
            name = f"{content}.{seen[content]}"
        full = {**row, **({"gold": row[gold]} if gold else {})}
        category = row.get("category", row.get("type", row.get("source")))
        full = full if category is None else {**full, "category": category}
        unread |= {key for key, value in row.items() if key not in found.metrics and _score_like(key, value)}
        yield answer(where, name, full, set(found.metrics))
    if adversarial:
        found.notes.append(f"{adversarial} adversarial questions (category 5) are left out, as in the paper")
    if unread:
        found.notes.append(f"scores that are not compared: {', '.join(sorted(unread))}")


def _score_like(key: str, value: Any) -> bool:
    return isinstance(value, float) and bool(share(value)) and key not in ("category", "time")


def _totals(head: Mapping[str, Any], metrics: Mapping[str, str]) -> dict[str, float]:
    """Means that the file claims: numbers under a metric's name, at the top or in an object below it.

    A number above 1 is percent.
    """
    found: dict[str, float] = {}
    for part in (head, *(part for part in head.values() if isinstance(part, dict))):
        for name in metrics:
            value = part.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100:
                found.setdefault(name, value / 100 if value > 1 else float(value))
    return found

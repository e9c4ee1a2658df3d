"""lm-eval's sample logs: ``samples_<task>_<date>.jsonl``, and the results JSON beside it where it is there.

The fields are those that lm-eval 0.4 writes: a line a document and filter, with ``doc``, ``target``, ``arguments``,
``resps``, ``filtered_resps``, ``filter``, ``metrics`` and, under its own name, each metric.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.others.files import Rows, whole
from harness.others.table import Answer, Found, first_name, name_of, share
from harness.tasks import task as named_task
from harness.tasks import tasks

FORMAT = "lm-eval's sample log"
FIELDS = ("doc", "target", "resps", "filtered_resps")
TASKS = {"ifeval": "ifeval", "leaderboard_ifeval": "ifeval", "gpqa_diamond_cot_zeroshot": "gpqa"}
"""lm-eval's tasks that are one of ours."""
METRICS = {
    "gpqa": {"exact_match,flexible-extract": "acc", "exact_match,strict-match": "acc_strict"},
    "hotpotqa": {"exact_match": "em", "qa_f1_score": "f1"},
}
"""What a metric of lm-eval claims to be, where its name is not ours."""
IDS = ("question_id", "id", "_id", "key", "Record ID", "qa_pair_id")
"""Columns that name a document; without one it is named by its place, ``doc_id``."""
_NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.jsonl(?:\.gz)?")


def fits(row: Any) -> bool:
    return isinstance(row, dict) and all(key in row for key in FIELDS)


def read(path: Path, rows: Rows, task: str | None) -> Found:
    """The answers of a log, streamed.

    Raises:
        HarnessError: its task is none of ours and no other is named, or a line is wrong.
    """
    named = _NAME.fullmatch(path.name)
    theirs = named["task"] if named else ""
    ours = task or TASKS.get(theirs) or (theirs if theirs in tasks() else None)
    if ours is None:
        told = f"lm-eval's task '{theirs}' is none of ours" if theirs else "its name tells no task"
        raise HarnessError(f"{path}: {told}; say whose rules score it with --task, one of `harness tasks`")
    found = Found(FORMAT, ours, (), METRICS.get(ours.partition("@")[0], {}))
    results = _beside(path, named["date"]) if named else None
    if results is None:
        found.notes.append("there is no results JSON beside it, so that its claims are the means of its own lines")
    else:
        found.totals = _totals(results, theirs, found.metrics)
        _invented(found, results, theirs)
    found.answers = _answers(rows, found, ours)
    return found


def _beside(path: Path, date: str) -> dict[str, Any] | None:
    for file in sorted(path.parent.glob(f"*_{date}.json")):
        content = whole(file)
        if isinstance(content, dict) and isinstance(content.get("results"), dict):
            return content
    return None


def _totals(results: dict[str, Any], theirs: str, metrics: Any) -> dict[str, float]:
    told = results["results"].get(theirs)
    found = {}
    for key, value in (told if isinstance(told, dict) else {}).items():
        if (one := share(value)) and "," in key and not key.partition(",")[0].endswith("_stderr"):
            metric, _, through = key.partition(",")
            found[_claim(metric, through, metrics)] = one[0]
    return found


def _invented(found: Found, results: dict[str, Any], theirs: str) -> None:
    """The questions of a task of ours that asked generated data, made again where their digest is the run's."""
    try:
        told = results["configs"][theirs]["metadata"]
        source, seed, wanted = told["source"], int(str(told["data"]).rpartition(" ")[2]), told["hash"]
    except (KeyError, TypeError, ValueError):
        return
    if source != "generated" or found.task not in tasks():
        return
    data = named_task(found.task).load(DataSpec(source="generated", seed=seed), "test", {})
    if data.hash == wanted:
        found.known = {q.id: q for e in data.episodes for q in e.questions}
        found.roots = {q.id: e.root for e in data.episodes for q in e.questions}


def _claim(metric: str, through: str, metrics: Any) -> str:
    """What a metric through a filter is called here: with the filter only where that makes a difference."""
    full = f"{metric},{through}"
    return full if full in metrics or through != "none" else metric


def _answers(rows: Rows, found: Found, ours: str) -> Iterator[Answer]:
    columns: frozenset[str] | None = None
    first: dict[str, str] = {}
    several = 0
    for where, row in rows:
        for key in FIELDS:
            if key not in row:
                raise HarnessError(f"{where}: the field '{key}' is missing; log the samples with lm-eval again")
        doc = row["doc"]
        if not isinstance(doc, dict):
            raise HarnessError(f"{where}: the field 'doc' is {type(doc).__name__}, not dict; log the samples again")
        columns = columns or frozenset(doc)
        if columns != frozenset(doc):
            odd = ", ".join(sorted(columns ^ frozenset(doc)))
            raise HarnessError(f"{where}: its 'doc' has other columns ({odd}) than the first line; one task a file")
        text, more = _text(row["resps"], where)
        several += more
        # A donor's draws are told apart by the document, so that draws of one question are no repetition.
        draw = doc.get("draw", 0) if isinstance(doc.get("draw", 0), int) else 0
        name = first_name(doc, IDS) or name_of(row.get("doc_id"))
        if not name:
            raise HarnessError(f"{where}: neither 'doc_id' nor a column of 'doc' names the document; log it again")
        through = str(row.get("filter", "none"))
        again = first.setdefault(f"{name}/{draw}", through) != through
        yield Answer(
            where,
            name,
            text,
            _row(ours, doc, row["target"]),
            root=first_name(doc, ("history_id", "sample_id")),
            text=str(doc.get("question") or doc.get("prompt") or ""),
            draw=draw,
            claimed=_claimed(row, through, found.metrics),
            cap=_cap(row.get("arguments")),
            whole=True,
            again=again,
        )
    if several:
        found.notes.append(f"{several} documents have several answers; the first of each is scored")


def _text(resps: Any, where: str) -> tuple[str, bool]:
    """The first answer to a document, and whether there are more."""
    if not isinstance(resps, list) or not resps or not isinstance(resps[0], list) or not resps[0]:
        raise HarnessError(f"{where}: the field 'resps' holds no answer; log the samples with lm-eval again")
    if len(resps) > 1 or not isinstance(resps[0][0], str):
        raise HarnessError(
            f"{where}: the field 'resps' holds likelihoods of choices and no text, which no rule here scores; log a "
            "task that generates"
        )
    return resps[0][0], len(resps[0]) > 1


def _row(ours: str, doc: dict[str, Any], target: Any) -> dict[str, Any]:
    """What the task's rule reads: the document, and the target where that is the gold answer."""
    if ours.partition("@")[0] == "ifeval":
        return doc
    if ours.partition("@")[0] == "gpqa":
        options = doc.get("choices") or [doc.get(f"choice{n}") for n in (1, 2, 3, 4)]
        return {"options": options, "gold": str(target).strip("() ")}
    category = doc.get("category", doc.get("type", doc.get("source")))
    return {**doc, "gold": _golds(target), **({} if category is None else {"category": category})}


def _golds(target: Any) -> Any:
    """A target as lm-eval writes it: text, of a list too."""
    if isinstance(target, str) and target.startswith("["):
        try:
            listed = ast.literal_eval(target)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return target
        if isinstance(listed, list) and listed and all(isinstance(one, str) for one in listed):
            return listed
    return target


def _claimed(row: dict[str, Any], through: str, metrics: Any) -> dict[str, tuple[float, float]]:
    names = row.get("metrics", [])
    told = {name: share(row.get(name)) for name in names if isinstance(name, str)} if isinstance(names, list) else {}
    return {_claim(name, through, metrics): one for name, one in told.items() if one is not None}


def _cap(arguments: Any) -> int | None:
    """``max_gen_toks`` of the request, wherever lm-eval's version put its arguments."""
    if isinstance(arguments, dict):
        cap = arguments.get("max_gen_toks")
        if isinstance(cap, int):
            return cap
        arguments = list(arguments.values())
    if isinstance(arguments, list):
        return next((cap for one in arguments if (cap := _cap(one)) is not None), None)
    return None

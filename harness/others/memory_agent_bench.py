"""MemoryAgentBench's result JSON, as its ``main.py`` writes it: one sub-data set a file.

``{agent_config, dataset_config, data, metrics, time_cost, averaged_metrics}``; each of ``data`` is an agent's output
with ``output``, ``query``, ``answer``, lengths in tokens and the metrics of that answer. Averages are percent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.data.files import field
from harness.data.memory_agent_bench.inventory import Source, source_of
from harness.errors import HarnessError
from harness.others.table import Answer, Found, count_of, name_of, share

FORMAT = "MemoryAgentBench's result JSON"
TASK = "memory_agent_bench"
CLAIMS = {
    "substring": "substring_exact_match",
    "exact": "exact_match",
    "recall": "recsys_recall@5",
    "option": "exact_match",
    "f1": "f1",
}
"""The benchmark's metric of each rule; EventQA has one of its own."""
EVENTS = "eventqa_recall"


def fits(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("dataset_config"), dict) and "data" in content


def read(path: Path, content: dict[str, Any], task: str | None) -> Found:
    """The answers of a result file.

    Raises:
        HarnessError: it is another task's, of an unknown sub-data set, or a row lacks a field.
    """
    if task is not None and task.partition("@")[0] != TASK:
        raise HarnessError(f"{path} holds answers to MemoryAgentBench; leave --task out or name '{TASK}'")
    config = content["dataset_config"]
    where = f"{path}, dataset_config"
    try:
        source = source_of(field(config, "sub_dataset", str, where))
    except HarnessError as error:
        raise HarnessError(str(error) if str(error).startswith(where) else f"{where}: {error}") from error
    rows = field(content, "data", list, str(path))
    metric = EVENTS if source.short.startswith("eventqa") else CLAIMS[source.rule]
    averages = content.get("averaged_metrics")
    told = averages.get(metric) if isinstance(averages, dict) else None
    total = share(told / 100) if isinstance(told, int | float) and not isinstance(told, bool) else None
    found = Found(FORMAT, task or TASK, (), {metric: "score"}, settings={"sources": [source.short]})
    found.totals = {metric: total[0]} if total else {}
    if source.rule == "f1" or source.short == "longmemeval_s":
        found.notes.append("the benchmark has these answers judged by a language model; no judge is asked here")
    known = count_of(config.get("generation_max_length"))
    cap = source.max_new_tokens if known is None else known
    found.answers = list(_answers(path, rows, source, cap, metric))
    if len({a.root for a in found.answers}) == 1 and source.rows > 1:
        found.notes.append("the file does not tell its contexts apart, so that all answers count as one cluster")
    return found


def _answers(path: Path, rows: list[Any], source: Source, cap: int, metric: str) -> Iterator[Answer]:
    for n, row in enumerate(rows):
        where = f"{path}, data {n}"
        answer = field(row, "answer", (str, int, list), where)
        claimed = share(row.get(metric))
        name = name_of(row.get("qa_pair_id")) or name_of(row.get("query_id")) or str(n)
        yield Answer(
            where,
            name,
            field(row, "output", str, where),
            {"gold": _flat(answer), "category": source.category},
            root=_root(row, source),
            text=field(row, "query", str, where),
            claimed={metric: claimed} if claimed else {},
            tokens=count_of(row.get("output_len")),
            cap=cap,
        )


def _flat(answer: Any) -> Any:
    """Gold answers as one list; the benchmark also has lists of lists."""
    if not isinstance(answer, list):
        return answer
    return [text for part in answer for text in (part if isinstance(part, list) else [part])]


def _root(row: dict[str, Any], source: Source) -> str:
    """The context that a question belongs to, as far as the row tells it; one for all where it does not."""
    if source.rows == 1:
        return source.short
    if context := name_of(row.get("context_id")):
        return f"{source.short}-{context}"
    if book := re.match(r"(.*_book[^_]+)_no\d+$", name_of(row.get("qa_pair_id"))):
        return book[1]
    place = count_of(row.get("query_id"))
    if place is None or source.short == "detective_qa":  # whose contexts have different numbers of questions
        return source.short
    return f"{source.short}-{place // (source.questions // source.rows)}"

"""Retrieval by words and by vectors: what a write and a question cost, against the plain way, in CPU seconds."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks._measured import Measured

WRITE_GOAL, QUERY_GOAL = 60.0, 5.0
"""Seconds and milliseconds, at 100,000 units."""
VOCABULARY = 50_000
ASKED = 10
"""Words of a question, drawn as those of the units: some stand in nearly all of them."""
EMBEDDED, TURN = 64, 12
"""Units that are embedded one by one as well as batched, and words of one: about a turn of a conversation."""


def measure(units: int, words: int, questions: int) -> list[Measured]:
    """``bm25_rag`` beside rank_bm25, and ``dense_rag`` batched beside one unit at a time, each where it is installed.

    Args:
        units: Messages of the history.
        words: Words of a message, drawn by Zipf's law from 50,000.
        questions: The median over so many counts.
    """
    texts, asked = _texts(units, words, seed=0), _texts(questions, ASKED, seed=1)
    return [*_sparse(texts, asked), *_dense(_texts(min(units, EMBEDDED), TURN, seed=2))]


def _sparse(texts: Sequence[str], asked: Sequence[str]) -> list[Measured]:
    from harness.episodes import Query

    method, history = _method("bm25_rag"), _history(texts)
    method.write(_history(texts[:2]))  # imports
    state, write = _timed(lambda: method.write(history))
    query = 1e3 * _median(lambda text: method.steer(state, Query("", text)), asked)
    of_goal = len(texts) >= 100_000
    found = [
        Measured("bm25_rag.write", write, "s", at_most=WRITE_GOAL if of_goal else None),
        Measured("bm25_rag.query", query, "ms", at_most=QUERY_GOAL if of_goal else None),
        Measured("bm25_rag.state", state.nbytes() / 1e6, "MB"),
    ]
    if importlib.util.find_spec("rank_bm25") is None:
        return found
    from rank_bm25 import BM25Okapi

    plain, slow = _timed(lambda: BM25Okapi([text.split() for text in texts]))
    slower = 1e3 * _median(lambda text: plain.get_scores(text.split()).argsort()[-4:], asked[:3])
    return [
        *found,
        Measured("rank_bm25.write", slow, "s"),
        Measured("rank_bm25.query", slower, "ms"),
        Measured("write.ratio", slow / write),
        Measured("query.ratio", slower / query),
    ]


def _dense(texts: Sequence[str]) -> list[Measured]:
    if importlib.util.find_spec("sentence_transformers") is None:
        return []
    method = _method("dense_rag")
    method.write(_history(texts[:2]))  # the first forward of a process is slower
    _, batched = _timed(lambda: method.write(_history(texts)))
    _, single = _timed(lambda: [method.write(_history([text])) for text in texts])
    return [
        Measured("dense_rag.batched", 1e3 * batched / len(texts), "ms a unit"),
        Measured("dense_rag.one_by_one", 1e3 * single / len(texts), "ms a unit"),
        Measured("dense_rag.ratio", single / batched),
    ]


def _texts(count: int, words: int, seed: int) -> list[str]:
    import numpy as np

    weights = 1 / np.arange(1, VOCABULARY + 1)
    drawn = np.random.default_rng(seed).choice(VOCABULARY, (count, words), p=weights / weights.sum())
    return [" ".join(f"w{n}" for n in row) for row in drawn.tolist()]


def _method(name: str) -> Any:
    from harness.backbones import open_backbone
    from harness.experiment import BackboneSpec, RunSpec
    from harness.registry import resolve

    cls, settings = resolve(name)
    return cls(settings, open_backbone(BackboneSpec(random="tiny-llama"), RunSpec()), 0)


def _history(texts: Sequence[str]) -> Any:
    from harness.episodes import History, Message

    return History(tuple(Message(text, id=str(n)) for n, text in enumerate(texts)))


def _median(work: Callable[[str], Any], asked: Sequence[str]) -> float:
    return statistics.median(_timed(lambda: work(text))[1] for text in asked)  # noqa: B023


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    clock = time.process_time()
    result = work()
    return result, time.process_time() - clock

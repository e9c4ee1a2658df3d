"""The scores of a cell as arrays, read from its samples: one number a question and metric, draws averaged.

Cells of one task ask the same questions, so what belongs to questions (ids, roots, categories) is worked out
once and shared: two cells were asked the same where they share one :class:`Questions`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from harness.episodes import CLEAN, widening
from harness.errors import HarnessError
from harness.records import Record, samples_bytes
from harness.statistics import QUESTION

OF_QUESTIONS = [*QUESTION, "root", "category", CLEAN]
"""Columns that say the same of a question in every cell."""


@dataclass(frozen=True, eq=False)
class Questions:
    """The questions of some cells, sorted by history and id."""

    keys: tuple[tuple[str, str], ...]
    """History and question id."""
    roots: NDArray
    """Cluster of each question, as integers, shape (n,)."""
    categories: tuple[str, ...]
    clean: NDArray | None
    """Whether no overlay names the gold answer as wrong, shape (n,); None without an overlay."""
    _within: dict[str, NDArray] = field(default_factory=dict, repr=False)
    _shared: dict[Questions, tuple[NDArray, NDArray]] = field(default_factory=dict, repr=False)

    @cached_property
    def named(self) -> list[str]:
        """Every category that some question counts in, sorted; ``clean`` last."""
        found = sorted({wide for category in set(self.categories) for wide in widening(category)})
        return [*found, CLEAN] if self.clean is not None and self.clean.any() else found

    def within(self, wide: str) -> NDArray:
        """Places of the questions of a category, as :func:`harness.statistics.within` picks them."""
        if wide not in self._within:
            if wide == CLEAN and self.clean is not None:
                chosen = self.clean
            else:
                chosen = np.array([not wide or c == wide or c.startswith(f"{wide}/") for c in self.categories], bool)
            self._within[wide] = np.flatnonzero(chosen)
        return self._within[wide]

    def only(self, places: NDArray) -> Questions:
        """Those at ``places`` alone."""
        clean = None if self.clean is None else self.clean[places]
        keys, categories = (tuple(of[place] for place in places) for of in (self.keys, self.categories))
        return Questions(keys, self.roots[places], categories, clean)  # type: ignore[arg-type]

    def shared(self, other: Questions) -> tuple[NDArray, NDArray]:
        """Places here and there of the questions that both have, in order."""
        if other not in self._shared:
            there = {key: place for place, key in enumerate(other.keys)}
            pairs = [(here, there[key]) for here, key in enumerate(self.keys) if key in there]
            places = np.array(pairs, dtype=int).reshape(-1, 2)
            self._shared[other] = places[:, 0], places[:, 1]
        return self._shared[other]


@dataclass(frozen=True)
class Scores:
    """What one cell, or the seeds of one place together, scored."""

    questions: Questions
    values: dict[str, NDArray]
    """By metric, a score a question, shape (n,)."""
    weights: dict[str, NDArray]
    """By metric, how often each question counts, shape (n,); a metric that counts each once is absent."""
    noise: dict[str, NDArray]
    """By metric, the variance of a question's score from draw to draw, shape (n,); empty with one draw a question."""
    draws: int
    """Most answers that a question has."""


@dataclass(frozen=True)
class _Layout:
    """Where the answers to each question stand in a file."""

    known: pa.Table
    questions: Questions
    order: NDArray
    """Rows by question and draw."""
    starts: NDArray
    """Where in ``order`` each question begins."""
    counts: NDArray
    """Draws of each question."""

    def mean(self, answers: NDArray) -> NDArray:
        """The mean over the draws of each question, from all answers in ``order``."""
        return np.add.reduceat(answers, self.starts) / self.counts if len(answers) else answers

    def variance(self, answers: NDArray, means: NDArray) -> NDArray:
        """The variance between the draws of each question; 0 where it has one."""
        apart = np.square(answers - np.repeat(means, self.counts))
        return np.add.reduceat(apart, self.starts) / np.maximum(self.counts - 1, 1)


class Reader:
    """Reads the samples of cells; remembers how the files of a task are laid out."""

    def __init__(self) -> None:
        self._layouts: dict[str, list[_Layout]] = {}
        self._questions: dict[tuple, Questions] = {}

    def read(self, record: Record, folder: Path) -> Scores:
        """The scores of a cell, whose record and samples lie in ``folder``.

        Raises:
            HarnessError: its samples are missing, torn, not as they were written, without a column, or answer a
                question twice.
        """
        path = folder / "samples.parquet"
        table = _read(samples_bytes(record, folder), path)
        told = [name for name in table.column_names if name.startswith(("score.", "weight."))]
        layout = self._layout(record.task, table.drop_columns(told), path)
        draws, columns = int(layout.counts.max(initial=0)), {}
        for name in told:
            columns[name] = table[name].to_numpy()[layout.order].astype(float)
        values = {_metric(name): layout.mean(column) for name, column in columns.items() if name.startswith("score.")}
        weights = {_metric(n): c[layout.starts] for n, c in columns.items() if n.startswith("weight.")}
        noise = {m: layout.variance(columns[f"score.{m}"], mean) for m, mean in values.items() if draws > 1}
        return Scores(layout.questions, values, weights, noise, draws)

    def _layout(self, task: str, table: pa.Table, path: Path) -> _Layout:
        """The layout of a file, from its columns without scores; worked out once for equal ones."""
        seen = self._layouts.setdefault(task, [])
        for layout in seen:
            if layout.known.equals(table):
                return layout
        seen.append(self._laid_out(table, path))
        return seen[-1]

    def _laid_out(self, table: pa.Table, path: Path) -> _Layout:
        missing = [name for name in (*OF_QUESTIONS[:-1], "draw") if name not in table.column_names]
        if missing:
            raise HarnessError(f"{path} has no column '{missing[0]}'; delete the cell's folder and run again")
        columns = {name: table[name].to_pylist() for name in table.column_names}
        rows = list(zip(*(columns[name] for name in (*QUESTION, "draw")), strict=True))
        order = sorted(range(len(rows)), key=rows.__getitem__)
        for before, after in pairwise(order):
            if rows[before] == rows[after]:
                history, question, draw = rows[after]
                raise HarnessError(
                    f"{path} answers question '{question}' of history '{history}' twice (draw {draw}); "
                    "delete the cell's folder and run again"
                )
        starts = [n for n, row in enumerate(order) if not n or rows[row][:2] != rows[order[n - 1]][:2]]
        first = [order[n] for n in starts]
        counts = np.diff([*starts, len(order)])
        return _Layout(table, self._shared(columns, first), np.array(order, int), np.array(starts, int), counts)

    def _shared(self, columns: dict[str, list], first: list[int]) -> Questions:
        """The questions whose first answers stand in rows ``first``; one object for equal ones."""
        picked = {name: tuple(column[row] for row in first) for name, column in columns.items() if name != "draw"}
        content = tuple(sorted(picked.items()))
        if content not in self._questions:
            roots = [str(root) for root in picked["root"]]
            self._questions[content] = Questions(
                tuple(zip(picked["history_id"], picked["question_id"], strict=True)),
                np.unique(roots, return_inverse=True)[1] if roots else np.zeros(0, int),
                picked["category"],
                np.array(picked[CLEAN], bool) if CLEAN in picked else None,
            )
        return self._questions[content]


def _read(content: bytes, path: Path) -> pa.Table:
    """The columns that scores need."""
    try:
        file = parquet.ParquetFile(pa.BufferReader(content))
        return file.read(columns=[*_wanted(file.schema_arrow.names)], use_threads=False)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these two kinds
        raise HarnessError(f"{path} cannot be read ({error}); delete the cell's folder and run again") from error


def _wanted(names: list[str]) -> Iterator[str]:
    return (name for name in names if name in (*OF_QUESTIONS, "draw") or name.startswith(("score.", "weight.")))


def _metric(column: str) -> str:
    return column.split(".", 1)[1]


def aligned(cells: list[Scores]) -> tuple[Questions, list[NDArray]]:
    """The questions that every cell was asked, and where they stand in each."""
    first = cells[0].questions
    here = np.arange(len(first.keys))
    for other in {cell.questions: None for cell in cells if cell.questions is not first}:
        here = np.intersect1d(here, first.shared(other)[0], assume_unique=True)
    places = []
    for cell in cells:
        mine, theirs = (here, here) if cell.questions is first else first.shared(cell.questions)
        places.append(theirs[np.searchsorted(mine, here)])
    return first if len(here) == len(first.keys) else first.only(here), places


def averaged(seeds: list[Scores]) -> Scores:
    """The mean over training seeds of the questions that every seed was asked, and of the metrics that all have."""
    if len(seeds) == 1:
        return seeds[0]
    questions, places = aligned(seeds)
    values = {
        metric: np.sum([s.values[metric][p] for s, p in zip(seeds, places, strict=True)], axis=0) / len(seeds)
        for metric in seeds[0].values
        if all(metric in s.values for s in seeds)
    }
    weights = {metric: weight[places[0]] for metric, weight in seeds[0].weights.items()}
    return Scores(questions, values, weights, {}, max(s.draws for s in seeds))

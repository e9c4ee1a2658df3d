"""What the training episodes share with each test task: ids, titles, roots, whole texts, and runs of words.

Word n-grams are compared as 64-bit hashes in sorted arrays, so that the full official files take seconds; a text that
comes in many episodes, as a paper with several questions, counts once. Two different n-grams share a hash with a
chance of 2^-64 a pair: of the 10^7 and 3 * 10^7 n-grams of the largest sets, once in some 60,000 reports.

What is found is told by ids and counts alone, never by text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import records
from harness.data.files import TaskData
from harness.episodes import Episode
from harness.experiment import Experiment, TaskSpec
from harness.tasks import Prompts, Task, select, task

SIZES = (13, 8)
"""Words of an n-gram. 13 is the customary sign of a copied passage; 8 meets set phrases too, so it only informs."""
WORST = 5
"""Examples named of each kind."""


@dataclass(frozen=True)
class Runs:
    """N-grams of one kind of text (questions, or histories) that the training episodes have as well."""

    words: int
    """Length of an n-gram."""
    texts: int
    """Texts long enough to have one."""
    hit: int
    """Texts with at least one that training has."""
    worst: dict[str, float]
    """Ids of the worst, with the share of their n-grams that training has."""

    @property
    def share(self) -> float:
        return self.hit / self.texts if self.texts else 0.0


@dataclass(frozen=True)
class Overlap:
    """What one test task shares with the training episodes; lists of ids are of test episodes or questions."""

    task: str
    source: str
    file: str
    hash: str
    episodes: int
    questions: int
    histories: int
    """Different ones."""
    same: dict[str, list[str]]
    """By what is the same (``id``, ``root``, ``title``, ``history``, ``question``)."""
    question_runs: list[Runs]
    history_runs: list[Runs]

    @property
    def share(self) -> float:
        """The largest share of the test's questions or histories with a common text, id or run of 13 words."""
        of = {"question": self.questions, "history": self.histories}
        same = [len(ids) / max(of.get(what, self.episodes), 1) for what, ids in self.same.items()]
        return max(*same, *(r.share for r in (*self.question_runs, *self.history_runs) if r.words == SIZES[0]))


@dataclass(frozen=True)
class Report:
    """The training episodes of an experiment against each of its test tasks."""

    experiment: str
    task: str
    source: str
    file: str
    hash: str
    note: str
    episodes: int
    roots: int
    ngrams: dict[int, int]
    """Different ones, by length."""
    tests: list[Overlap]

    @property
    def share(self) -> float:
        """The worst test task's."""
        return max(test.share for test in self.tests)


@dataclass
class Index:
    """All that is looked for in a test task: of one set of episodes."""

    task: Task
    episodes: tuple[Episode, ...]

    @cached_property
    def ids(self) -> set[str]:
        return {e.id for e in self.episodes} | {q.id for e in self.episodes for q in e.questions}

    @cached_property
    def roots(self) -> set[str]:
        return {e.root for e in self.episodes}

    @cached_property
    def titles(self) -> set[str]:
        return {flat(title) for e in self.episodes for title in self.task.titles(e)}

    @cached_property
    def texts(self) -> list[str]:
        """Every history and question, each once, in plain words."""
        found = (text for e in self.episodes for text in (_history(e), *(q.text for q in e.questions)))
        return [text for text in dict.fromkeys(map(flat, dict.fromkeys(found))) if text]

    @cached_property
    def digests(self) -> set[bytes]:
        return set(map(_digest, self.texts))

    @cached_property
    def grams(self) -> dict[int, NDArray[np.uint64]]:
        """Sorted hashes of the different n-grams, by length."""
        hashed = list(map(hashes, self.texts))
        return {n: np.unique(np.concatenate([ngrams(words, n) for words in hashed])) for n in SIZES}


def report(experiment: Experiment) -> Report:
    """The training episodes against every test task, of the episodes and questions that the experiment uses.

    Raises:
        HarnessError: data cannot be had.
    """
    prompts = Prompts(Path(experiment.prompts) if experiment.prompts else None)
    training = experiment.training
    learnt = task(training.task, prompts)
    data = learnt.load(experiment.data, "train", training.settings, training.episodes)
    index = Index(learnt, data.episodes)
    tests = [_against(index, experiment, spec, task(spec.task, prompts)) for spec in experiment.tasks]
    return Report(
        experiment.name,
        training.task,
        data.source,
        data.file,
        data.hash,
        data.note,
        len(data.episodes),
        len(index.roots),
        {n: len(found) for n, found in index.grams.items()},
        tests,
    )


def _against(training: Index, experiment: Experiment, spec: TaskSpec, asked: Task) -> Overlap:
    data = asked.load(experiment.data_of(spec), "test", spec.settings, spec.episodes)
    return overlap(training, spec.name, asked, data, select(data, spec, experiment.data.seed))


def overlap(training: Index, name: str, asked: Task, data: TaskData, episodes: tuple[Episode, ...]) -> Overlap:
    """One test task's; ``data`` says where its ``episodes`` came from."""
    histories = {text: e.id for e in reversed(episodes) if (text := flat(_history(e)))}
    questions = {q.id: flat(q.text) for e in episodes for q in e.questions}
    same = {
        "id": [e.id for e in episodes if training.ids & {e.id, *(q.id for q in e.questions)}],
        "root": [e.id for e in episodes if e.root in training.roots],
        "title": [e.id for e in episodes if training.titles & set(map(flat, asked.titles(e)))],
        "history": [named for text, named in histories.items() if _digest(text) in training.digests],
        "question": [named for named, text in questions.items() if _digest(text) in training.digests],
    }
    return Overlap(
        name,
        data.source,
        data.file,
        data.hash,
        len(episodes),
        len(questions),
        len(histories),
        {what: sorted(ids) for what, ids in same.items()},
        list(_runs(training, questions.items())),
        list(_runs(training, ((named, text) for text, named in histories.items()))),
    )


def _runs(training: Index, texts: Iterable[tuple[str, str]]) -> Iterator[Runs]:
    hashed = [(named, hashes(text)) for named, text in texts]
    for n in SIZES:
        found = {named: share(ngrams(words, n), training.grams[n]) for named, words in hashed if len(words) >= n}
        hit = {named: part for named, part in found.items() if part}
        worst = sorted(hit.items(), key=lambda one: (-one[1], one[0]))[:WORST]
        yield Runs(n, len(found), len(hit), dict(worst))


# --- texts as words and hashes ----------------------------------------------------------------------------------


def flat(text: str) -> str:
    """Lower case, words alone, single spaces."""
    return " ".join(re.findall(r"\w+", text.lower()))


def _history(episode: Episode) -> str:
    return "\n".join(m.content for m in episode.history.messages)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class _Vocabulary(dict[str, int]):
    """Word to 64 bits, the same in every process."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = int.from_bytes(digest, "little")
        return self[word]


_words = _Vocabulary()


def hashes(text: str) -> NDArray[np.uint64]:
    """A hash a word of a :func:`flat` text, shape (words,)."""
    words = text.split()
    return np.fromiter(map(_words.__getitem__, words), np.uint64, len(words))


def ngrams(words: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """A hash for each run of ``n`` words, shape (words - n + 1,) or empty: their sum with odd random weights."""
    count = max(len(words) - n + 1, 0)
    total = np.zeros(count, np.uint64)
    for place, weight in enumerate(_weights(n)):
        total += words[place : place + count] * weight
    return total


@cache
def _weights(n: int) -> NDArray[np.uint64]:
    return np.random.default_rng(n).integers(0, 2**63, n, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def share(given: NDArray[np.uint64], known: NDArray[np.uint64]) -> float:
    """The part of ``given`` that is among ``known``, which is sorted."""
    if not len(given) or not len(known):
        return 0.0
    place = np.minimum(np.searchsorted(known, given), len(known) - 1)
    return float((known[place] == given).mean())


# --- the report as files ----------------------------------------------------------------------------------------


def write(found: Report, folder: Path) -> list[Path]:
    """``contamination.json`` and ``contamination.md`` in ``folder``: ids, counts and shares."""
    whole, page = folder / "contamination.json", folder / "contamination.md"
    records.write_json(whole, as_json(found))
    with records.atomic(page) as temporary:
        temporary.write_text(markdown(found), encoding="utf-8")
    return [whole, page]


def as_json(found: Report) -> dict[str, Any]:
    """All fields, and the shares that follow from them."""
    tests = [
        {
            **asdict(test),
            "question_runs": [{**asdict(r), "share": r.share} for r in test.question_runs],
            "history_runs": [{**asdict(r), "share": r.share} for r in test.history_runs],
            "share": test.share,
        }
        for test in found.tests
    ]
    return {**asdict(found), "tests": tests, "share": found.share}


def markdown(found: Report) -> str:
    """A table with a row a test task, and the worst examples by id."""
    sizes = ", ".join(f"{count:,} of {n} words" for n, count in found.ngrams.items())
    lines = [
        f"# What {found.experiment} trains on, in its tests",
        "",
        f"Training: {found.task}, {found.source}, `{found.file}`: {found.episodes:,} episodes of {found.roots:,} roots;"
        f" different n-grams: {sizes}.{f' {found.note}.' if found.note else ''}",
        "",
        "Counts are of test episodes (ids, roots, titles), histories or questions; a run is an n-gram of words that"
        " training has too, among the texts long enough to have one.",
        "",
    ]
    heads = ["task", "source", "questions", "histories", "ids", "roots", "titles", "same history", "same question"]
    heads += [f"{what} with a run of {n}" for what in ("questions", "histories") for n in SIZES]
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for test in found.tests:
        cells = [test.task, test.source, f"{test.questions:,}", f"{test.histories:,}"]
        cells += [str(len(test.same[what])) for what in ("id", "root", "title", "history", "question")]
        cells += [f"{r.hit} of {r.texts}" for r in (*test.question_runs, *test.history_runs)]
        lines.append("| " + " | ".join(cells) + " |")
    examples = [line for test in found.tests for line in _examples(test)]
    return "\n".join([*lines, *(["", "## Worst examples, by id", "", *examples] if examples else []), ""])


def _examples(test: Overlap) -> Iterator[str]:
    for what, ids in test.same.items():
        if ids:
            more = f" and {len(ids) - WORST} more" if len(ids) > WORST else ""
            yield f"- {test.task}, same {what}: {', '.join(f'`{name}`' for name in ids[:WORST])}{more}"
    for what, runs in (("question", test.question_runs), ("history", test.history_runs)):
        for r in runs:
            if r.worst:
                named = ", ".join(f"`{name}` ({100 * part:.1f}%)" for name, part in r.worst.items())
                yield f"- {test.task}, {what} with runs of {r.words} words: {named}"

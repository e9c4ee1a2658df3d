"""MemoryAgentBench: long contexts, read once and asked many times, in four categories of memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from harness.data import memory_agent_bench
from harness.data.files import TaskData
from harness.data.memory_agent_bench import Sizes
from harness.data.memory_agent_bench.inventory import Rule, chosen, source_of
from harness.data.memory_agent_bench.movies import recommended, title
from harness.episodes import Question
from harness.experiment import DataSpec
from harness.scoring import exact, f1, normalize, normalize_release
from harness.tasks.base import Metric, Split, Task, TaskSettings, golds, text_of

RECALL_AT = 5


class Selection(Sizes, TaskSettings):
    """Which sub-data sets are asked, in what messages, and how large rebuilt and generated rows are."""


class MemoryAgentBench(Task):
    """Each sub-data set by its own rule (``score``) and by that of the paper's release (``score_release``).

    Two sub-data sets are judged by a language model in the benchmark. Offline, LongMemEval counts an answer that
    contains the gold one, and InfBench-Sum is the bag F1 against the reference summary: neither stands beside a judged
    score.
    """

    name = "memory_agent_bench"
    summary = "long contexts, read once and asked many times (MemoryAgentBench: AR, TTL, LRU, SF)"
    unit = "document, session, exemplar, dialogue, fact or chunk of a book"
    metrics = (Metric("score"), Metric("score_release", "release"))
    primary_metric = "score"
    max_new_tokens = 2000
    stop = ()
    Settings: ClassVar[type[TaskSettings]] = Selection

    def _load(self, data: DataSpec, split: Split, settings: Selection, count: int | None) -> TaskData:
        return memory_agent_bench.load(data, settings, count)

    @classmethod
    def published(cls, settings: Mapping[str, Any]) -> tuple[int, int]:
        sizes = Selection(**settings)
        found = chosen(sizes.sources, ablations=sizes.ablations)
        asked = [min(source.questions, sizes.questions or source.questions) for source in found]
        return sum(min(source.rows, n) for source, n in zip(found, asked, strict=True)), sum(asked)

    def question(self, q: Question, *, removed: bool = False) -> str:
        """In the wording of the question's sub-data set, which is the same whether the context is in sight or not."""
        return self.prompts.render(self.name, source_of(q.category).form, question=q.text)

    def answer(self, text: str) -> str:
        """All of it: some rules want the first line, some a list of lines."""
        return text.strip()

    @classmethod
    def question_of(cls, row: Mapping[str, Any]) -> Question:
        """Of a line with a ``category``, by name; gold movies are numbers, as the benchmark has them."""
        category, accepted = text_of(row, "category"), golds(row)
        if source_of(category).rule == "recall":
            titles = memory_agent_bench.entities()
            accepted = tuple(title(gold, titles, "the field 'gold'") for gold in accepted)
        return Question("", "", accepted, category)

    def score(self, answer: str, q: Question) -> dict[str, float]:
        """By the rule of the question's sub-data set, from 0 to 1.

        Raises:
            HarnessError: the question's category is none of the benchmark's.
        """
        rule = source_of(q.category).rule
        if rule == "recall":
            found = recall(answer, q.answers)
            return {"score": found, "score_release": found}
        released = release_f1 if rule == "f1" else release_accuracy
        return {"score": float(_OFFICIAL[rule](answer, q.answers)), "score_release": released(answer, q.answers)}


class MemoryAgentBenchRelease(MemoryAgentBench):
    """As the paper's release asks: one prompt for all, and of a long context the beginning and the end."""

    name = "memory_agent_bench@release"
    summary = "MemoryAgentBench in the form of the paper's release: one prompt, 120,000 characters of a context"
    unit = "context"
    primary_metric = "score_release"
    truncate = "head_and_tail"

    def _checked(self, settings: Mapping[str, Any]) -> TaskSettings:
        return super()._checked({"unit": "whole", "max_characters": 120_000, **settings})

    def question(self, q: Question, *, removed: bool = False) -> str:
        return self.prompts.render(self.name, "question", question=q.text)


# --- the benchmark's rules ---


def parsed(answer: str) -> str:
    """What follows ``Answer:`` on its line; without it, the first line."""
    found = re.search(r"answer:(.*)", answer, re.IGNORECASE)
    line = found[1] if found else answer.split("\n")[0]
    return re.sub(r"^answer:", "", line.strip(), flags=re.IGNORECASE).strip()


def contains(answer: str, golds: Iterable[str]) -> bool:
    """Whether the answer, as it is or parsed, has a gold answer within it (SQuAD's normalisation)."""
    return any(normalize(gold) in normalize(text) for gold in golds for text in (answer, parsed(answer)))


def label(answer: str, golds: Iterable[str]) -> bool:
    """Whether the parsed answer is the gold label; a ``label:`` before it, which exemplars have, is no part of it."""
    given = re.sub(r"^label:", "", parsed(answer), flags=re.IGNORECASE)
    return any(exact(given, gold) == 1.0 for gold in golds)


def summary_f1(answer: str, golds: Iterable[str]) -> float:
    """The best bag F1 of the answer, as it is or parsed: a stand-in for the benchmark's judge."""
    return max(f1(text, gold) for gold in golds for text in (answer, parsed(answer)))


def option(answer: str, golds: Iterable[str]) -> bool:
    """Whether the reply names the gold option: by its text, or by its letter.

    The text comes first, for it may begin as a letter does: ``A. Crow`` under ``C``.

    The reply is the ``answer`` of a JSON object, else what follows ``Answer:``, else the first line.
    """
    given = _reply(answer)
    letter = _letter(given)
    return any(_same(given, _worded(gold)) or (bool(letter) and letter == _letter(gold)) for gold in golds)


def recall(answer: str, golds: Iterable[str]) -> float:
    """The share of gold movies among the first five that the answer recommends."""
    wanted = list(golds)
    listed = recommended(answer, [*memory_agent_bench.entities().values()], RECALL_AT)
    return sum(movie in listed for movie in wanted) / len(wanted)


def _reply(answer: str) -> str:
    begin, end = answer.find("{"), answer.rfind("}")
    if 0 <= begin < end:
        try:
            return str(json.loads(answer[begin : end + 1])["answer"]).strip()
        except (ValueError, KeyError, TypeError, RecursionError):
            pass  # models write JSON that is none; the field can be found all the same
    found = re.search(r'"answer"\s*:\s*"((?:[^"\\]|\\.)*)"', answer)
    return found[1].strip() if found else parsed(answer)


def _letter(text: str) -> str:
    found = re.match(r"\(?([A-Za-z])(?:[.):,]|\s*$)", text.strip())
    return found[1].upper() if found else ""


def _worded(option: str) -> str:
    return re.sub(r"^\(?[A-Za-z][.):,]\s*", "", option.strip())


def _same(given: str, text: str) -> bool:
    return bool(normalize(text)) and exact(given, text) == 1.0  # an option of a letter alone has no text


_OFFICIAL: dict[Rule, Callable[[str, Iterable[str]], float]] = {
    "substring": contains,
    "exact": label,
    "f1": summary_f1,
    "option": option,
}


# --- the release's rules ---


def _forms(answer: str) -> Iterator[str]:
    """The answer, and its first line."""
    yield answer
    yield answer.split("\n")[0]


def release_accuracy(answer: str, golds: Iterable[str]) -> float:
    """1 where a gold answer is, or is within, the answer. So ``label: 112`` counts for 12."""
    texts = [normalize_release(text) for text in _forms(answer)]
    return float(any(normalize_release(gold) in text for gold in golds for text in texts))


def release_f1(answer: str, golds: Iterable[str]) -> float:
    """The best bag F1 of the answer or its first line."""
    return max(f1(text, gold, normalize_release) for gold in golds for text in _forms(answer))

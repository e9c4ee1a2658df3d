"""Benchmarks that are lm-eval's own: asked in its words and scored by its rule, without a history.

lm-eval is imported when a question is worded or an answer scored, not before.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from harness.episodes import Question
from harness.tasks.base import Task

LANGUAGE_SEED = 0
"""langdetect draws; without a seed two runs tell two languages."""
STAND_IN = "sentences are split by lm-eval's regular expressions, for nltk's punkt_tab is not installed"


class Borrowed(Task):
    """A task of lm-eval: ``doc_to_text``, filters and ``process_results`` are its own, of the question's ``doc``."""

    unit = "none"
    has_history = False
    yaml: ClassVar[str]
    """The task's file below ``lm_eval/tasks``."""

    def system(self) -> str:
        return ""

    def question(self, q: Question, *, removed: bool = False) -> str:
        """lm-eval's own text; nothing is added to it."""
        doc = self.document(q)
        return str(self._own(doc).doc_to_text(doc))

    def answer(self, text: str) -> str:
        """The whole generation: what is looked at, and where, is lm-eval's."""
        return text

    def document(self, q: Question) -> dict[str, Any]:
        """The question's row as lm-eval reads it."""
        assert q.doc is not None, "a task of lm-eval asks documents"
        return dict(q.doc)

    def official(self, answer: str, q: Question) -> dict[str, dict[str, Any]]:
        """lm-eval's metrics of one answer, by its filters.

        Some of its rules draw at random where they are told nothing that they can use (a "letter" that is none); the
        draw is seeded with the document, so that a score is a function of the answer.
        """
        from lm_eval.api.instance import Instance

        doc = self.document(q)
        own = self._own(doc)
        given = Instance("generate_until", doc, ("", {}), 0, metadata=(self.name, 0, 1))
        given.resps = [answer]
        with _drawing(f"{self.name}/{q.id}"):
            for ensemble in own._filters:
                ensemble.apply([given])
            return {name: own.process_results(doc, [found]) for name, found in given.filtered_resps.items()}

    @classmethod
    def prepare(cls) -> None:
        """Make the task's code run without a download."""

    def _own(self, doc: Mapping[str, Any]) -> Any:
        return _built(type(self), frozenset(doc))


@cache
def _built(task: type[Borrowed], columns: frozenset[str]) -> Any:
    """lm-eval's task, made around one empty document of these columns instead of a download."""
    import datasets
    import lm_eval.tasks
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    task.prepare()
    row: dict[str, Any] = {name: [] if name == "choices" else "" for name in sorted(columns)}

    class Own(ConfigurableTask):
        def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
            self.dataset = {"train": datasets.Dataset.from_list([row])}

    config = load_yaml(Path(lm_eval.tasks.__file__).parent / task.yaml)
    config.pop("tag", None)
    return Own(config={**config, "process_docs": None})


@contextlib.contextmanager
def _drawing(seed: str) -> Iterator[None]:
    """Python's random numbers are seeded within, and as they were afterwards."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def has_punkt() -> bool:
    """Whether nltk's sentence splitter is installed: IFEval counts sentences and capital words with it."""
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        return False
    return True


@cache
def prepare_ifeval() -> None:
    """Import lm-eval's checkers of IFEval without the download that they start, and make them repeatable.

    Where nltk's ``punkt_tab`` is missing, sentences are split by the regular expressions that lm-eval brings along;
    words are nltk's own either way. The stand-in reaches these checkers alone, not nltk.
    """
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = LANGUAGE_SEED
    with _no_download(nltk):
        from lm_eval.tasks.ifeval import instructions_util as checkers
    if has_punkt():
        return

    def words(text: str) -> list[str]:
        sentences = checkers.split_into_sentences(text)
        return [word for s in sentences for word in nltk.word_tokenize(s, preserve_line=True)]

    checkers._get_sentence_tokenizer = lambda: SimpleNamespace(tokenize=checkers.split_into_sentences)
    checkers.nltk = SimpleNamespace(tokenize=nltk.tokenize, data=nltk.data, word_tokenize=words)


@contextlib.contextmanager
def _no_download(nltk: Any) -> Iterator[None]:
    """nltk fetches nothing within; lm-eval also says so on standard output, which is kept empty."""
    fetch, nltk.download = nltk.download, lambda *args, **kwargs: False
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        nltk.download = fetch

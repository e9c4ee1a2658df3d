"""The bridge to lm-eval: a task's episodes as an lm-eval task, and a method as an lm-eval model.

Our documents carry the history's id and the question, never the history: :class:`MemoryLM` groups the requests by
history, has it written once, and decodes its questions as one batch. A document of a foreign task has an empty
history and its flat text as the question.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import groupby
from typing import Any, NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import Task as LmEvalTask
from lm_eval.config.task import TaskConfig

from harness import generation, scoring, shortage
from harness.backbones import Backbone
from harness.episodes import Episode, History, Query, cap_of
from harness.errors import RETRIED, HarnessError, SkippedError, UnsupportedError, redact
from harness.gates import GateError
from harness.journal import Journal
from harness.memories import Memories, Spent
from harness.method import Steering
from harness.tasks.base import Task
from harness.truncation import visible_history

SHOWN = ("replayed", "windowed")
"""Conditions under which the history, or the end of it, stands in the prompt."""
STREAMED = ("replayed",)
"""Conditions under which a memory is written while the prompt is read; elsewhere it was written before."""

BENIGN = (UnsupportedError, SkippedError)
"""What a method raises where it has nothing to answer with, and no fault."""


class EpisodeTask(LmEvalTask):
    """A task's selected episodes, as lm-eval sees them: one document a question (and a draw of donors)."""

    VERSION = 1
    OUTPUT_TYPE = "generate_until"

    def __init__(
        self,
        task: Task,
        episodes: Sequence[Episode],
        *,
        removed: bool,
        max_new_tokens: int,
        draws: int = 1,
        written: Sequence[Episode] = (),
        flat: bool = True,
        empty_context: bool = False,
    ) -> None:
        """Wrap a task.

        Args:
            episodes: With the histories as the condition shows them.
            written: The same episodes with the histories as they are written, where that is more.
            flat: Whether requests carry history and question as text; :class:`MemoryLM` reads neither there, and a
                text for each question would hold a long history as often as it is asked.
            empty_context: With ``removed``: ask in the prompt of a history in sight, of which nothing stands there.
        """
        self.task, self.removed, self.max_new_tokens, self.flat = task, removed, max_new_tokens, flat
        self.empty_context = removed and empty_context
        self.written = {e.id: e for e in written or episodes}
        self.failed: set[tuple[str, str, int]] = set()
        """Documents without an answer (history, question, draw): lm-eval's means leave them out, as ours do."""
        self.episodes = {e.id: e for e in episodes}
        self.docs = [
            {"history_id": e.id, "question_id": q.id, "number": n, "draw": draw}
            for draw in range(draws)
            for e in episodes
            for n, q in enumerate(e.questions)
        ]
        sampled = next((q.decoding for e in episodes for q in e.questions if q.decoding), None)
        self.decoding = {
            "until": list(task.stop),
            "max_gen_toks": max_new_tokens,
            **(sampled.arguments() if sampled else {"do_sample": False}),
        }
        # lm-eval's constructor takes a configuration for the task's name, and warns of what it then finds missing.
        log = logging.getLogger("lm_eval.config.task")
        log.disabled, before = True, log.disabled
        super().__init__()
        log.disabled = before
        self._config = TaskConfig(task=task.name, output_type=self.OUTPUT_TYPE, generation_kwargs=dict(self.decoding))

    def download(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the episodes were read already."""

    def has_training_docs(self) -> bool:
        return False

    def has_validation_docs(self) -> bool:
        return False

    def has_test_docs(self) -> bool:
        return True

    def test_docs(self) -> list[dict]:
        return self.docs

    def _asked(self, doc: dict) -> Any:
        return self.episodes[doc["history_id"]].questions[doc["number"]]

    def query(self, doc: dict, *, gold: bool = False) -> Query:
        """Instruction and question, in the task's wording; ``gold`` adds which messages hold the answer."""
        asked, history = self._asked(doc), self.episodes[doc["history_id"]].history
        alone = self.removed and not self.empty_context
        text = self.task.question(asked, removed=alone)
        if self.empty_context and (nothing := self.task.empty()):
            text = f"{nothing}\n\n{text}"
        written = self.written[doc["history_id"]].history.messages
        frame = None if alone else next((m.frame for m in written), None)
        return Query(history.system, text, asked.id, asked.evidence if gold else (), frame, asked.decoding)

    def cap(self, doc: dict) -> int:
        """Tokens that the answer may have at most."""
        return cap_of(self._asked(doc), self.max_new_tokens)

    def fewshot_context(self, doc: dict, *args: Any, **kwargs: Any) -> str:
        return self.doc_to_text(doc) if self.flat else self.query(doc).text

    def doc_to_text(self, doc: dict) -> str:
        """Instruction, history and question as flat text, for models without a memory of their own."""
        return "\n\n".join(part for part in (self.query(doc).system, self.flat_text(doc)) if part)

    def flat_text(self, doc: dict) -> str:
        """History and question."""
        query, history = self.query(doc), self.episodes[doc["history_id"]].history
        shown = query.frame if self.removed else visible_history(history)
        return "\n\n".join(part for part in (shown, query.text) if part)

    def doc_to_target(self, doc: dict) -> str:
        return self._asked(doc).answers[0]

    def construct_requests(self, doc: dict, ctx: str, **kwargs: Any) -> Instance:
        sampled = self._asked(doc).decoding
        seed = {"seed": sampled.seed} if sampled else {}
        how = {**self.decoding, "max_gen_toks": self.cap(doc), **seed}
        return Instance("generate_until", doc, (ctx, how), 0, kwargs["metadata"])

    def process_results(self, doc: dict, results: Sequence[str]) -> dict[str, float]:
        if document(doc) in self.failed:
            return {}
        return self.task.score(self.task.answer(results[0]), self._asked(doc))

    def aggregation(self) -> dict[str, Callable]:
        return {m.name: scoring.mean for m in self.task.metrics}

    def higher_is_better(self) -> dict[str, bool]:
        return {m.name: m.higher_is_better for m in self.task.metrics}


def document(doc: Any) -> tuple[str, str, int]:
    """What tells one document of ours from another: history, question, draw."""
    return doc["history_id"], doc["question_id"], doc["draw"]


class _Asked(NamedTuple):
    """A question of a history, as a method acts on it."""

    number: int
    query: Query
    steering: Steering
    prompt: generation.Prompt


class MemoryLM(LM):
    """A memory method under one condition and arm, as an lm-eval model.

    Args:
        memories: Shared by the cells of a job, so that a history is written once.
        task: Wording, stop texts and episodes; None for foreign documents alone.
        arm: Whose memory a question gets.
        donors: For each draw, a map from an episode to its donor; empty but in the arm ``donor``.
        batch_size: Questions of one history that are decoded together at most.
        begin: How many to begin with, where a worker was lost over more.
        step: :meth:`harness.shortage.Trail.step` of the cell.
    """

    def __init__(
        self,
        memories: Memories,
        condition: str,
        task: EpisodeTask | None = None,
        arm: str = "own",
        donors: Sequence[dict[str, str]] = (),
        journal: Journal | None = None,
        batch_size: int = 16,
        on_episode: Callable[[int], None] = lambda questions: None,
        begin: int | None = None,
        step: Callable[[str, int, int], Exception | None] = lambda key, together, size: None,
    ) -> None:
        super().__init__()
        self.memories, self.condition, self.task, self.arm, self.donors = memories, condition, task, arm, donors
        self.journal, self.on_episode, self.step = journal, on_episode, step
        self.batches = shortage.Batches(batch_size, begin)
        self.spent = Spent()
        """In this process."""
        self.recalled = Spent()
        """By an earlier process, on answers that its journal has kept."""
        self.first_error: Exception | None = None
        """The first failure that was no ``UnsupportedError`` or ``SkippedError``."""
        self.samples: dict[tuple[str, int], dict[str, Any]] = {}
        """Facts of each answer by (question id, draw)."""

    @property
    def backbone(self) -> Backbone:
        return self.memories.method.backbone

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers in the order of the requests; requests of one history and draw are decoded together."""
        answers: dict[int, str] = {}
        order = sorted(range(len(requests)), key=lambda n: self._group(requests[n].doc))
        for group, numbers in groupby(order, key=lambda n: self._group(requests[n].doc)):
            batch = list(numbers)
            rows = self._journalled(f"{group[0]}/{group[1]}", [requests[n] for n in batch])
            for n, row in zip(batch, rows, strict=True):
                answers[n] = row["answer"]
                if self.task and row.get("failure"):
                    self.task.failed.add(document(requests[n].doc))
                self.samples[str(requests[n].doc.get("question_id", n)), group[1]] = row
            self.on_episode(len(batch))
        return [answers[n] for n in range(len(requests))]

    def _journalled(self, key: str, requests: Sequence[Instance]) -> list[dict[str, Any]]:
        """The rows of one history and draw, as an earlier process has left them or answered now, and their costs."""
        known = self.journal.done.get(key) if self.journal else None
        if known and len(known["rows"]) == len(requests):
            spent = Spent.of(known["spent"])
            self.memories.account(spent)
            self.recalled += spent
            return known["rows"]
        before, self.spent, cpu = self.spent, Spent(), time.process_time()
        given_up = self.step(key, min(len(requests), self.batches.size), self.batches.size)
        rows = [_unanswered(given_up) for _ in requests] if given_up else self._answer(requests)
        spent = self.spent + self.memories.take()
        spent.cpu = time.process_time() - cpu
        if self.batches.least < self.batches.most:
            spent.batches[key] = self.batches.least
        self.spent = before + spent
        # What may be mended, by a change of the method or of what it needs, is tried again by the next process.
        if self.journal and key != "/0" and not any(retried(row) for row in rows):
            self.journal.add(key, {"rows": rows, "spent": asdict(spent)})
        return rows

    @staticmethod
    def _group(doc: Any) -> tuple[str, int]:
        known = isinstance(doc, dict) and "history_id" in doc
        return (doc["history_id"], doc["draw"]) if known else ("", 0)

    def _answer(self, requests: Sequence[Instance]) -> list[dict[str, Any]]:
        """Answers to the questions of one history, as the rows that go into samples and journal."""
        doc = requests[0].doc
        if self.task is None or self._group(doc)[0] == "":
            return [row for request in requests for row in self._foreign(request)]
        episode = self.task.episodes[doc["history_id"]]
        donor = self.task.episodes[self.donors[doc["draw"]][episode.id]] if self.donors else None
        gold = self.memories.method.capabilities.gold
        queries = [self.task.query(request.doc, gold=gold) for request in requests]
        caps = [self.task.cap(request.doc) for request in requests]
        rows = self._asked(episode, donor, queries, caps, self.task.task.stop)
        return [{**row, "donor": donor.id if donor else ""} for row in rows]

    def _foreign(self, request: Instance) -> Iterator[dict[str, Any]]:
        text, options = request.args[0], request.args[1]
        episode = Episode("", History(()), (), root="", source="official")
        cap = options.get("max_gen_toks") or options.get("max_new_tokens") or 256
        until = options.get("until") or ()
        if options.get("do_sample") and options.get("temperature", 1.0) > 0:
            raise HarnessError("this task samples its answers, and a memory is asked greedily; choose its greedy form")
        stop = [until] if isinstance(until, str) else until
        yield from self._asked(episode, None, [Query("", text)], [int(cap)], stop)

    def _asked(
        self,
        episode: Episode,
        donor: Episode | None,
        queries: Sequence[Query],
        caps: Sequence[int],
        stop: Sequence[str],
    ) -> list[dict[str, Any]]:
        """A row a query, in order. What fails takes its own questions with it, and no others.

        Neighbours that are steered alike and have the same cap are decoded together.
        """
        method, memories = self.memories.method, self.memories
        before, wrote = replace(method.effort), memories.spent.writing
        rows: dict[int, dict[str, Any]] = {}
        steered: list[_Asked] = []
        for n, query in enumerate(queries):
            with self._surviving([n], rows):
                steering = self._timed(episode, donor, query)
                asked = generation.prompt(self.backbone, self._visible(episode, steering), query, steering.unit)
                steered.append(_Asked(n, query, steering, asked))
        for (_, cap), alike in groupby(steered, key=lambda asked: (asked.steering.acts, caps[asked.number])):
            batch = list(alike)
            with self._surviving([asked.number for asked in batch], rows):
                self._decode(batch, cap, stop, rows)
        self.spent.reading += (method.effort - before) - (memories.spent.writing - wrote)
        return [rows[n] for n in range(len(queries))]

    def _timed(self, episode: Episode, donor: Episode | None, query: Query) -> Steering:
        """A steering, its time apart from that of the writes that it asked for."""
        clock, wrote = time.perf_counter(), self.memories.writing_seconds
        try:
            return self._steer(episode, donor, query)
        finally:
            self.spent.read += time.perf_counter() - clock - (self.memories.writing_seconds - wrote)

    def _decode(self, batch: Sequence[_Asked], cap: int, stop: Sequence[str], rows: dict[int, dict[str, Any]]) -> None:
        """Add the rows of queries that are steered alike, by number."""
        together = self.batches.size
        found, seconds = generation.attempt(
            self.backbone,
            [asked.prompt for asked in batch],
            batch[0].steering,
            self.batches,
            max_new_tokens=cap,
            stop=stop,
            decoding=[asked.query.decoding for asked in batch],
        )
        self.spent.prefill += seconds.prefill
        self.spent.decode += seconds.decode
        for answer, asked in zip(found, batch, strict=True):
            with self._surviving([asked.number], rows):
                if isinstance(answer, Exception):
                    self.batches.size = together  # what is too large even alone says nothing of the other histories
                    raise answer
                row, decoding = asdict(answer), asked.query.decoding
                drawn = {"seed": decoding.seed} if decoding else {}
                rows[asked.number] = {"answer": row.pop("text"), **row, "notes": {**asked.steering.notes, **drawn}}

    @contextmanager
    def _surviving(self, numbers: Sequence[int], rows: dict[int, dict[str, Any]]) -> Iterator[None]:
        """An exception becomes the rows of these questions; a failed gate ends the run, as does any foreign one."""
        try:
            yield
        except Exception as error:
            if isinstance(error, GateError) or self.task is None:
                raise
            told = shortage.told(error)
            self.first_error = self.first_error or (None if isinstance(told, BENIGN) else told)
            rows.update({n: _unanswered(told, secret=self.task.task.secret) for n in numbers})

    def _steer(self, episode: Episode, donor: Episode | None, query: Query) -> Steering:
        method, memories = self.memories.method, self.memories
        if self.arm == "zero" or self._sees_alone:
            return method.steer(None, query)
        if self.condition in STREAMED:
            return self._stream(episode, donor, query)
        if self.arm == "mean":
            assert self.task is not None, "foreign documents have no control arms"
            return method.steer(memories.mean(self._told(episode), [*self.task.written.values()]), query)
        if self.arm == "shuffled":
            return method.steer(memories.shuffled(self._told(episode)), query)
        return method.steer(memories.of(self._told(donor or episode)), query)

    def _stream(self, episode: Episode, donor: Episode | None, query: Query) -> Steering:
        """The memory is written while the prompt is read; in its controls, other reads take the place of its own."""
        method, memories = self.memories.method, self.memories
        if self.arm == "mean":
            assert self.task is not None, "foreign documents have no control arms"
            return method.steer(memories.mean(episode, [*self.task.episodes.values()], self._first), query)
        if donor:
            return method.steer(memories.trace(donor, self._first(donor)), query)
        return method.steer(None, query, writes=True)

    @property
    def _sees_alone(self) -> bool:
        """Nothing of a history is written."""
        return self.condition == "windowed" and self.memories.method.capabilities.sight_only

    def _told(self, episode: Episode) -> Episode:
        """The episode with the history as it is written."""
        return self.task.written[episode.id] if self.task and episode.id else episode

    def _first(self, episode: Episode) -> Query:
        """The question with which an episode is traced."""
        assert self.task is not None, "foreign documents have no control arms"
        return self.task.query({"history_id": episode.id, "number": 0})

    def _visible(self, episode: Episode, steering: Steering) -> Sequence[Any]:
        """What stands in the prompt before the question."""
        if self.condition == "own_text":
            return steering.messages or ()
        return episode.history.messages if self.condition in SHOWN else ()

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of foreign documents: the context is the question, and the continuation begins the answer.

        Requests that follow each other with one context are scored together.
        """
        empty = Episode("", History(()), (), root="", source="official")
        found: list[tuple[float, bool]] = []
        for context, group in groupby(requests, key=lambda request: request.args[0]):
            texts = [request.args[1].removeprefix(" ") for request in group]  # the template has ended with a space
            steering = self._steer(empty, None, Query("", context))
            asked = generation.prompt(self.backbone, self._visible(empty, steering), Query("", context), steering.unit)
            ids = [self.backbone.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            found += generation.loglikelihood(self.backbone, asked, steering, ids)
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        raise HarnessError(
            "a task of rolling log-likelihood has no question that a memory could act on; choose the generative form "
            "of this task"
        )


def retried(row: dict[str, Any]) -> bool:
    """Whether a row is a failure that another run might not meet."""
    return row.get("failure", {}).get("status") in RETRIED


def _unanswered(error: Exception, *, secret: bool = False) -> dict[str, Any]:
    """The row of a question without an answer; of a secret one, without what the error says: it may quote it."""
    kinds: dict[type[Exception], str] = {UnsupportedError: "unsupported", SkippedError: "skipped"}
    status = kinds.get(type(error), "error")
    reason = str(error) if isinstance(error, HarnessError) else redact(f"{type(error).__name__}: {error}")
    if secret:
        reason = f"{type(error).__name__}, whose words are kept back, for they may quote the question"
    nothing = {"answer": "", "prompt_tokens": 0, "new_tokens": 0, "hit_cap": False, "prompt_sha256": "", "notes": {}}
    return {**nothing, "failure": {"status": status, "reason": " ".join(reason.split())}}

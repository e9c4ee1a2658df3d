"""One cell from plan to record: answer by lm-eval, score, gate the count, keep the costs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import nltk.stem.porter  # noqa: F401 - imported once a worker, not in the first cell that scores with it
import pandas as pd
import pyarrow.parquet  # noqa: F401 - as above
import torch
from lm_eval.evaluator import evaluate as lm_eval_evaluate

from harness import arms, provenance, records, rescoring
from harness.episodes import Episode, cap_of, continued, digest, lineage
from harness.errors import RETRIED, HarnessError
from harness.experiment import Cell, Experiment, Job, TaskSpec
from harness.gates import GateOutcome, require
from harness.inputs import sources
from harness.journal import Journal
from harness.lm import STREAMED, EpisodeTask, MemoryLM, document
from harness.memories import Memories
from harness.method import MemoryMethod
from harness.overlay import Overlay
from harness.progress import Progress
from harness.rescoring import CAP_SHARE, FEW_CLUSTERS, SAME_SHARE
from harness.shortage import Trail
from harness.tasks.base import Task, TaskData
from harness.truncation import Views

JOURNAL = "journal.jsonl"
WORST = ("error", "skipped", "unsupported")
"""Of the reasons why no question has an answer, the one that a cell is called by."""


@dataclass
class JobContext:
    """What the cells of one job share: the method with its fit, the memories it has written, the gates it passed."""

    experiment: Experiment
    job: Job
    method: MemoryMethod
    results: Path
    fit: dict[str, Any] | None
    gates: list[GateOutcome] = field(default_factory=list)
    certificate: records.Certificate | None = None
    trail: Trail = field(default_factory=Trail)

    @cached_property
    def backbone_facts(self) -> dict[str, Any]:
        return self.method.backbone.describe()

    @cached_property
    def code(self) -> tuple[str, bool]:
        """Commit, and whether there were uncommitted changes; asked of git once a job."""
        return provenance.code()


@dataclass
class Material:
    """A task's episodes, drawn and cut; the same for all its cells in a job."""

    task: Task
    spec: TaskSpec
    data: TaskData
    episodes: list[Episode]
    """As they are written."""
    facts: dict[str, Any]
    cap: int
    """Tokens of an answer at most; a question may have less."""
    views: Views | None = None
    """What conditions show of the histories, where that is less than what is written."""
    overlay: Overlay | None = None
    """Questions whose gold answers are known to be wrong."""
    memories: Memories | None = None
    written: bool = False
    """A cell that reads from states has its record: an earlier process has accounted for writing them."""

    def shown(self, condition: str) -> list[Episode]:
        """The episodes with what a condition has to cut further, or writes: what its record speaks of."""
        return self.views.shown.get(condition, self.episodes) if self.views else self.episodes

    @property
    def caps(self) -> str:
        """The cap of every question, or the least and the greatest."""
        found = sorted({cap_of(q, self.cap) for e in self.episodes for q in e.questions})
        return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]:,}"

    @cached_property
    def known(self) -> dict[str, Episode]:
        """Every episode by id, also those that were not drawn: one that was may go on from them."""
        return {e.id: e for e in (*self.data.episodes, *self.episodes)}

    @property
    def wording_hash(self) -> str:
        """Digest of the wording of the task's own prompts."""
        return self.task.prompts.digest_of(self.task.wording or self.task.name)

    @property
    def empty_context(self) -> bool:
        """Under ``removed`` it is asked in the prompt of a history in sight, of which nothing stands there."""
        return self.spec.removed_prompt == "empty_context"

    def open(self, method: MemoryMethod) -> Memories:
        """The memories that the task's cells share."""
        if self.memories is None:
            self.memories = Memories(method, self.known, charged=set(self.known) if self.written else set())
        return self.memories

    def anew(self) -> int:
        """Histories that are written whole, for they were cut and no longer begin as the one that they continue."""
        return sum(e.continues in self.known and continued(e, self.known) is None for e in self.episodes)


@dataclass
class Plan:
    """A cell that is to have a record."""

    job: JobContext
    cell: Cell
    material: Material
    model_seconds: float = 0.0

    @property
    def folder(self) -> Path:
        return self.job.results / self.cell.path

    @property
    def writes(self) -> bool:
        """Its answers read from histories that were written for it, or for a cell before it."""
        alone = self.cell.condition == "windowed" and self.job.method.capabilities.sight_only
        return self.cell.condition not in STREAMED and self.cell.arm != "zero" and not alone

    @property
    def draws(self) -> int:
        return self.job.experiment.donors if self.cell.arm == "donor" else 1

    @property
    def questions(self) -> int:
        """Answers to give: questions times draws of donors."""
        return self.draws * sum(len(e.questions) for e in self.material.episodes)

    @cached_property
    def address(self) -> str:
        """Digest of all that the answers are a function of."""
        return digest(self.addressed)

    @cached_property
    def addressed(self) -> dict[str, Any]:
        """All that the answers are a function of, as plain JSON; not commit, versions or machine."""
        run, method = self.job.experiment.run, self.job.method
        sampled = [asdict(q.decoding) for e in self.material.episodes for q in e.questions if q.decoding]
        return _plain(
            {
                "backbone": method.backbone.digest,
                "method": method.name,
                "config": method.config.model_dump(mode="json"),
                "sources": sources(method.name),
                "fit": self.job.fit and self.job.fit["adapter_hash"],
                "task": self.cell.task,
                "spec": self.material.spec.model_dump(mode="json", exclude={"conditions", "overlay", "details"}),
                "data": self.material.data.hash,
                "data_seed": self.job.experiment.data.seed,
                "prompts": self.material.wording_hash,
                "cell": [self.cell.condition, self.cell.arm, self.draws],
                "caps": [cap_of(q, self.material.cap) for e in self.material.episodes for q in e.questions],
                "truncate": self.material.spec.truncate or self.material.task.truncate,
                "run": [run.dtype, run.attention, run.batch_size],
                **self._beyond,
                **({"decoding": sampled} if sampled else {}),
            }
        )

    @property
    def _beyond(self) -> dict[str, bool]:
        """Counts in the address only where it is so, that older addresses stay: what is in memory, and in no prompt."""
        views = self.material.views
        return {"beyond": True} if views and views.beyond and self.cell.condition != "replayed" else {}

    @property
    def episodes(self) -> list[Episode]:
        """With the histories that the cell's record speaks of."""
        return self.material.shown(self.cell.condition)

    @cached_property
    def donors(self) -> list[dict[str, str]]:
        """For each draw, whose memory an episode gets; none but in the arm ``donor``.

        Raises:
            HarnessError: the episodes cannot serve the arm.
        """
        arms.check(self.cell.arm, self.material.episodes)
        if self.cell.arm != "donor":
            return []
        depths = {e.id: len(lineage(e, self.material.known)) for e in self.material.episodes}
        return arms.donors(self.material.episodes, self.draws, self.job.experiment.data.seed, depths)

    def stands(self) -> bool:
        """A record of this very cell is there already, and no other run could answer more of its questions.

        One that knew another overlay is brought up to this one: that changes which scores it tells, and no answer.

        Raises:
            HarnessError: the record, or the samples beside it, are not as they were written.
        """
        path = self.folder / "record.json"
        if not path.is_file():
            return False
        record = records.load(path)
        if record.address != self.address or any(f.status in RETRIED for f in record.failures):
            return False
        records.samples_bytes(record, self.folder)
        (self.folder / JOURNAL).unlink(missing_ok=True)  # of a kill between the record and its removal
        rescoring.follow(record, self.material.task, self.folder, self.material.overlay)
        return True


def answer(plan: Plan, progress: Progress, done: int, total: int) -> int:
    """Answer a cell's questions and leave its record; gives the number of answers so far."""
    start, cpu = time.perf_counter(), time.process_time()
    material, method = plan.material, plan.job.method
    memories = material.open(method)
    asked = EpisodeTask(
        material.task,
        plan.episodes,
        removed=plan.cell.condition == "removed",
        max_new_tokens=material.cap,
        draws=plan.draws,
        written=material.episodes,
        flat=False,
        empty_context=material.empty_context,
    )
    answered = done

    def report(questions: int) -> None:
        nonlocal answered
        answered += questions
        progress.update("evaluate", answered, total, cell=plan.cell.step)
        progress.kept()

    # A journal holds answers, which may say the question again.
    journal = None if material.task.secret else Journal(plan.folder / JOURNAL, plan.address)
    if journal and journal.damaged:
        progress.say(
            f"{journal.path} is not as it was written in {journal.damaged} of its lines; what they held is answered "
            "again"
        )
    histories = plan.draws * len({e.id for e in material.episodes})
    left = 1 - len(journal.done) / histories if journal else 1.0
    lm = MemoryLM(
        memories,
        plan.cell.condition,
        asked,
        arm=plan.cell.arm,
        donors=plan.donors,
        journal=journal,
        batch_size=plan.job.experiment.run.batch_size,
        on_episode=report,
        begin=plan.job.trail.begin,
        step=partial(plan.job.trail.step, plan.cell.id),
    )
    with progress.piece(plan.cell.step, left):
        found = lm_eval_evaluate(lm, {plan.cell.task: asked}, bootstrap_iters=0, log_samples=True)
    if found is None:
        raise HarnessError(f"lm-eval gave no result for {plan.cell.id}; run on rank 0")
    failures = _failures(plan, lm, asked)
    samples = _samples(
        plan, lm, [s for s in found["samples"][plan.cell.task] if document(s["doc"]) not in asked.failed]
    )
    spent = lm.spent + lm.recalled
    costs = records.Costs(
        write_seconds=spent.write,
        read_seconds=spent.read,
        prefill_seconds=spent.prefill,
        decode_seconds=spent.decode,
        tokens_written=spent.written,
        tokens_in=int(samples["prompt_tokens"].sum()),
        tokens_out=int(samples["new_tokens"].sum()),
        state_bytes=memories.mean_bytes(),
        trainable_parameters=method.trainable_parameters(),
        extra_parameters=method.extra_parameters() if len(samples) else 0,
        write_lm_calls=spent.writing.lm_calls,
        write_tokens_read=spent.writing.tokens_read,
        write_tokens_generated=spent.writing.tokens_generated,
        write_gradient_steps=spent.writing.gradient_steps,
        read_lm_calls=spent.reading.lm_calls,
        read_tokens=spent.reading.tokens_read,
        peak_bytes=provenance.peak_bytes(method.backbone.device),
    )
    record = _record(plan, asked, samples, failures, dict(found))
    record.provenance.least_batch = min(spent.batches.values(), default=None)
    record.layers = memories.mean_layers(material.episodes) if plan.writes else {}
    wall = time.perf_counter() - start + lm.recalled.seconds
    plan.model_seconds = lm.spent.seconds
    record.costs = costs.model_copy(
        update={
            "wall_seconds": wall,
            "cpu_seconds": time.process_time() - cpu + lm.recalled.cpu,
            "gpu_seconds": spent.seconds if method.backbone.device.type == "cuda" else 0.0,
            "overhead_seconds": wall - spent.seconds,
        }
    )
    records.save(record, samples.drop(columns=records.TEXT) if material.task.secret else samples, plan.folder)
    if journal:
        journal.remove()
    return answered


def _samples(plan: Plan, lm: MemoryLM, logged: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row an answer, in the columns of ``records.SAMPLE_COLUMNS``."""
    episodes = {e.id: e for e in plan.material.episodes}
    metrics = [m.name for m in plan.material.task.metrics]
    rows = []
    for sample in logged:
        doc = sample["doc"]
        episode = episodes[doc["history_id"]]
        facts = lm.samples[doc["question_id"], doc["draw"]]
        rows.append(
            {
                "question_id": doc["question_id"],
                "history_id": episode.id,
                "root": episode.root,
                "category": episode.questions[doc["number"]].category,
                "donor": facts["donor"],
                "draw": doc["draw"],
                "prompt_tokens": facts["prompt_tokens"],
                "new_tokens": facts["new_tokens"],
                "hit_cap": facts["hit_cap"],
                "prompt_sha256": facts["prompt_sha256"],
                "answer_sha256": digest(facts["answer"]),
                "answer": facts["answer"],
                "notes": json.dumps(facts["notes"], sort_keys=True, ensure_ascii=False),
            }
        )
    columns = [name for name in records.SAMPLE_COLUMNS if "<" not in name and name != "clean"]
    answers = pd.DataFrame(rows, columns=columns)
    for metric in metrics:
        answers = answers.assign(**rescoring.columns(metric, [sample[metric] for sample in logged]))
    return rescoring.mark(answers, plan.material.overlay)


def _failures(plan: Plan, lm: MemoryLM, asked: EpisodeTask) -> list[records.Failure]:
    """Questions without an answer, each with its reason.

    Raises:
        Exception: every question met an error; the first of them.
    """
    found = []
    for history, question, draw in map(document, asked.docs):
        if (history, question, draw) in asked.failed:
            found.append(records.Failure(episode=history, question=question, **lm.samples[question, draw]["failure"]))
    errors = [f.reason for f in found if f.status == "error"]
    if len(errors) == plan.questions:
        whole = None if plan.material.task.secret else lm.first_error
        raise whole or HarnessError(f"no question of {plan.cell.id} has an answer ({errors[0]})")
    return found


def _record(
    plan: Plan, asked: EpisodeTask, samples: pd.DataFrame, failures: list[records.Failure], found: dict[str, Any]
) -> records.Record:
    job, cell, material = plan.job, plan.cell, plan.material
    counted = require(
        "counting.questions",
        len(samples) + len(failures) == plan.questions,
        f"{len(samples)} answers were scored, and {len(failures)} failures counted, of {plan.questions} expected",
        len(samples) + len(failures),
        plan.questions,
    )
    lost = [float(e.notes.get("lost_share", 0.0)) for e in plan.episodes]
    visible = [float(e.notes["visible_share"]) for e in plan.episodes if "visible_share" in e.notes]
    return records.Record(
        experiment=cell.job.experiment,
        backbone=cell.job.backbone,
        row=cell.job.row,
        method=job.method.name,
        task=cell.task,
        condition=cell.condition,
        arm=cell.arm,
        seed=cell.job.seed,
        scores=rescoring.scores(material.task, samples) if len(samples) else {},
        primary_metric=material.spec.metric or material.task.primary_metric,
        address=plan.address,
        addressed=plan.addressed,
        status="ok" if len(samples) else min((f.status for f in failures), key=WORST.index),
        failures=failures,
        gates=[*job.gates, counted],
        certificate=job.certificate,
        warnings=_warnings(plan, samples) if len(samples) else [],
        provenance=_provenance(plan),
        questions=samples["question_id"].nunique(),
        truncated=sum(share > 0 for share in lost),
        lost_share=sum(lost) / len(lost),
        visible_share=sum(visible) / len(visible) if visible else None,
        results=found["results"],
        group_subtasks=found.get("group_subtasks", {}),
        configs={cell.task: _config(plan, asked)},
        versions=found.get("versions", {}),
        n_shot={cell.task: 0},
        higher_is_better=found.get("higher_is_better", {}),
        n_samples={cell.task: {"original": len(samples), "effective": len(samples)}},
        date=time.time(),
        git_hash=job.code[0],
    )


def _config(plan: Plan, asked: EpisodeTask) -> dict[str, Any]:
    """How the cell's questions were asked and decoded."""
    config = {
        "task": plan.cell.task,
        "output_type": "generate_until",
        "max_gen_toks": plan.material.cap,
        "generation_kwargs": asked.decoding,
        **({"removed_prompt": plan.material.spec.removed_prompt} if asked.removed else {}),
    }
    return rescoring.told(config, plan.material.overlay)


def _warnings(plan: Plan, samples: pd.DataFrame) -> list[str]:
    """What a reader of the number must know (docs/validity.md)."""
    found = [f"{g.name}: {g.note}" for g in plan.job.gates if g.status == "warn"]
    capped = float(samples["hit_cap"].mean())
    if capped > CAP_SHARE:
        found.append(f"{capped:.0%} of the answers hit the cap of {plan.material.caps} tokens")
    answers = samples["answer"].str.strip().str.casefold()
    empty = float((answers == "").mean())
    if empty > SAME_SHARE:
        found.append(f"{empty:.0%} of the answers are empty")
    golds = Counter(q.answers[0].casefold() for e in plan.material.episodes for q in e.questions)
    usual = max(golds.values()) / sum(golds.values())
    same = float(answers.value_counts(normalize=True).iloc[0])
    if same - usual > SAME_SHARE:
        found.append(f"{same:.0%} of the answers are the same text (the most frequent gold: {usual:.0%})")
    cut = [float(e.notes["lost_share"]) for e in plan.episodes if e.notes.get("lost_share")]
    if cut:
        found.append(f"{len(cut)} of {len(plan.episodes)} histories were cut, losing {sum(cut) / len(cut):.0%}")
    if plan.cell.condition not in STREAMED and (anew := plan.material.anew()):
        found.append(
            f"{anew} of {len(plan.episodes)} histories no longer begin with the one that they continue, and were "
            "written whole"
        )
    whole = sum(e.notes.get("visible_share") == 1 for e in plan.episodes)
    if whole:
        found.append(f"{whole} of {len(plan.episodes)} histories are in sight as a whole, with nothing left to memory")
    clusters = samples["root"].nunique()
    if clusters < FEW_CLUSTERS:
        found.append(f"{clusters} independent source documents")
    if plan.job.fit and len(plan.job.experiment.seeds) == 1:
        found.append("one training seed")
    if not plan.job.backbone_facts["pinned"]:
        found.append("the backbone's revision is not pinned")
    if plan.job.method.backbone.spec.remote_code:
        found.append("the backbone runs code that came with its weights; its rows are in no headline")
    return found


def _provenance(plan: Plan) -> records.Provenance:
    job, backbone = plan.job, plan.job.method.backbone
    commit, dirty = job.code
    config = job.experiment.model_dump(mode="json", by_alias=True)
    return records.Provenance(
        config=config,
        config_hash=digest(config),
        commit=commit,
        dirty=dirty,
        versions=provenance.versions(),
        backbone=job.backbone_facts,
        data=plan.material.facts,
        fit=job.fit,
        prompt_hash=plan.material.task.prompts.hash,
        dtype=str(backbone.dtype).removeprefix("torch."),
        attention=backbone.model.config._attn_implementation,
        batch_size=job.experiment.run.batch_size,
        seed=job.job.seed,
        device=provenance.device_name(backbone.device),
        threads=torch.get_num_threads(),
        wording_hash=plan.material.wording_hash,
        machine=provenance.machine(backbone.device),
    )


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """As :func:`harness.episodes.digest` sees a value, so that what is stored has the same digest."""
    return json.loads(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str))

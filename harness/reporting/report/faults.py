"""What is wrong with an experiment's numbers, a plain sentence each: found in its records, never written by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from harness import statistics
from harness.experiment import Experiment, TaskSpec, cells, jobs
from harness.records import Record
from harness.registry import resolve
from harness.reporting.notes import Note
from harness.reporting.reported import Comparison
from harness.reporting.summary import Place, Summary

FEW_QUESTIONS = 100
CONTROLS = {"donor": "a wrong memory", "mean": "the mean memory"}
_TOLD = re.compile(r"training seed|independent source documents|histories were cut|not pinned")
"""Warnings of records that a sentence here tells better."""


def faults(
    experiment: Experiment, summary: Summary, beside: Sequence[Comparison], notes: Sequence[Note]
) -> list[str]:
    """Every fault that the records show, the gravest for a reader first.

    Args:
        beside: The paper's numbers beside ours.
        notes: The notes of the main table, of which the warnings of the records are taken.
    """
    records = [*summary.records.values(), *summary.unanswered.values()]
    return [
        *_missing(experiment, summary),
        *_unanswered(summary),
        *(text for spec in experiment.tasks for text in _data(spec, summary)),
        *_controls(experiment, summary),
        *_seeds(experiment, records),
        *_paper(beside),
        *_code(records),
        *_fits(records),
        *_gates(records),
        *(note.text for note in notes if note.label == "Warning" and not _TOLD.search(note.text)),
    ]


def listed(names: Iterable[str], most: int = 4) -> str:
    """``a, b and c``; of many names the first and how many more."""
    names = list(dict.fromkeys(names))
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def counted(number: int, what: str) -> str:
    """``1 question``, ``1,540 questions``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _missing(experiment: Experiment, summary: Summary) -> Iterator[str]:
    asked = [cell for job in jobs(experiment) for cell in cells(experiment, job)]
    here = {Place(*place[:5]) for place in (*summary.places, *summary.unanswered)}
    gone = [c for c in asked if Place(c.job.backbone, c.job.row, c.task, c.condition, c.arm) not in here]
    if gone:
        rows = listed(cell.job.row for cell in gone)
        yield f"{counted(len(gone), 'cell')} of {len(asked):,} did not run or left no record, those of {rows}."


def _unanswered(summary: Summary) -> Iterator[str]:
    rows: dict[tuple[str, str, str], list[str]] = {}
    for place, record in summary.unanswered.items():
        reason = next((f.reason for f in record.failures), "no reason is told").rstrip(".")
        rows.setdefault((place.row, record.status, reason), []).append(f"{place.task}, {place.condition}")
    for (row, status, reason), where in rows.items():
        told = {"unsupported": "is not supported", "skipped": "was skipped", "error": "failed"}[status]
        yield f"{row} {told} on {listed(where)}: {reason}."
    lost = {p: summary.failed(p) for p in summary.places if summary.failed(p)}
    if lost:
        where = listed(f"{p.row} on {p.task}, {p.condition}, {p.arm} ({n:,})" for p, n in lost.items())
        yield f"Questions without an answer are left out of the scores of {where}."


def _data(spec: TaskSpec, summary: Summary) -> Iterator[str]:
    records = [r for r in summary.records.values() if r.task == spec.name]
    scores = [r.scores[r.primary_metric] for r in records if r.primary_metric in r.scores]
    if not scores:
        return
    sources = {str(r.provenance.data.get("source")) for r in records}
    if "generated" in sources:
        yield f"{spec.name} asks about invented histories: its scores are no scores of a published benchmark."
    if "rebuilt" in sources:
        yield f"The data of {spec.name} is rebuilt from its parts, good for tests and not for reported scores."
    clusters, questions = min(s.clusters for s in scores), min(s.n for s in scores)
    if clusters < statistics.FEWEST_CLUSTERS:
        yield (
            f"{spec.name} draws on {counted(clusters, 'source document')}, too few for an interval or a test: "
            "its numbers speak of these documents only."
        )
    elif clusters < statistics.EXACT_CLUSTERS:
        least = statistics.smallest_p(clusters)
        yield f"{spec.name} draws on {clusters} source documents, so that no sign-flip test can go below p = {least:.2g}."
    if questions < FEW_QUESTIONS:
        yield f"{spec.name} asks {counted(questions, 'question')}, of which one is worth {100 / questions:.1f} points."
    cut, lost = max(r.truncated for r in records), max(r.lost_share for r in records)
    if cut:
        yield (
            f"On {spec.name} up to {counted(cut, 'history').replace('historys', 'histories')} had to be cut and lost "
            f"{100 * lost:.0f}% of their tokens on average: what was cut, no memory can give back."
        )


def _controls(experiment: Experiment, summary: Summary) -> Iterator[str]:
    """Where an arm that a row has was not run, so that a gain there is no memory's."""
    arms = {row.row: resolve(row.method, row.with_)[0].capabilities.arms for row in experiment.rows}
    ran = set(summary.places)
    for control, what in CONTROLS.items():
        where = [
            f"{place.task}, {place.condition}"
            for place in summary.places
            if place.arm == "own"
            and control in arms[place.row].get(place.condition, ())  # type: ignore[call-overload]
            and place._replace(arm=control) not in ran
        ]
        if where:
            yield f"The arm {control} did not run on {listed(where, 6)}: no gain there is told apart from {what}'s."


def _seeds(experiment: Experiment, records: Sequence[Record]) -> Iterator[str]:
    fitted = [r for r in records if r.provenance.fit]
    seeds = {r.seed for r in fitted}
    if len(seeds) == 1:
        rows = listed(r.row for r in fitted)
        yield f"Each fit ({rows}) has one training seed, {seeds.pop()}: what another would give is in no interval."
    elif 1 < len(seeds) < 3:
        yield f"Fits have {len(seeds)} training seeds: too few for a verdict against a printed number."


def _paper(beside: Sequence[Comparison]) -> Iterator[str]:
    alike = [c for c in beside if c.verdict == "not comparable"]
    if alike:
        reasons = listed((part for c in alike for part in c.reason.split(", ") if part), 8)
        all_of = "None of" if len(alike) == len(beside) else f"{len(alike):,} of"
        told = "can" if len(alike) == len(beside) else "cannot"
        yield f"{all_of} the {len(beside):,} printed numbers beside ours {told} be compared with them ({reasons})."


def _code(records: Sequence[Record]) -> Iterator[str]:
    dirty = [r for r in records if r.provenance.dirty]
    if dirty:
        yield (
            f"{counted(len(dirty), 'record')} of {len(records):,} come from code with uncommitted changes, "
            "which no commit can give back."
        )
    commits = sorted({r.provenance.commit[:12] for r in records})
    if len(commits) > 1:
        yield f"The records come from {len(commits)} commits ({listed(commits)}), not from one."
    loose = sorted({r.backbone for r in records if r.provenance.backbone.get("pinned") is False})
    if loose:
        yield f"The revision of {listed(loose)} is not pinned: the same name may give other weights tomorrow."


def _fits(records: Sequence[Record]) -> Iterator[str]:
    restored = [r.row for r in records if (r.provenance.fit or {}).get("restored")]
    if restored:
        yield f"The fits of {listed(restored, 8)} were restored, not learned in this run."


def _gates(records: Sequence[Record]) -> Iterator[str]:
    warned: dict[str, list[str]] = {}
    for record in records:
        for gate in record.gates:
            if gate.status == "warn":
                warned.setdefault(gate.name, []).append(record.row)
    for name, rows in sorted(warned.items()):
        yield f"The gate {name} warned on {listed(rows)}."

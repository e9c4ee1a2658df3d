"""What is wrong with an experiment's numbers, a plain sentence each: found in its records, never written by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from harness import statistics
from harness.experiment import Experiment, cells, jobs
from harness.records import Record
from harness.registry import resolve
from harness.reporting.notes import Note
from harness.reporting.reported import Comparison
from harness.reporting.summary import Place, Summary

FEW_QUESTIONS = 100
CONTROLS = {"donor": "a wrong memory", "mean": "the mean memory"}
_TOLD = re.compile(r"training seed|independent source documents|histories were cut|not pinned")
"""Warnings of records that a sentence here tells better."""
_COUNTED = re.compile(r"\d+|'[^']*'")


def faults(experiment: Experiment, summary: Summary, beside: Sequence[Comparison], notes: Sequence[Note]) -> list[str]:
    """Every fault that the records show, the gravest for a reader first.

    Args:
        beside: The paper's numbers beside ours.
        notes: The notes of the main table, of which the warnings of the records are taken.
    """
    records = [*summary.records.values(), *summary.unanswered.values()]
    return [
        *_data(experiment, summary),
        *_controls(experiment, summary),
        *_seeds(records),
        *_missing(experiment, summary),
        *_unanswered(summary),
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
    rows: dict[tuple[str, str, str], list[Place]] = {}
    reasons: dict[tuple[str, str, str], str] = {}
    for place, record in summary.unanswered.items():
        reason = next((f.reason for f in record.failures), "no reason is told").rstrip(".")
        key = place.row, record.status, _COUNTED.sub("#", reason)  # reasons that differ in what they count are one
        rows.setdefault(key, []).append(place)
        reasons.setdefault(key, reason)
    for (row, status, kind), where in rows.items():
        reason = reasons[row, status, kind]
        told = {"unsupported": "is not supported", "skipped": "was skipped", "error": "failed"}[status]
        yield f"{row} {told} on {_tasks(where)}: {reason}."
    lost = {p: summary.failed(p) for p in summary.places if summary.failed(p)}
    if lost:
        told = listed(f"{p.row} on {p.task}, {p.condition}, {p.arm} ({n:,})" for p, n in lost.items())
        yield f"Questions without an answer are left out of the scores of {told}."


def _data(experiment: Experiment, summary: Summary) -> Iterator[str]:
    """What the data cannot bear: invented or rebuilt, few documents, few questions, histories that were cut."""
    records = {spec.name: [r for r in summary.records.values() if r.task == spec.name] for spec in experiment.tasks}
    sources = {task: {str(r.provenance.data.get("source")) for r in mine} for task, mine in records.items()}
    scores = {task: [s for r in mine if (s := r.scores.get(r.primary_metric))] for task, mine in records.items()}
    clusters = {task: min(s.clusters for s in mine) for task, mine in scores.items() if mine}
    questions = {task: min(s.n for s in mine) for task, mine in scores.items() if mine}
    if invented := [task for task in records if "generated" in sources[task]]:
        yield f"The histories of {listed(invented)} are invented: scores there are no scores of a published benchmark."
    if rebuilt := [task for task in records if "rebuilt" in sources[task]]:
        yield f"The data of {listed(rebuilt)} is rebuilt from its parts, good for tests and not for reported scores."
    for task, count in clusters.items():
        documents = counted(count, "source document")
        if count < statistics.FEWEST_CLUSTERS:
            yield f"{task} draws on {documents}, too few for an interval or a test: it speaks of these documents only."
        elif count < statistics.EXACT_CLUSTERS:
            least = statistics.smallest_p(count)
            yield f"{task} draws on {documents}, so that no sign-flip test can go below p = {least:.2g}."
    if few := [task for task, count in questions.items() if count < FEW_QUESTIONS]:
        worth = listed(f"{100 / questions[task]:.1f} points on {task} (n = {questions[task]})" for task in few)
        yield f"The questions are few: one is worth {worth}."
    for task, mine in records.items():
        if cut := max((r.truncated for r in mine), default=0):
            what, lost = "1 history was" if cut == 1 else f"{cut:,} histories were", max(r.lost_share for r in mine)
            yield f"On {task} up to {what} cut, losing {100 * lost:.0f}% of the tokens: no memory can give those back."


def _controls(experiment: Experiment, summary: Summary) -> Iterator[str]:
    """Where an arm that a row has was not run, so that a gain there is no memory's."""
    arms = {row.row: resolve(row.method, row.with_)[0].capabilities.arms for row in experiment.rows}
    ran = set(summary.places)
    for control, what in CONTROLS.items():
        where = [
            place
            for place in summary.places
            if place.arm == "own"
            and control in arms[place.row].get(place.condition, ())  # type: ignore[call-overload]
            and place._replace(arm=control) not in ran
        ]
        if where:
            yield f"The arm {control} did not run on {_tasks(where)}: a gain there may be {what}'s as well."


def _tasks(places: Iterable[Place]) -> str:
    """``locomo (replayed, removed) and hotpotqa (replayed)``"""
    conditions: dict[str, dict[str, None]] = {}
    for place in places:
        conditions.setdefault(place.task, {})[place.condition] = None
    return listed((f"{task} ({', '.join(under)})" for task, under in conditions.items()), 6)


def _seeds(records: Sequence[Record]) -> Iterator[str]:
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
        some = f"{len(dirty):,} of {counted(len(records), 'record')} {'was' if len(dirty) == 1 else 'were'}"
        yield f"{some} made with uncommitted changes, which no commit holds."
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

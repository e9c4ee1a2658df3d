"""What answering cost, and where it is measured, speed and memory: ``costs.{tex,md}``, ``efficiency.csv``.

Every measured time stands here, none in the main table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.experiment import Experiment
from harness.records import Record
from harness.reporting import efficiency, predicted
from harness.reporting.render import render
from harness.reporting.summary import Summary

BESIDE = (
    "read_seconds", "write_lm_calls", "write_tokens_read", "write_tokens_generated", "write_gradient_steps",
    "read_lm_calls", "read_tokens", "extra_parameters",
)  # fmt: skip
"""Costs that most memories do not have: they stand in a table of their own, for those that do."""


def texts(experiment: Experiment, summary: Summary | None, results: Path) -> dict[str, str]:
    """The files by name; ``summary`` is None where the experiment asks nothing.

    Raises:
        HarnessError: the record of a measurement is missing, torn or of another schema.
    """
    jobs = costs_of(summary) if summary else []
    beside = [job for job in jobs if any(round(job[name], 1) for name in BESIDE)]
    context = {"experiment": experiment, "jobs": jobs, "beside": beside}
    context |= {"measured_on": measured_on(summary) if summary else [], "speed": None}
    context["predicted"] = predicted.texts(experiment, summary) if summary else ("", [], [])
    found = {}
    if experiment.efficiency:
        measured = efficiency.records(experiment, results)
        context["speed"] = efficiency.context(measured)
        found["efficiency.csv"] = efficiency.csv_text(measured)
    return {**{name: render(name, **context) for name in ("costs.tex", "costs.md")}, **found}


def costs_of(summary: Summary) -> list[dict[str, Any]]:
    """What each job cost, its cells added up; seconds, tokens, bytes and parameters."""
    jobs: dict[tuple[str, str, int], list[Record]] = {}
    for record in summary.records.values():
        jobs.setdefault((record.backbone, record.row, record.seed), []).append(record)
    return [{"backbone": b, "row": r, "seed": s, **_job_costs(records)} for (b, r, s), records in jobs.items()]


def _job_costs(records: list[Record]) -> dict[str, Any]:
    costs = [r.costs for r in records]
    names = ("wall_seconds", "gpu_seconds", "write_seconds", "prefill_seconds", "decode_seconds", "overhead_seconds")
    fit = records[0].provenance.fit or {}
    return {
        **{name: sum(getattr(c, name) for c in costs) for name in (*names, *BESIDE[:-1])},
        **{name: sum(getattr(c, name) for c in costs) for name in ("tokens_written", "tokens_in", "tokens_out")},
        **{
            name: max(getattr(c, name) for c in costs)
            for name in ("peak_bytes", "state_bytes", "trainable_parameters", "extra_parameters")
        },
        "cells": len(records),
        "questions": sum(r.questions for r in records),
        "fit_seconds": fit.get("seconds"),
        "fit_tokens": fit.get("tokens"),
        "trials": len(fit.get("trials") or [1]),
        "restored": bool(fit.get("restored")),
    }


def measured_on(summary: Summary) -> list[str]:
    """Device, threads and batch size, each combination once."""
    found = {
        f"{p.device}, {p.threads} thread{'s' * (p.threads != 1)} a worker, at most {p.batch_size} questions a batch"
        + (f", halved down to {p.least_batch} where memory ran short" if p.least_batch else "")
        for p in (r.provenance for r in summary.records.values())
    }
    return sorted(found)

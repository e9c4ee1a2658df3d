"""Puts the report into one file: template, style, script and data inlined, and nothing that could be asked for."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from harness.experiment import Experiment
from harness.reporting import audit, memory
from harness.reporting import notes as noting
from harness.reporting.report import sections
from harness.reporting.report.faults import faults
from harness.reporting.report.inert import plain, script
from harness.reporting.report.leaderboard import leaderboard
from harness.reporting.report.samples import PER_CELL, Samples
from harness.reporting.reported import comparisons
from harness.reporting.summary import Summary

HERE = Path(__file__).parent
SHOWN = 4
"""Sentences of a list that stand open; the others fold away."""
MEANING = {
    "memory": "memory is shown",
    "ahead": "ahead of its donors",
    "not shown": "memory is not shown",
    "untested": "not tested",
}
"""What the claims of :mod:`harness.reporting.memory` are called, the strongest first."""


def html(experiment: Experiment, results: Path) -> str:
    """The page.

    Raises:
        HarnessError: a record or its samples are torn, doubled, foreign or at odds.
    """
    of_answers = _of_answers(experiment, results) if experiment.tasks else _without_answers(experiment)
    style, code = (_file(name) for name in ("report.css", "report.js"))
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            experiment=experiment,
            title=experiment.title or experiment.name,
            style=Markup(style),
            script=Markup(code),
            policy=f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(code)}'",
            audit=audit.claims(),
            speed=sections.speeds(experiment, results),
            **of_answers,
        )
    )


def _of_answers(experiment: Experiment, results: Path) -> dict[str, Any]:
    summary = Summary(experiment, results)
    beside = [c for c in comparisons(experiment, summary) if getattr(c, "ours", None) is not None]
    noted, sentences = noting.notes(experiment, summary), _sentences(summary)
    samples = Samples(experiment, results, summary.records)
    board = leaderboard(experiment, summary, beside, samples)
    pictures, unseen = sections.pictures(experiment, results)
    return {
        "facts": sections.facts(experiment, summary, beside),
        "sentences": sentences,
        "claims": [(MEANING[claim], n) for claim in MEANING if (n := sum(s[0] == claim for s in sentences))],
        "faults": faults(experiment, summary, beside, noted),
        "board": Markup(script(board)),
        "places": len(board["places"]),
        "main": sections.main_rows(board["places"]),
        "left_out": _left_out(samples),
        "pictures": pictures,
        "unseen": unseen,
        "paper": sections.paper(beside),
        "verdicts": sections.verdicts(beside),
        "gates": sections.gates(summary),
        "warnings": [note.text for note in noted if note.label in ("Warning", "Not answered")],
        "costs": sections.costs(summary),
        "predictions": sections.predictions(experiment, summary),
        "measured_on": sections.measured_on(summary),
        "notes": [n for n in noted if n.label not in ("Memory", "Warning", "Gates", "Not answered")],
    }


def _without_answers(experiment: Experiment) -> dict[str, Any]:
    """Of an experiment that asks nothing, but measures speed and memory."""
    empty = ("sentences", "claims", "pictures", "unseen", "paper", "verdicts", "gates", "warnings", "costs", "notes")
    nothing: dict[str, Any] = {name: [] for name in empty}
    return nothing | {
        "facts": sections.facts(experiment, None, []),
        "faults": ["No question is asked here: speed and memory say nothing of how good an answer is."],
        "board": "",
        "places": 0,
        "main": None,
        "left_out": "",
        "measured_on": "",
        "predictions": ("", []),
    }


def _left_out(samples: Samples) -> str:
    if samples.shown < PER_CELL:
        return (
            f"So that this file stays small, {samples.shown} questions a cell are shown in the place of {PER_CELL}; "
            "samples.parquet beside each record holds all."
        )
    return f"At most {PER_CELL} questions a cell are shown, of each task the same; samples.parquet holds all."


def _sentences(summary: Summary) -> list[tuple[str, str]]:
    """What the arms say of each row and task, as pairs of a claim and a sentence, the strongest claims first."""
    order = list(MEANING)
    found = sorted(memory.sentences(summary), key=lambda s: order.index(s.claim))
    return [(sentence.claim, sentence.text) for sentence in found]


@cache
def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a content security policy names the only style and the only script that may act."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else escape(plain(value)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(MEANING=MEANING, SHOWN=SHOWN)
    return environment

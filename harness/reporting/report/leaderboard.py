"""What the page's script shows: a row a place (a cell, seeds taken together), and the records behind it.

Numbers are formatted here, as in every table, so that the report never rounds otherwise. What many records say alike
(where they ran, their fit, their gates) is told once, in a pool that they point into.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness.experiment import SOURCES, Cell, Experiment
from harness.records import Costs, Record
from harness.registry import resolve
from harness.reporting.render import interval, number, seconds, size, value
from harness.reporting.report.samples import Samples
from harness.reporting.reported import Comparison
from harness.reporting.summary import Place, Summary, place_of
from harness.statistics import Estimate

FAMILIES = {
    "reference": "reference",
    "textual": "textual",
    "parametric": "parametric",
    "outside_channel": "outside channel",
    "online_state": "online state",
}
Pair = tuple[str, str]


class Pool:
    """Values that stand in many records, each once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._known: dict[str, int] = {}

    def add(self, value: Any) -> int:
        """Where the value stands."""
        key = json.dumps(value, sort_keys=True)
        if key not in self._known:
            self._known[key] = len(self.values)
            self.values.append(value)
        return self._known[key]


def leaderboard(
    experiment: Experiment, summary: Summary, beside: Sequence[Comparison], samples: Samples
) -> dict[str, Any]:
    """Everything that the script reads, as one JSON value: ``places``, ``pool``, ``questions``, ``most``."""
    pool, specs = Pool(), {row.row: row for row in experiment.rows}
    paper = {c.place: c for c in beside if not c.category and c.metric == summary.primary_metric(c.place.task)}
    seeds: dict[Place, list[dict[str, Any]]] = {}
    for cell, record in summary.records.items():
        told = _record(cell, record, pool) | {"samples": samples.cells[cell]}
        seeds.setdefault(place_of(cell), []).append(told)
    places = []
    for place in summary.places:
        family = resolve(specs[place.row].method, specs[place.row].with_)[0].capabilities.family
        places.append(_answered(place, summary, paper.get(place)) | {"f": FAMILIES[family], "seeds": seeds[place]})
    for place, record in summary.unanswered.items():
        if place not in seeds:
            family = resolve(specs[place.row].method, specs[place.row].with_)[0].capabilities.family
            places.append({**_name(place), "f": FAMILIES[family], **_silent(place, record, pool)})
    return {"places": places, "pool": pool.values, "questions": samples.questions}


def _name(place: Place) -> dict[str, Any]:
    return {
        "id": "/".join(place),
        "b": place.backbone,
        "r": place.row,
        "t": place.task,
        "c": place.condition,
        "a": place.arm,
    }


def _answered(place: Place, summary: Summary, paper: Comparison | None) -> dict[str, Any]:
    """A place's own line: score, questions, clusters, difference to its controls, the paper's number."""
    estimate = summary.estimate(place)
    controls = {
        arm: summary.contrast(place, place._replace(arm=arm)) for arm in ("donor", "mean") if place.arm == "own"
    }
    line = {**_name(place), "metric": summary.primary_metric(place.task), "s": _estimate(estimate)}
    line |= {arm: _estimate(contrast, signed=True) for arm, contrast in controls.items() if contrast}
    if estimate:
        line |= {"n": estimate.n, "k": estimate.clusters}
    if lost := summary.failed(place):
        line["lost"] = lost
    if paper:
        reason = f"{paper.method} on {paper.backbone}" + (f": {paper.reason}" if paper.reason else "")
        line["paper"] = [paper.printed, f"{paper.printed:.2f}", paper.verdict, reason]
    return line


def _silent(place: Place, record: Record, pool: Pool) -> dict[str, Any]:
    """A place without a number, and why."""
    reason = next((failure.reason for failure in record.failures), "")
    told = _record(None, record, pool)
    return {"metric": record.primary_metric, "status": record.status, "reason": reason, "seeds": [told]}


def _estimate(estimate: Estimate | None, signed: bool = False) -> list[Any] | None:
    """``[value, low, high, text, interval]`` in percent: numbers to sort and draw by, texts to show."""
    if estimate is None:
        return None
    ends = [None if end is None else round(100 * end, 2) for end in (estimate.low, estimate.high)]
    return [round(100 * estimate.value, 4), *ends, value(estimate, signed), interval(estimate, signed)]


def _record(cell: Cell | None, record: Record, pool: Pool) -> dict[str, Any]:
    scores = [
        [name, s.rule, number(s.value), _ends(s.low, s.high), s.n, s.clusters] for name, s in record.scores.items()
    ]
    gates = [[g.name, g.status, _measured(g.value), _measured(g.limit), g.note] for g in record.gates]
    failed = Counter(f"{f.status}: {f.reason}" for f in record.failures)
    return {
        "seed": record.seed,
        "path": f"{cell.id}/record.json" if cell else "",
        "primary": record.primary_metric,
        "scores": scores,
        "gates": pool.add(gates),
        "warnings": record.warnings,
        "failures": [[reason, count] for reason, count in sorted(failed.items())],
        "costs": costs(record.costs),
        "ran": pool.add(ran(record)),
        "data": pool.add(data(record)),
        "fit": pool.add(fit(record)),
        "address": record.address,
    }


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def _measured(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


UNITS = {"bytes": size, "seconds": lambda value: f"{seconds(value)} s"}


def costs(spent: Costs) -> list[Pair]:
    """What the cell cost, without what it has none of."""
    found = []
    for name in Costs.model_fields:
        if amount := getattr(spent, name):
            unit = name.rsplit("_", 1)[-1]
            shown = UNITS[unit](amount) if unit in UNITS else f"{amount:,}"
            found.append((name.removesuffix("_bytes" if unit == "bytes" else "_seconds").replace("_", " "), shown))
    return found


def ran(record: Record) -> list[Pair]:
    """What ran, on what, from which code."""
    p = record.provenance
    about = p.backbone
    spec = about.get("spec") or {}
    facts = {
        "method": record.method,
        "commit": p.commit + (" with uncommitted changes" if p.dirty else ""),
        "scored again by": record.scored_by,
        "backbone": ", ".join(f"{kind} {spec[kind]}" for kind in SOURCES if spec.get(kind)),
        "revision": about.get("revision"),
        "weights": about.get("digest"),
        "tokenizer": about.get("tokenizer_hash"),
        "chat template": about.get("chat_template_hash"),
        "prompts": p.prompt_hash,
        "configuration": p.config_hash,
        "arithmetic": f"{p.dtype}, {p.attention} attention, at most {p.batch_size} questions a batch",
        "device": f"{p.device}, {p.threads} thread{'s' * (p.threads != 1)}",
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(p.versions.items())),
    }
    return _told(facts)


def data(record: Record) -> list[Pair]:
    """Which data was asked about, and how much of it."""
    known = record.provenance.data
    facts = {
        "grade": known.get("source"),
        "file": known.get("file"),
        "hash": known.get("hash"),
        "histories": known.get("episodes"),
        "answers": f"{record.questions:,}",
        "histories cut": f"{record.truncated:,}, losing {100 * record.lost_share:.0f}%" if record.truncated else "",
        "in sight": "" if record.visible_share is None else f"{100 * record.visible_share:.0f}% of what was written",
        "note": known.get("note"),
    }
    return _told(facts)


def fit(record: Record) -> list[Pair]:
    """What was learned beforehand, and from what."""
    known = record.provenance.fit or {}
    budget, learned = known.get("budget") or {}, known.get("data") or {}
    took = known.get("seconds")
    facts = {
        "address": known.get("address"),
        "adapter": known.get("adapter_hash"),
        "made": ("restored" if known.get("restored") else "fitted in this run") if known else "",
        "steps": known.get("steps"),
        "learning rate": budget.get("learning_rate"),
        "trained on": " ".join(str(learned[k]) for k in ("source", "file") if learned.get(k)),
        "last loss": f"{losses[-1]:.4g}" if (losses := known.get("losses")) else "",
        "took": f"{seconds(took)} s" if took else "",
    }
    return _told(facts)


def _told(facts: dict[str, Any]) -> list[Pair]:
    return [(name, str(fact)) for name, fact in facts.items() if fact not in (None, "")]

"""What stands under the table: what was run, on what data, from which code, past which gates, and what it shows.

Nothing here changes with time, machine or number of workers, so that equal answers give equal bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from harness import statistics
from harness.experiment import SOURCES, Experiment, cells, jobs
from harness.records import Record
from harness.registry import find
from harness.reporting import memory
from harness.reporting.render import cell, number
from harness.reporting.summary import Place, Summary, spread
from harness.statistics import Estimate

_QUOTED = re.compile(r"'[^']*'")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?%?")


class Note(NamedTuple):
    """One line under the table."""

    label: str
    text: str


CONTROLS = {
    "mean": "the mean memory of all other histories, as large as one's own",
    "shuffled": "the history's messages written in another order",
    "zero": "the memory that has written nothing",
}
"""What an arm is, told where an experiment asks for it."""


def notes(experiment: Experiment, summary: Summary) -> list[Note]:
    """Every note of the main table, in the order of reading."""
    return [
        *(Note("Incomplete", text) for text in _incomplete(experiment, summary)),
        *_memory(experiment, summary),
        *(Note("Primary", text) for text in _primary(experiment, summary)),
        *(Note("Families", text) for text in _families(experiment, summary)),
        *(Note("Rivals", text) for text in _rivals(experiment)),
        Note("Reading", _reading(experiment)),
        *(Note("Records", text) for text in experiment.merged),
        *(Note("Backbone", text) for text in _backbones(experiment, summary)),
        *(Note("Data", text) for text in _data(experiment, summary)),
        *(Note("Asking", text) for text in _asking(experiment, summary)),
        *(Note("Seeds", text) for text in _seeds(experiment, summary)),
        *([Note("Code", _code(summary))] if summary.records else []),
        *(Note("Fit", text) for text in _fits(summary)),
        *(Note("Gates", text) for text in _gates(summary)),
        *(Note("Not answered", text) for text in _unanswered(summary)),
        *(Note("Warning", text) for text in _warnings(summary)),
    ]


def _incomplete(experiment: Experiment, summary: Summary) -> Iterator[str]:
    """What a run that was stopped has not answered."""
    wanted = [cell for job in jobs(experiment) for cell in cells(experiment, job)]
    gone = [cell for cell in wanted if not (summary.results / cell.path / "record.json").is_file()]
    if gone:
        rows = ", ".join(dict.fromkeys(cell.job.row for cell in gone))
        yield f"{len(gone):,} of {len(wanted):,} cells have no record ({rows}): this run is not whole."


MEMORY: dict[memory.Claim, str] = {
    "memory": "shown, own ahead of another history's memory and of the mean one",
    "ahead": "own ahead of another history's memory, and no mean to hold it against, which is no claim",
    "not shown": "not shown",
}


def _memory(experiment: Experiment, summary: Summary) -> Iterator[Note]:
    """Where memory is shown and where not, by name; the numbers and sentences stand in a table of their own."""
    found, several = memory.findings(summary), len(experiment.backbones) > 1
    for claim, meaning in MEMORY.items():
        if names := memory.told(found, claim, several):
            yield Note("Memory", f"{meaning}: {names}.")
    if names := memory.told(found, "untested", several):
        yield Note("Untested", f"too few source documents, or no other history's memory to hold own against: {names}.")


def _primary(experiment: Experiment, summary: Summary) -> Iterator[str]:
    """The one contrast that the experiment declared beforehand, tested for every row and corrected over them."""
    family = summary.family(experiment.primary, "removed")
    if family:
        found = "; ".join(
            f"{place.row} on {place.backbone} {cell(contrast, True)}, {_p(p)}{_missed(contrast)}"
            for place, (contrast, p) in family.items()
        )
        how = f"{_tests(family)}, Holm over {len(family)} in all"
        yield f"own − donor on {experiment.primary}, removed: {found} ({how})."


def _families(experiment: Experiment, summary: Summary) -> Iterator[str]:
    """The other columns in which several rows are tested against their donors, each corrected within itself."""
    for spec in experiment.tasks:
        for condition in spec.conditions:
            family = summary.family(spec.name, condition)
            if len(family) > 1 and (spec.name, condition) != (experiment.primary, "removed"):
                found = "; ".join(f"{place.row} on {place.backbone} {_p(p)}" for place, (_, p) in family.items())
                yield f"own − donor on {spec.name}, {condition}: {found} ({_tests(family)}, Holm over {len(family)})."


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _tests(family: dict[Place, tuple[Estimate, float]]) -> str:
    """``sign-flip, which over 10 clusters reaches no p below 0.002``; the rest only where clusters are few."""
    tested = [contrast for contrast, _ in family.values()]
    tests = " or ".join(sorted({contrast.test for contrast in tested}))
    fewest = min((c.clusters for c in tested if c.test == "sign-flip"), default=statistics.EXACT_CLUSTERS)
    least = statistics.smallest_p(fewest)
    if least is None or fewest >= statistics.EXACT_CLUSTERS:
        return tests
    return f"{tests}, which over {fewest} clusters reaches no p below {least:.1g}"


def _missed(contrast: Estimate) -> str:
    """What a contrast whose interval holds zero could have found."""
    low, high, detectable = contrast.low, contrast.high, contrast.detectable
    if low is None or high is None or detectable is None or not low <= 0 <= high:
        return ""
    return f" (80% power finds {number(detectable)} points or more)"


def _rivals(experiment: Experiment) -> Iterator[str]:
    """Whether a best rival was chosen beforehand: none is, so that none is held against the memories here."""
    families = {row.row: cls.capabilities.family for row in experiment.rows if (cls := find(row.method))}
    states = [row for row, family in families.items() if family == "online_state"]
    rivals = [row for row, family in families.items() if family in ("textual", "parametric", "outside_channel")]
    if states and rivals:
        why = "the held-out questions chose learning rates alone" if experiment.training.dev else "none are held out"
        yield (
            f"no best rival of {', '.join(states)} was chosen on held-out questions ({why}), and none is chosen on the "
            f"test's: no headline contrast is given. harness compare holds any one of {', '.join(rivals)} against them."
        )


def _reading(experiment: Experiment) -> str:
    draws = "one derangement" if experiment.donors == 1 else f"{experiment.donors} derangements"
    return (
        "scores in percent, averaged over questions; in brackets the 95% interval, clustered by source document. "
        "own: the memory of the history that is asked about. "
        f"donor: the memory of another one ({draws}, averaged by question). "
        f"{_controls(experiment)}Differences are paired by question. An empty cell did not run."
    )


def _controls(experiment: Experiment) -> str:
    """What the less usual arms are, where the experiment asks for them."""
    asked = {arm for task in experiment.tasks for arms in task.conditions.values() for arm in arms}
    return "".join(f"{arm}: {text}. " for arm, text in CONTROLS.items() if arm in asked)


def _backbones(experiment: Experiment, summary: Summary) -> Iterator[str]:
    for name in experiment.backbones:
        records = [r for r in summary.records.values() if r.backbone == name]
        for described in sorted({_described(r) for r in records}):
            yield f"{name}: {described}."


def _described(record: Record) -> str:
    """Where the weights came from, and the arithmetic they ran in."""
    about = record.provenance.backbone
    spec = about.get("spec") or {}
    source = next((f"{k} {spec[k]}" for k in SOURCES if spec.get(k)), "")
    revision = f"revision {about['revision']}" if about.get("revision") else ""
    digest = f"weights {str(about['digest'])[:12]}" if about.get("digest") else ""
    bits = f"4-bit {spec['quantization']}" if spec.get("quantization") else ""
    ran = f"{record.provenance.dtype}, {record.provenance.attention} attention"
    return ", ".join(part for part in (source, revision, digest, bits, ran) if part)


def _data(experiment: Experiment, summary: Summary) -> Iterator[str]:
    for spec in experiment.tasks:
        records = [r for r in summary.records.values() if r.task == spec.name]
        if not records:
            continue
        primary = [r.scores[r.primary_metric] for r in records]
        groups = {s.clusters for s in primary}
        text = f"{spec.name}: {' and '.join(sorted({_source(r) for r in records}))}; "
        text += f"{spread(s.n for s in primary)} questions, {spread(groups)} clusters"
        least = statistics.smallest_p(min(groups))
        if least is None:
            text += " (too few for intervals and tests: conditional on these contexts)"
        elif min(groups) < statistics.EXACT_CLUSTERS:
            text += f" (smallest sign-flip p {least:.1g})"
        lost = max(r.lost_share for r in records)
        cut = max(r.truncated for r in records)
        if cut:
            text += f"; up to {cut:,} histories were cut, losing {100 * lost:.0f}% of their tokens on average"
        seen = [r.visible_share for r in records if r.visible_share is not None]
        if seen:
            text += f"; under windowed {100 * sum(seen) / len(seen):.0f}% of a history is in sight"
        remarks = sorted({str(r.provenance.data.get("note") or "") for r in records} - {""})
        remarks += sorted({_wrong(known) for r in records if (known := r.configs.get(spec.name, {}).get("overlay"))})
        yield ". ".join([text, *remarks]).rstrip(".") + "."


def _wrong(overlay: dict) -> str:
    """What an overlay says, and what the table makes of it."""
    count, source = overlay["wrong"], str(overlay["source"]).rstrip(".")
    return f"gold answers known to be wrong: {count:,} ({source}); clean leaves their questions out"


PROMPTS = {
    "closed_book": "asked as one who has read, in a prompt without a history",
    "empty_context": "asked in the prompt of replayed, with an empty context",
}


def _asking(experiment: Experiment, summary: Summary) -> Iterator[str]:
    """How ``removed`` is asked, where some task has it otherwise than others; and which answers are sampled."""
    named = any(spec.removed_prompt == "empty_context" for spec in experiment.tasks)
    for spec in experiment.tasks:
        configs = [r.configs.get(spec.name, {}) for r in summary.records.values() if r.task == spec.name]
        if not configs:
            continue
        parts = [f"removed is {PROMPTS[spec.removed_prompt]}"] if named and "removed" in spec.conditions else []
        decoding = next((d for c in configs if (d := c.get("generation_kwargs", {})).get("do_sample")), None)
        if decoding:
            told = f"temperature {decoding['temperature']}, top-p {decoding['top_p']}, top-k {decoding['top_k']}"
            parts.append(
                f"answers are sampled ({told}), each once from a seed of its own: what others would give is not told "
                "apart from the questions"
            )
        if parts:
            yield f"{spec.name}: {'; '.join(parts)}."


def _source(record: Record) -> str:
    """``official data (locomo10.json, 79fa87e90f04)``"""
    data = record.provenance.data
    where = ", ".join(part for part in (str(data.get("file") or ""), str(data.get("hash") or "")[:12]) if part)
    return f"{data.get('source', 'unknown')} data" + (f" ({where})" if where else "")


def _seeds(experiment: Experiment, summary: Summary) -> Iterator[str]:
    """Which seeds ran, and what they move the primary task by, apart from what the questions do."""
    seeds = sorted({r.seed for r in summary.records.values()})
    if len(seeds) == 1:
        yield f"{seeds[0]}, the only one: what another training seed would give is not in the intervals."
    elif seeds:
        listed = ", ".join(map(str, seeds))
        yield f"{listed}, averaged by question for rows that are fitted; intervals speak of questions, not of seeds."
        for place in summary.places:
            values = summary.seed_values(place) if (place.task, place.arm) == (experiment.primary, "own") else []
            layers = summary.components(place) if len(values) > 1 else None
            if layers is not None and layers.seed_sd is not None:
                apart = [
                    f"SD of seeds {number(layers.seed_sd)}",
                    f"standard error over questions {number(layers.question_se)}",
                ]
                if layers.draw_sd is not None:
                    apart.insert(1, f"SD of one draw a question {number(layers.draw_sd)}")
                if layers.low is not None and layers.high is not None:
                    apart.append(f"with all of them [{number(layers.low)}, {number(layers.high)}]")
                where = f"{place.row} on {place.backbone}, {place.task}, {place.condition}"
                yield f"{where}: {', '.join(map(number, values))}; {', '.join(apart)}."


def _code(summary: Summary) -> str:
    commits = {f"{p.commit[:12]}{' with uncommitted changes' if p.dirty else ''}" for p in _provenance(summary)}
    prompts = {p.prompt_hash[:12] for p in _provenance(summary)}
    return f"commit {', '.join(sorted(commits)) or 'none'}; prompts {', '.join(sorted(prompts)) or 'none'}."


def _provenance(summary: Summary) -> Iterator:
    return (r.provenance for r in summary.records.values())


def _fits(summary: Summary) -> Iterator[str]:
    seen: dict[str, None] = {}
    for record in summary.records.values():
        fit = record.provenance.fit
        if fit:
            how = "restored" if fit.get("restored") else "fitted here"
            steps = f", {fit['steps']:,} steps" if fit.get("steps") else ""
            where = f"{record.row} on {record.backbone}, seed {record.seed}"
            seen.setdefault(f"{where}: {str(fit.get('address', ''))[:12]}, {how}{steps}{_tuned(fit)}.")
    yield from seen


def _tuned(fit: dict) -> str:
    """``, learning rate 0.002, the best of 3 on held-out training questions``; nothing where one was given."""
    trials = fit.get("trials") or []
    rate = (fit.get("budget") or {}).get("learning_rate")
    return f", learning rate {rate:g}, the best of {len(trials)} on held-out training questions" if trials else ""


def _gates(summary: Summary) -> Iterator[str]:
    """Passed gates counted by kind and warned ones named, a row each."""
    rows: dict[str, dict[str, str]] = {}
    for record in summary.records.values():
        gates = rows.setdefault(f"{record.row} on {record.backbone}", {})
        for gate in record.gates:
            gates[gate.name] = "warn" if "warn" in (gate.status, gates.get(gate.name)) else "pass"
    for row, gates in rows.items():
        passed = Counter(name.split(".")[0] for name, status in gates.items() if status == "pass")
        warned = sorted(name for name, status in gates.items() if status == "warn")
        parts = [f"passed {', '.join(f'{kind} ({n})' for kind, n in sorted(passed.items()))}"] if passed else []
        parts += [f"warned {', '.join(warned)}"] if warned else []
        if parts:
            yield f"{row}: {'; '.join(parts)}."


def _unanswered(summary: Summary) -> Iterator[str]:
    """Every reason for which questions have no answer, with the cells where, and how many of how many.

    Reasons that differ in what they quote or count are told as one.
    """
    kinds: dict[str, tuple[set[str], Counter[tuple[str, int]]]] = {}
    for record in [*summary.records.values(), *summary.unanswered.values()]:
        carrier = "/".join((record.row, record.task, record.condition, record.arm))
        for failure in record.failures:
            text = f"{failure.status}: {failure.reason}"
            texts, cells = kinds.setdefault(_NUMBER.sub("#", _QUOTED.sub("…", text)), (set(), Counter()))
            texts.add(text)
            cells[carrier, len(record.failures) + record.questions] += 1
    for kind, (texts, cells) in sorted(kinds.items()):
        where = "; ".join(f"{carrier} {n:,} of {of:,}" for (carrier, of), n in sorted(cells.items()))
        yield f"{(texts.pop() if len(texts) == 1 else kind).rstrip('.')} ({where})."


def _warnings(summary: Summary) -> Iterator[str]:
    """Every kind of warning once, with the range of its numbers and the cells that carry it."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    everywhere = len({place[1:] for place in summary.places})
    for record in summary.records.values():
        for warning in record.warnings:
            carrier = "/".join((record.row, record.task, record.condition, record.arm))
            kinds.setdefault(_NUMBER.sub("#", warning), []).append((warning, carrier))
    for _, found in sorted(kinds.items()):
        text = _ranged([warning for warning, _ in found]).rstrip(".")
        yield f"{text} ({_some((carrier for _, carrier in found), everywhere)})."


def _ranged(texts: list[str]) -> str:
    """Texts that differ in numbers only as one: ``3% to 12% of the answers are empty``."""
    columns = zip(*(_NUMBER.findall(text) for text in texts), strict=True)
    ends = [sorted(set(column), key=lambda n: float(n.rstrip("%").replace(",", ""))) for column in columns]
    ranges = iter(e[0] if len(e) == 1 else f"{e[0]} to {e[-1]}" for e in ends)
    return _NUMBER.sub(lambda _: next(ranges), texts[0])


def _some(cells: Iterable[str], everywhere: int) -> str:
    distinct = sorted(set(cells))
    if len(distinct) == everywhere:
        return "all cells"
    return ", ".join(distinct) if len(distinct) <= 3 else f"{', '.join(distinct[:3])} and {len(distinct) - 3} more"

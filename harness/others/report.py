"""What a rescoring found, as lines of a table, as Markdown and as JSON; numbers and ids, never a text."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from harness.others.claims import percent, signed
from harness.others.scorer import Rescored
from harness.rescoring import CAP_SHARE, FEW_CLUSTERS, SAME_SHARE
from harness.statistics import FEWEST_CLUSTERS

HEADS = ["metric", "rule", "score", "95% interval", "n", "clusters", "the file says", "difference"]


def lines(found: Rescored) -> list[list[str]]:
    """A line a metric and category, in percent."""
    rows = []
    for name, score in found.scores.items():
        claims = [claim for claim in found.claims if claim.metric == name]
        interval = "" if score.low is None or score.high is None else f"{100 * score.low:.2f} to {100 * score.high:.2f}"
        rows.append([
            name,
            score.rule,
            f"{100 * score.value:.2f}",
            interval,
            str(score.n),
            str(score.clusters),
            "; ".join(f"{100 * claim.value:.2f} ({claim.name})" for claim in claims),
            "; ".join(signed(claim.difference) for claim in claims),
        ])  # fmt: skip
    return rows


def sentences(found: Rescored) -> list[str]:
    """What a reader must know beside the numbers."""
    told = [f"{found.file} is {found.format}: {found.answers} answers to '{found.task}'"]
    told += [sentence for claim in found.claims for sentence in claim.sentences()]
    if not found.claims:
        told.append("the file claims no score that is one of ours")
    told += [found.cap.sentence(), _alike(found)]
    whole = next(iter(found.scores.values()))
    if whole.clusters < FEWEST_CLUSTERS:
        told.append(
            f"too few source documents for an interval ({whole.clusters}): the scores speak of these contexts only"
        )
    elif whole.clusters < FEW_CLUSTERS:
        told.append(f"the intervals rest on {whole.clusters} source documents, which is few")
    if found.golds is not None:
        told.append(found.golds.sentence() + (", and the official ones scored" if found.official else ""))
    return [*told, *found.notes]


def _alike(found: Rescored) -> str:
    return (
        f"{percent(found.empty)} of the answers are empty, and the most frequent one is {percent(found.identical)} of "
        f"them (the most frequent gold answer: {percent(found.usual)})"
    )


def warnings(found: Rescored) -> list[str]:
    """The words of those limits that are passed: cap, empty, identical."""
    passed = {
        "cap": (found.cap.rate or 0) > CAP_SHARE,
        "empty": found.empty > SAME_SHARE,
        "identical": found.identical - found.usual > SAME_SHARE,
    }
    return [name for name, holds in passed.items() if holds]


def facts(found: Rescored) -> dict[str, Any]:
    """For JSON: shares from 0 to 1."""
    return {
        "file": found.file,
        "format": found.format,
        "task": found.task,
        "answers": found.answers,
        "scores": {name: score.model_dump() for name, score in found.scores.items()},
        "claims": [
            {**asdict(claim), "value": claim.value, "difference": claim.difference, "holds": claim.holds}
            for claim in found.claims
        ],
        "cap_hit": {**asdict(found.cap), "rate": found.cap.rate},
        "empty": found.empty,
        "identical": found.identical,
        "most_frequent_gold": found.usual,
        "golds": {"used": "official" if found.official else "file", **(found.golds.facts() if found.golds else {})},
        "warnings": warnings(found),
        "sentences": sentences(found),
    }


def markdown(found: Rescored) -> str:
    """A page of its own."""
    rows = [HEADS, ["---", "---", *["---:"] * (len(HEADS) - 2)], *lines(found)]
    table = "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in rows)
    told = "\n".join(f"- {_cell(sentence[:1].upper() + sentence[1:])}." for sentence in sentences(found))
    return f"# Answers scored again\n\n{table}\n\n{told}\n"


def _cell(text: str) -> str:
    """A file's name or a metric as Markdown shows it: what would be markup is escaped."""
    for mark in "\\|*_`<>[]":
        text = text.replace(mark, f"\\{mark}") if text.strip("-:") else text
    return " ".join(text.split())

"""Checks of claims on parameters and sizes, by closed form; and of claims that nothing printed could check."""

from __future__ import annotations

import math
from collections.abc import Callable

from harness.reporting import closed_forms
from harness.reporting.aggregates import MILLIONS, OVERALL, SHARE, Paper, Value
from harness.reporting.audit.facts import (
    CLOSED,
    FALSE,
    HOLDS,
    PART,
    UNTESTED,
    VARIANTS,
    WRONG,
    Fact,
    Finding,
    listed,
    short,
)

SMALLEST = "SmolLM3-3B"
"""The smallest backbone of the paper."""
FORMS: dict[str, tuple[Callable[[closed_forms.Shape], int], str]] = {
    "delta-Mem (TSW)": (closed_forms.delta_mem, "r = 8 on q and o of 36 layers"),
    "delta-Mem (SSW)": (closed_forms.delta_mem, "r = 8 on q and o of 36 layers"),
    "delta-Mem (MSW)": (lambda shape: closed_forms.delta_mem(shape, states=4), "four states of r = 8 a layer"),
    "Context2LoRA": (closed_forms.lora, "a rank-8 LoRA on q, k, v, o of all 36 layers"),
    "MemGen": (closed_forms.memgen, "two rank-8 adapters on all seven maps, two maps between embeddings, 16 latents"),
    "MLP Memory": (closed_forms.mlp_memory, "36 gated MLPs of the backbone's size with a head of their own"),
}
"""The closed form that gives a row's printed count, and what it is of."""


def parameters(fact: Fact, paper: Paper) -> Finding:
    """A number of trained parameters, and the share that is printed beside it."""
    row = fact.row(paper)
    form, what = FORMS[fact.method]
    count, printed = form(closed_forms.shape()), fact.numbers[0]
    off = count / 1e6 / printed - 1
    exact, close = Value(count / 1e6, 0.0).agrees(printed), abs(off) < 5e-4
    share, printed_share = paper.value(row, SHARE), paper.printed(row, SHARE) or 0.0
    shares = share.agrees(printed_share)
    counted = exact or close
    verdict = HOLDS if counted and shares else PART if counted or shares else WRONG
    fit = "exactly" if exact else f"within {100 * abs(off):.2f}%" if close else f"not ({100 * off:+.1f}%)"
    sentence = f"The closed form of {what} gives it {fit}"
    if not shares:
        sentence += f"; {printed:.2f}M are {share.value:.2f}% of the backbone, printed is {printed_share:.2f}%"
    return Finding(f"{count:,}; {share.value:.3f}%", verdict, f"{sentence}.")


def share(fact: Fact, paper: Paper) -> Finding:
    """A share of the backbone's parameters, from the closed form."""
    size = closed_forms.backbone(closed_forms.shape())
    count = FORMS[fact.method][0](closed_forms.shape())
    found = 100 * count / size
    agrees = Value(found, 0.0).agrees(fact.numbers[0])
    return Finding(f"{found:.4f}", HOLDS if agrees else WRONG, f"{count:,} of {size:,} parameters.")


def state(fact: Fact, paper: Paper) -> Finding:
    """The size of a state: the rank that gives the printed count, and the states that give the other's."""
    shape = closed_forms.shape()
    one, several = (paper.value(fact.row(paper, method, MILLIONS), MILLIONS) for method in (fact.method, fact.against))
    ranks = [r for r in range(1, 65) if Value(closed_forms.delta_mem(shape, r) / 1e6, 0.0).agrees(one.value)]
    if len(ranks) != 1:
        return Finding("no rank", WRONG, f"No rank gives the {one.value:.2f}M printed for {short(fact.method)}.")
    states = round(several.value / one.value)
    sizes = f"{ranks[0]}x{ranks[0]}"
    sentence = (
        f"r = {ranks[0]} alone gives {one.value:.2f}M parameters; {short(fact.against)}'s {several.value:.2f}M are "
        f"{states} such states a layer."
    )
    return Finding(sizes, HOLDS if sizes == fact.printed else FALSE, sentence)


def control(fact: Fact, paper: Paper) -> Finding:
    """Whether the paper has a row with as many trained parameters as δ-mem."""
    mine = fact.row(paper, VARIANTS[1])
    counts = {row.method: paper.value(row, fact.score).value for row in paper.rows(mine.source, mine.backbone)}
    others = {m: c for m, c in counts.items() if m not in VARIANTS}
    equal = [m for m, c in others.items() if any(abs(c / counts[v] - 1) < 0.05 for v in VARIANTS)]
    nearest = min(others, key=lambda m: abs(math.log(others[m] / counts[mine.method])))
    text = f"{nearest} {others[nearest]:.2f}M, {short(mine.method)} {counts[mine.method]:.2f}M"
    if equal:
        return Finding(text, PART, f"{listed(equal)} has as many parameters; its scores are in Table 1.")
    scores = {m: paper.value(paper.row(fact.backbone, m, OVERALL), OVERALL).value for m in (*others, mine.method)}
    larger = [m for m, count in others.items() if count > counts[mine.method]]
    below = [m for m in larger if scores[m] < scores[mine.method]]
    small = [paper.value(paper.row(SMALLEST, m, OVERALL), OVERALL).value for m in (nearest, mine.method)]
    sentence = (
        f"{len(below)} of the {len(larger)} other memories with more parameters score less, which speaks for it; none "
        f"has as many, so nothing tests it, and on {SMALLEST} {nearest} has {small[0]:.2f}, {short(mine.method)} "
        f"{small[1]:.2f}."
    )
    return Finding(text, UNTESTED, sentence)


def samples(fact: Fact, _: Paper) -> Finding:
    """The steps that a number of training samples makes."""
    steps = math.ceil(fact.numbers[0] / 32)
    return Finding(
        f"{steps} steps", CLOSED, f"At a global batch of 32 it makes {steps} optimiser steps; the file is not released."
    )


def file(_: Fact, __: Paper) -> Finding:
    """What only the training file could tell."""
    return Finding("", CLOSED, "The training file is not released.")


def curve(_: Fact, __: Paper) -> Finding:
    """What a figure without numbers shows."""
    return Finding("", CLOSED, "Figure 3 has curves and prints no numbers.")


def experiment(_: Fact, __: Paper) -> Finding:
    """What the paper says and shows no experiment of."""
    return Finding("", UNTESTED, "The paper shows no experiment of it; config/granularity.yaml is one, of small size.")

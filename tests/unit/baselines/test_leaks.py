"""What memories that train on a history ask themselves is no question that is asked of them, nor nearly one."""

from __future__ import annotations

from difflib import SequenceMatcher

import pytest

from harness import planted
from harness.experiment import DataSpec
from harness.registry import resolve
from harness.tasks import task

NEAR = 0.7
"""Share of characters in common; "What is Ana's hat?" and "What colour is Ana's hat?" have 0.84."""


def kv_prefix(history):
    cls, _ = resolve("kv_prefix")
    return {question for question, _ in cls.write.__globals__["questions"](history, 0)}


def context2lora(history):
    made = resolve("context2lora")[0]._pairs.__globals__
    return {p.question for p in made["parsed"](history.messages) + made["cloze"](history.messages)}


def generated(name):
    return task(name).load(DataSpec(source="generated"), "test", {}, 12).episodes


EPISODES = {
    **{name: generated(name) for name in ("write_clear_read", "locomo", "hotpotqa")},
    "planted": (*planted.family(8), *planted.family(2)[:8]),
}


@pytest.mark.parametrize("source", EPISODES)
@pytest.mark.parametrize("made", [kv_prefix, context2lora])
def test_no_question_is_nearly_one_that_is_asked(made, source):
    pairs = [(a, q.text) for e in EPISODES[source] for a in made(e.history) for q in e.questions]
    near = [pair for pair in pairs if SequenceMatcher(None, *pair).ratio() >= NEAR]
    assert pairs
    assert not near


def test_nearness_tells_them_apart():
    assert SequenceMatcher(None, "What is Ana's hat?", "What colour is Ana's hat?").ratio() > NEAR

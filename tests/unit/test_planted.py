"""Planted facts: the episodes, the statistic and its test, on a tiny backbone."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from harness import planted
from harness.episodes import Message
from harness.errors import HarnessError
from harness.method import Capabilities, MemoryMethod, Steering
from harness.planted import VALUES, compare, family, margins
from harness.registry import resolve


class Whisper(MemoryMethod):
    """Raises the first byte of the right colour, or of every colour that was told, by two nats."""

    name = "whisper"
    capabilities = Capabilities(family="reference", arms={"removed": ("own",)})
    everyone = False

    def write(self, history, state=None):
        return {m.content.partition(" is ")[0]: m.content.split()[-1].strip(".") for m in history.messages}

    def steer(self, state, query, *, writes=False):
        known = state.values() if self.everyone else [state[query.text.removeprefix("What colour is ").strip("?")]]

        def processor(ids, scores):
            logs = scores.log_softmax(-1)
            for word in known:
                first = self.backbone.tokenizer(word, add_special_tokens=False)["input_ids"][0]
                logs[:, first] += 2 / len(known)
            return logs

        return Steering(logits_processor=processor)


@pytest.fixture
def make(tiny):
    def build(row, **settings):
        cls, config = resolve(row, settings)
        return cls(config, tiny(), 0)

    return build


def test_every_fact_has_its_own_person_thing_and_colour():
    episode = planted.planted(3)
    found = [re.fullmatch(r"(\w+)'s (\w+) is (\w+)\.", m.content).groups() for m in episode.history.messages]
    assert len(found) == len(episode.questions) == 8
    assert all(len(set(column)) == 8 for column in zip(*found, strict=True))
    for (person, thing, colour), message, q in zip(found, episode.history.messages, episode.questions, strict=True):
        assert q.text == f"What colour is {person}'s {thing}?"
        assert q.answers == (colour,)
        assert q.evidence == (message.id,)
        assert colour in VALUES


def test_a_seed_fixes_the_episode_and_another_changes_it():
    assert planted.planted(1) == planted.planted(1) != planted.planted(2)


@pytest.mark.parametrize(("facts", "episodes"), [(8, 5), (2, 20)])
def test_a_family_asks_forty_questions(facts, episodes):
    found = family(facts)
    assert len(found) == len({e.root for e in found}) == episodes
    assert sum(len(e.questions) for e in found) == 40


@pytest.mark.parametrize("facts", [0, 11])
def test_more_facts_than_colours_are_refused(facts):
    with pytest.raises(HarnessError, match="1 to 10 planted facts"):
        planted.planted(0, facts)


def test_a_margin_is_the_right_colour_against_the_mean_of_nine(make):
    method, episode = make("question_only"), planted.planted(0)
    asked = [Message(episode.questions[0].text)]
    ids, _ = method.backbone.encode(asked, system="Answer with one word.", answer_next=True)
    logs = {}
    for colour in VALUES:
        new = method.backbone.tokenizer(colour, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            scores = method.backbone.model(torch.tensor([ids + new])).logits[0].double().log_softmax(-1)
        logs[colour] = sum(float(scores[len(ids) - 1 + n, token]) for n, token in enumerate(new))
    right = logs.pop(episode.questions[0].answers[0])
    assert margins(method, episode, "removed")[0] == pytest.approx(right - sum(logs.values()) / 9, abs=1e-4)


def test_what_is_in_the_prompt_and_what_is_not(make):
    episode, floor = planted.planted(0), make("question_only")
    closed = margins(floor, episode, "removed")
    assert not np.allclose(margins(make("frozen"), episode, "replayed"), closed)
    every = margins(make("bm25_rag", top_k=8), episode, "own_text")
    assert np.allclose(every, margins(make("frozen"), episode, "replayed"), atol=1e-5)


def test_a_memory_beats_the_floor_and_a_floor_does_not_beat_itself(tiny, make):
    floor = np.concatenate([margins(make("question_only"), e, "removed") for e in family()[:2]])
    method = Whisper(Whisper.Config(), tiny(), 0)
    told = np.concatenate([margins(method, e, "removed") for e in family()[:2]])
    verdict = compare(told, floor)
    assert verdict.beats
    assert verdict.n == 16
    assert verdict.p == pytest.approx(2**-15)
    assert not compare(floor, floor).beats
    assert not compare(floor, told).beats  # a significant harm is no win


def test_knowing_only_which_colours_were_told_is_no_margin_over_these(tiny, make):
    floor, method, episode = make("question_only"), Whisper(Whisper.Config(), tiny(), 0), planted.planted(0)
    raised = margins(method, episode, "removed", told=True) - margins(floor, episode, "removed", told=True)
    assert raised.mean() > 1
    method.everyone = True
    # every told colour is raised by as much; only shared first bytes (blue, black, brown) make a small difference
    raised = margins(method, episode, "removed", told=True) - margins(floor, episode, "removed", told=True)
    assert abs(raised.mean()) < 0.1


def test_without_margins_there_is_nothing_to_compare():
    with pytest.raises(HarnessError, match="no margins"):
        compare([], [])
    assert math.isclose(compare([1.0] * 8, [0.0] * 8).p, 2**-7)

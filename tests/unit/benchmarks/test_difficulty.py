"""Generated tasks at both ends: who reads well scores, who reads carelessly falls as knobs rise, who guesses fails."""

from __future__ import annotations

import json
from functools import cache

import pytest
from typer.testing import CliRunner

from benchmarks import _readers as readers
from benchmarks import difficulty
from benchmarks.__main__ import app
from harness.episodes import Episode, History, Message, Question
from harness.experiment import DataSpec
from harness.tasks import task

SETTINGS = [
    ("locomo", {"sessions": 2}),
    ("locomo", {"sessions": 2, "turns": 0, "hops": 1, "facts": 1, "dates": 0}),
    ("locomo", {"sessions": 4, "turns": 8, "updates": 3, "hops": 4, "dates": 2, "facts": 3}),
    ("locomo", {"sessions": 12, "turns": 12, "updates": 5, "hops": 8, "dates": 3, "facts": 10}),
    ("hotpotqa", {"paragraphs": 2}),
    ("hotpotqa", {"paragraphs": 10, "yes_no": 0}),
    ("hotpotqa", {"paragraphs": 10, "hops": 3, "near": 4}),
    ("hotpotqa", {"paragraphs": 10, "hops": 4, "near": 6, "yes_no": 1}),
    ("qasper", {"paragraphs": 4}),
    ("qasper", {"paragraphs": 12, "related": 8}),
    ("qasper", {"paragraphs": 30, "related": 40, "unanswerable": 0.5}),
    ("qasper", {"paragraphs": 8, "related": 4, "unanswerable": 0}),
    ("write_clear_read", {"facts": 2, "values": 10}),
    ("write_clear_read", {"facts": 12, "values": 12}),
    ("recall", {"pairs": 2}),
    ("recall", {"pairs": 64}),
    ("granularity", {"facts": 3}),
    ("granularity", {"facts": 3, "noise": 8, "between": 4, "repeats": 8, "overwrites": 4}),
    ("granularity_pairs", {"facts": 3, "noise": 8, "between": 4, "repeats": 8, "overwrites": 4}),
]
NAMES = [f"{name}-{n}" for n, (name, _) in enumerate(SETTINGS)]


@cache
def _load(name: str, settings: str, seed: int, count: int):
    one = task(name)
    return one.load(DataSpec(source="generated", seed=seed), one.splits[0], json.loads(settings), count).episodes


def load(name, settings, seed=0, count=60):
    return _load(name, json.dumps(settings), seed, count)


def score(name, flaw="", category="", **settings):
    return readers.read(task(name), load(name, settings), flaw, category)


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=NAMES)
def test_a_reader_that_misses_nothing_scores(name, settings):
    count = 12 if name == "locomo" else 60
    assert readers.read(task(name), load(name, settings, count=count)) >= difficulty.CAPABLE_GOAL


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=NAMES)
def test_a_guesser_is_at_chance(name, settings):
    count = 40 if settings.get("facts", 0) > 3 else 240
    asked = load(name, settings, count=count)
    chance = readers.chance(asked)
    print(f"{name} {settings}: chance {chance:.2f}, most of one form {max(readers.chances(asked).values()):.2f}")
    assert readers.guess(task(name), load(name, settings, 1, count), asked) <= chance + difficulty.CHANCE_MARGIN
    # Two of three questions are bridges; a paper has two closed questions of eleven, and those without an answer.
    bound = {"locomo": 0.1, "hotpotqa": 0.25, "qasper": 0.25 + settings.get("unanswerable", 0.25)}
    assert chance <= bound.get(name, 0.2)


def test_the_first_telling_misleads_where_facts_change():
    assert score("locomo", "first", "single_hop", sessions=4) == 1
    assert score("locomo", "first", "single_hop", sessions=4, updates=2) < 0.2
    assert score("granularity", "first", "target", facts=3) == 1
    assert score("granularity", "first", "target", facts=3, overwrites=2) < 0.4


def test_one_hop_gives_less_of_a_longer_list():
    found = [score("locomo", "one_hop", "multi_hop", sessions=6, hops=hops) for hops in (1, 2, 6)]
    assert found == [1, pytest.approx(1 / 2, abs=0.01), pytest.approx(1 / 6, abs=0.01)]


def test_the_day_of_the_session_is_wrong_where_dates_are_counted():
    found = [score("locomo", "no_dates", "temporal", sessions=4, dates=dates) for dates in (0, 1, 2, 3)]
    assert found[0] == 1
    assert max(found[1:]) < 0.75  # month and year are often right


def test_more_that_is_told_of_others_misleads():
    found = [score("locomo", "anybody", "single_hop", sessions=4, turns=turns) for turns in (0, 4, 20)]
    assert found[0] > found[1] + 0.1 > found[2] + 0.2
    found = [score("hotpotqa", "first", paragraphs=n, yes_no=0) for n in (2, 4, 10)]
    assert found[0] > found[1] + 0.15 > found[2] + 0.25


def test_titles_alike_mislead_who_reads_a_part_of_them():
    assert score("hotpotqa", "part", paragraphs=10) == 1
    found = [score("hotpotqa", "part", "bridge", paragraphs=10, near=near) for near in (2, 8)]
    assert 0.7 > found[0] > found[1] + 0.1


def test_two_hops_lead_nowhere_where_more_are_asked():
    assert score("hotpotqa", "two_hops", "bridge", paragraphs=10, hops=2) == 1
    assert [score("hotpotqa", "two_hops", "bridge", paragraphs=10, hops=hops) for hops in (3, 4)] == [0, 0]


def test_related_work_misleads_who_asks_not_whose_it_is():
    assert score("qasper", "anybody", paragraphs=8) == 1
    assert score("qasper", "anybody", paragraphs=8, related=8) < 0.3
    found = [score("qasper", "credulous", paragraphs=8, related=8, unanswerable=share) for share in (0, 0.25, 0.6)]
    assert found[0] == 1 > found[1] + 0.1 > found[2] + 0.3


def test_more_facts_mislead_who_keeps_only_the_last():
    assert [score("write_clear_read", "anybody", facts=facts, values=12) for facts in (1, 4)] == [1, 0.25]
    assert score("recall", "anybody", pairs=2) > score("recall", "anybody", pairs=16) + 0.3


def test_a_guesser_that_could_know_is_told_from_one_that_cannot():
    same = [Episode(str(n), History((Message("told"),)), (Question("q", "What is it?", ("red",)),), "r", "generated")
            for n in range(4)]  # fmt: skip
    assert readers.chances(same) == {"What is it?": 1}
    assert readers.guess(task("write_clear_read"), same, same) == 1


def test_the_command_prints_every_reader_of_the_experiment():
    result = CliRunner().invoke(app, ["difficulty", "embedded", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["write_clear_read.capable"] == {"value": 1.0, "goal": 0.95, "met": True}
    assert found["write_clear_read.guess"]["met"]
    assert {name.split(".")[0] for name in found} == {"write_clear_read"}

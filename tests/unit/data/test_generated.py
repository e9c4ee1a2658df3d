"""Generated rows: seeded, in the official schemas, and answerable from their evidence; knobs size them."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter

import pytest

from harness.data import hotpotqa, locomo, qasper
from harness.data.generated import locomo as conversations
from harness.data.generated import short
from harness.episodes import Episode, Question, episodes_digest
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.tasks import task

READERS = {"locomo": locomo, "hotpotqa": hotpotqa, "qasper": qasper}


PINNED = {
    "locomo": "ec085def8797b67fae595792747ec864310bd2e2a488da26533b4c5b86730477",
    "hotpotqa": "73b8658df8ccb8480c618c0f94fce0bf5d3eafa5a0f8db73411a6e88e301f9da",
    "qasper": "9841342486ca15004c08a2577f71cef63c1234a715b660f8d660bea9b2ea1403",
}
"""sha256 of the rows of seed 0 without knobs, on which published records rest."""
PINNED_TRAINING = {
    ("qasper", 40): "c169e0e4f5523d4274d693258f6a0a0d6ae844eccc7cd92709c7f0cb8672f710",
    ("write_clear_read", 1440): "fb5c688a722419d095f3f99f68f9f85a854dede2f6538704ca9eeb5bbcc1b997",
}
"""Digests of training episodes, which fits are found by."""
GRADED = {"locomo": {"sessions": 4}, "hotpotqa": {"paragraphs": 10}, "qasper": {"paragraphs": 12, "related": 4}}


def episodes(name: str, count: int = 40, seed: int = 0) -> tuple[Episode, ...]:
    return READERS[name].load(DataSpec(source="generated", seed=seed), count).episodes


def evidence(episode: Episode, q: Question) -> str:
    return "\n".join(m.content for m in episode.history.messages if m.id in q.evidence)


@pytest.mark.parametrize("name", READERS)
def test_one_seed_makes_the_same_rows_and_another_seed_others(name):
    make = getattr(short, name)
    assert make(8, 3) == make(8, 3)
    assert make(8, 3) != make(8, 4)


@pytest.mark.parametrize("name", READERS)
def test_as_many_as_asked_for_with_distinct_ids_and_short_histories(name):
    found = episodes(name, 10)
    assert len(found) == 10
    assert len({q.id for e in found for q in e.questions}) == sum(len(e.questions) for e in found)
    assert max(sum(len(m.content.split()) for m in e.history.messages) for e in found) < 150
    assert all({*q.evidence} <= {m.id for m in e.history.messages} for e in found for q in e.questions)


def test_locomo_answers_follow_from_their_evidence():
    for episode in episodes("locomo"):
        times = {m.id: m.time for m in episode.history.messages}
        assert {q.category for q in episode.questions} == {"single_hop", "multi_hop", "temporal", "open_domain"}
        for q in episode.questions:
            told = evidence(episode, q)
            if q.category == "temporal":
                said = dt.datetime.strptime(times[q.evidence[0]].split(" on ")[1], "%d %B, %Y")
                ago = dt.timedelta(days=1 if "yesterday" in told else 0)
                assert dt.datetime.strptime(q.answers[0], "%d %B %Y") == said - ago
            elif q.category == "open_domain":
                country, city = re.match(r"(\w+); (\w+) is", q.answers[0]).groups()
                assert short.CITIES[city] == country
                assert city in told
            else:
                assert all(part in told for part in q.answers[0].split(", "))


def test_hotpotqa_answers_follow_from_their_evidence():
    seen = set()
    for episode in episodes("hotpotqa", 60):
        (q,) = episode.questions
        told = evidence(episode, q)
        born, years = re.findall(r"born in (\w+)", told), list(map(int, re.findall(r"published in (\d+)", told)))
        seen.add((q.category, q.answers[0] if q.answers[0] in ("yes", "no") else "span"))
        if q.answers[0] in ("yes", "no"):
            assert (born[0] == born[1]) == (q.answers[0] == "yes")
        elif q.category == "bridge":
            assert born == [q.answers[0]]
        else:
            assert f"{q.answers[0]} is a novel" in told
            assert f"published in {min(years)}" in next(
                m.content for m in episode.history.messages if m.id == q.answers[0]
            )
    assert seen == {("bridge", "span"), ("comparison", "span"), ("comparison", "yes"), ("comparison", "no")}


def test_qasper_answers_follow_from_their_evidence():
    for episode in episodes("qasper"):
        (q,) = episode.questions
        told = evidence(episode, q)
        if q.answers[0] in ("yes", "no"):
            assert ("pretrained on news" in told) == (q.answers[0] == "yes")
        elif q.answers[0] == qasper.UNANSWERABLE:
            assert not any("language" in m.content for m in episode.history.messages)
        else:
            assert q.answers[0] in told


@pytest.mark.parametrize("name", READERS)
def test_rows_without_knobs_are_those_that_published_records_name(name):
    assert READERS[name].load(DataSpec(source="generated")).hash == PINNED[name]


@pytest.mark.parametrize(("name", "count"), PINNED_TRAINING)
def test_training_episodes_are_those_that_fits_are_found_by(name, count):
    found = task(name)._load(DataSpec(source="generated"), "train", task(name).Settings(), count)
    assert episodes_digest(found.episodes) == PINNED_TRAINING[name, count]


def graded(name, count=12, seed=0, **knobs):
    one = task(name)
    return one.load(DataSpec(source="generated", seed=seed), one.splits[0], {**GRADED[name], **knobs}, count)


@pytest.mark.parametrize("name", READERS)
def test_knobs_make_other_rows_by_the_same_rules(name):
    found = graded(name)
    assert found.hash == graded(name).hash
    assert len({found.hash, graded(name, seed=1).hash, PINNED[name]}) == 3
    assert len(found.episodes) == 12
    for episode in found.episodes:
        ids = [m.id for m in episode.history.messages]
        assert len(set(ids)) == len(ids)
        assert all({*q.evidence} <= {*ids} for q in episode.questions)
    if name != "qasper":  # there the shortest go first
        assert graded(name, 20).episodes[:12] == found.episodes


def test_conversations_have_the_sessions_turns_and_questions_that_were_asked_for():
    for episode in graded("locomo", sessions=5, turns=6, facts=3, updates=2, hops=4).episodes:
        sessions = [m.id.split(":")[0] for m in episode.history.messages]
        assert list(dict.fromkeys(sessions)) == ["D1", "D2", "D3", "D4", "D5"]
        assert len(sessions) == 5 * (1 + 6) + 3 * (3 + 1 + 4 + 1)  # a greeting a session; facts by category
        assert Counter(q.category for q in episode.questions) == dict.fromkeys(locomo.CATEGORIES.values(), 3)
        newest = [q for q in episode.questions if q.category == "single_hop"]
        assert all(q.answers[0] in evidence(episode, q) and len(q.evidence) == 1 for q in newest)
        for q in (q for q in episode.questions if q.category == "multi_hop"):
            assert len({e.split(":")[0] for e in q.evidence}) == len(q.answers[0].split(", ")) == 4
            assert all(part in evidence(episode, q) for part in q.answers[0].split(", "))


def test_questions_have_the_paragraphs_and_kinds_that_were_asked_for():
    for hops in (2, 3, 4):
        for episode in graded("hotpotqa", 30, hops=hops, near=4, yes_no=1).episodes:
            (q,) = episode.questions
            assert len(episode.history.messages) == 10
            assert len(q.evidence) == (hops if q.category == "bridge" else 2)
            assert q.category == "bridge" or q.answers[0] in ("yes", "no")
            assert q.answers[0] in ("yes", "no") or q.answers[0] in evidence(episode, q)
    kinds = Counter(e.questions[0].answers[0] in ("yes", "no") for e in graded("hotpotqa", 60, yes_no=0).episodes)
    assert kinds == {False: 60}


def test_papers_have_the_sections_and_gaps_that_were_asked_for():
    sizes = {len(e.history.messages) for e in graded("qasper", 40, paragraphs=20, related=9).episodes}
    assert sizes == {1 + 20 + 9}
    for share in (0, 1):
        found = [q for e in graded("qasper", 40, unanswerable=share).episodes for q in e.questions]
        assert {q.answers[0] == qasper.UNANSWERABLE for q in found} == {bool(share)}
        assert all(bool(q.evidence) != bool(share) for q in found)


@pytest.mark.parametrize(
    ("name", "knobs", "said"),
    [
        ("locomo", {"facts": 3}, "the other knobs are of rows that 'sessions' sizes; give 'sessions' a number"),
        ("locomo", {"sessions": 2, "hops": 3}, "takes a session of its own; raise sessions"),
        ("locomo", {"sessions": 2, "updates": 2}, "takes a session of its own; raise sessions"),
        ("locomo", {"sessions": 40, "hops": conversations.MOST_ITEMS + 1}, "wrong setting 'hops'"),
        ("locomo", {"sessions": 2, "dates": 4}, "wrong setting 'dates'"),
        ("hotpotqa", {"near": 2}, "give 'paragraphs' a number"),
        ("hotpotqa", {"paragraphs": 4, "hops": 3, "near": 2}, "raise paragraphs or lower them"),
        ("hotpotqa", {"paragraphs": 11}, "wrong setting 'paragraphs'"),
        ("qasper", {"related": 2}, "give 'paragraphs' a number"),
        ("qasper", {"paragraphs": 4, "unanswerable": 1.5}, "wrong setting 'unanswerable'"),
    ],
)
def test_knobs_that_cannot_be_are_refused(name, knobs, said):
    one = task(name)
    with pytest.raises(HarnessError, match=said):
        one.load(DataSpec(source="generated"), one.splits[0], knobs, 4)


def test_as_many_items_and_values_as_there_are_can_be_told():
    items = conversations.MOST_ITEMS
    found = graded("locomo", sessions=40, hops=items, updates=39, facts=10).episodes
    assert {len(q.evidence) for e in found for q in e.questions if q.category == "multi_hop"} == {items}


@pytest.mark.parametrize("name", READERS)
def test_knobs_are_refused_beside_official_rows(name, tmp_path, monkeypatch):
    one = task(name)
    said = f"the settings of task '{name}' are knobs of generated rows"
    with pytest.raises(HarnessError, match=said):
        one.load(DataSpec(source="official"), one.splits[0], GRADED[name], 4)
    monkeypatch.setenv("DELTA_MEM_DATA", str(tmp_path))
    with pytest.raises(HarnessError, match=said):
        one.load(DataSpec(), one.splits[0], GRADED[name], 4)
    assert one.load(DataSpec(source="generated"), one.splits[0], GRADED[name], 4).source == "generated"

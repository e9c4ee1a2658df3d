"""Generated rows: seeded, in the official schemas, and answerable from their evidence."""

from __future__ import annotations

import datetime as dt
import re

import pytest

from harness.data import generated, hotpotqa, locomo, qasper
from harness.episodes import Episode, Question
from harness.experiment import DataSpec

READERS = {"locomo": locomo, "hotpotqa": hotpotqa, "qasper": qasper}


def episodes(name: str, count: int = 40, seed: int = 0) -> tuple[Episode, ...]:
    return READERS[name].load(DataSpec(source="generated", seed=seed), count).episodes


def evidence(episode: Episode, q: Question) -> str:
    return "\n".join(m.content for m in episode.history.messages if m.id in q.evidence)


@pytest.mark.parametrize("name", READERS)
def test_one_seed_makes_the_same_rows_and_another_seed_others(name):
    make = getattr(generated, name)
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
                assert generated.CITIES[city] == country
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

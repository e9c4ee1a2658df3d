"""The nouns: equal values have equal digests, and a date is told where it changes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from harness.episodes import History, Message, digest, episodes_digest, spoken, widening

HISTORY = History((Message("a", time="May 7", id="1"), Message("b", role="assistant")), "Read.")


def test_a_digest_depends_on_every_part():
    first, second = HISTORY.messages
    others = [
        replace(HISTORY, system=""),
        replace(HISTORY, messages=(second, first)),
        replace(HISTORY, messages=(replace(first, content="A"), second)),
        replace(HISTORY, messages=(replace(first, time=None), second)),
        replace(HISTORY, messages=(first, replace(second, role="user"))),
    ]
    found = {h.digest() for h in (HISTORY, *others)}
    assert len(found) == 6
    assert HISTORY.digest() == History(tuple(HISTORY.messages), "Read.").digest()


def test_canonical_json_knows_no_order_of_keys():
    assert digest({"a": 1, "b": "ä"}) == digest({"b": "ä", "a": 1}) != digest({"a": 1, "b": "a"})


def test_episodes_are_digested_in_order(episodes):
    assert episodes_digest(episodes) == episodes_digest(list(episodes)) != episodes_digest(episodes[::-1])
    assert episodes_digest(episodes) != episodes_digest(episodes[:1])


def test_values_do_not_change():
    with pytest.raises(FrozenInstanceError):
        HISTORY.system = "else"


def test_a_date_is_told_where_it_changes():
    times = (None, "May 7", "May 7", "May 8", None, "May 8")
    told = spoken(Message("x", time=t) for t in times)
    assert told == ["x", "[May 7]\nx", "x", "[May 8]\nx", "x", "[May 8]\nx"]


def test_questions_can_be_exchanged(episodes):
    fewer = episodes[0].with_questions(q for q in episodes[0].questions[:1])
    assert fewer.questions == episodes[0].questions[:1]
    assert fewer.history == episodes[0].history


def test_a_digest_is_not_moved_by_what_is_not_used(episodes):
    """Published fits are found by the digest of their episodes."""
    first = episodes[0]
    capped = first.with_questions(replace(q, max_new_tokens=3) for q in first.questions)
    plain = asdict(first)
    del plain["continues"]
    for question in plain["questions"]:
        del question["max_new_tokens"]
    assert episodes_digest([first]) == digest([plain])
    assert episodes_digest([capped]) != episodes_digest([first]) != episodes_digest([replace(first, continues="x")])


def test_a_narrow_category_counts_in_the_wide_one():
    assert widening("AR/eventqa") == ["AR", "AR/eventqa"]
    assert widening("temporal") == ["temporal"]
    assert widening("") == []

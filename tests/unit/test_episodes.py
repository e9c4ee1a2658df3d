"""The nouns: equal values have equal digests, and a date is told where it changes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from harness.episodes import Decoding, History, Message, digest, episodes_digest, spoken, turns, widening

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
        del question["max_new_tokens"], question["decoding"], question["doc"]
    for message in plain["history"]["messages"]:
        del message["frame"], message["heading"]
    assert episodes_digest([first]) == digest([plain])
    assert episodes_digest([capped]) != episodes_digest([first]) != episodes_digest([replace(first, continues="x")])


def test_a_narrow_category_counts_in_the_wide_one():
    assert widening("AR/eventqa") == ["AR", "AR/eventqa"]
    assert widening("temporal") == ["temporal"]
    assert widening("") == []


def test_messages_of_one_frame_are_one_turn():
    told = [Message("a", frame="Read:", time="May 7", heading="ON May 7:"), Message("b", frame="Read:", time="May 7")]
    alone, framed, other = turns([Message("first"), *told, Message("b", frame="")])
    assert alone.content == "first"
    assert framed.content == "Read:\n\nON May 7:\na\n\nb"
    assert [framed.content[:end] for end in framed.ends] == ["Read:", "Read:\n\nON May 7:\na", framed.content]
    assert (other.content, other.ends) == ("b", (0, 1))
    assert [t.content for t in turns([Message("x"), Message("x")])] == ["x", "x"]


def test_a_digest_tells_a_frame_and_a_decoding(episodes):
    first = episodes[0]
    framed = replace(first.history, messages=tuple(replace(m, frame="Read:") for m in first.history.messages))
    assert framed.digest() != first.history.digest()
    drawn = first.with_questions(replace(q, decoding=Decoding(0.4, 0.9, 10, 1)) for q in first.questions)
    assert len({episodes_digest([e]) for e in (first, drawn, replace(first, history=framed))}) == 3

"""Gold evidence: the messages that the data name, in order; nothing where they name none."""

from __future__ import annotations

import pytest

from harness.episodes import History, Message, Query
from harness.errors import UnsupportedError
from harness.registry import resolve

HISTORY = History(tuple(Message(f"Turn {n}.", id=f"D1:{n}") for n in range(4)))


@pytest.fixture
def oracle(tiny):
    cls, config = resolve("oracle")
    return cls(config, tiny(), 0)


def test_the_evidence_stands_in_the_order_of_the_history(oracle):
    steering = oracle.steer(oracle.write(HISTORY), Query("", "?", "q", ("D1:3", "D1:0", "D1:3")))
    assert steering.messages == (HISTORY.messages[0], HISTORY.messages[3])
    assert steering.notes == {"retrieved": ["D1:0", "D1:3"], "evidence_lost": 0}


def test_evidence_that_names_every_message_is_the_frozen_prompt(oracle):
    query = Query("", "?", "q", tuple(m.id for m in HISTORY.messages))
    found = oracle.steer(oracle.write(HISTORY), query)
    assert found.messages == HISTORY.messages
    assert found.acts == resolve("frozen")[0].steer(None, None, query).acts


def test_evidence_that_was_cut_away_is_counted(oracle):
    state = oracle.write(History(HISTORY.messages[2:]))
    steering = oracle.steer(state, Query("", "?", "q", ("D1:0", "D1:1", "D1:3")))
    assert steering.notes == {"retrieved": ["D1:3"], "evidence_lost": 2}
    assert oracle.steer(state, Query("", "?", "q", ("D1:0",))).messages == ()


def test_a_question_without_evidence_is_unsupported(oracle):
    with pytest.raises(UnsupportedError, match="no evidence for question 'q7'; leave"):
        oracle.steer(oracle.write(HISTORY), Query("", "?", "q7"))


def test_nothing_is_remembered_of_nothing(oracle):
    assert oracle.write(History(())) is None
    assert oracle.steer(None, Query("", "?", "q", ("D1:0",))).messages == ()


def test_a_history_may_be_continued(oracle):
    state = oracle.write(History((Message("More.", id="D2:0"),)), oracle.write(HISTORY))
    assert [m.id for m in oracle.steer(state, Query("", "?", "q", ("D2:0", "D1:1"))).messages] == ["D1:1", "D2:0"]
    assert state.nbytes() == sum(len(m.content) for m in HISTORY.messages) + len("More.")

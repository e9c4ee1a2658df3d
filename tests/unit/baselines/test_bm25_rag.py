"""BM25: the ranking of an independent implementation, in the order of the conversation."""

from __future__ import annotations

import re

import pytest
from rank_bm25 import BM25Okapi

from harness.episodes import History, Message, Query
from harness.registry import resolve

TEXTS = (
    "Ann bought a red car in May.",
    "The weather was fine, and the car was washed.",
    "Bob has a blue kite; Bob flies it daily.",
    "Ann's kite is green.",
    "Nobody spoke for a while.",
)
HISTORY = History(tuple(Message(t, id=str(n)) for n, t in enumerate(TEXTS)))


@pytest.fixture
def retrieve(tiny):
    def run(question, history=HISTORY, **settings):
        cls, config = resolve("bm25_rag", settings)
        method = cls(config, tiny(), 0)
        return method.steer(method.write(history), Query("", question))

    return run


@pytest.mark.parametrize("question", ["Who has a blue kite?", "red car", "weather fine", "Bob Bob kite"])
def test_the_best_message_is_the_one_another_implementation_finds(question, retrieve):
    words = [re.findall(r"\w+", t.lower()) for t in TEXTS]
    scores = BM25Okapi(words).get_scores(re.findall(r"\w+", question.lower()))
    assert retrieve(question, top_k=1).notes["retrieved"] == [str(int(scores.argmax()))]


def test_what_is_found_stands_in_the_order_in_which_it_was_said(retrieve):
    found = retrieve("blue kite, green kite, red car", top_k=3)
    assert found.notes["retrieved"] == sorted(found.notes["retrieved"])
    assert [m.id for m in found.messages] == found.notes["retrieved"]


@pytest.mark.parametrize("question", ["?!", "", "zebra quagga"])
def test_a_question_without_a_known_word_takes_the_first_messages(question, retrieve):
    assert retrieve(question, top_k=2).notes["retrieved"] == ["0", "1"]


def test_a_budget_of_tokens_is_kept(retrieve, tiny):
    best = len(tiny().tokenizer(TEXTS[2])["input_ids"])
    assert retrieve("blue kite Bob", budget_tokens=best).notes["retrieved"] == ["2"]
    assert retrieve("blue kite Bob", budget_tokens=best - 1).messages == ()


def test_the_whitespace_split_minds_case_and_marks(retrieve):
    assert retrieve("Bob", tokenizer="whitespace", top_k=1).notes["retrieved"] == ["2"]
    assert retrieve("bob", tokenizer="whitespace", top_k=1).notes["retrieved"] == ["0"]
    assert retrieve("bob", top_k=1).notes["retrieved"] == ["2"]


def test_messages_without_a_word_do_no_harm(retrieve):
    odd = History((Message("...", id="a"), Message("", id="b"), Message("a kite", id="c")))
    assert retrieve("the kite?", odd, top_k=1).notes["retrieved"] == ["c"]


def test_continued_online_the_index_covers_all(tiny):
    cls, config = resolve("bm25_rag", {"top_k": 1})
    method = cls(config, tiny(), 0)
    state = method.write(History((Message("A violet boat.", id="new"),)), method.write(HISTORY))
    assert method.steer(state, Query("", "violet boat")).notes["retrieved"] == ["new"]
    assert method.steer(state, Query("", "blue kite")).notes["retrieved"] == ["2"]
    assert state.nbytes() > method.write(HISTORY).nbytes()

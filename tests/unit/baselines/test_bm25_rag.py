"""BM25: the ranking of an independent implementation, in the order of the conversation."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import numpy as np
import pytest
from rank_bm25 import BM25Okapi

from baselines._textual import best
from harness import generation
from harness.chunks import told_tokens
from harness.episodes import History, Message, Query
from harness.errors import HarnessError
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


@pytest.mark.parametrize("seed", range(5))
def test_one_word_ranks_all_as_another_implementation_does(seed, tiny):
    rng = random.Random(seed)
    texts = [" ".join(rng.choices("abcdefgh", weights=range(1, 9), k=rng.randint(1, 9))) for _ in range(40)]
    okapi = BM25Okapi([t.split() for t in texts])
    cls, config = resolve("bm25_rag", {"top_k": None, "order": "rank"})
    method = cls(config, tiny(), 0)
    state = method.write(History(tuple(Message(t, id=str(n)) for n, t in enumerate(texts))))
    positive = [word for word, weight in okapi.idf.items() if weight > 0 and sum(word in t for t in texts) < 20]
    assert positive
    for word in positive:
        scores = okapi.get_scores([word])
        ranked = [scores[int(n)] for n in method.steer(state, Query("", word)).notes["retrieved"]]
        assert len(ranked) == 40
        assert all(a >= b - 1e-9 for a, b in pairwise(ranked))


@pytest.mark.parametrize("count", [1, 3, 7, 40, 100])
def test_the_best_are_those_of_a_plain_sort(count):
    rng = random.Random(count)
    for _ in range(50):
        scores = np.array([rng.choice((0, 0, 0, 0.5, 1, rng.random())) for _ in range(40)], np.float32)
        assert best(scores, min(count, 40)) == sorted(range(40), key=lambda n: (-scores[n], n))[:count]


@pytest.mark.parametrize("settings", [{}, {"unit": "chunk", "chunk_tokens": 9}, {"budget_tokens": 10_000}])
def test_all_units_in_order_are_the_frozen_prompt(settings, tiny, episodes):
    cls, config = resolve("bm25_rag", {"top_k": None, **settings})
    method, e = cls(config, tiny(), 0), episodes[0]
    query = Query(e.history.system, e.questions[0].text)
    steering = method.steer(method.write(e.history), query)
    assert steering.messages == e.history.messages
    prompts = [generation.prompt(method.backbone, m, query) for m in (steering.messages, e.history.messages)]
    assert prompts[0] == prompts[1]
    frozen = resolve("frozen")[0]
    ours = generation.answer(method.backbone, prompts[:1], steering, max_new_tokens=4)[0]
    theirs = generation.answer(tiny(), prompts[1:], frozen.steer(None, None, query), max_new_tokens=4)[0]
    assert ours == theirs


def test_more_asked_for_than_there_is_gives_all(retrieve):
    assert len(retrieve("kite", top_k=50).messages) == len(TEXTS)


def test_of_a_long_message_the_chunk_that_matters_is_found(retrieve):
    long = History((Message(" ".join(TEXTS), id="all", time="May"), Message("Short.", id="short")))
    found = retrieve("Who has a blue kite?", long, unit="chunk", chunk_tokens=48, top_k=1)
    assert [(m.content, m.id, m.time) for m in found.messages] == [
        ("Bob has a blue kite; Bob flies it daily.", "all", "May")
    ]
    both = retrieve("Who has a kite?", long, unit="chunk", chunk_tokens=50, top_k=2)
    assert [m.content for m in both.messages] == [" ".join(TEXTS[2:])]  # neighbours are one text again


def test_best_first_or_as_they_were_said(retrieve):
    asked = "Ann's green kite; who is Bob?"
    ranked = retrieve(asked, top_k=3, order="rank").notes["retrieved"]
    assert ranked[0] == "3"
    assert sorted(ranked) == retrieve(asked, top_k=3).notes["retrieved"] != ranked


@pytest.mark.parametrize("budget", [1, 20, 30, 45, 60, 80, 120, 200])
def test_a_budget_keeps_the_longest_run_of_the_ranking_with_dates(budget, tiny):
    cls, config = resolve("bm25_rag", {"top_k": None, "order": "rank", "budget_tokens": budget})
    method = cls(config, tiny(), 0)
    history = History(tuple(Message(t, id=str(n), time=f"day {n // 2}") for n, t in enumerate(TEXTS)))
    ranked = retrieve_all(method, history)
    found = method.steer(method.write(history), Query("", "blue kite"))
    ids = found.notes["retrieved"]
    assert ids == ranked[: len(ids)]
    by_id = {m.id: m for m in history.messages}
    assert told_tokens(found.messages, method.backbone) <= budget
    assert len(ids) == 5 or told_tokens([by_id[n] for n in ranked[: len(ids) + 1]], method.backbone) > budget


def retrieve_all(method, history):
    free = type(method)(method.config.model_copy(update={"budget_tokens": None}), method.backbone, 0)
    return free.steer(free.write(history), Query("", "blue kite")).notes["retrieved"]


def test_what_was_asked_for_stands_in_the_notes(retrieve):
    notes = retrieve("kite", top_k=2, unit="chunk", budget_tokens=500).notes
    assert {k: notes[k] for k in ("top_k", "budget_tokens", "unit")} == {
        "top_k": 2, "budget_tokens": 500, "unit": "chunk",
    }  # fmt: skip


def test_new_settings_leave_the_addresses_of_old_records():
    _, config = resolve("bm25_rag")
    assert config.model_dump(mode="json") == {
        "top_k": 4, "budget_tokens": None, "k1": 1.5, "b": 0.75, "tokenizer": "word",
    }  # fmt: skip


def test_bytes_are_texts_and_postings(tiny):
    cls, config = resolve("bm25_rag")
    words = [set(re.findall(r"\w+", t.lower())) for t in TEXTS]
    postings, vocabulary = sum(map(len, words)), len(set().union(*words))
    state = cls(config, tiny(), 0).write(HISTORY)
    assert state.nbytes() == sum(map(len, TEXTS)) + 8 * postings + 8 * (vocabulary + 1)


@pytest.mark.parametrize("method", ["bm25_rag", "dense_rag"])
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"top_k": 0}, "top_k"),
        ({"budget_tokens": 0}, "budget_tokens"),
        ({"chunk_tokens": 0}, "chunk_tokens"),
        ({"unit": "chunk", "chunk_tokens": 5000}, "reads 4096 tokens at most; lower chunk_tokens"),
    ],
)
def test_settings_that_cannot_be_met_are_one_sentence(method, settings, told, tiny):
    def make():
        cls, config = resolve(method, settings)
        return cls(config, tiny(), 0)

    with pytest.raises(HarnessError, match=told):
        make()

"""Dense retrieval: the nearest by cosine, each text embedded once, the rest as in BM25."""

from __future__ import annotations

import numpy as np
import pytest

from baselines import dense_rag
from harness.chunks import told_tokens
from harness.embedding import embedder
from harness.episodes import History, Message, Query
from harness.errors import HarnessError, SkippedError
from harness.registry import resolve

TEXTS = (
    "Ann bought a red car in May.",
    "The weather was fine all week.",
    "Bob feeds his hamster every morning.",
    "The bank closed the account.",
)
HISTORY = History(tuple(Message(t, id=str(n), time="May") for n, t in enumerate(TEXTS)))


@pytest.fixture
def make(tiny):
    def build(**settings):
        cls, config = resolve("dense_rag", settings)
        return cls(config, tiny(), 0)

    return build


@pytest.fixture
def calls(monkeypatch):
    """The batches that are embedded, through an encoder of letters."""
    seen = []

    class Letters:
        def encode(self, texts):
            seen.append(list(texts))
            counts = np.array([[t.lower().count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts], np.float32)
            return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)

    monkeypatch.setattr(dense_rag, "embedder", lambda source, device: Letters())
    return seen


@pytest.mark.parametrize(
    ("question", "best"),
    [("Which pet does he have?", "2"), ("vehicle", "0"), ("Did the sun shine?", "1"), ("money", "3")],
)
def test_the_nearest_in_meaning_is_found(question, best, make):
    method = make(top_k=1)
    assert method.steer(method.write(HISTORY), Query("", question)).notes["retrieved"] == [best]


def test_an_embedder_is_an_extra_network(make):
    assert make().extra_parameters() == 22_713_216
    assert make().trainable_parameters() == 0


def test_units_are_embedded_in_one_batch_and_a_question_once(make, calls):
    method = make()
    state = method.write(HISTORY)
    for _ in range(3):
        method.steer(state, Query("", "Who?"))
    assert calls == [list(TEXTS), ["Who?"]]
    assert not any(vars(method.effort).values())  # an encoder is not the backbone


def test_continued_online_only_what_is_new_is_embedded(make, calls):
    method = make(top_k=1)
    state = method.write(HISTORY)
    longer = method.write(History((Message("zzz", id="new"),)), state)
    assert calls == [list(TEXTS), ["zzz"]]
    assert method.steer(longer, Query("", "zz")).notes["retrieved"] == ["new"]
    assert len(state.units) == 4
    assert method.write(History(()), state) is state
    assert method.write(History(())) is None


def test_bytes_are_texts_and_vectors(make, calls, tmp_path):
    state = make().write(HISTORY)
    assert state.nbytes() == sum(map(len, TEXTS)) + 4 * 26 * len(TEXTS)
    state.save(tmp_path)
    assert (dense_rag.Embedded.load(tmp_path).vectors == state.vectors).all()


def test_all_units_are_the_history(make, calls, episodes):
    history = episodes[0].history
    for settings in ({}, {"unit": "chunk", "chunk_tokens": 7}, {"budget_tokens": 10_000}):
        method = make(top_k=None, **settings)
        assert method.steer(method.write(history), Query("", "?")).messages == history.messages


def test_equally_near_units_come_in_their_order(make, calls):
    method = make(top_k=2)
    same = History(tuple(Message("abc", id=str(n)) for n in range(6)))
    assert method.steer(method.write(same), Query("", "abc")).notes["retrieved"] == ["0", "1"]


def test_without_the_extra_the_row_is_skipped(make, monkeypatch):
    monkeypatch.setattr("harness.embedding.importlib.util.find_spec", lambda name: None)
    with pytest.raises(SkippedError, match="pip install"):
        make(embedder="not_there").write(HISTORY)


def test_an_encoder_that_is_not_here_is_told_in_a_sentence():
    pytest.importorskip("sentence_transformers")
    with pytest.raises(SkippedError, match=r"'BAAI/bge-small-en-v1\.5' is not installed"):
        embedder("BAAI/bge-small-en-v1.5").encode(["a"])
    with pytest.raises(HarnessError, match="'numpy' carries no sentence encoder"):
        embedder("numpy").encode(["a"])


@pytest.mark.parametrize("budget", [1, 40, 80, 130])
@pytest.mark.parametrize("row", ["window", "bm25_rag", "dense_rag", "selective_context"])
def test_one_budget_holds_for_every_textual_memory(row, budget, tiny, calls):
    cls, config = resolve(row, {"budget_tokens": budget})
    method = cls(config, tiny(), 0)
    bare = History(tuple(Message(m.content) for m in HISTORY.messages))
    found = method.steer(method.write(bare), Query("", "hamster?")).messages
    assert told_tokens(found, method.backbone) <= budget
    assert found or budget == 1

"""Selective Context: self-information as a plain loop has it, units dropped by it, and nothing dropped at ratio 0."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baselines._compression import cut, join, overlapping, word_starts
from harness import chunks, generation
from harness.episodes import History, Message, Query
from harness.errors import HarnessError
from harness.registry import resolve

HISTORY = History(
    (
        Message("Ann's car is red.  It cost 3.5 coins!\n\nReally? Yes.", id="a", time="May", role="assistant"),
        Message("  ", id="blank"),
        Message("Bob has the blue kite. Bob has a dog. Bob sleeps.", id="b", time="June"),
    )
)


@pytest.fixture
def make(tiny):
    def build(row="selective_context", **settings):
        cls, config = resolve(row, settings)
        return cls(config, tiny(), 0)

    return build


def slowly(backbone, prefix, text):
    """Bits of each token of a text after a prefix, one forward pass a token."""
    ids = [backbone.tokenizer.bos_token_id, *backbone.tokenizer(prefix)["input_ids"]]
    found = []
    for token in backbone.tokenizer(text)["input_ids"]:
        logs = backbone.model(input_ids=torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
        found.append(-float(logs[token]) / math.log(2))
        ids.append(token)
    return found


def test_self_information_is_that_of_a_plain_loop(make):
    method = make()
    first, second = "A red car.", "Bob's kite."
    (_, a), (spans, b) = method.information([first, second])
    assert a == pytest.approx(slowly(method.backbone, "", first), abs=1e-4)
    assert b == pytest.approx(slowly(method.backbone, f"{first}\n", second), abs=1e-4)
    assert [second[i:j] for i, j in spans] == list(second)


def test_long_texts_are_read_in_pieces_with_context_on_their_left(make):
    method, text = make(piece_tokens=16), "Bob has the blue kite. " * 3
    ((_, bits),) = method.information([text])
    ids = [method.backbone.tokenizer.bos_token_id, *method.backbone.tokenizer(text)["input_ids"]]
    for n in (1, 15, 16, 27, 28, len(ids) - 1):  # a piece is 16 tokens, the next begins 12 later
        start = 12 * max(0, (n - 4) // 12)
        logs = method.backbone.model(input_ids=torch.tensor([ids[start:n]])).logits[0, -1].double().log_softmax(-1)
        assert bits[n - 1] == pytest.approx(-float(logs[ids[n]]) / math.log(2), abs=1e-4)
    assert method.effort.lm_calls == math.ceil((len(ids) - 4) / 12)
    assert method.effort.tokens_read == len(ids) + 4 * (method.effort.lm_calls - 1)


@pytest.mark.parametrize("row", ["selective_context", "selective_context_sentence"])
def test_at_ratio_0_the_prompt_is_the_frozen_one(row, make):
    method = make(row, ratio=0)
    steering = method.steer(method.write(HISTORY), Query("", "?"))
    assert steering.messages == HISTORY.messages
    asked = Query("", "Whose kite is blue?")
    assert generation.prompt(method.backbone, steering.messages, asked) == generation.prompt(
        method.backbone, HISTORY.messages, asked
    )


@pytest.mark.parametrize("level", ["word", "sentence"])
@pytest.mark.parametrize("score", ["mean", "sum"])
def test_the_units_below_the_percentile_go_and_the_others_stay_in_order(level, score, make):
    method = make(level=level, score=score, ratio=0.5)
    state = method.write(HISTORY)
    expected = []
    values = []
    for message, (spans, bits) in zip(
        HISTORY.messages, method.information([m.content for m in HISTORY.messages]), strict=True
    ):
        text = message.content
        starts = word_starts(text) if level == "word" else [n for n in range(len(text)) if begins(text, n)]
        for a, b in cut(text, starts):
            inside = [x for (i, _), x in zip(spans, bits, strict=True) if a <= i < b]  # one byte a token
            values.append(np.mean(inside) if score == "mean" else np.sum(inside))
            expected.append((message.id, text[a:b]))
    least = np.percentile(values, 50)
    kept = [unit for unit, value in zip(expected, values, strict=True) if value >= least]
    assert (state.cut, state.kept) == (len(expected), len(kept))
    for message in state.messages:
        assert message.content == "".join(text for id_, text in kept if id_ == message.id).strip()
    assert {m.id for m in state.messages} == {id_ for id_, _ in kept}
    assert all((m.role, m.time) == (o.role, o.time) for m in state.messages for o in HISTORY.messages if o.id == m.id)


def begins(text, n):
    """Whether a sentence of HISTORY begins at an offset."""
    return bool(text.strip()) and (n == 0 or (text[n].isspace() and text[n - 1] in ".!?" and text[n:].strip() != ""))


@pytest.mark.parametrize("budget", [1, 7, 20, 60, 500])
def test_a_budget_is_kept_by_the_most_informative_units(budget, make):
    method = make(budget_tokens=budget)
    state = method.write(HISTORY)
    assert chunks.told_tokens(state.messages, method.backbone) <= budget
    if budget == 500:
        assert state.messages == HISTORY.messages
    if budget == 1:
        assert state.messages == ()
    more = make(budget_tokens=budget + 60).write(HISTORY)
    assert more.kept >= state.kept


def test_continued_online_what_is_new_comes_after_and_a_budget_holds_both(make):
    new = History((Message("A violet boat sails.", id="new"),))
    method = make()
    first, alone = method.write(HISTORY), method.write(new)
    both = method.write(new, first)
    assert both.messages == first.messages + alone.messages
    assert (both.cut, both.kept) == (first.cut + alone.cut, first.kept + alone.kept)
    tight = make(budget_tokens=40)
    held = tight.write(new, tight.write(HISTORY))
    assert chunks.told_tokens(held.messages, tight.backbone) <= 40
    assert method.write(History(())) is None


def test_a_state_is_as_large_as_its_text(make):
    state = make(ratio=0).write(HISTORY)
    assert state.nbytes() == sum(len(m.content.encode()) for m in HISTORY.messages)
    assert state.describe() == {"kind": "text", "messages": 3, "cut": 21, "kept": 21}


@pytest.mark.parametrize("settings", [{"ratio": 1}, {"ratio": -0.1}, {"budget_tokens": 0}, {"level": "phrase"}])
def test_what_cannot_be_is_refused(settings):
    with pytest.raises(HarnessError, match=f"wrong setting '{next(iter(settings))}'"):
        resolve("selective_context", settings)


def test_pieces_beyond_the_window_are_refused(make):
    with pytest.raises(HarnessError, match="beyond the backbone's window of 4096; lower piece_tokens"):
        make(piece_tokens=4097)


def test_histories_without_a_word_do_no_harm(make):
    odd = (Message(""), Message(" \n"))
    assert make(ratio=0.5).write(History(odd)).messages == odd


# --- units ---


@given(st.text(alphabet="ab. \n"), st.data())
def test_units_join_to_the_text_they_were_cut_from(text, data):
    units = cut(text, word_starts(text))
    assert "".join(text[a:b] for a, b in units) == (text if text.strip() else "")
    assert all(len(text[a:b].split()) == 1 for a, b in units)
    message = Message(text, "assistant", "May", "1")
    assert join([message], [units], [True] * len(units)).messages == (message,)
    keep = data.draw(st.lists(st.booleans(), min_size=len(units), max_size=len(units)))
    words = [w for w, stays in zip(text.split(), keep, strict=True) if stays]
    assert [w for m in join([message], [units], keep).messages for w in m.content.split()] == words


def test_a_token_over_a_cut_is_in_both_units():
    assert overlapping([(0, 3), (3, 5), (5, 9)], [(0, 2), (2, 4), (5, 5), (6, 9)]) == [[0, 1], [1], [3]]

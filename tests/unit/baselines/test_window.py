"""The window: the end of a history, to the token."""

from __future__ import annotations

import pytest

from harness import generation
from harness.chunks import told_tokens
from harness.episodes import History, Message, Query
from harness.errors import HarnessError
from harness.registry import resolve

HISTORY = History((Message("Ann has a kite.", id="a"), Message("Bob has a boat.", id="b"), Message("Ok.", id="c")))
"""15, 15 and 3 tokens, which are bytes."""


@pytest.fixture
def window(tiny):
    def make(budget):
        cls, config = resolve("window", {"budget_tokens": budget})
        return cls(config, tiny(), 0)

    return make


def texts(method, history=HISTORY, state=None):
    return [m.content for m in method.steer(method.write(history, state), Query("", "?")).messages]


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        (1, ["."]),
        (3, ["Ok."]),
        (4, [".", "Ok."]),
        (18, ["Bob has a boat.", "Ok."]),
        (24, [" kite.", "Bob has a boat.", "Ok."]),
        (33, [m.content for m in HISTORY.messages]),
    ],
)
def test_the_last_tokens_stay_and_the_oldest_message_kept_is_cut(budget, kept, window):
    method = window(budget)
    assert texts(method) == kept
    assert method.write(HISTORY).nbytes() == budget  # a token is a byte here


def test_a_budget_that_holds_all_is_the_frozen_prompt(window, tiny, episodes):
    method, history = window(10_000), episodes[0].history
    query = Query(history.system, episodes[0].questions[0].text)
    ours = generation.prompt(method.backbone, method.steer(method.write(history), query).messages, query)
    full = generation.prompt(method.backbone, history.messages, query)
    assert ours == full
    assert (
        generation.answer(method.backbone, [ours], method.steer(None, query), max_new_tokens=4)[0]
        == generation.answer(tiny(), [full], resolve("frozen")[0].steer(None, None, query), max_new_tokens=4)[0]
    )


@pytest.mark.parametrize("budget", [2, 6, 7, 8, 20, 29, 30])
def test_dates_count_and_what_is_cut_keeps_its_own(budget, window):
    history = History((Message("Ann has a kite.", time="May"), Message("Ok.", time="May")))
    method = window(budget)
    kept = method.write(history).messages
    assert told_tokens(kept, method.backbone) <= budget
    assert all(m.time == "May" for m in kept)
    if budget >= 7:  # "[May]\nk"
        assert told_tokens(kept, method.backbone) == min(budget, 24)


def test_no_character_is_cut_in_two(window):
    for budget in range(1, 9):
        kept = texts(window(budget), History((Message("漢字é"),)))
        assert "".join(kept) == "漢字é"[-len("".join(kept)) or 9 :]


def test_continued_online_it_is_the_window_of_all(window):
    method = window(20)
    first = method.write(History(HISTORY.messages[:2]))
    assert texts(method, History(HISTORY.messages[2:]), first) == texts(method)
    assert method.write(History(())) is None
    assert method.write(History(()), first).messages == first.messages


@pytest.mark.parametrize("budget", [0, -1])
def test_no_tokens_are_no_window(budget):
    with pytest.raises(HarnessError, match="budget_tokens"):
        resolve("window", {"budget_tokens": budget})

"""Cutting of long histories: the right end stays, within the limit, and the loss is told."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from harness.episodes import Episode, History, Message
from harness.errors import HarnessError
from harness.registry import resolve
from harness.truncation import MARKER, fit_to, in_sight, visible_history

MESSAGES = tuple(Message(f"This is message number {n}.", id=str(n)) for n in range(10))
EPISODE = Episode("e", History(MESSAGES, "Read."), (), "e", "generated", {"kept": 1})


@pytest.fixture
def backbone(tiny):
    return tiny()


def tokens(backbone, episode):
    return len(backbone.encode(episode.history.messages, system=episode.history.system)[0])


def test_a_history_that_fits_is_left_as_it_is(backbone):
    assert fit_to(EPISODE, backbone, tokens(backbone, EPISODE), "refuse") is EPISODE


@pytest.mark.parametrize("limit", [100, 150, 333])
@pytest.mark.parametrize("rule", ["head", "tail"])
def test_whole_messages_of_the_kept_end_within_the_limit(rule, limit, backbone):
    cut = fit_to(EPISODE, backbone, limit, rule)
    kept = cut.history.messages
    assert 0 < len(kept) < 10
    assert kept == (MESSAGES[: len(kept)] if rule == "head" else MESSAGES[-len(kept) :])
    more = MESSAGES[: len(kept) + 1] if rule == "head" else MESSAGES[-len(kept) - 1 :]
    longer = Episode("e", History(more, "Read."), (), "e", "generated")
    assert tokens(backbone, cut) <= limit < tokens(backbone, longer)
    assert cut.history.system == "Read."
    assert cut.notes["kept"] == 1
    assert cut.notes["lost_share"] == pytest.approx(1 - tokens(backbone, cut) / tokens(backbone, EPISODE))


@pytest.mark.parametrize("rule", ["head", "tail"])
def test_of_one_long_message_the_end_is_kept(rule, backbone):
    text = "".join(chr(97 + n % 26) for n in range(500))
    long = Episode("e", History((Message(text),)), (), "e", "generated")
    cut = fit_to(long, backbone, 100, rule)
    content = cut.history.messages[0].content
    assert content == (text[: len(content)] if rule == "head" else text[-len(content) :])
    assert tokens(backbone, cut) == 100


@pytest.mark.parametrize("rule", ["head", "tail"])
def test_no_character_is_cut_in_two(rule, backbone):
    text = "漢字🙂かな" * 40
    long = Episode("e", History((Message(text),)), (), "e", "generated")
    for limit in range(40, 60):
        cut = fit_to(long, backbone, limit, rule)
        content = cut.history.messages[0].content
        assert content in text
        assert content == (text[: len(content)] if rule == "head" else text[-len(content) :])
        assert tokens(backbone, cut) <= limit


def test_a_limit_that_leaves_no_room_is_refused(backbone):
    with pytest.raises(HarnessError, match="leaves no room beside the instruction"):
        fit_to(EPISODE, backbone, 5, "tail")


def test_an_instruction_alone_is_no_history_to_be_cut(backbone):
    alone = Episode("e", History((), "Read. " * 50), (), "e", "generated")
    assert fit_to(alone, backbone, 20, "tail") is alone


def test_refuse_raises_with_the_numbers(backbone):
    with pytest.raises(HarnessError, match=r"'e' has \d+ tokens, more than the 50 allowed"):
        fit_to(EPISODE, backbone, 50, "refuse")


def test_a_date_is_told_again_where_the_cut_starts(backbone):
    dated = tuple(Message(f"Message {n}.", time="May 7") for n in range(10))
    episode = Episode("e", History(dated), (), "e", "generated")
    for limit in range(40, 200, 7):
        cut = fit_to(episode, backbone, limit, "tail")
        assert visible_history(cut.history).startswith("[May 7]\n")
        assert tokens(backbone, cut) <= limit


# --- both ends ---


def halves(cut):
    """The messages before and after the marker."""
    at = cut.history.messages.index(MARKER)
    return cut.history.messages[:at], cut.history.messages[at + 1 :]


@pytest.mark.parametrize("limit", [130, 161, 200, 333])
def test_a_third_stays_of_the_beginning_and_two_of_the_end(limit, backbone):
    cut = fit_to(EPISODE, backbone, limit, "head_and_tail")
    head, tail = halves(cut)
    assert limit - 1 <= tokens(backbone, cut) <= limit  # the one that a third leaves over
    said = [m.content for m in MESSAGES]
    assert [m.content for m in head[:-1]] == said[: len(head) - 1]
    assert said[len(head) - 1].startswith(head[-1].content)
    assert [m.content for m in tail[1:]] == said[len(said) - len(tail) + 1 :]
    assert said[-len(tail)].endswith(tail[0].content)
    sizes = [len(backbone.encode(part)[0]) for part in (head, tail)]
    assert sizes[0] == pytest.approx(sum(sizes) / 3, abs=2)
    kept = Episode("e", History((*head, *tail), "Read."), (), "e", "generated")
    assert cut.notes["lost_share"] == pytest.approx(1 - tokens(backbone, kept) / tokens(backbone, EPISODE))


@pytest.mark.parametrize("text", ["".join(chr(97 + n % 26) for n in range(900)), "漢字🙂かな" * 60])
def test_of_one_long_message_both_ends_are_kept(text, backbone):
    long = Episode("e", History((Message(text, id="m"),)), (), "e", "generated")
    for limit in range(150, 170):
        cut = fit_to(long, backbone, limit, "head_and_tail")
        (head,), (tail,) = halves(cut)
        assert text.startswith(head.content)
        assert text.endswith(tail.content)
        assert head.id == tail.id == "m"
        assert limit - 4 <= tokens(backbone, cut) <= limit  # a character has four tokens at most
        sizes = [len(backbone.encode([m])[0]) for m in (head, tail)]
        assert sizes[0] == pytest.approx(sum(sizes) / 3, abs=5)


def test_a_beginning_that_has_no_room_is_left_out(backbone):
    limit = tokens(backbone, Episode("e", History((MARKER,), "Read."), (), "e", "generated"))
    cut = fit_to(EPISODE, backbone, limit + 12, "head_and_tail")
    head, tail = halves(cut)
    assert not head
    assert MESSAGES[-1].content.endswith(tail[0].content)
    with pytest.raises(HarnessError, match="leaves no room"):
        fit_to(EPISODE, backbone, limit + 2, "head_and_tail")


def test_the_date_is_told_again_behind_the_gap(backbone):
    dated = tuple(Message(f"Message {n}.", time="May 7") for n in range(20))
    cut = fit_to(Episode("e", History(dated), (), "e", "generated"), backbone, 250, "head_and_tail")
    assert visible_history(cut.history).count("[May 7]\n") == 2


def test_a_history_of_many_tokens_is_cut_without_encoding_it_often(backbone, monkeypatch):
    long = Episode("e", History((Message("word " * 20_000),)), (), "e", "generated")
    seen = []
    encode = backbone.encode
    monkeypatch.setattr(backbone, "encode", lambda *a, **k: seen.append(1) or encode(*a, **k))
    fit_to(long, backbone, 400, "head_and_tail")
    assert len(seen) < 60


# --- what is in sight ---


@pytest.mark.parametrize("budget", [1, 30, 77, 10_000])
def test_in_sight_is_what_the_window_keeps(budget, backbone):
    seen = in_sight(EPISODE, backbone, budget, 4000)
    cls, config = resolve("window", {"budget_tokens": budget})
    method = cls(config, backbone, 0)
    assert seen.history.messages == method.write(EPISODE.history).messages
    assert seen.history.system == "Read."
    told = sum(len(m.content) for m in MESSAGES)
    assert seen.notes == {"kept": 1, "visible_share": min(budget, told) / told}


@pytest.mark.parametrize("limit", [120, 200, 300])
def test_a_cut_keeps_the_frame_and_tells_the_date_where_it_starts(limit, backbone):
    told = tuple(replace(m, frame="Read what follows.", time="May 7", heading="MAY 7") for m in MESSAGES)
    cut = fit_to(replace(EPISODE, history=History(told)), backbone, limit, "tail")
    kept = cut.history.messages
    assert 0 < len(kept) < 10
    assert kept == told[-len(kept) :]
    longer = replace(EPISODE, history=History(told[-len(kept) - 1 :]))
    assert tokens(backbone, cut) <= limit < tokens(backbone, longer)
    assert visible_history(cut.history).startswith(f"Read what follows.\n\nMAY 7\n{kept[0].content}\n\n")


def test_a_history_of_thousands_of_messages_takes_one_pass(backbone):
    many = Episode("e", History(tuple(Message(f"{n}") for n in range(12_000))), (), "e", "generated")
    fit_to(many, backbone, 100, "tail")  # each text is tokenised once
    start = time.process_time()
    fit_to(many, backbone, 100, "tail")
    assert time.process_time() - start < 2.5  # a pass over all tokens a message took twice that

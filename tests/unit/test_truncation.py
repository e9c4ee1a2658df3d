"""Cutting of long histories: the right end stays, within the limit, and the loss is told."""

from __future__ import annotations

import pytest

from harness.episodes import Episode, History, Message
from harness.errors import HarnessError
from harness.truncation import fit_to, visible_history

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

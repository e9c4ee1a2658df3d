"""Units of retrieval: they lose nothing of a history, keep their size, and join to the very messages."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.chunks import chunked, joined, most, told_tokens, whole
from harness.episodes import Message

TEXT = "One. Two is longer! And a third sentence, the longest of them all? Then\n\nthe end."
LETTERS = st.text(st.sampled_from("ab .!?\n\"')é漢🙂"), max_size=60)


@pytest.fixture(scope="module")
def backbone():
    from harness.backbones import open_backbone
    from harness.experiment import BackboneSpec, RunSpec

    return open_backbone(BackboneSpec(random="tiny-llama"), RunSpec(device="cpu"))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(LETTERS, max_size=4), limit=st.integers(1, 30))
def test_all_chunks_in_order_are_the_history(texts, limit, backbone):
    messages = tuple(Message(text, time="May", id=str(n)) for n, text in enumerate(texts))
    units = chunked(messages, limit, backbone)
    assert joined(units, range(len(units))) == messages
    sizes = [(backbone.count(u.message.content), u.message.content) for u in units]
    assert all(size <= limit or len(text) == 1 for size, text in sizes)  # a character may have several tokens


def test_chunks_are_packed_at_sentences_and_only_a_long_sentence_is_cut(backbone):
    texts = [u.message.content for u in chunked([Message(TEXT)], 24, backbone)]
    assert texts == ["One. Two is longer!", " And a third sentence, t", "he longest of them all?", " Then\n\nthe end."]


def test_a_short_message_is_one_unit(backbone):
    messages = (Message("Short."), Message(TEXT), Message(""))
    units = chunked(messages, 40, backbone)
    assert [u.continues for u in units] == [False, False, True, True, False]
    assert chunked(messages, 1000, backbone) == whole(messages)


def test_chunks_join_only_where_they_follow_each_other(backbone):
    message = Message("Abc. Def. Ghi.", role="assistant", time="May", id="7")
    units = chunked([message, message], 5, backbone)
    assert [u.message.content for u in units] == ["Abc.", " Def.", " Ghi."] * 2
    found = joined(units, [0, 1, 3, 5])
    assert [m.content for m in found] == ["Abc. Def.", "Abc.", "Ghi."]
    assert {(m.role, m.time, m.id) for m in found} == {("assistant", "May", "7")}
    assert [m.content for m in joined(units, [2, 1])] == ["Ghi.", "Def."]


def test_dates_are_among_the_tokens_told(backbone):
    messages = [Message("a", time="May"), Message("b", time="May"), Message("c")]
    assert told_tokens(messages, backbone) == len("[May]\na") + len("b") + len("c")


@pytest.mark.parametrize("end", [0, 1, 2, 5, 33])
@pytest.mark.parametrize("limit", [0, 1, 7, 8, 9, 1000])
def test_most_is_the_largest_within_a_limit(end, limit):
    asked = []

    def cost(n):
        asked.append(n)
        return n * n

    expected = max(n for n in range(end + 1) if n * n <= limit)
    assert most(limit, end, cost) == expected
    assert all(0 < n <= max(1, 2 * expected + 2) for n in asked)


@pytest.mark.parametrize(("text", "limit"), [("漢漢漢. a", 4), ("🙂🙂🙂. abc", 6)])
def test_a_chunk_holds_its_limit_behind_a_character_of_several_tokens(text, limit, backbone):
    units = chunked([Message(text)], limit, backbone)  # bytes are its tokens
    assert max(backbone.count(u.message.content) for u in units) <= limit
    assert "".join(u.message.content for u in units) == text

"""Histories beyond the backbone's window: one logical write, in contexts that the window holds."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from harness.episodes import History, Message
from harness.registry import resolve
from methods.delta_mem._state import stacked

ROWS = ("delta_mem_tsw", "delta_mem_ssw", "delta_mem_msw")
TOLD = tuple(Message(f"Fact {n}: " + "word " * (n % 5), id=str(n)) for n in range(9))
HISTORY = History(TOLD, "Read.")
WINDOW = 80


@pytest.fixture
def make(tiny, shake):
    def build(row, window, **settings):
        cls, config = resolve(row, settings)
        backbone = tiny()
        backbone.model.config.max_position_embeddings = window
        method = cls(config, backbone, 1)
        shake(method.memory)
        return method

    return build


def contexts(method, history):
    ids, owner = method.backbone.encode(history.messages, system=history.system, unit=method.unit)
    return ids, owner, method._contexts(history, len(ids))


@pytest.mark.parametrize("row", ROWS)
def test_a_history_that_fits_is_read_in_one_context(row, make):
    whole, roomy = make(row, 4096), make(row, len(make(row, 4096).backbone.encode(TOLD, system="Read.")[0]))
    assert torch.equal(whole.write(HISTORY).S, roomy.write(HISTORY).S)


def test_contexts_begin_with_messages_and_cover_every_token(make):
    method = make("delta_mem_tsw", WINDOW)
    ids, owner, parts = contexts(method, HISTORY)
    assert [t for part in parts for t in range(part.start, part.stop)] == list(range(len(ids)))
    assert len(parts) > 3
    assert all(part.stop - part.start <= WINDOW for part in parts)
    begins = [part.start for part in parts[1:]]
    assert all(owner[t] != owner[t - 1] for t in begins)
    for part, following in pairwise(parts):  # no context leaves out a message that it could hold
        end = next((t for t in range(following.start + 1, len(ids)) if owner[t] != owner[t - 1]), len(ids))
        assert end - part.start > WINDOW


def test_a_message_beyond_the_window_is_read_in_full_windows(make):
    method = make("delta_mem_tsw", WINDOW)
    long = History((Message("Short."), Message("word " * 60), Message("End.")))
    ids, _, parts = contexts(method, long)
    assert [part.stop - part.start for part in parts[1:-1]] == [WINDOW] * (len(parts) - 2)
    assert parts[-1].stop == len(ids)
    assert method.write(long).tokens == len(ids)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("chunk", [7, 2048])
def test_the_state_is_carried_on_and_keys_and_values_are_not(row, chunk, make):
    """As parts read one by one, each in a cache of its own that begins with the state of the one before."""
    method = make(row, WINDOW, write_chunk=chunk)
    ids, owner, parts = contexts(method, HISTORY)
    states, sums = method.memory.zero_states(), None
    for part in parts:
        cache = method.memory.memory_cache(states)
        cache.pending = sums or cache.pending
        method.feed(cache, ids[part], owner[part], chunk=2048)
        states, sums = cache.states, cache.pending
    method.memory.commit(cache)
    expected = stacked(cache.states)
    torch.testing.assert_close(method.write(HISTORY).S, expected, rtol=1e-5, atol=1e-6)


def test_a_message_that_reaches_over_contexts_is_one_segment(make):
    """Its mean is of all of its tokens: the state is that after one write, not after two."""
    method = make("delta_mem_ssw", WINDOW)
    long = History((Message("word " * 60),))
    ids, owner, parts = contexts(method, long)
    assert len(parts) > 2
    sums = [0.0] * len(method.memory.layers)
    for part in parts:
        cache = method.memory.memory_cache()
        method.feed(cache, ids[part], owner[part])
        sums = [s + p.sums for s, p in zip(sums, cache.pending, strict=True)]
    whole = method.memory.memory_cache()
    method.feed(whole, ids[:WINDOW], owner[:WINDOW])
    for pending, total in zip(whole.pending, sums, strict=True):
        pending.sums, pending.counts = total, torch.full_like(pending.counts, sum(o == 0 for o in owner))
    method.memory.commit(whole)
    torch.testing.assert_close(method.write(long).S, stacked(whole.states), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("row", ROWS)
def test_what_is_held_does_not_grow_with_the_history(row, make, monkeypatch):
    """Neither keys and values nor positions ever go beyond the window."""
    method, held = make(row, WINDOW, write_chunk=16), []
    decoder = method.backbone.model.get_decoder()

    def watch(_module, _args, kwargs, _output):
        held.append(kwargs["past_key_values"].get_seq_length())

    hook = decoder.register_forward_hook(watch, with_kwargs=True)
    sizes = []
    for times in (1, 8):
        held.clear()
        state = method.write(History(TOLD * times))
        sizes.append((max(held), state.nbytes()))
        assert torch.isfinite(state.S).all()
    hook.remove()
    assert sizes[0][1] == sizes[1][1]
    assert all(most <= WINDOW for most, _ in sizes)


@pytest.mark.parametrize("row", ROWS)
def test_what_stands_first_is_in_the_memory_of_a_long_history(row, make):
    method = make(row, WINDOW)
    other = History((Message("Another beginning."), *TOLD[1:]), "Read.")
    assert not torch.equal(method.write(HISTORY).S, method.write(other).S)

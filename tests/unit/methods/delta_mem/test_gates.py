"""The gates, proven by mutation: each broken δ-mem is refused, the healthy ones pass."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from harness import certificate, random_weights
from harness.gates import GateError
from harness.registry import resolve
from methods.delta_mem import DeltaMem, _layer, _model
from methods.delta_mem._cache import MemoryCache
from methods.delta_mem._layer import DeltaMemory
from methods.delta_mem._model import DeltaMemModel

ROWS = ("delta_mem_tsw", "delta_mem_ssw", "delta_mem_msw")


@pytest.fixture
def gates(tiny, shake, episodes):
    """Runs the gates of a row on a fresh tiny backbone."""

    def run(row="delta_mem_tsw", seed=1, shape="tiny-llama", settings=None, size=0.1, **options):
        cls, config = resolve(row, settings)
        method = cls(config, tiny(shape, **options), seed)
        shake(method.memory, size, seed)
        return certificate.run(method, episodes[:2], "removed")

    return run


def mask_all_false(patch):
    patch.setattr(_model, "token_mask", lambda mask, T, device: torch.zeros(1, T, dtype=torch.bool))


def mask_inverted_where_padded(patch):
    """What a boolean mask read as an additive one does."""
    plain = _model.token_mask

    def broken(*args):
        mask = plain(*args)
        return None if mask is None else ~mask

    patch.setattr(_model, "token_mask", broken)


def pads_are_written(patch):
    patch.setattr(_model, "token_mask", lambda *a: None)


def read_after_write(patch):
    patch.setattr(_layer, "FEW", 0)  # one path, so that nothing but the definition can tell
    plain = _layer.scan

    def broken(q, k, v, log_keep, erase, write, state):
        reads = []
        for t in range(q.shape[1]):
            _, state = plain(*(x[:, t : t + 1] for x in (q, k, v, log_keep, erase, write)), state)
            reads.append(torch.einsum("bnij,bnj->bni", state, q[:, t]))
        return torch.stack(reads, dim=1), state

    patch.setattr(_layer, "scan", broken)


def state_leaks_into_the_next_episode(patch):
    plain, last = DeltaMemory.attend, {}

    def broken(self, x, call, layer):
        if call.cache.writes and layer in last and not call.cache.states[layer].any():
            call.cache.states[layer] = last[layer][:1].expand_as(call.cache.states[layer])
        corrections = plain(self, x, call, layer)
        last[layer] = call.cache.states[layer]
        return corrections

    patch.setattr(DeltaMemory, "attend", broken)


def no_reset(patch):
    plain, kept = DeltaMemModel.zero_states, {}
    patch.setattr(DeltaMemModel, "zero_states", lambda self, n=1: kept.setdefault(n, plain(self, n)))
    scan = _layer.scan

    def in_place(*args):
        reads, state = scan(*args)
        args[-1].copy_(state)
        return reads, args[-1]

    patch.setattr(_layer, "scan", in_place)


def crosstalk_in_a_batch(patch):
    plain = _layer.scan

    def broken(*args):
        reads, state = plain(*args)
        return reads, state.mean(0, keepdim=True).expand_as(state)

    patch.setattr(_layer, "scan", broken)


def keys_and_values_dropped_between_chunks(patch):
    plain = DeltaMem.feed

    def broken(self, cache, ids, owner, chunk=None):
        for at in range(0, len(ids), chunk or len(ids)):
            part = slice(at, at + (chunk or len(ids)))
            fresh = self.memory.memory_cache(cache.states)
            plain(self, fresh, ids[part], owner[part])
            cache.states = fresh.states

    patch.setattr(DeltaMem, "feed", broken)


def history_written_twice(patch):
    plain = DeltaMem.feed

    def broken(self, cache, *args, **options):
        plain(self, cache, *args, **options)
        plain(self, cache, *args, **options)

    patch.setattr(DeltaMem, "feed", broken)


def question_written_though_writes_are_off(patch):
    plain = MemoryCache.__init__

    def broken(self, config, states, *, writes, **options):
        plain(self, config, states, writes=True, **options)

    patch.setattr(MemoryCache, "__init__", broken)


def lambda_and_beta_swapped(patch):
    patch.setattr(_layer, "FEW", 0)  # one path, so that nothing but the definition can tell
    plain = DeltaMemory._keys_values_gates

    def broken(self, *args):
        k, v, (log_lam, _, beta) = plain(self, *args)
        return k, v, (beta.log(), log_lam.exp(), log_lam.exp())

    patch.setattr(DeltaMemory, "_keys_values_gates", broken)


def scaling_missing(patch):
    plain = DeltaMemory._prepare

    def broken(self, *args):
        prepared = plain(self, *args)
        unscaled = {head: w * self.config.r / self.config.alpha for head, w in prepared.heads.items()}
        return dataclasses.replace(prepared, heads=unscaled)

    patch.setattr(DeltaMemory, "_prepare", broken)


def corrections_never_added(patch):
    patch.setattr(_layer.Prepared, "correct", lambda self, head, output, reads: output)


def backbone_drifts(patch):
    plain = _layer.DeltaMemLayer.forward

    def broken(self, *args, **options):
        self.base_layer.q_proj.weight.mul_(1.001)
        return plain(self, *args, **options)

    patch.setattr(_layer.DeltaMemLayer, "forward", broken)


def donor_state_used(patch):
    """Whoever asks gets the memory that was written last."""
    write, steer, last = DeltaMem.write, DeltaMem.steer, []

    def remembering(self, history, state=None):
        last.append(write(self, history, state))
        return last[-1]

    patch.setattr(DeltaMem, "write", remembering)
    patch.setattr(DeltaMem, "steer", lambda self, state, query, **how: steer(self, last[-1], query, **how))


CAUGHT_BY = {
    mask_all_false: "activity.state",
    mask_inverted_where_padded: "equality.padding",
    pads_are_written: "equality.padding",
    read_after_write: "equality.definition",
    state_leaks_into_the_next_episode: "isolation.same_history",
    no_reset: "isolation",
    crosstalk_in_a_batch: "equality.batch",
    keys_and_values_dropped_between_chunks: "equality.feed",
    history_written_twice: "equality.feed",
    question_written_though_writes_are_off: "isolation.zero_state",
    lambda_and_beta_swapped: "equality.definition",
    scaling_missing: "equality.definition",
    corrections_never_added: "activity.read",
    backbone_drifts: "isolation",
    donor_state_used: "isolation.answers",
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mutation", CAUGHT_BY, ids=lambda m: m.__name__)
def test_a_broken_memory_is_caught(mutation, dtype, gates, monkeypatch):
    mutation(monkeypatch)
    first = CAUGHT_BY[mutation] if dtype == "float32" else ""  # in bf16 another may see it before
    with pytest.raises(GateError, match=f"gate {first}"):
        gates(dtype=dtype)


def correction_negated(patch):
    plain = _layer.Prepared.correct

    def broken(self, head, output, reads):
        corrected = plain(self, head, output.clone(), reads)
        return corrected if output.dtype == torch.float32 else 2 * output - corrected

    patch.setattr(_layer.Prepared, "correct", broken)


def state_decays_after_every_chunk(patch):
    plain, dtype = DeltaMemory.attend, []

    def attend(self, x, *args):
        dtype[:] = [x.dtype]
        return plain(self, x, *args)

    patch.setattr(DeltaMemory, "attend", attend)
    scan = _layer.scan

    def broken(*args):
        reads, state = scan(*args)
        return reads, state * 0.7 if dtype == [torch.bfloat16] else state

    patch.setattr(_layer, "scan", broken)


@pytest.mark.parametrize(
    ("mutation", "gate"),
    [(correction_negated, r"equality\.dtype"), (state_decays_after_every_chunk, r"equality\.chunks\.in_situ")],
    ids=lambda m: getattr(m, "__name__", ""),
)
def test_what_is_broken_in_bf16_alone_is_caught(mutation, gate, gates, monkeypatch):
    """Sharp gates compare in float32 and see nothing; the fault must not license itself as noise."""
    mutation(monkeypatch)
    gates()
    with pytest.raises(GateError, match=f"gate {gate}"):
        gates(dtype="bfloat16")


def message_writes_fall_back_to_tokens(patch):
    """What happens where the segments of a conversation are never told."""
    patch.setattr(MemoryCache, "announce", lambda self, owner: None)


def messages_end_with_a_chunk(patch):
    plain = MemoryCache.announce

    def broken(self, owner):
        plain(self, None if self.get_seq_length() else owner)

    patch.setattr(MemoryCache, "announce", broken)


@pytest.mark.parametrize(
    ("mutation", "gate"),
    [(message_writes_fall_back_to_tokens, "equality.definition"), (messages_end_with_a_chunk, "equality")],
    ids=lambda m: getattr(m, "__name__", ""),
)
def test_broken_message_writes_are_caught(mutation, gate, gates, monkeypatch):
    mutation(monkeypatch)
    with pytest.raises(GateError, match=f"gate {gate}"):
        gates("delta_mem_ssw")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("row", ROWS)
def test_healthy_variants_pass(row, dtype, gates):
    for seed in range(50):
        outcomes = gates(row, seed, dtype=dtype)
        assert len({g.name for g in outcomes}) == len(outcomes) > 15
        assert all(g.value is not None for g in outcomes)


@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-qwen3"])
@pytest.mark.parametrize("row", ROWS)
def test_healthy_variants_pass_in_bf16_below_many_layers(row, shape, gates, monkeypatch):
    """As many as Qwen3-4B has make a hundredth of one bit, where the bare backbone may compute bit for bit alike."""
    known = random_weights.shape
    monkeypatch.setattr(random_weights, "shape", lambda name: {**known(name), "num_hidden_layers": 36})
    outcomes = gates(row, 1, shape, size=0.02, dtype="bfloat16")
    assert {g.name for g in outcomes if g.value > 1e-2} >= {"equality.dtype.in_situ"}


@pytest.mark.parametrize(
    "settings",
    [
        {"couple_lambda": False},
        {"update": "no_lambda"},
        {"update": "lambda_outside", "rankwise_gates": False, "states": 2},
        {"heads": ["k", "v"], "writes": "message_mean"},
        {"layers": [1], "rank": 4},
    ],
    ids=str,
)
def test_healthy_ablations_pass(settings, gates):
    assert gates("delta_mem", 3, "tiny-qwen3", settings, attention="eager")


def test_a_memory_without_any_effect_is_refused(tiny, episodes):
    cls, config = resolve("delta_mem", {"output_init": "zero"})
    with pytest.raises(GateError, match=r"activity\.read"):
        cls(config, tiny(), 1).gates(episodes)

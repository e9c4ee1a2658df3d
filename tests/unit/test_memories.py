"""Histories that go on from session to session: written on, charged once, refused together, whole where cut."""

from __future__ import annotations

from dataclasses import asdict, replace

import pandas as pd
import pytest

from harness import jobs, records
from harness.episodes import Episode, History, Message, Question, continued, lineage
from harness.errors import HarnessError, UnsupportedError
from harness.experiment import DataSpec, Experiment, TaskSpec
from harness.memories import Memories, Spent
from harness.registry import resolve
from harness.tasks import select, task


def session(n, root="r", upto=None):
    """The history after ``upto`` (or n + 1) messages, which goes on from the session before."""
    told = tuple(Message(f"{root} says {k}.", id=str(k)) for k in range(n + 1 if upto is None else upto))
    asked = (Question(f"{root}{n}?", "?", ("x",)),)
    return Episode(
        f"{root}{n}", History(told, "Be brief."), asked, root, "own", continues=f"{root}{n - 1}" if n else None
    )


CHAIN = [session(n) for n in range(3)]
KNOWN = {e.id: e for e in CHAIN}


@pytest.fixture
def make(tiny):
    def build(row="bm25_rag"):
        cls, config = resolve(row)
        return cls(config, tiny(), 1)

    return build


@pytest.fixture
def written(monkeypatch):
    """Every write of bm25_rag: the ids of the messages, and of those that the state holds already."""
    from baselines.bm25_rag import Bm25Rag

    found, plain = [], Bm25Rag.write

    def write(self, history, state=None):
        before = [u.message.id for u in state.units] if state else []
        found.append(([m.id for m in history.messages], before, history.system))
        return plain(self, history, state)

    monkeypatch.setattr(Bm25Rag, "write", write)
    return found


def test_only_what_is_new_is_written_from_the_state_before(make, written):
    memories = Memories(make(), KNOWN)
    states = [memories.of(e) for e in CHAIN]
    assert written == [(["0"], [], "Be brief."), (["1"], ["0"], "Be brief."), (["2"], ["0", "1"], "Be brief.")]
    assert [len(s.units) for s in states] == [1, 2, 3]
    encode = memories.method.backbone.encode
    assert memories.spent.written == sum(len(encode(e.history.messages[-1:], system="Be brief.")[0]) for e in CHAIN)
    assert memories.spent.states == {e.id: s.nbytes() for e, s in zip(CHAIN, states, strict=True)}


def test_the_order_of_asking_changes_nothing(make, written):
    memories = Memories(make(), KNOWN)
    assert len(memories.of(CHAIN[2]).units) == 3
    assert len(memories.of(CHAIN[0]).units) == 1
    assert [told for told, _, _ in written] == [["0"], ["1"], ["2"]]


def test_without_the_earlier_ones_a_history_is_written_whole(make, written):
    Memories(make()).of(CHAIN[2])
    assert [told for told, _, _ in written] == [["0", "1", "2"]]


@pytest.mark.parametrize(
    "cut",
    [
        lambda h: replace(h, messages=h.messages[1:]),
        lambda h: replace(h, messages=h.messages[:2]),
        lambda h: replace(h, messages=(replace(h.messages[0], content="says 0."), *h.messages[1:])),
        lambda h: replace(h, system="Be long."),
    ],
    ids=["tail", "head", "part", "instruction"],
)
def test_a_history_that_was_cut_is_written_whole(cut, make, written):
    last = replace(CHAIN[2], history=cut(CHAIN[2].history))
    assert continued(last, KNOWN) is None
    Memories(make(), {**KNOWN, last.id: last}).of(last)
    assert written == [([m.id for m in last.history.messages], [], last.history.system)]


def test_what_an_earlier_process_accounted_for_is_written_again_for_nothing(make, written):
    memories = Memories(make(), KNOWN)
    memories.account(Spent(states={CHAIN[0].id: 1, CHAIN[1].id: 2}))
    memories.of(CHAIN[2])
    assert len(written) == 3
    assert memories.spent.states.keys() >= {CHAIN[2].id}
    assert memories.spent.written == len(
        memories.method.backbone.encode(CHAIN[2].history.messages[2:], system="Be brief.")[0]
    )


def test_a_refusal_refuses_what_goes_on_from_it_and_nothing_before(make, monkeypatch):
    from baselines.bm25_rag import Bm25Rag

    tried, plain = [], Bm25Rag.write

    def write(self, history, state=None):
        tried.append([m.id for m in history.messages])
        if history.messages[0].id == "1":
            raise UnsupportedError("by nature")
        return plain(self, history, state)

    monkeypatch.setattr(Bm25Rag, "write", write)
    memories = Memories(make(), KNOWN)
    for episode in (CHAIN[2], CHAIN[1], CHAIN[2]):
        with pytest.raises(UnsupportedError, match="by nature"):
            memories.of(episode)
    assert memories.of(CHAIN[0]) is not None
    assert tried == [["0"], ["1"]]


def test_a_long_chain_needs_no_deep_stack(make):
    chain = [session(n) for n in range(1500)]
    memories = Memories(make("question_only"), {e.id: e for e in chain})
    memories.of(chain[-1])
    assert memories.states.keys() == {e.id for e in chain}


def test_another_order_of_the_messages_is_written_whole(make, written):
    memories = Memories(make(), KNOWN)
    memories.shuffled(CHAIN[2])
    ((told, before, _),) = written
    assert (sorted(told), before) == (["0", "1", "2"], [])


def test_a_lineage_is_told_nearest_first_and_ends_in_a_circle():
    assert [e.id for e in lineage(CHAIN[2], KNOWN)] == ["r1", "r0"]
    assert lineage(CHAIN[0], KNOWN) == lineage(CHAIN[2], {}) == []
    circle = {"a": replace(CHAIN[0], id="a", continues="b"), "b": replace(CHAIN[0], id="b", continues="a")}
    assert len(lineage(circle["a"], circle)) == 2


# --- which are drawn ---


def drawn(**spec):
    data = task("online").load(DataSpec(), "test", {"sessions": 3}, 6)
    return data, select(data, TaskSpec(task="online", **spec), 0)


def test_histories_that_go_on_are_drawn_whole():
    data, chosen = drawn(episodes=2)
    assert len(chosen) == 6
    roots = {e.root for e in chosen}
    assert len(roots) == 2
    assert [e for e in data.episodes if e.root in roots] == [*chosen]
    assert drawn(episodes=6)[1] == drawn()[1] == data.episodes


def test_a_limit_leaves_out_questions_and_the_memory_is_the_same(make, written):
    data, chosen = drawn(limit=4)
    assert sum(len(e.questions) for e in chosen) == 4
    left_out = {e.id for e in data.episodes} - {e.id for e in chosen}
    assert any(e.continues in left_out for e in chosen)
    known = {e.id: e for e in data.episodes}
    few, all_of_them = Memories(make(), known), Memories(make(), known)
    full = {e.id: all_of_them.of(e).units for e in data.episodes}
    written.clear()
    assert all(few.of(e).units == full[e.id] for e in chosen)
    assert max(len(told) for told, _, _ in written) <= 3  # a session at a time, asked about or not


# --- in a job ---


def run(results, row="bm25_rag", kind="evaluate", **spec):
    made = {
        "name": "x",
        "backbones": {"tiny": {"random": "tiny-llama"}},
        "rows": [row],
        "tasks": [
            {
                "task": "online",
                "episodes": 3,
                "max_new_tokens": 2,
                "conditions": {"replayed": ["own"], "removed": ["own", "donor"], "own_text": ["own", "donor"]},
                "settings": {"sessions": 3},
                **spec,
            }
        ],
        "donors": 2,
        "seeds": [1],
        "training": {"task": "write_clear_read", "episodes": 4},
        "budget": {"steps": 1, "batch_size": 2, "accumulation": 1},
        "run": {"executor": "inline", "device": "cpu", "workers": 1},
        "data": {"source": "generated"},
    }
    experiment = Experiment.model_validate(made).model_dump(mode="json", by_alias=True)
    request = {"kind": kind, "experiment": experiment, "backbone": "tiny", "row": row, "seed": 1}
    return jobs.run({**request, "results": str(results)})


def found(results, cell):
    (path,) = results.rglob(f"{cell}/record.json")
    return records.load(path), pd.read_parquet(path.with_name("samples.parquet"))


def test_a_donor_has_gone_on_as_far(tmp_path):
    run(tmp_path)
    _, rows = found(tmp_path, "own_text/donor")
    assert (rows["history_id"].str.split("-s").str[0] != rows["donor"].str.split("-s").str[0]).all()
    assert (rows["history_id"].str[-2:] == rows["donor"].str[-2:]).all()


def test_scores_are_told_by_age_and_the_old_answers_apart(tmp_path):
    run(tmp_path)
    record, _ = found(tmp_path, "own_text/own")
    assert record.questions == 3 * (2 + 4 + 6)
    assert {"acc/current", "acc/current/age2", "acc/updated", "old/updated", "old/updated/age0"} <= record.scores.keys()


def test_a_cut_is_told_where_memories_are_written(tmp_path):
    run(tmp_path, "delta_mem_tsw", "fit")
    run(tmp_path, "delta_mem_tsw", max_history_tokens=170)
    said = "histories no longer begin with the one that they continue, and were written whole"
    for cell, told in (("removed/own", True), ("removed/donor", True), ("replayed/own", False)):
        record, _ = found(tmp_path, cell)
        assert record.truncated > 0
        assert any(said in warning for warning in record.warnings) == told


def test_no_cut_is_told_where_there_is_none(tmp_path):
    run(tmp_path, limit=5)
    record, _ = found(tmp_path, "own_text/own")
    assert not any("no longer begin" in warning for warning in record.warnings)


@pytest.mark.parametrize("cut", [2, 5, 8])
def test_a_resumed_cell_tells_what_all_of_it_cost(cut, tmp_path, monkeypatch):
    from baselines.bm25_rag import Bm25Rag

    plain, asked = Bm25Rag.write, []
    at = 0

    def write(self, history, state=None):
        asked.append(history)
        self.effort.lm_calls += 3
        if len(asked) == at:
            raise KeyboardInterrupt
        return plain(self, history, state)

    monkeypatch.setattr(Bm25Rag, "write", write)
    run(tmp_path / "whole", limit=20)
    asked.clear()
    at = cut
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", limit=20)
    at = 0
    run(tmp_path / "cut", limit=20)
    for arm in ("own", "donor"):
        costs = [found(tmp_path / place, f"own_text/{arm}")[0].costs for place in ("whole", "cut")]
        names = ("tokens_written", "tokens_in", "state_bytes", "write_lm_calls", "read_lm_calls")
        assert [getattr(costs[0], n) for n in names] == [getattr(costs[1], n) for n in names]
    assert found(tmp_path / "cut", "own_text/own")[0].costs.write_lm_calls == 3 * 9


def test_a_session_that_cannot_be_written_leaves_the_later_ones_without_an_answer(tmp_path, monkeypatch):
    from baselines.bm25_rag import Bm25Rag

    plain = Bm25Rag.write

    def write(self, history, state=None):
        if state is not None and history.messages[0].id == "2":
            raise UnsupportedError("by nature")
        return plain(self, history, state)

    monkeypatch.setattr(Bm25Rag, "write", write)
    run(tmp_path)
    record, rows = found(tmp_path, "own_text/own")
    assert set(rows["history_id"].str[-2:]) == {"s0"}
    assert len(record.failures) == 3 * (4 + 6)
    assert {f.status for f in record.failures} == {"unsupported"}


def test_one_person_has_no_donor(tmp_path):
    with pytest.raises(HarnessError, match="two root documents"):
        run(tmp_path, episodes=1)


def test_what_states_say_by_layer_is_averaged_over_the_episodes_asked_for(make, written):
    class Told:
        def __init__(self, norm):
            self.norm = norm

        def nbytes(self):
            return 8

        def describe(self):
            return {"layers": {"norm": self.norm}}

    memories = Memories(make(), KNOWN)
    norms = iter(([1.0, 3.0], [3.0, 5.0]))
    memories.method.write = lambda *_: Told(next(norms))
    first, other = CHAIN[0], replace(CHAIN[0], id="another")
    assert memories.mean_layers([first]) == {}
    memories.of(first)
    memories.of(other)
    assert memories.mean_layers([first, other]) == {"norm": [2.0, 4.0]}
    assert memories.mean_layers([first]) == {"norm": [1.0, 3.0]}
    again = Memories(make(), KNOWN)
    again.account(Spent.of(asdict(memories.take())))  # as the journal of a process that was cut off tells it
    assert again.mean_layers([first, other]) == {"norm": [2.0, 4.0]}
    assert again.mean_bytes() == 8

"""The bridge to lm-eval: our documents without histories, others' as flat questions, each history written once."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from lm_eval.api.instance import Instance

from harness import lm
from harness.episodes import History, Query
from harness.errors import HarnessError
from harness.journal import Journal
from harness.registry import resolve
from harness.tasks import task


def asked(method, episodes, condition="removed", **options):
    """Answers to every question of the episodes, and the model that gave them."""
    shown = lm.EpisodeTask(
        task("write_clear_read"),
        episodes,
        removed=condition == "removed",
        max_new_tokens=3,
        draws=options.pop("draws", 1),
    )
    model = lm.MemoryLM(options.pop("memories", None) or lm.Memories(method), condition, shown, **options)
    requests = [
        shown.construct_requests(doc, "", metadata=("write_clear_read", n, 1)) for n, doc in enumerate(shown.docs)
    ]
    return model.generate_until(requests), model


@pytest.fixture
def make(tiny):
    def build(row="delta_mem_tsw"):
        cls, config = resolve(row)
        return cls(config, tiny(), 1)

    return build


def test_a_history_is_written_once_for_all_its_questions_and_cells(make, episodes, monkeypatch):
    method, written = make(), []
    plain = method.write
    monkeypatch.setattr(method, "write", lambda history, state=None: written.append(history) or plain(history, state))
    memories = lm.Memories(method)
    asked(method, episodes, memories=memories)
    donors = [{e.id: other.id for e, other in zip(episodes, episodes[1:] + episodes[:1], strict=True)}]
    _, model = asked(method, episodes, memories=memories, donors=donors)
    assert written == [e.history for e in episodes]
    assert {row["donor"] for row in model.samples.values()} == {e.id for e in episodes}
    ids = [method.backbone.encode(e.history.messages, system=e.history.system)[0] for e in episodes]
    assert memories.tokens_written == sum(map(len, ids))
    assert memories.write_seconds > 0


def test_the_order_of_requests_is_the_order_of_answers(make, episodes):
    answers, model = asked(make("frozen"), episodes, "replayed")
    expected = [model.samples[q.id, 0]["answer"] for e in episodes for q in e.questions]
    assert answers == expected


def test_a_journal_spares_what_is_answered(make, episodes, tmp_path, monkeypatch):
    method = make()
    first, _ = asked(method, episodes, journal=Journal(tmp_path / "j", "a"))
    monkeypatch.setattr(lm.MemoryLM, "_answer", lambda *_: pytest.fail("answered again"))
    again, _ = asked(method, episodes, journal=Journal(tmp_path / "j", "a"))
    assert again == first


def test_each_episode_is_announced_when_it_is_answered(make, episodes):
    done = []
    asked(make("frozen"), episodes, "replayed", on_episode=done.append)
    assert done == [len(e.questions) for e in episodes]


@pytest.mark.parametrize(
    ("row", "condition"),
    [("frozen", "replayed"), ("lora", "removed"), ("delta_mem_tsw", "removed"), ("delta_mem_ssw", "replayed")],
)
def test_foreign_documents_are_flat_questions_without_a_history(row, condition, tiny):
    cls, config = resolve(row)
    model = lm.MemoryLM(lm.Memories(cls(config, tiny(), 1)), condition)
    texts = ["One plus one?", "Say a word.", "One plus one?"]
    instances = [
        Instance("generate_until", {"question": t}, (t, {"until": ["\n\n"], "max_gen_toks": 3}), n)
        for n, t in enumerate(texts)
    ]
    answers = model.generate_until(instances)
    assert len(answers) == 3
    assert answers[0] == answers[2]
    assert all(row["new_tokens"] <= 3 for row in model.samples.values())
    with pytest.raises(HarnessError, match="generative form"):
        model.loglikelihood(instances)
    with pytest.raises(HarnessError, match="generative form"):
        model.loglikelihood_rolling(instances)


def test_a_plain_lm_eval_model_sees_the_history_as_text(episodes):
    shown = lm.EpisodeTask(task("write_clear_read"), episodes, removed=False, max_new_tokens=3)
    hidden = lm.EpisodeTask(task("write_clear_read"), episodes, removed=True, max_new_tokens=3)
    doc = shown.docs[0]
    told = episodes[0].history.messages[0].content
    assert told in shown.doc_to_text(doc)
    assert told not in hidden.doc_to_text(doc)
    assert shown.doc_to_target(doc) == episodes[0].questions[0].answers[0]
    assert told not in json.dumps(shown.docs)  # documents carry no history
    assert len(shown.docs) == sum(len(e.questions) for e in episodes)


def test_nothing_is_retrieved_from_an_empty_history(make):
    method = make("bm25_rag")
    assert method.write(History(())) is None
    assert method.steer(None, Query("", "anything?")).messages == ()


@pytest.mark.parametrize(("condition", "reference"), [("removed", "question_only"), ("replayed", "frozen")])
def test_the_zero_arm_is_the_frozen_backbone(condition, reference, make, episodes):
    expected, _ = asked(make(reference), episodes[:2], condition)
    assert asked(make(), episodes[:2], condition, arm="zero")[0] == expected


def test_the_mean_arm_reads_what_all_other_histories_left(make, episodes):
    method = make("delta_mem_msw")
    memories = lm.Memories(method)
    asked(method, episodes[:3], arm="mean", memories=memories)
    assert memories.means.keys() == {(e.id, False) for e in episodes[:3]}
    own, *others = (method.write(e.history).S for e in episodes[:3])
    found = memories.means[episodes[0].id, False].S
    norm = lambda S: S.flatten(2).norm(dim=2)  # noqa: E731
    torch.testing.assert_close(norm(found), norm(own))  # a layer and head, as large as its own
    mean = sum(others) / 2
    torch.testing.assert_close(found, mean * (norm(own) / norm(mean))[..., None, None])


def test_the_mean_arm_of_a_prompt_reads_one_constant_a_layer(make, episodes):
    method = make()
    memories = lm.Memories(method)
    asked(method, episodes[:3], "replayed", arm="mean", memories=memories)
    trace = memories.means[episodes[0].id, True]
    others = [memories.traces[e.id] for e in episodes[1:3]]
    assert trace.prompt.shape[1] == trace.answer.shape[1] == 1
    torch.testing.assert_close(trace.prompt[:, 0], sum(t.prompt.mean(1) for t in others) / 2)


def test_the_shuffled_arm_writes_another_order(make, episodes):
    method = make()
    memories = lm.Memories(method)
    asked(method, episodes[:2], arm="shuffled", memories=memories)
    assert memories.states.keys() == {f"{e.id}/shuffled" for e in episodes[:2]}
    turned = replace(episodes[0].history, messages=episodes[0].history.messages[::-1])
    torch.testing.assert_close(memories.shuffled(episodes[0]).S, method.write(turned).S)


def test_a_method_without_a_mean_says_so(make):
    with pytest.raises(HarnessError, match="no mean arm"):
        make("frozen").mean([], None)

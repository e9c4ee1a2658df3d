"""The bridge to lm-eval: our documents without histories, others' as flat questions, each history written once."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from lm_eval.api.instance import Instance

from harness import generation, lm
from harness.episodes import History, Query
from harness.errors import HarnessError, SkippedError, UnsupportedError
from harness.experiment import DataSpec
from harness.gates import GateError
from harness.journal import Journal
from harness.method import Effort
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
    _, first = asked(method, episodes, memories=memories)
    donors = [{e.id: other.id for e, other in zip(episodes, episodes[1:] + episodes[:1], strict=True)}]
    _, model = asked(method, episodes, memories=memories, donors=donors)
    assert written == [e.history for e in episodes]
    assert {row["donor"] for row in model.samples.values()} == {e.id for e in episodes}
    ids = [method.backbone.encode(e.history.messages, system=e.history.system)[0] for e in episodes]
    assert (first.spent.written, model.spent.written) == (sum(map(len, ids)), 0)
    assert first.spent.write > 0 == model.spent.write
    assert first.spent.states == {e.id: memories.states[e.id].nbytes() for e in episodes}


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
    choices = [Instance("loglikelihood", {}, (texts[0], f" {word}"), n) for n, word in enumerate(("two", "three"))]
    (two, greedy), (three, _) = model.loglikelihood(choices)
    assert two < 0
    assert two != three
    assert not greedy
    assert [model.loglikelihood([c])[0][0] for c in choices] == pytest.approx([two, three], rel=1e-4)
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


@pytest.fixture
def failing(make, episodes, monkeypatch):
    """A method that cannot write the second history, and the failure that each question of it is to have."""

    def build(error, row="bm25_rag"):
        method = make(row)
        plain, tried = method.write, []

        def write(history, state=None):
            tried.append(history)
            if history == episodes[1].history:
                raise error
            return plain(history, state)

        monkeypatch.setattr(method, "write", write)
        return method, tried

    return build


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (UnsupportedError("no triple; give facts"), "unsupported", "no triple; give facts"),
        (SkippedError("no checkpoint"), "skipped", "no checkpoint"),
        (HarnessError("a date does not parse"), "error", "a date does not parse"),
        (ValueError("odd\nshape"), "error", "ValueError: odd shape"),
    ],
)
def test_a_history_that_fails_takes_only_its_own_questions_with_it(error, status, reason, failing, make, episodes):
    method, tried = failing(error)
    answers, model = asked(method, episodes[:3], "own_text")
    expected, _ = asked(make("bm25_rag"), episodes[:3], "own_text")
    lost = {q.id for q in episodes[1].questions}
    assert {key[1] for key in model.task.failed} == lost
    assert {model.samples[q, 0]["failure"]["status"] for q in lost} == {status}
    assert {model.samples[q, 0]["failure"]["reason"] for q in lost} == {reason}
    assert [a for a, d in zip(answers, model.task.docs, strict=True) if d["question_id"] not in lost] == [
        a for a, d in zip(expected, model.task.docs, strict=True) if d["question_id"] not in lost
    ]
    assert tried.count(episodes[1].history) == 1  # what was refused is not written again for its next question
    assert model.task.process_results(model.task.docs[-1], [answers[-1]])
    assert model.task.process_results(model.task.docs[len(episodes[0].questions)], [""]) == {}


def test_a_failed_gate_ends_the_run(failing, episodes):
    method, _ = failing(GateError("activity.state", "made to fail"))
    with pytest.raises(GateError):
        asked(method, episodes[:3], "own_text")


def test_effort_and_time_are_told_apart_by_write_and_read(make, episodes, monkeypatch):
    method = make("bm25_rag")
    plain_write, plain_steer = method.write, method.steer

    def write(history, state=None):
        method.effort.lm_calls += 5
        method.effort.gradient_steps += 2
        return plain_write(history, state)

    def steer(state, query, *, writes=False):
        method.effort.lm_calls += 1
        method.effort.tokens_read += 10
        return plain_steer(state, query, writes=writes)

    monkeypatch.setattr(method, "write", write)
    monkeypatch.setattr(method, "steer", steer)
    _, model = asked(method, episodes[:2], "own_text")
    assert model.spent.writing == Effort(lm_calls=10, gradient_steps=4)
    questions = sum(len(e.questions) for e in episodes[:2])
    assert model.spent.reading == Effort(lm_calls=questions, tokens_read=10 * questions)
    assert model.spent.read > 0
    # what an earlier process has accounted for is made again and costs nothing again, under either heading
    again = lm.Memories(method, charged={e.id for e in episodes})
    _, model = asked(method, episodes[:2], "own_text", memories=again)
    assert model.spent.writing == Effort()
    assert (model.spent.write, model.spent.written) == (0, 0)
    assert model.spent.reading == Effort(lm_calls=questions, tokens_read=10 * questions)
    assert again.mean_bytes() > 0


def test_evidence_is_shown_to_gold_methods_alone(make, episodes, monkeypatch):
    seen = []
    for gold in (False, True):
        method = make("bm25_rag")
        monkeypatch.setattr(type(method), "capabilities", replace(type(method).capabilities, gold=gold))
        plain = method.steer
        monkeypatch.setattr(method, "steer", lambda state, query, p=plain, **k: seen.append(query) or p(state, query))
        asked(method, episodes[:1], "own_text")
    half = len(seen) // 2
    assert {q.evidence for q in seen[:half]} == {()}
    assert [q.evidence for q in seen[half:]] == [q.evidence for q in episodes[0].questions]


def test_a_question_is_decoded_to_its_own_cap_or_the_cells_if_that_is_less(make, episodes, monkeypatch):
    caps = (2, None, 5, 1)
    asked_for = [
        replace(e, questions=tuple(replace(q, max_new_tokens=c) for q, c in zip(e.questions * 2, caps, strict=False)))
        for e in episodes[:1]
    ]
    questions = tuple(replace(q, id=f"{q.id}-{n}") for n, q in enumerate(asked_for[0].questions))
    calls, plain = [], lm.generation.attempt

    def attempt(backbone, prompts, steering, batches, *, max_new_tokens, **options):
        calls.append((len(prompts), max_new_tokens))
        return plain(backbone, prompts, steering, batches, max_new_tokens=max_new_tokens, **options)

    monkeypatch.setattr(lm.generation, "attempt", attempt)
    answers, model = asked(make("frozen"), [replace(asked_for[0], questions=questions)], "replayed")
    expected = [min(c or 3, 3) for c in caps[: len(questions)]]
    assert [model.task.cap(doc) for doc in model.task.docs] == expected
    assert [cap for count, cap in calls for _ in range(count)] == expected  # in the order of the questions
    assert all(count == 1 or cap == 3 for count, cap in calls)  # only those with one cap are decoded together
    assert [model.samples[q.id, 0]["new_tokens"] <= c for q, c in zip(questions, expected, strict=True)]
    told = [model.task.construct_requests(doc, "", metadata=("t", 0, 1)).args[1] for doc in model.task.docs]
    assert [t["max_gen_toks"] for t in told] == expected
    assert len(answers) == len(questions)


GENERATED = DataSpec(source="generated")


def prompted(name, removed, empty=False):
    """A task's documents, what the first question is asked with, and its episode."""
    found = task(name)
    episodes = found.load(GENERATED, "test", {}, 2).episodes
    shown = lm.EpisodeTask(found, episodes, removed=removed, max_new_tokens=3, empty_context=empty)
    return shown, shown.query(shown.docs[0]), episodes[0]


@pytest.mark.parametrize("name", ["hotpotqa@release", "locomo@release"])
def test_an_empty_context_is_the_prompt_of_a_history_in_sight_without_it(name, tiny):
    backbone = tiny()
    _, seen, episode = prompted(name, removed=False)
    shown, empty, _ = prompted(name, removed=True, empty=True)
    _, closed, _ = prompted(name, removed=True)
    nothing = task(name).empty()
    assert empty.text == (f"{nothing}\n\n{seen.text}" if nothing else seen.text)
    assert (empty.system, empty.frame) == (seen.system, seen.frame)
    assert closed.frame is None
    assert closed.text == task(name).question(episode.questions[0], removed=True)

    def read(query, visible=()):
        return backbone.tokenizer.decode(generation.prompt(backbone, visible, query).ids)

    whole = read(seen, episode.history.messages)
    assert whole.startswith(read(empty)[: read(empty).index(empty.text)])  # the same up to where the history begins
    assert read(closed).count("<|im_start|>user") == whole.count("<|im_start|>user") == 1
    assert shown.doc_to_text(shown.docs[0]).endswith(f"{seen.frame}\n\n{empty.text}")


def test_without_a_frame_an_empty_context_is_the_question_as_in_sight():
    _, seen, _ = prompted("hotpotqa", removed=False)
    _, empty, _ = prompted("hotpotqa", removed=True, empty=True)
    assert empty == seen


def test_lm_eval_is_told_how_answers_are_sampled(make):
    shown, _, episode = prompted("locomo@release", removed=True)
    model = lm.MemoryLM(lm.Memories(make("question_only")), "removed", shown)
    requests = [shown.construct_requests(doc, "", metadata=("x", n, 1)) for n, doc in enumerate(shown.docs)]
    release = {"do_sample": True, "temperature": 0.4, "top_p": 0.9, "top_k": 10}
    asked = len(episode.questions)
    assert [r.args[1] for r in requests[:asked]] == [
        {"until": ["\n"], "max_gen_toks": 3, **release, "seed": 42 + n} for n in range(asked)
    ]
    assert requests[asked].args[1]["seed"] == 42  # each conversation counts anew
    model.generate_until(requests)
    assert [model.samples[q.id, 0]["notes"]["seed"] for q in episode.questions] == [42 + n for n in range(asked)]
    greedy, _, _ = prompted("locomo", removed=True)
    assert greedy.construct_requests(greedy.docs[0], "", metadata=("x", 0, 1)).args[1]["do_sample"] is False


def test_a_question_that_is_too_long_takes_no_other_with_it(make, episodes):
    method = make("bm25_rag")
    first, *others = episodes[0].questions
    long = replace(first, text="word " * method.backbone.window)
    _, model = asked(method, [episodes[0].with_questions((long, *others))], "own_text")
    failed = {name for (name, _), row in model.samples.items() if row.get("failure")}
    assert failed == {first.id}


@pytest.mark.parametrize(("until", "stop"), [("</s>", ["</s>"]), (["a", "b"], ["a", "b"]), (None, [])])
def test_a_stop_text_of_others_is_one_text(make, monkeypatch, until, stop):
    model, given = lm.MemoryLM(lm.Memories(make("frozen")), "replayed"), []
    plain = generation.attempt
    monkeypatch.setattr(generation, "attempt", lambda *a, **k: given.append(list(k["stop"])) or plain(*a, **k))
    options = {"until": until, "max_gen_toks": 2}
    model.generate_until([Instance("generate_until", {}, ("Hello", options), 0)])
    assert given == [stop]


def test_a_task_of_others_that_samples_is_refused(make):
    model = lm.MemoryLM(lm.Memories(make("frozen")), "replayed")
    options = {"until": [], "do_sample": True, "temperature": 0.2, "max_gen_toks": 2}
    with pytest.raises(HarnessError, match="samples its answers"):
        model.generate_until([Instance("generate_until", {}, ("Hello", options), 0)])

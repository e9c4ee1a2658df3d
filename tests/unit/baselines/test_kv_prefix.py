"""A prefix a context: its limit, its size, what it is distilled on."""

from __future__ import annotations

import pytest
import torch

from harness import generation
from harness.episodes import History, Message, Query
from harness.errors import HarnessError, UnsupportedError
from harness.experiment import BackboneSpec
from harness.method import Steering
from harness.parameters import outline
from harness.registry import resolve

FAST = {"steps": 3, "tokens": 16, "batch_size": 4, "longest": 8, "top_logits": 5}


def build(backbone, seed=1, **settings):
    cls, config = resolve("kv_prefix", FAST | settings)
    return cls(config, backbone, seed)


def logs(backbone, asked, steering):
    return [log for log, _ in generation.loglikelihood(backbone, asked, steering, [[65, 66, 67], [70], [80, 81]])]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "smollm3"])
def test_all_positions_and_no_step_are_the_context_in_the_prompt(tiny, episodes, family):
    """Exact given the same ids behind the context; with a template that puts no head of its own, under `removed`."""
    backbone, history = tiny(family), History(episodes[0].history.messages)
    query = Query("", episodes[0].questions[0].text)
    whole = generation.prompt(backbone, history.messages, query)
    method = build(backbone, tokens=len(whole.ids), steps=0)
    steering = method.steer(method.write(history), query)
    p = steering.past_key_values().get_seq_length()
    behind = generation.Prompt(whole.ids[p:], whole.owner[p:])
    assert behind.ids == generation.prompt(backbone, (), query).ids
    assert logs(backbone, behind, steering) == pytest.approx(logs(backbone, whole, Steering()), abs=1e-6)
    apart, together = (
        generation.answer(backbone, [asked], with_, max_new_tokens=6)[0][0]
        for asked, with_ in ((whole, Steering()), (behind, steering))
    )
    assert apart.text == together.text
    assert apart.prompt_tokens == together.prompt_tokens


def test_a_system_message_is_read_again_by_the_question(tiny, episodes):
    """The one difference from the context in the prompt: the prompt of a bare question begins with its instruction."""
    backbone = tiny()
    history = History(episodes[0].history.messages, "Answer in one word.")
    whole = generation.prompt(backbone, history.messages, Query(history.system, "What?"))
    bare = generation.prompt(backbone, (), Query(history.system, "What?"))
    method = build(backbone, tokens=999, steps=0)
    steering = method.steer(method.write(history), Query("", ""))
    p = steering.past_key_values().get_seq_length()
    behind = generation.Prompt(whole.ids[p:], whole.owner[p:])
    head, _ = backbone.encode((), system=history.system)
    assert bare.ids == head + behind.ids
    assert logs(backbone, behind, steering) == pytest.approx(logs(backbone, whole, Steering()), abs=1e-6)


@pytest.mark.parametrize("steps", [0, 2])
def test_its_size_is_p_times_that_of_a_token(tiny, episodes, steps):
    method = build(tiny("qwen3"), steps=steps)
    assert method.write(episodes[0].history).nbytes() == 16 * 2 * 2 * 2 * 8 * 4


def test_a_token_is_147_kb_on_qwen3_4b():
    with torch.device("meta"):
        config = outline(BackboneSpec(random="qwen3-4b")).model.config
    cls, _ = resolve("kv_prefix")
    state = cls.write.__globals__["Prefix"](
        torch.empty(config.num_hidden_layers, 2, config.num_key_value_heads, 1, config.head_dim, dtype=torch.bfloat16)
    )
    assert state.nbytes() == 147_456 == 73_728 * 2


def test_steps_bring_the_student_nearer_to_the_teacher(tiny, episodes):
    history = episodes[0].history
    backbone = tiny()
    method = build(backbone, steps=20, learning_rate=0.02, truth=0.0)
    ids, _ = backbone.encode(history.messages)
    with torch.no_grad():
        lessons = method._lessons(history, ids, method._read(ids))
    module = type(method).write.__globals__

    def distance(state):
        with torch.no_grad():
            found = method._scores(lessons, method.cache(state.kv, len(lessons)))
        return float(torch.cat([module["_divergence"](*pair) for pair in zip(lessons, found, strict=True)]).mean())

    start = build(backbone, steps=0).write(history)
    assert distance(method.write(history)) < 0.8 * distance(start)


def test_the_answers_own_words_become_likelier(tiny, episodes):
    backbone, question = tiny(), Query("", "What is it?")
    history = History((Message("It is red."),))
    asked = generation.prompt(backbone, (), Query("", "Repeat what you were told, word for word."))
    told = backbone.tokenizer("It is red.", add_special_tokens=False)["input_ids"]
    found = []
    for steps in (0, 20):
        method = build(backbone, steps=steps, learning_rate=0.1, longest=20)
        steering = method.steer(method.write(history), question)
        found.append(generation.loglikelihood(backbone, asked, steering, [told])[0][0])
    assert found[1] > found[0] + 1


def test_the_attention_sink_stays(tiny, episodes):
    backbone = tiny()
    start, end = (build(backbone, steps=n).write(episodes[0].history).kv for n in (0, 3))
    assert torch.equal(start[..., :1, :], end[..., :1, :])
    assert not torch.equal(start[..., 1:, :], end[..., 1:, :])


def test_another_seed_is_another_prefix_and_no_global_draw(tiny, episodes):
    before = torch.get_rng_state()
    first, again, other = (build(tiny(), seed).write(episodes[0].history).kv for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_evaluated_questions_are_not_learned(episodes):
    cls, _ = resolve("kv_prefix")
    for e in episodes:
        made = cls.write.__globals__["questions"](e.history, 0)
        assert len(made) == 1 + 4 * len(e.history.messages)
        assert not {q for q, _ in made} & {q.text for q in e.questions}
        words = " ".join(m.content for m in e.history.messages)
        assert all(answer in words.replace("\n", " ") or answer.count("\n") for _, answer in made)


def test_its_effort_is_counted(tiny, episodes):
    method = build(tiny())
    method.write(episodes[0].history)
    rows = 1 + 4 * len(episodes[0].history.messages)
    assert method.effort.gradient_steps == 3
    assert method.effort.lm_calls == 1 + rows + 3 * 4
    assert method.effort.tokens_read > 0
    assert method.effort.tokens_generated == 0


def test_an_empty_history_keeps_nothing_and_a_state_is_not_continued(tiny, episodes):
    method = build(tiny())
    assert method.write(History(())) is None
    assert method.steer(None, Query("", "?")) == Steering()
    state = method.write(History((Message("A"),)))
    with pytest.raises(UnsupportedError, match="whole history at once"):
        method.write(episodes[0].history, state)


def test_questions_of_one_state_share_a_batch(tiny, episodes):
    method = build(tiny(), steps=0)
    one, two = (method.write(e.history) for e in episodes[:2])
    assert method.steer(one, Query("", "a")).acts == method.steer(one, Query("", "b")).acts
    assert method.steer(one, Query("", "a")).acts != method.steer(two, Query("", "a")).acts


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"steps": -1}, {"learning_rate": 0}])
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(HarnessError, match=next(iter(wrong))):
        resolve("kv_prefix", wrong)


def test_what_does_not_fit_the_window_is_refused(tiny):
    with pytest.raises(HarnessError, match="lower tokens"):
        build(tiny("llama"), tokens=4096)
    with pytest.raises(UnsupportedError, match="window of 4096; lower the task's max_history_tokens"):
        build(tiny("llama")).write(History((Message("A word. " * 600),)))


def test_steps_that_bf16_would_round_away_add_up(tiny, episodes):
    backbone = tiny()
    backbone.model.bfloat16()
    ends = [build(backbone, steps=n, learning_rate=1e-4).write(episodes[0].history).kv for n in (0, 30)]
    assert ends[1].dtype == torch.bfloat16
    assert (ends[0] != ends[1]).float().mean() > 0.2


def test_the_teacher_reads_what_a_template_renders_otherwise_once_a_question_follows(tiny, episodes, monkeypatch):
    """As thinking templates do, which drop a part of the last answer then."""
    backbone, history = tiny(), History((Message("Hi."), Message("Ana's hat is red.", "assistant")))
    plain = type(backbone).encode

    def encode(self, messages, **options):
        ids, owner = plain(self, messages, **options)
        last = bool(messages) and messages[-1].role == "assistant"
        return ([*ids, 65, 66, 67], [*owner, -1, -1, -1]) if last else (ids, owner)

    monkeypatch.setattr(type(backbone), "encode", encode)
    method = build(backbone)
    ids, _ = backbone.encode(history.messages)
    seen = []
    scores = method._scores
    monkeypatch.setattr(
        method,
        "_scores",
        lambda lessons, cache: seen.append((lessons, cache.get_seq_length())) or scores(lessons, cache),
    )
    with torch.no_grad():
        method._lessons(history, ids, method._read(ids))
    (lesson, *_), kept = seen[0]
    question, _ = next(iter(resolve("kv_prefix")[0].write.__globals__["questions"](history, 1)))
    whole, _ = backbone.encode([*history.messages, Message(question)], answer_next=True)
    assert kept == len(ids) - 3
    assert ids[:kept] + lesson.ids[: lesson.answer] == whole

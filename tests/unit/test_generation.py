"""Answers: batched as alone, cut where they end, refused where they do not fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from harness import generation, shortage
from harness.episodes import Decoding, Message, Query
from harness.errors import HarnessError, SkippedError
from harness.generation import Prompt
from harness.method import Steering
from harness.registry import resolve


@pytest.fixture
def make(tiny):
    """A method on a fresh backbone, moved off its start."""

    def build(row):
        cls, config = resolve(row)
        backbone = tiny("tiny-qwen3")
        given = set(backbone.model.parameters())
        method = cls(config, backbone, 1)
        rng = torch.Generator().manual_seed(3)
        for p in backbone.model.parameters():
            if p not in given:
                p.data.add_(0.3 * torch.randn(p.shape, generator=rng))
        return method

    return build


def questions(n):
    return [Query("Be brief.", f"{'Really? ' * (k % 3)}What is thing {k}?", str(k)) for k in range(n)]


@pytest.mark.parametrize("shown", [True, False], ids=["replayed", "removed"])
@pytest.mark.parametrize("row", ["frozen", "lora", "delta_mem_tsw", "delta_mem_ssw", "delta_mem_msw"])
def test_questions_of_one_history_together_are_as_asked_one_by_one(row, shown, make, episodes):
    method, history = make(row), episodes[0].history
    state = None if shown else method.write(history)
    visible = history.messages if shown else ()
    prompts = [generation.prompt(method.backbone, visible, q) for q in questions(20)]
    steering = method.steer(state, questions(1)[0], writes=shown)

    def ask(some, batch_size):
        return generation.answer(method.backbone, some, steering, max_new_tokens=3, batch_size=batch_size)[0]

    together = ask(prompts, 16)  # a full batch and a smaller one
    assert ask(prompts, 7) == together
    assert [ask([p], 1)[0] for p in prompts] == together
    assert len({a.prompt_sha256 for a in together}) == 20


def test_one_prefill_serves_all_questions(make, episodes):
    """The common beginning is fed once: what is fed afterwards is the questions' own parts."""
    method = make("frozen")
    prompts = [generation.prompt(method.backbone, episodes[0].history.messages, q) for q in questions(6)]
    fed = []
    decoder = method.backbone.model.get_decoder()
    hook = decoder.register_forward_pre_hook(
        lambda _, args, kwargs: fed.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    generation.answer(method.backbone, prompts, Steering(), max_new_tokens=3)
    hook.remove()
    shared = generation.common_prefix(prompts)
    assert shared > 80
    assert fed[0] == (1, shared)
    assert fed[1] == (6, max(len(p.ids) for p in prompts) - shared)
    assert set(fed[2:]) <= {(6, 1)}


def test_the_common_beginning_leaves_each_prompt_a_token():
    of = lambda *rows: generation.common_prefix([Prompt(list(r), [0] * len(r)) for r in rows])  # noqa: E731
    assert of((1, 2, 3), (1, 2, 4)) == 2
    assert of((1, 2, 3), (1, 2, 3)) == 2
    assert of((1, 2), (1, 2, 3)) == 1
    assert of((1, 2), (3, 2)) == 0
    assert of((1,), (1, 2)) == 0


def test_a_prompt_beyond_the_window_is_refused(tiny):
    backbone = tiny()
    with pytest.raises(HarnessError, match=r"question 'q' makes a prompt of 4\d+ tokens.*window of 4096"):
        generation.prompt(backbone, [Message("x" * 4090)], Query("", "What?", "q"))


def always(tokens, backbone):
    """A processor that makes the model say these tokens, over and over."""
    state = {"n": 0}

    def process(input_ids, scores):
        forced = torch.full_like(scores, -1e9)
        forced[:, tokens[state["n"] % len(tokens)]] = 0.0
        state["n"] += 1
        return forced

    return Steering(logits_processor=process)


@pytest.mark.parametrize(
    ("said", "stop", "text", "new_tokens", "hit_cap"),
    [
        ("abc", (), "abcabcab", 8, True),
        ("ab\n", ("\n",), "ab", 3, False),
        ("abc", ("zz", "ca"), "ab", 4, False),
    ],
)
def test_where_an_answer_ends(said, stop, text, new_tokens, hit_cap, tiny):
    backbone = tiny()
    tokens = backbone.tokenizer(said, add_special_tokens=False)["input_ids"]
    prompts = [generation.prompt(backbone, (), Query("", "What?"))]
    ((answer,), _) = generation.answer(backbone, prompts, always(tokens, backbone), max_new_tokens=8, stop=stop)
    assert (answer.text, answer.new_tokens, answer.hit_cap) == (text, new_tokens, hit_cap)


def test_an_end_of_turn_ends_an_answer_and_is_no_text(tiny):
    backbone = tiny()
    tokens = [*backbone.tokenizer("hi", add_special_tokens=False)["input_ids"], backbone.turn_end_id]
    prompts = [generation.prompt(backbone, (), Query("", "What?"))]
    ((answer,), seconds) = generation.answer(backbone, prompts, always(tokens, backbone), max_new_tokens=8)
    assert (answer.text, answer.new_tokens, answer.hit_cap) == ("hi", 3, False)
    assert seconds.prefill > 0
    assert seconds.decode > 0


@pytest.mark.parametrize("row", ["frozen", "lora", "delta_mem_tsw"])
def test_a_likelihood_is_what_one_forward_says(row, make, episodes):
    """Token by token from the cache, as all at once; and the greedy answer is the greedy continuation."""
    method = make(row)
    query, backbone = Query("", "What is it?"), method.backbone
    asked = generation.prompt(backbone, episodes[0].history.messages, query)
    steering = method.steer(None, query)
    rows = [[5, 9, 60], [7], [5, 9, 61, 8]]
    found = generation.loglikelihood(backbone, asked, steering, rows)
    for ids, (value, _) in zip(rows, found, strict=True):
        cache = steering.past_key_values and steering.past_key_values()
        with torch.no_grad(), backbone.active(steering.adapter):
            fed = torch.tensor([[*asked.ids, *ids]])
            scores = backbone.model(input_ids=fed, past_key_values=cache).logits[0].log_softmax(-1)
        expected = sum(float(scores[len(asked.ids) - 1 + n, token]) for n, token in enumerate(ids))
        assert value == pytest.approx(expected, abs=2e-4)
    answer = generation.answer(backbone, [asked], steering, max_new_tokens=3)[0][0]
    ids = backbone.tokenizer(answer.text, add_special_tokens=False)["input_ids"]
    if not answer.hit_cap or len(ids) != 3:
        pytest.fail("the answer of this seed does not encode to its own tokens; choose another")
    assert generation.loglikelihood(backbone, asked, steering, [ids])[0][1]


def test_what_is_woven_in_stands_between_the_tokens(make, episodes):
    """Embeddings of real tokens, woven in, are those tokens; weaving nothing is not weaving."""
    method = make("frozen")
    backbone, query = method.backbone, Query("", "What is it?")
    asked = generation.prompt(backbone, episodes[0].history.messages, query)
    embed = backbone.model.get_input_embeddings()
    plain = Steering()
    nothing = Steering(weave=lambda: lambda ids: None)
    assert (
        generation.answer(backbone, [asked] * 2, nothing, max_new_tokens=4)[0]
        == (generation.answer(backbone, [asked] * 2, plain, max_new_tokens=4)[0])
    )
    added = [65, 66, 67]

    def weave():
        calls = []
        return lambda ids: None if calls or calls.append(ids) else embed(torch.tensor([added]))

    longer = Prompt([*asked.ids, *added], [*asked.owner, -1, -1, -1])
    (woven,), _ = generation.answer(backbone, [asked], Steering(weave=weave), max_new_tokens=4)
    (told,), _ = generation.answer(backbone, [longer], plain, max_new_tokens=4)
    assert (woven.text, woven.prompt_tokens) == (told.text, told.prompt_tokens)
    rows = [[5, 9], [7]]
    one = generation.loglikelihood(backbone, asked, Steering(weave=weave), rows)
    other = generation.loglikelihood(backbone, longer, plain, rows)
    assert [v for v, _ in one] == pytest.approx([v for v, _ in other], abs=1e-4)


def drawn(n):
    """Every second question is sampled, each from its own seed."""
    return [Decoding(1.5, 0.95, 50, 42 + k) if k % 2 else None for k in range(n)]


@pytest.mark.parametrize(("row", "woven"), [("frozen", False), ("frozen", True), ("delta_mem_tsw", False)])
def test_a_sampled_answer_is_the_same_alone_and_in_any_order(row, woven, make, episodes):
    method = make(row)
    steering = Steering(weave=lambda: lambda ids: None) if woven else method.steer(None, Query("", ""), writes=True)
    how = drawn(6)
    prompts = [generation.prompt(method.backbone, episodes[0].history.messages, q) for q in questions(6)]

    def ask(order, batch_size=16, decoding=how):
        some = [prompts[n] for n in order]
        found, _ = generation.answer(
            method.backbone,
            some,
            steering,
            max_new_tokens=6,
            batch_size=batch_size,
            decoding=[decoding[n] for n in order],
        )
        return dict(zip(order, found, strict=True))

    before = torch.get_rng_state()
    together = ask(range(6))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    assert ask([5, 3, 1, 0, 2, 4], 2) == together
    assert {n: ask([n])[n] for n in range(6)} == together
    greedy = ask(range(6), decoding=[None] * 6)
    assert all((together[n] == greedy[n]) == (how[n] is None) for n in range(6))


def test_a_sample_is_the_one_that_transformers_draws_from_its_seed(make, episodes):
    """The release seeds torch and calls ``generate``; a woven answer draws the same."""
    method, decoding = make("frozen"), Decoding(0.9, 0.9, 10, 43)
    backbone, model = method.backbone, method.backbone.model
    asked = generation.prompt(backbone, episodes[0].history.messages, Query("", "What is it?"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(43)
        ids = torch.tensor([asked.ids])
        told = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, **decoding.arguments())
    text = backbone.tokenizer.decode(told[0, len(asked.ids) :], skip_special_tokens=True)
    for steering in (Steering(), Steering(weave=lambda: lambda ids: None)):
        ((found,), _) = generation.answer(backbone, [asked], steering, max_new_tokens=5, decoding=[decoding])
        assert found.text == text


def test_the_question_stands_in_the_message_of_the_history_in_sight(tiny):
    backbone = tiny()
    visible = [Message("One.", frame="Read."), Message("Two.", frame="Read.")]
    asked = generation.prompt(backbone, visible, Query("", "What?", frame="Read."))
    assert backbone.tokenizer.decode(asked.ids) == (
        "<|im_start|>user\nRead.\n\nOne.\n\nTwo.\n\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    )
    alone = generation.prompt(backbone, (), Query("", "What?", frame="Read."))
    assert "user\nRead.\n\nWhat?<" in backbone.tokenizer.decode(alone.ids)


@pytest.mark.parametrize(
    ("text", "said"), [("\nParis\nLyon", "\nParis"), ("Paris\nLyon", "Paris"), ("\n\n", "\n\n"), ("Paris", "Paris")]
)
def test_empty_lines_before_an_answer_end_it_not(text, said):
    """The first line that is not empty is the answer (specification 5.1, 5.2)."""
    backbone = SimpleNamespace(eos_token_ids=[0], tokenizer=SimpleNamespace(decode=lambda ids, **_: text))
    asked = generation.Prompt([1], [0])
    assert generation._read(backbone, [5, 6, 0], asked, 0, 9, ("\n",)).text == said
    assert generation._stopped(text, ("\n",)) is (said != text)


class Short:
    """Memory for ``most`` questions together, and none at all for questions of these prompts."""

    def __init__(self, monkeypatch, most, too_large=()):
        self.tried, plain = [], generation._decode

        def decode(backbone, batch, *rest):
            self.tried.append(len(batch))
            if len(batch) > most or any(p.sha256 in too_large for p in batch):
                torch.empty(2**50, dtype=torch.uint8)
            return plain(backbone, batch, *rest)

        monkeypatch.setattr(generation, "_decode", decode)


@pytest.mark.parametrize("shown", [True, False], ids=["replayed", "removed"])
@pytest.mark.parametrize("row", ["frozen", "delta_mem_msw"])
def test_a_batch_that_memory_is_too_short_for_is_halved_and_the_answers_are_the_same(
    row, shown, make, episodes, monkeypatch
):
    method, history = make(row), episodes[0].history
    state = None if shown else method.write(history)
    prompts = [generation.prompt(method.backbone, history.messages if shown else (), q) for q in questions(11)]
    steering = method.steer(state, questions(1)[0], writes=shown)
    expected = generation.answer(method.backbone, prompts, steering, max_new_tokens=3, batch_size=8)[0]
    short, batches = Short(monkeypatch, most=3), shortage.Batches(8)
    found, _ = generation.attempt(method.backbone, prompts, steering, batches, max_new_tokens=3)
    assert found == expected
    assert short.tried == [8, 4, 2, 2, 2, 2, 2, 1]
    assert (batches.size, batches.least) == (2, 2)


def test_a_question_that_is_too_large_alone_takes_no_other_with_it(make, episodes, monkeypatch):
    method = make("delta_mem_tsw")
    prompts = [generation.prompt(method.backbone, episodes[0].history.messages, q) for q in questions(5)]
    steering = method.steer(None, questions(1)[0], writes=True)
    expected = generation.answer(method.backbone, prompts, steering, max_new_tokens=3, batch_size=1)[0]
    short = Short(monkeypatch, most=9, too_large={prompts[2].sha256, prompts[4].sha256})
    found, _ = generation.attempt(method.backbone, prompts, steering, shortage.Batches(4), max_new_tokens=3)
    assert short.tried == [4, 2, 2, 1, 1, 1]
    assert [type(one) for one in found] == [generation.Answer] * 2 + [SkippedError, generation.Answer, SkippedError]
    assert [one for one in found if isinstance(one, generation.Answer)] == [expected[n] for n in (0, 1, 3)]
    with pytest.raises(SkippedError, match="memory ran short"):
        generation.answer(method.backbone, prompts, steering, max_new_tokens=3)


def test_a_woven_answer_that_is_too_large_takes_no_other_with_it(tiny, monkeypatch):
    backbone = tiny()
    prompts = [generation.prompt(backbone, (), q) for q in questions(3)]
    plain = generation._walk

    def walk(backbone, asked, *rest):
        if asked is prompts[1]:
            torch.empty(2**50, dtype=torch.uint8)
        return plain(backbone, asked, *rest)

    monkeypatch.setattr(generation, "_walk", walk)
    steering = Steering(weave=lambda: lambda ids: None)
    found, _ = generation.attempt(backbone, prompts, steering, shortage.Batches(16), max_new_tokens=2)
    assert [type(one) for one in found] == [generation.Answer, SkippedError, generation.Answer]


def test_likelihoods_are_taken_by_halves_where_memory_is_short(tiny, monkeypatch):
    backbone = tiny()
    asked = generation.prompt(backbone, (), Query("", "One plus one?"))
    choices = [backbone.tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("two", "three", "no", "4")]
    expected = generation.loglikelihood(backbone, asked, Steering(), choices)
    tried, plain = [], generation._likelihoods

    def likelihoods(backbone, asked, steering, some):
        tried.append(len(some))
        return plain(backbone, asked, steering, some) if len(some) <= most else torch.empty(2**50, dtype=torch.uint8)

    monkeypatch.setattr(generation, "_likelihoods", likelihoods)
    most = 1
    found = generation.loglikelihood(backbone, asked, Steering(), choices)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], rel=1e-5)
    assert tried == [4, 2, 1, 1, 1, 1]
    most = 0
    with pytest.raises(SkippedError, match="memory ran short"):
        generation.loglikelihood(backbone, asked, Steering(), choices)

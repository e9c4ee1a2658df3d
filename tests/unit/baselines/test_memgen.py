"""MemGen: where latents come in, that they are read as they are trained, and its parameters in closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from harness import generation, parameters, training
from harness.episodes import Message, Query
from harness.errors import HarnessError
from harness.experiment import BackboneSpec, Budget
from harness.method import Steering
from harness.progress import Progress
from harness.registry import resolve

SMALL = {"rank": 2, "alpha": 4, "prompt_latents": 3, "inference_latents": 2, "max_insertions": 2}
BUDGET = Budget(steps=2, batch_size=2, accumulation=1, warmup_ratio=0, learning_rate=1e-2)


@pytest.fixture
def make(tiny):
    def build(seed=1, shaken=True, **settings):
        cls, config = resolve("memgen", {**SMALL, **settings})
        method = cls(config, tiny(), seed)
        rng = torch.Generator().manual_seed(3)
        for p in method.parts.parameters() if shaken else ():
            p.data.add_(0.2 * torch.randn(p.shape, generator=rng))
        return method

    return build


def prompt_of(method, episode):
    return generation.prompt(method.backbone, episode.history.messages, Query("", episode.questions[0].text))


def likelihoods(method, episode, texts, steering=None):
    ids = [method.backbone.tokenizer(text)["input_ids"] for text in texts]
    steering = steering or method.steer(None, Query("", "?"))
    return generation.loglikelihood(method.backbone, prompt_of(method, episode), steering, ids)


def closed_form(d, layers, linears, rank, latents):
    """Adapters, two linears, and a set of queries for each of ``latents``; a trigger where there are two sets."""
    adapter = rank * layers * sum(a + b for a, b in linears)
    queries = sum(k * d + 2 * d + 1 for k in latents)
    trigger = adapter + 2 * d + 2 if len(latents) == 2 else 0
    return adapter + trigger + 2 * (d * d + d) + queries


def linears(d, q, kv, f):
    return [(d, q), (d, kv), (d, kv), (q, d), (d, f), (d, f), (f, d)]


def test_the_paper_s_count_on_its_backbone():
    (found,) = parameters.counts(parameters.outline(BackboneSpec(random="qwen3-4b")), ["memgen"])
    assert found.trainable == 46_198_788 == closed_form(2560, 36, linears(2560, 4096, 1024, 9728), 8, (8, 8))


def test_the_count_on_any_backbone(make):
    method = make()
    assert method.trainable_parameters() == closed_form(64, 2, linears(64, 64, 32, 128), 2, (3, 2))
    assert make(max_insertions=0).trainable_parameters() == closed_form(64, 2, linears(64, 64, 32, 128), 2, (3,))
    qv = make(inference_latents=0, targets=("q_proj", "v_proj"))
    assert qv.trainable_parameters() == closed_form(64, 2, [(64, 64), (64, 32)], 2, (3,))
    assert closed_form(576, 30, [(576, 576), (576, 192)], 16, (8,)) == 1_592_065  # memgen_prompt on SmolLM2-135M
    assert closed_form(576, 30, linears(576, 576, 192, 1536), 8, (8, 8)) == 5_561_860
    assert method.extra_parameters() == 0


def test_no_latents_are_the_frozen_backbone(make, episodes):
    for none in ({"prompt_latents": 0, "inference_latents": 0}, {"prompt_latents": 0, "max_insertions": 0}):
        method = make(**none)
        assert method.steer(None, Query("", "?")).acts == Steering().acts
        asked = [prompt_of(method, e) for e in episodes[:2]]
        own, frozen = (
            [a.text for a in generation.answer(method.backbone, asked, s, max_new_tokens=6)[0]]
            for s in (method.steer(None, Query("", "?")), Steering())
        )
        assert own == frozen
        texts = ["red", "blue."]
        assert likelihoods(method, episodes[0], texts) == likelihoods(method, episodes[0], texts, Steering())
    assert likelihoods(make(), episodes[0], texts) != likelihoods(method, episodes[0], texts)


def test_latents_follow_the_prompt_and_the_first_delimiters(make):
    method = make()
    encode = method.backbone.tokenizer
    prompt, answer = (encode(text)["input_ids"] for text in ("a, b. ", "x, y. z\nw"))
    weaver, found = method.weaver(), []
    for n in range(len(answer)):
        woven = weaver(torch.tensor([prompt + answer[:n]]))
        found.append(0 if woven is None else woven.shape[1])
    assert found == [3, 0, 2, 0, 0, 2, 0, 0, 0]  # the third delimiter is one too many
    assert method.effort.lm_calls == 3
    # the prompt; two tokens; three more; each after the latents before, and with its queries
    assert method.effort.tokens_read == (len(prompt) + 3) + (3 + 2 + 2) + (2 + 3 + 2)


@pytest.mark.parametrize(("text", "ends"), [(",", True), (".", True), ("\n", True), ("a", False), (" ", False)])
def test_what_delimits(text, ends, make):
    (token,) = make().backbone.tokenizer(text)["input_ids"]
    assert make().delimits(token) is ends


def test_the_weaver_reads_on_from_its_cache_as_it_would_anew(make):
    method = make()
    ids = torch.tensor([method.backbone.tokenizer("Some text, then more.")["input_ids"]])
    with torch.no_grad():
        weaver = method.weaver()
        first, last = weaver(ids[:, :10]), weaver(ids)
        embed = method.backbone.model.get_input_embeddings()
        stream = torch.cat([embed(ids[:, :10]), first, embed(ids[:, 10:])], 1)
        anew = method.latents(stream, method.parts["inference"], DynamicCache())
    assert torch.allclose(last, anew, atol=1e-5)


def test_it_is_trained_as_it_is_read(make, episodes):
    """Teacher-forced logits and the harness's own walk through prompt, latents and answer say the same."""
    method, answer = make(), "red, not. blue"
    ids, start = training.answer_ids(
        method.backbone, [*episodes[0].history.messages, Message(episodes[0].questions[0].text)], "", answer
    )
    with torch.no_grad():
        logs = method._logits(torch.tensor([ids]), start).double().log_softmax(-1)
    expected = sum(float(logs[n, token]) for n, token in enumerate(ids[start:-1]))
    assert likelihoods(method, episodes[0], [answer])[0][0] == pytest.approx(expected, abs=1e-4)


def test_the_weaver_learns_and_the_trigger_stays(make, episodes, tmp_path):
    method = make(shaken=False)
    before = {n: p.detach().clone() for n, p in method.parts.named_parameters()}
    with_commas = [
        replace(e, questions=tuple(replace(q, answers=("red, or blue.",)) for q in e.questions)) for e in episodes
    ]
    report = method.fit(with_commas, BUDGET, tmp_path, Progress(None))
    moved = {n for n, p in method.parts.named_parameters() if not torch.equal(p, before[n])}
    still = {n for n in before if "trigger" in n}
    assert still
    assert moved == set(before) - still
    assert report.steps == 2
    assert report.tokens > 0


class _Cut(Progress):
    """Ends the process of a fit behind its second step."""

    def update(self, phase, done, total, **facts):
        if phase == "fit" and done == 2:
            raise KeyboardInterrupt


def test_a_fit_that_was_cut_off_ends_alike(make, episodes, tmp_path):
    budget = BUDGET.model_copy(update={"save_every": 1, "steps": 3})
    whole, cut, resumed = (make(shaken=False) for _ in range(3))
    whole.fit(episodes, budget, tmp_path / "whole", Progress(None))
    with pytest.raises(KeyboardInterrupt):
        cut.fit(episodes, budget, tmp_path / "cut", _Cut(None))
    assert [p.name for p in (tmp_path / "cut").iterdir()] == ["checkpoint-1"]
    assert resumed.fit(episodes, budget, tmp_path / "cut", Progress(None)).steps == 3
    for a, b in zip(whole.parts.parameters(), resumed.parts.parameters(), strict=True):
        assert torch.equal(a, b)


def test_bad_input_is_one_sentence(make, episodes, tmp_path):
    with pytest.raises(HarnessError, match="prompt_latents"):
        resolve("memgen", {"prompt_latents": -1})
    with pytest.raises(HarnessError, match="trigger"):
        resolve("memgen", {"trigger": "trained"})
    with pytest.raises(HarnessError, match="nothing to learn; raise prompt_latents"):
        make(prompt_latents=0, max_insertions=0).fit(episodes, BUDGET, tmp_path, Progress(None))
    with pytest.raises(HarnessError, match="fit the method again"):
        make().load(tmp_path)
    make().save(tmp_path)
    for other in ({"rank": 3}, {"prompt_latents": 4}, {"max_insertions": 0}):
        with pytest.raises(HarnessError, match="another shape; fit the method again"):
            make(**other).load(tmp_path)

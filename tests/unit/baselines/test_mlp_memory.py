"""MLP Memory: kNN-LM's distributions, what is learned from them, the mixture at λ, and its parameters."""

from __future__ import annotations

import math

import pytest
import torch

from baselines.mlp_memory._knn import Datastore
from harness import fits, generation, parameters
from harness.episodes import Query
from harness.errors import HarnessError
from harness.experiment import BackboneSpec, Budget
from harness.method import Steering
from harness.progress import Progress
from harness.registry import resolve

SMALL = {"blocks": 2, "head": "tied", "k": 8}
BUDGET = Budget(steps=2, batch_size=2, accumulation=1, warmup_ratio=0, learning_rate=1e-2)
NOTHING = Query("", "?")


@pytest.fixture
def make(tiny):
    def build(seed=1, **settings):
        cls, config = resolve("mlp_memory", {**SMALL, **settings})
        return cls(config, tiny(), seed)

    return build


def prompts_of(method, episodes):
    return [
        generation.prompt(method.backbone, e.history.messages, Query("", q.text)) for e in episodes for q in e.questions
    ]


def likelihoods(method, prompt, texts, steering=None):
    ids = [method.backbone.tokenizer(text)["input_ids"] for text in texts]
    found = generation.loglikelihood(method.backbone, prompt, steering or method.steer(None, NOTHING), ids)
    return [value for value, _ in found]


# --- the network ---


def closed_form(d, f, blocks, vocabulary=0):
    return blocks * (3 * d * f + d) + d + vocabulary * d


def test_the_paper_s_count_on_its_backbone():
    (found,) = parameters.counts(parameters.outline(BackboneSpec(random="qwen3-4b")), ["mlp_memory"])
    assert found.trainable == 3_078_648_320 == closed_form(2560, 9728, 36, 151_936)


def test_the_count_on_any_backbone(make):
    assert make().trainable_parameters() == make().extra_parameters() == closed_form(64, 128, 2)
    assert make(head="own", blocks=None).trainable_parameters() == closed_form(64, 128, 2, 259)
    assert closed_form(576, 1536, 4) == 10_619_712  # mlp_memory_small on SmolLM2-135M
    assert closed_form(576, 1536, 8) == 21_238_848


def test_the_network_has_the_backbone_s_own_mlp_and_norms(make):
    """With the weights of the backbone's layers in it, a block adds what the backbone's MLP does."""
    method = make()
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    decoder, expected = method.backbone.model.get_decoder(), x
    for block, layer in zip(method.network["blocks"], decoder.layers, strict=True):
        block["norm"].weight.data.copy_(layer.post_attention_layernorm.weight)
        for name in ("gate", "up", "down"):
            block[name].weight.data.copy_(getattr(layer.mlp, f"{name}_proj").weight)
        expected = expected + layer.mlp(layer.post_attention_layernorm(expected))
    expected = method.backbone.model.get_output_embeddings()(decoder.norm(expected)).log_softmax(-1)
    assert torch.allclose(method.predict(x), expected, atol=1e-5)


def test_a_backbone_without_a_last_mlp_is_refused(make, monkeypatch):
    method = make()
    del method.backbone.model.get_decoder().layers[-1].mlp
    with pytest.raises(HarnessError, match=r"layers\[-1\].mlp, which a 'llama' backbone has not; take"):
        type(method)(method.config, method.backbone, 0)


# --- kNN-LM ---


def by_hand(store, at, k, temperature, vocabulary):
    found = torch.zeros(len(at), vocabulary, dtype=torch.double)
    for row, n in enumerate(at.tolist()):
        far = (store.keys.double() - store.keys[n].double()).square().sum(-1)
        far[n] = math.inf
        order = far.argsort()[:k]
        weights = torch.softmax(-far[order] / temperature, 0)
        found[row].index_add_(0, store.values[order], weights)
    return found


@pytest.mark.parametrize("block", [7, 16, 1000])
def test_targets_are_knn_lm_s(block, monkeypatch):
    monkeypatch.setattr("baselines.mlp_memory._knn.BLOCK", block)
    rng = torch.Generator().manual_seed(1)
    store = Datastore(torch.randn(60, 6, generator=rng).half(), torch.randint(9, (60,), generator=rng))
    at = torch.tensor([0, 5, 31, 59])
    for k in (1, 12, 59, 1024):
        tokens, weights = store.targets(at, k, 2.0)
        assert tokens.shape == weights.shape == (4, min(k, 59))
        found = torch.zeros(4, 9, dtype=torch.double).scatter_add_(1, tokens, weights.double())
        assert torch.allclose(found, by_hand(store, at, k, 2.0, 9), atol=1e-5)
        for row, of in zip(tokens, weights, strict=True):  # each token once
            assert len(row[of > 0].unique()) == (of > 0).sum()


@pytest.mark.parametrize(("size", "k", "wanted"), [(400, 64, math.log(10)), (5, 64, 0.9 * math.log(4))])
def test_the_temperature_gives_the_neighbours_ten_choices(size, k, wanted):
    rng = torch.Generator().manual_seed(1)
    store = Datastore(50 * torch.randn(size, 16, generator=rng).half(), torch.arange(size))
    far, _ = store.neighbours(torch.arange(size), k)
    weights = torch.softmax(-far.double() / store.calibrated(k, 0), 1)
    assert float(-torch.xlogy(weights, weights).sum(1).median()) == pytest.approx(wanted, abs=0.1)


def test_the_datastore_holds_each_token_of_an_episode_once(make, episodes):
    method = make()
    store, spans = method._datastore(episodes, 1000, Progress(None))
    assert [b for _, b in spans[:-1]] == [a for a, _ in spans[1:]]
    assert spans[-1][1] == len(store.keys) == len(store.values)
    text = method.backbone.tokenizer.decode(store.values[slice(*spans[0])])
    first, second = episodes[0].questions
    assert all(text.count(m.content) == 1 for m in episodes[0].history.messages)
    asked = [f"{q.text}<|im_end|>\n<|im_start|>assistant\n{q.answers[0]}<|im_end|>" for q in (first, second)]
    assert text.count(asked[0]) == text.count(asked[1]) == 1
    assert text.endswith(asked[1])
    assert store.keys.shape[1] == 64


def test_a_full_datastore_ends_the_training_set(make, episodes):
    assert len(make(datastore_tokens=100)._datastore(episodes, 1000, Progress(None))[1]) < len(episodes)


def test_longer_prompts_keep_their_end(make, episodes):
    method = make()
    store, spans = method._datastore(episodes[:1], 40, Progress(None))
    assert spans == [(0, len(store.keys))]
    assert len(store.keys) == 2 * 39  # both questions are longer than that
    assert not any(m.content in method.backbone.tokenizer.decode(store.values) for m in episodes[0].history.messages)


# --- learning ---


def test_the_loss_is_divergence_and_cross_entropy(make, episodes, monkeypatch):
    from baselines.mlp_memory import _Batch

    rng = torch.Generator().manual_seed(1)
    keys, following = torch.randn(12, 64, generator=rng), torch.randint(259, (12,), generator=rng)
    store = Datastore(keys.half(), following)
    batch = _Batch(keys, following, *store.targets(torch.arange(12), 4, 50.0))
    found = []
    for alpha in (0.0, 0.5, 1.0):
        method = make(alpha=alpha)
        logs = method.predict(keys).double()
        knn = by_hand(store, torch.arange(12), 4, 50.0, 259)
        divergence = (torch.xlogy(knn, knn) - knn * logs).sum(1).mean()
        ce = -logs[torch.arange(12), following].mean()
        found.append(method._loss(batch).item())
        assert found[-1] == pytest.approx((alpha * divergence + (1 - alpha) * ce).item(), abs=1e-3)
    monkeypatch.setattr("baselines.mlp_memory.PART", 5)  # in parts, the same
    assert make(alpha=1.0)._loss(batch).item() == pytest.approx(found[-1], abs=1e-5)


def test_it_learns_what_followed_in_training(make, episodes, tmp_path):
    method = make(lam=1.0)
    prompts = prompts_of(method, episodes[:2])
    answers = [q.answers[0] for e in episodes[:2] for q in e.questions]
    before = [likelihoods(method, p, [a])[0] for p, a in zip(prompts, answers, strict=True)]
    budget = BUDGET.model_copy(update={"steps": 30, "schedule": "constant"})
    report = method.fit(episodes[:2], budget, tmp_path, Progress(None))
    after = [likelihoods(method, p, [a])[0] for p, a in zip(prompts, answers, strict=True)]
    assert report.losses[-1] < 0.9 * report.losses[0]
    assert sum(after) > sum(before)
    assert report.episodes == 2
    assert report.tokens > 0
    assert method.temperature > 0


class _Cut(Progress):
    """Ends the process of a fit behind its second step."""

    def update(self, phase, done, total, **facts):
        if phase == "fit" and done == 2:
            raise KeyboardInterrupt


def test_a_fit_that_was_cut_off_ends_alike(make, episodes, tmp_path):
    budget = BUDGET.model_copy(update={"save_every": 1, "steps": 3})
    whole, cut, resumed = (make(head="own") for _ in range(3))
    whole.fit(episodes, budget, tmp_path / "whole", Progress(None))
    with pytest.raises(KeyboardInterrupt):
        cut.fit(episodes, budget, tmp_path / "cut", _Cut(None))
    assert [p.name for p in (tmp_path / "cut").iterdir()] == ["checkpoint-1"]
    assert resumed.fit(episodes, budget, tmp_path / "cut", Progress(None)).steps == 3
    for a, b in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(a, b)


# --- the mixture ---


def test_no_share_is_the_frozen_backbone(make, episodes):
    method = make(lam=0)
    prompts = prompts_of(method, episodes[:2])
    assert method.steer(None, NOTHING).acts == Steering().acts
    own, frozen = (
        [a.text for a in generation.answer(method.backbone, prompts, s, max_new_tokens=6)[0]]
        for s in (method.steer(None, NOTHING), Steering())
    )
    assert own == frozen
    texts = ["red", "blue"]
    assert likelihoods(method, prompts[0], texts) == likelihoods(method, prompts[0], texts, Steering())


@pytest.mark.parametrize("lam", [1e-9, 0.05, 0.5, 1.0])
def test_a_share_mixes_probabilities(lam, make, episodes):
    method = make(lam=lam)
    prompt, token = prompts_of(method, episodes)[0], "q"
    alone = make(lam=1.0)
    frozen, memory = likelihoods(method, prompt, [token], Steering())[0], likelihoods(alone, prompt, [token])[0]
    assert memory != frozen
    expected = math.log((1 - lam) * math.exp(frozen) + lam * math.exp(memory))
    assert likelihoods(method, prompt, [token])[0] == pytest.approx(expected, abs=1e-4)


def test_questions_of_different_length_share_a_batch(make, episodes):
    method = make(lam=0.9)
    prompts = sorted(prompts_of(method, episodes[:3]), key=lambda p: len(p.ids))
    assert len({len(p.ids) for p in prompts}) > 1
    steerings = [method.steer(None, NOTHING) for _ in prompts]
    assert all(s.acts == steerings[0].acts for s in steerings)
    together = generation.answer(method.backbone, prompts, steerings[0], max_new_tokens=5)[0]
    alone = [generation.answer(method.backbone, [p], steerings[0], max_new_tokens=5)[0][0] for p in prompts]
    assert [a.text for a in together] == [a.text for a in alone]


def test_rows_that_differ_in_the_share_have_one_fit(make, episodes, tmp_path):
    found = []
    for lam in (0.0, 0.1, 0.5):
        method = make(lam=lam)
        fit = fits.obtain(method, method.backbone, episodes, BUDGET, tmp_path, Progress(None))
        found.append((fit.address, fit.folder.stat().st_mtime_ns, "lam" in fit.facts()["config"]))
    assert len(set(found)) == 1
    assert not found[0][2]
    other = make(alpha=0.1)
    assert fits.address(other, other.backbone, episodes, BUDGET) != found[0][0]


def test_bad_input_is_one_sentence(make, episodes, tmp_path):
    bad = {"lam": 1.1, "k": 0, "alpha": -0.1, "blocks": 0, "temperature": 0, "datastore_tokens": 1, "head": "none"}
    for name, value in bad.items():
        with pytest.raises(HarnessError, match=f"wrong setting '{name}'"):
            resolve("mlp_memory", {name: value})
    with pytest.raises(HarnessError, match="fit the method again"):
        make().load(tmp_path)
    make().save(tmp_path)
    for other in ({"blocks": 3}, {"head": "own"}):
        with pytest.raises(HarnessError, match="another shape; fit the method again"):
            make(**other).load(tmp_path)
    with pytest.raises(HarnessError, match="a datastore of 0 tokens"):
        make().fit([], BUDGET, tmp_path, Progress(None))

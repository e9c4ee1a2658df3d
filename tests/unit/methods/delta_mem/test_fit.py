"""Training of δ-mem: the gradient through the write pass, and that a fit is a function of its seed."""

from __future__ import annotations

import pytest
import torch

from harness.experiment import Budget
from harness.progress import Progress
from harness.registry import resolve
from methods.delta_mem import _fit, _layer

ROWS = ("delta_mem_tsw", "delta_mem_ssw", "delta_mem_msw")
BUDGET = Budget(steps=4, batch_size=2, accumulation=1, save_every=2, learning_rate=1e-2)


@pytest.fixture
def make(tiny, shake):
    """A method on a fresh backbone; shaken unless it is to be fitted."""

    def build(row, seed=1, shaken=True, dtype="float32"):
        cls, config = resolve(row)
        method = cls(config, tiny("tiny-llama", dtype=dtype), seed)
        if shaken:
            shake(method.memory)
        return method

    return build


def parameters(method):
    return [p for layer in method.memory.layers for p in layer.memory.parameters()]


def one_by_one(method, episodes):
    """The same loss by token-wise writes on a KV cache and one forward a question, with gradient."""
    backbone, losses = method.backbone, []
    for e in episodes:
        ids, owner = backbone.encode(e.history.messages, system=e.history.system)
        cache = method.memory.memory_cache()
        for token, message in zip(ids, owner, strict=True):
            cache.announce(torch.tensor([[message]]))
            backbone.model.get_decoder()(input_ids=torch.tensor([[token]]), past_key_values=cache)
        method.memory.commit(cache)
        for q in e.questions:
            asked, start = _fit.training.answer_ids(backbone, [_fit.Message(q.text)], e.history.system, q.answers[0])
            reader = method.memory.memory_cache(cache.states, writes=False)
            logits = backbone.model(input_ids=torch.tensor([asked]), past_key_values=reader).logits[0]
            scores = logits.log_softmax(-1)
            losses += [-scores[t - 1, asked[t]] for t in range(start, len(asked))]
    return torch.stack(losses).mean()


@pytest.mark.parametrize("row", ROWS)
def test_loss_and_gradients_are_those_of_a_plain_loop(row, make, episodes):
    method = make(row)
    method.backbone.model.double()
    with method.backbone.active(method.name):
        loss, tokens = _fit.loss(method, _fit.collate(method, episodes[:2], BUDGET))
        loss.backward()
        batched = [p.grad.clone() for p in parameters(method)]
        method.peft.zero_grad()
        plain = one_by_one(method, episodes[:2])
        plain.backward()
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)
    for ours, parameter in zip(batched, parameters(method), strict=True):
        assert float((ours - parameter.grad).norm()) <= 1e-5 * float(parameter.grad.norm()) + 1e-12
    written = [layer.memory.memory_v_proj.grad for layer in method.memory.layers]
    assert all(grad.any() for grad in written)  # only the write pass uses v
    assert all(p.grad is None for n, p in method.backbone.model.named_parameters() if "delta_mem_" not in n)
    assert tokens == int(
        sum(len(method.backbone.encode(e.history.messages, system=e.history.system)[0]) for e in episodes[:2])
    ) + int(_fit.collate(method, episodes[:2], BUDGET).reads.mask.sum())


def test_the_gradient_is_a_finite_difference(make, episodes):
    method = make("delta_mem_tsw")
    method.backbone.model.double()
    batch = _fit.collate(method, episodes[:1], BUDGET)
    values = [layer.memory.memory_v_proj for layer in method.memory.layers]
    with method.backbone.active(method.name):
        _fit.loss(method, batch)[0].backward()
        size = torch.stack([v.grad.norm() for v in values]).norm()
        directions = [v.grad / size for v in values]
        at = []
        for shift in (1e-2, -1e-2):
            with torch.no_grad():
                for v, d in zip(values, directions, strict=True):
                    v.add_(shift * d)
                at.append(float(_fit.loss(method, batch)[0]))
                for v, d in zip(values, directions, strict=True):
                    v.sub_(shift * d)
    assert (at[0] - at[1]) / 2e-2 == pytest.approx(float(size), rel=1e-2)


def test_longer_histories_keep_their_end(make, episodes):
    method = make("delta_mem_ssw", shaken=False)
    batch = _fit.collate(method, episodes[:2], BUDGET.model_copy(update={"max_write_tokens": 9}))
    for row, owner, e in zip(batch.ids, batch.segments, episodes, strict=False):
        ids, messages = method.backbone.encode(e.history.messages, system=e.history.system)
        assert row.tolist() == ids[-9:]
        assert owner.tolist() == messages[-9:]


def fitted(method, episodes, workdir, steps=4):
    return method.fit(episodes, BUDGET.model_copy(update={"steps": steps}), workdir, Progress(None))


@pytest.mark.parametrize("row", ROWS)
def test_a_seed_fixes_a_fit(row, make, episodes, tmp_path):
    runs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        method = make(row, seed, shaken=False)
        before = {n: p.clone() for n, p in method.backbone.model.named_parameters() if "delta_mem_" not in n}
        report = fitted(method, episodes, tmp_path / name, steps=2)
        assert report.steps == len(report.losses) == 2
        assert all(torch.equal(before[n], p) for n, p in method.backbone.model.named_parameters() if n in before)
        runs.append((report, [p.detach().clone() for p in parameters(method)]))
    assert runs[0][0].losses == runs[1][0].losses != runs[2][0].losses
    assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))


def test_a_fit_that_was_cut_off_ends_as_an_unbroken_one(make, episodes, tmp_path, monkeypatch):
    whole = make("delta_mem_tsw", shaken=False)
    expected = fitted(whole, episodes, tmp_path / "whole")

    torn = make("delta_mem_tsw", shaken=False)
    steps, plain = [], _fit.loss

    def until_the_fourth(method, batch):
        steps.append(batch)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return plain(method, batch)

    monkeypatch.setattr(_fit, "loss", until_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        fitted(torn, episodes, tmp_path / "torn")
    monkeypatch.setattr(_fit, "loss", plain)
    resumed = make("delta_mem_tsw", shaken=False)
    report = fitted(resumed, episodes, tmp_path / "torn")
    assert report.losses == expected.losses
    assert report.tokens == expected.tokens
    assert all(torch.equal(a, b) for a, b in zip(parameters(whole), parameters(resumed), strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_saved_is_what_is_attached(dtype, make, episodes, tmp_path):
    method = make("delta_mem_msw", dtype=dtype)
    method.save(tmp_path / "first")
    attached = [p.detach().clone() for p in parameters(method)]
    assert all(torch.equal(p, p.bfloat16().to(p)) for p in attached)
    method.save(tmp_path / "second")
    files = [(tmp_path / n / "adapter_model.safetensors").read_bytes() for n in ("first", "second")]
    assert files[0] == files[1]
    other = make("delta_mem_msw", seed=9, dtype=dtype)
    other.load(tmp_path / "first")
    assert all(torch.equal(a, b) for a, b in zip(parameters(other), attached, strict=True))


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("recompute", [7, 64, 1000])
def test_recomputing_by_parts_is_the_same_gradient(row, recompute, make, episodes):
    method = make(row)
    method.backbone.model.double()
    batch, found = _fit.collate(method, episodes[:3], BUDGET), []
    for part in (None, recompute):
        with method.backbone.active(method.name):
            states = torch.cat(_fit.written(method, batch, part))
            (states * torch.arange(states.numel()).view_as(states)).sum().backward()
        grads = [p.grad.flatten() for p in parameters(method) if p.grad is not None]
        found.append((states.detach(), torch.cat(grads)))
        method.memory.zero_grad()
    for whole, parts in zip(*found, strict=True):
        assert float((whole - parts).norm()) <= 1e-12 * float(whole.norm())


def test_recomputing_keeps_only_keys_and_values(make, episodes):
    method = make("delta_mem_tsw")
    batch, held = _fit.collate(method, episodes[:1], BUDGET), []
    for part in (None, 16):
        sizes = {}

        def note(x, sizes=sizes):
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with method.backbone.active(method.name), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            states = _fit.written(method, batch, part)
        held.append(sum(sizes.values()))
        assert states[0].requires_grad
    assert held[1] < held[0] / 10


def test_the_releases_objective_adds_write_sparsity_of_the_read_pass(make, episodes, monkeypatch):
    method = make("delta_mem_tsw_release")
    backbone = method.backbone
    batch = _fit.collate(method, episodes[:2], BUDGET)
    paper = make("delta_mem_tsw")
    fewer = _fit.collate(paper, episodes[:2], BUDGET)
    opening = "<|im_start|>assistant\n"
    added = (batch.reads.labels != -100).sum(1) - (fewer.reads.labels != -100).sum(1)
    assert added.tolist() == [backbone.count(opening)] * len(batch.reads.labels)

    gates = []
    plain = _layer.DeltaMemory._mean_gate
    monkeypatch.setattr(_layer.DeltaMemory, "_mean_gate", lambda *a: gates.append((a, plain(*a))) or gates[-1][1])
    with backbone.active(method.name):
        total, _ = _fit.loss(method, batch)
        assert len(gates) == len(method.memory.layers)
        for (memory, x, mask), found in gates:
            beta = torch.sigmoid(x @ memory.beta_proj.T + memory.beta_bias)
            assert x.shape[:2] == batch.reads.ids.shape  # tokens that write nothing
            real = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
            assert torch.allclose(found, beta[real].mean())
        sparsity = sum((found - 0.05) ** 2 for _, found in gates) / len(gates)
        method.config = method.config.model_copy(update={"write_sparsity": 0.0})
        bare, _ = _fit.loss(method, batch)
    assert torch.allclose(total - bare, 0.01 * sparsity, atol=1e-6)

"""Learning rates: the same for every row, judged on held-out training questions."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest

from harness import jobs, tuning
from harness.episodes import Message
from harness.errors import HarnessError
from harness.experiment import Budget, Experiment, TrainSpec
from harness.registry import resolve


def test_the_last_episodes_are_held_out(episodes):
    fitted, dev = tuning.split(episodes, TrainSpec(dev=2))
    assert (*fitted, *dev) == tuple(episodes)
    assert len(dev) == 2
    assert tuning.split(episodes, TrainSpec()) == (episodes, ())
    with pytest.raises(HarnessError, match="leaves none; lower it"):
        tuning.split(episodes, TrainSpec(dev=6))


def test_rates_without_held_out_episodes_are_refused():
    with pytest.raises(ValueError, match="give 'dev' their number"):
        TrainSpec(learning_rates=(1e-3, 1e-4))


def test_what_is_not_asked_for_leaves_no_trace():
    assert not {"dev", "learning_rates"} & TrainSpec().model_dump().keys()


def test_the_loss_is_that_of_the_answers(tiny, episodes):
    """At its start an adapter is the frozen backbone, whose loss a plain forward gives."""
    import torch

    cls, config = resolve("lora")
    method = cls(config, tiny(), 1)
    found = tuning.dev_loss(method, episodes[:2], 512)
    backbone, total, tokens = method.backbone, 0.0, 0
    for e in episodes[:2]:
        for q in e.questions:
            told = [*e.history.messages, Message(q.text)]
            asked, _ = backbone.encode(told, system=e.history.system, answer_next=True)
            ids = [*backbone.tokenizer(q.answers[0], add_special_tokens=False)["input_ids"], backbone.turn_end_id]
            with torch.no_grad():
                logits = backbone.model(torch.tensor([asked + ids])).logits[0, len(asked) - 1 : -1]
            total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum"))
            tokens += len(ids)
    assert found == pytest.approx(total / tokens, rel=1e-4)


def test_the_likeliest_is_kept(monkeypatch, episodes):
    losses = {1e-2: 3.0, 1e-3: 1.0, 1e-4: 2.0}

    @contextmanager
    def method():
        yield {}

    def fit(fresh, budget):
        fresh["rate"] = budget.learning_rate
        return {"seconds": 2.0, "tokens": 7}

    monkeypatch.setattr(tuning, "dev_loss", lambda fresh, dev, limit: losses[fresh["rate"]])
    budget, trials = tuning.best(method, fit, episodes, Budget(steps=3), tuple(losses))
    assert budget == Budget(steps=3, learning_rate=1e-3)
    assert {t["learning_rate"]: t["dev_loss"] for t in trials} == losses


@pytest.mark.parametrize("order", [(1e-1, 1e-3), (1e-3, 1e-1)])
def test_a_fit_that_lost_its_numbers_is_never_the_best(monkeypatch, episodes, order):
    losses = {1e-1: float("nan"), 1e-3: 1.0}

    @contextmanager
    def method():
        yield {}

    def fit(fresh, budget):
        fresh["rate"] = budget.learning_rate
        return {}

    monkeypatch.setattr(tuning, "dev_loss", lambda fresh, dev, limit: losses[fresh["rate"]])
    assert tuning.best(method, fit, episodes, Budget(steps=3), order)[0].learning_rate == 1e-3


def test_a_fit_tells_its_trials(tmp_path):
    spec = {
        "name": "x",
        "backbones": {"tiny": {"random": "tiny-llama"}},
        "rows": ["lora"],
        "tasks": [{"task": "write_clear_read", "episodes": 2}],
        "data": {"source": "generated"},
        "training": {"task": "write_clear_read", "episodes": 5, "dev": 2, "learning_rates": [0.5, 1e-3]},
        "budget": {"steps": 2, "batch_size": 2, "accumulation": 1},
        "run": {"executor": "inline", "device": "cpu"},
    }
    experiment = Experiment.model_validate(spec).model_dump(mode="json", by_alias=True)
    request = {"experiment": experiment, "backbone": "tiny", "row": "lora", "seed": 42, "results": str(tmp_path)}
    facts = jobs.run({**request, "kind": "fit"})
    assert [t["learning_rate"] for t in facts["trials"]] == [0.5, 1e-3]
    assert facts["budget"]["learning_rate"] == min(facts["trials"], key=lambda t: t["dev_loss"])["learning_rate"]
    assert facts["episodes"] == 3
    assert len(list((tmp_path / "fits").glob("*/fit.json"))) == 2  # the best is one of them
    jobs.run({**request, "kind": "evaluate"})
    (record,) = tmp_path.rglob("record.json")
    assert len(json.loads(record.read_text())["provenance"]["fit"]["trials"]) == 2

"""Backbones trained here: made once, whole or not at all, known by their weights, restored where they came with us."""

from __future__ import annotations

import json

import pytest
import torch

from harness import trained
from harness.backbones import open_backbone
from harness.episodes import Message
from harness.errors import HarnessError
from harness.experiment import BackboneSpec, RunSpec
from harness.tasks.recall import KEYS, VALUES


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A recipe of two steps, and empty places to keep what it makes."""
    torch.set_num_threads(1)
    plan = trained.recipe("recall").model_dump(mode="json")
    plan["shape"] |= {"hidden_size": 16, "intermediate_size": 16, "head_dim": 8}
    plan["budget"] |= {"steps": 2, "batch_size": 4}
    plan |= {"settings": {"mixed": [8]}, "episodes": 64}
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "small.json").write_text(json.dumps(plan))
    monkeypatch.setattr(trained, "RECIPES", tmp_path / "recipes")
    monkeypatch.setattr(trained, "REFERENCE", tmp_path / "reference")
    monkeypatch.setenv("DELTA_MEM_CACHE", str(tmp_path / "cache"))
    return BackboneSpec(trained="small")


def test_a_recipe_is_followed_once_and_anew_where_its_weights_changed(small, monkeypatch):
    made = trained.folder("small")
    assert [p.name for p in made.parent.iterdir() if p.is_dir()] == [made.name]  # no work folder is left
    backbone = open_backbone(small, RunSpec(device="cpu"))
    assert backbone.digest == json.loads((made / "digest.json").read_text())["source"]
    ids, owner = backbone.encode([Message("red cup"), Message("cup")], answer_next=True)
    assert (len(ids), owner) == (5, [0, 0, 0, 1, 1])
    weights = (made / "model.safetensors").read_bytes()
    (made / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert (trained.folder("small") / "model.safetensors").read_bytes() == weights  # the same on one machine

    made.rename(trained.REFERENCE.parent / "reference-of-another-machine")
    trained.REFERENCE.mkdir()
    (trained.REFERENCE.parent / "reference-of-another-machine").rename(
        trained.REFERENCE / trained.recipe("small").address[:16]
    )
    monkeypatch.setattr(trained, "_make", lambda *_: pytest.fail("trained although it came with the repository"))
    assert open_backbone(small, RunSpec(device="cpu")).digest == backbone.digest


def test_an_unknown_recipe_gets_the_nearest_name():
    with pytest.raises(HarnessError, match="did you mean 'recall'"):
        trained.folder("recal")


def test_every_word_of_the_task_is_one_token():
    tokenizer = trained.word_tokenizer(sorted({*KEYS, *VALUES}))
    ids = tokenizer(" ".join((*KEYS, *VALUES)), add_special_tokens=False)["input_ids"]
    assert len(set(ids)) == len(ids) == len(KEYS) + len(VALUES)
    assert tokenizer.unk_token_id not in ids

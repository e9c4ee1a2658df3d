"""Tiny backbones that are trained here, in minutes, from a recipe kept in the repository.

A recipe names a shape, a task whose histories stand in the prompt, a budget and a seed. What it gives differs between
machines in the last bits, and fits belong to exact weights: so the weights that published fits were made on come with
the repository, and are made anew only where they are missing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, rms_norm
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, set_seed

from harness import cache
from harness.episodes import Episode, Message, digest
from harness.errors import HarnessError, nearest
from harness.experiment import Budget, DataSpec
from harness.progress import Progress
from harness.tasks import task

if TYPE_CHECKING:
    from harness.backbones import Backbone

RECIPES = Path(__file__).with_name("recipes")
REFERENCE = Path(__file__).parents[1] / "results" / "reference" / "backbones"
"""Weights that came with the repository."""
VERSION = 1
"""Raised whenever the same recipe would now give other weights."""
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'assistant' %}<|im_end|> {% endif %}"
    "{{ message['content'] }} {% endfor %}"
)
"""One mark between what is said and what is said next, so that a question with its answer has the form of a pair."""


class Recipe(BaseModel):
    """All that the weights follow from, but for arithmetic."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: dict[str, Any]
    """Of transformers' AutoConfig; the vocabulary is the task's words."""
    task: str
    settings: dict[str, Any]
    episodes: int
    budget: Budget
    seed: int

    @property
    def address(self) -> str:
        return digest([VERSION, TEMPLATE, self.model_dump(mode="json")])


@dataclass
class Batch:
    """Conversations [B, T], padded on the right; labels are ``IGNORED`` but for answers and what ends them."""

    ids: Tensor
    labels: Tensor
    mask: Tensor


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        HarnessError: there is none.
    """
    known = {path.stem: path for path in RECIPES.glob("*.json")}
    if name not in known:
        raise HarnessError(f"unknown recipe '{name}'; {nearest(name, known)}")
    return Recipe.model_validate_json(known[name].read_text(encoding="utf-8"))


def folder(name: str, progress: Progress | None = None) -> Path:
    """A recipe's model in Hugging Face layout, weights in bf16; trained now where it is not stored.

    A training that was cut off goes on from its last checkpoint; the folder appears when it is whole, and one of whose
    files a bit has changed since is made anew.
    """
    made = recipe(name)
    target = cache.place(f"{name}-{made.address[:16]}")
    if kept := stored(name):
        return kept
    if cache.whole(target):
        return target
    work = target.with_name(f".{target.name}.work")
    put = cache.put(target, lambda whole: _make(made, work, whole, progress or Progress(None)))
    shutil.rmtree(work, ignore_errors=True)
    return put


def stored(name: str) -> Path | None:
    """The folder of a recipe's weights that came with the repository; None where none did.

    Raises:
        HarnessError: they have changed since.
    """
    kept = REFERENCE / recipe(name).address[:16]
    if not kept.is_dir():
        return None
    try:
        unchanged = identity(kept) == cache.source(kept)
    except (SafetensorError, ValueError, KeyError):
        unchanged = False
    if not unchanged:
        raise HarnessError(f"{kept} is not as it came with the repository; restore it, or delete it to train it anew")
    return kept


def identity(folder: Path) -> str:
    """Digest of weights and vocabulary."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return ""
    tensors = {name: x.view(torch.int16).flatten().tolist() for name, x in load_file(weights).items()}
    return digest([tensors, json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]])


def _make(made: Recipe, work: Path, whole: Path, progress: Progress) -> dict[str, Any]:
    """Train in ``work``, leave the model in ``whole``, and give what is to be known of it."""
    from harness import training

    episodes = task(made.task).load(DataSpec(seed=made.seed), "train", made.settings, made.episodes).episodes
    backbone = _untrained(made, episodes)
    model, width = backbone.model, backbone.model.config.hidden_size
    # Thrown away afterwards: they ask that a token's first layer keeps it apart from the one before it, on which
    # induction waits. Without them a model of this size tells values without their keys for thousands of steps.
    model.probes = nn.ModuleList(nn.Linear(width, model.config.vocab_size, bias=False) for _ in range(2))
    report = training.fit(
        model,
        episodes,
        lambda batch: _collate(backbone, batch),
        _loss,
        backbone=backbone,
        budget=made.budget,
        seed=made.seed,
        workdir=work / "trainer",
        progress=progress,
        alone=True,
    )
    del model.probes
    model.to(torch.bfloat16).save_pretrained(whole)
    backbone.tokenizer.save_pretrained(whole)
    facts = {"source": identity(whole), "address": made.address, "recipe": made.model_dump(mode="json")}
    return {**facts, "report": report.as_dict()}


def _untrained(made: Recipe, episodes: Sequence[Episode]) -> Backbone:
    from harness.backbones import Backbone
    from harness.experiment import BackboneSpec

    tokenizer = word_tokenizer(sorted({w for e in episodes for m in e.history.messages for w in m.content.split()}))
    config = AutoConfig.for_model(
        **made.shape,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    set_seed(made.seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return Backbone(BackboneSpec(trained="untrained"), model, tokenizer, "")


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A token a word, and the marks of padding, of the unknown and of a turn's end."""
    marks = {"pad_token": "<|endoftext|>", "unk_token": "<|unknown|>", "eos_token": "<|im_end|>"}
    vocabulary = {word: n for n, word in enumerate([*marks.values(), *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=marks["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks)
    fast.chat_template = TEMPLATE
    return fast


def _collate(backbone: Backbone, episodes: Sequence[Episode]) -> Batch:
    """Each history, then its questions with their answers."""
    from harness.training import IGNORED

    rows: list[tuple[list[int], list[bool]]] = []
    for e in episodes:
        asked = [m for q in e.questions for m in (Message(q.text), Message(q.answers[0], "assistant"))]
        tokens, owner = backbone.encode([*e.history.messages, *asked])
        first = len(e.history.messages)
        answers = [n >= first and (n - first) % 2 == 1 for n in owner]
        wanted = [now or before for now, before in zip([*answers, False], [False, *answers], strict=True)]
        rows.append(([*tokens, backbone.turn_end_id], wanted))
    ids = torch.full((len(rows), max(len(row) for row, _ in rows)), backbone.pad_token_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for n, (row, wanted) in enumerate(rows):
        ids[n, : len(row)], mask[n, : len(row)] = torch.tensor(row), 1
        labels[n, : len(row)] = torch.where(torch.tensor(wanted), torch.tensor(row), IGNORED)
    return Batch(ids, labels, mask)


def _loss(model: Any, batch: Batch) -> tuple[Tensor, int]:
    """Cross-entropy of the answers; beside it, after the first layer, of each token and of the one before it."""
    output = model(input_ids=batch.ids, attention_mask=batch.mask, output_hidden_states=True)
    told = cross_entropy(output.logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten())
    real = batch.mask[:, 1:].bool()
    early = output.hidden_states[1][:, 1:][real]
    early = rms_norm(early, early.shape[-1:])
    this, before = (probe(early) for probe in model.probes)
    known = cross_entropy(this, batch.ids[:, 1:][real]) + cross_entropy(before, batch.ids[:, :-1][real])
    return told + known, int(batch.mask.sum())

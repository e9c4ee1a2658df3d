"""Trainable parameters of every method on a backbone, counted on the meta device: no weights, no memory, and no
network where the backbone's shape is kept in the repository.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness import config
from harness.backbones import Backbone
from harness.errors import HarnessError, nearest
from harness.experiment import BackboneSpec
from harness.random_weights import SHAPES, byte_tokenizer, shape
from harness.registry import resolve, row_names
from harness.sources import locate


@dataclass(frozen=True)
class Count:
    """What a row trains."""

    row: str
    trainable: int
    share: float
    """Of the backbone's parameters, a tied embedding counted once."""


def named(name: str) -> BackboneSpec:
    """The backbone that a name means: a local folder, a shape or the hub id that it is of, or EXPERIMENT/BACKBONE.

    Raises:
        HarnessError: it is none of these.
    """
    if Path(name, "config.json").is_file():
        return BackboneSpec(folder=name)
    name = _kept().get(name, name)
    experiment, slash, backbone = name.partition("/")
    if not slash:
        shape(name)
        return BackboneSpec(random=name)
    known = config.load(experiment).backbones
    if backbone not in known:
        raise HarnessError(f"the experiment '{experiment}' has no backbone '{backbone}'; {nearest(backbone, known)}")
    return known[backbone]


def outline(spec: BackboneSpec) -> Backbone:
    """A backbone's modules without weights, on the meta device.

    Raises:
        HarnessError: its configuration is not to be had.
    """
    name = spec.random or _kept().get(spec.hub or "")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape(name)) if name else _read(spec))
    return Backbone(spec, model.requires_grad_(False).eval(), byte_tokenizer(), "")


def _kept() -> dict[str, str]:
    """The shapes that are of a published model, by its hub id."""
    names = {file.stem: shape(file.stem).get("_name_or_path") for file in SHAPES.glob("*.json")}
    return {hub: name for name, hub in names.items() if hub}


def _read(spec: BackboneSpec) -> Any:
    source, revision = locate(spec)
    try:
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise HarnessError(
            f"the configuration of backbone '{source}' cannot be read ({reason}); name a folder that holds it, or run "
            "where its hub can be reached"
        ) from error


def size(backbone: Backbone) -> int:
    """Parameters of a backbone."""
    return sum(p.numel() for p in backbone.model.parameters())


def counts(backbone: Backbone, rows: list[str] | None = None) -> Iterator[Count]:
    """Each row's trainable parameters on an :func:`outline`; by default of every method and preset."""
    total = size(backbone)
    for row in rows or row_names():
        cls, settings = resolve(row)
        with torch.device("meta"):
            method = cls(settings, backbone, 0)
            trainable = method.trainable_parameters()
            method.close()
        yield Count(row, trainable, trainable / total)

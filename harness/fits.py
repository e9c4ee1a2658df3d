"""Fits have addresses: the same backbone, method, settings, episodes, budget and seed give the same parameters,
so they are learned once and restored ever after (DESIGN 7).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from harness.episodes import Episode, digest, episodes_digest
from harness.errors import HarnessError
from harness.experiment import Budget
from harness.method import MemoryMethod
from harness.progress import Progress
from harness.records import write_json

if TYPE_CHECKING:
    from harness.backbones import Backbone

LEARNED, REFERENCE = "fits", "reference/fits"
"""Where fits lie below the results folder: those learned here, and those that came with the repository."""


@dataclass(frozen=True)
class Fit:
    """Learned parameters on disk."""

    address: str
    folder: Path
    restored: bool
    """Came with the repository; false where it was learned in this results folder, now or before."""

    def facts(self) -> dict[str, Any]:
        """What a record says of the fit; its training report included."""
        report = json.loads((self.folder / "fit.json").read_text())
        return {**report, "address": self.address, "restored": self.restored}


def address(method: MemoryMethod, backbone: Backbone, episodes: Sequence[Episode], budget: Budget) -> str:
    """sha256 of all that the parameters are a function of; commit, versions and threads are not among it."""
    return digest(
        {
            "backbone": backbone.digest,
            "method": method.name,
            "config": method.config.learned_with(),
            "fit_version": method.FIT_VERSION,
            "episodes": episodes_digest(episodes),
            "budget": budget.model_dump(mode="json", exclude={"save_every"}),
            "seed": method.seed,
            "dtype": str(backbone.dtype),
        }
    )


def find(results: Path, address: str, *, retrain: bool = False) -> Path | None:
    """The folder of a stored fit; with ``retrain`` only one that was made here counts, not a reference."""
    for store in (LEARNED,) if retrain else (LEARNED, REFERENCE):
        folder = results / store / address[:16]
        if (folder / "fit.json").is_file():
            return folder
    return None


def obtain(
    method: MemoryMethod,
    backbone: Backbone,
    episodes: Sequence[Episode],
    budget: Budget,
    results: Path,
    progress: Progress,
    *,
    retrain: bool = False,
) -> Fit:
    """Restore the fit into ``method``, or learn it, store it and leave ``method`` with it."""
    name = address(method, backbone, episodes, budget)
    lock = results / ".locks" / f"{name[:16]}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # rows may share a fit: the second waits, and restores what the first has learned
        stored = find(results, name, retrain=retrain)
        if stored is None:
            return Fit(name, _learn(method, episodes, budget, results / LEARNED / name[:16], name, progress), False)
    restore(method, stored, name)
    return Fit(name, stored, stored.parent == results / REFERENCE)


def restore(method: MemoryMethod, folder: Path, address: str) -> None:
    """Load a stored fit.

    Raises:
        HarnessError: it is another fit's, or its bytes changed since it was stored.
    """
    report = json.loads((folder / "fit.json").read_text())
    if report["address"] != address:
        raise HarnessError(f"{folder} holds the fit of another address; delete it and run again")
    if report["adapter_hash"] != adapter_hash(folder):
        raise HarnessError(f"the parameters in {folder} have changed since they were stored; delete it and run again")
    method.load(folder)


def adapter_hash(folder: Path) -> str:
    """sha256 of a fit's parameter file."""
    with (folder / "adapter_model.safetensors").open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def save_module(module: Any, directory: Path, **facts: str) -> None:
    """A torch module that is not PEFT's, in bf16; what is saved is what a fit is, so the module is rounded too."""
    import torch
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in module.state_dict().items()}
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt", **facts})
    load_module(module, directory)


def load_module(module: Any, directory: Path) -> None:
    """Fill a module with what :func:`save_module` wrote.

    Raises:
        HarnessError: there is no file, or it is of another shape.
    """
    from safetensors.torch import load_file

    file = directory / "adapter_model.safetensors"
    if not file.is_file():
        raise HarnessError(f"{directory} holds no adapter_model.safetensors; fit the method again")
    try:
        module.load_state_dict(load_file(file))
    except RuntimeError as error:
        raise HarnessError(f"{file} is of a network of another shape; fit the method again") from error


def _learn(
    method: MemoryMethod, episodes: Sequence[Episode], budget: Budget, folder: Path, address: str, progress: Progress
) -> Path:
    """Train in a work folder that survives a kill; the fit appears under its name when it is whole."""
    work = folder.with_name(f".{folder.name}.work")
    with progress.piece("fit", _left(work / "trainer")):
        report = method.fit(episodes, budget, work / "trainer", progress)
    whole = work / "whole"
    method.save(whole)
    facts = {
        **report.as_dict(),
        "address": address,
        "adapter_hash": adapter_hash(whole),
        "method": method.name,
        "config": method.config.learned_with(),
        "fit_version": method.FIT_VERSION,
        "seed": method.seed,
        "trainable_parameters": method.trainable_parameters(),
    }
    write_json(whole / "fit.json", facts)
    if folder.is_dir():
        shutil.rmtree(folder)
    os.rename(whole, folder)
    shutil.rmtree(work)
    return folder


def _left(checkpoints: Path) -> float:
    """Share of the steps that a fit which was cut off has still to make."""
    states = [json.loads(path.read_text()) for path in checkpoints.glob("checkpoint-*/trainer_state.json")]
    return min((1 - s["global_step"] / s["max_steps"] for s in states), default=1.0)

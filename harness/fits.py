"""Fits have addresses: the same backbone, method, settings, episodes, budget and seed give the same parameters,
so they are learned once and restored ever after (DESIGN 7).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from harness import disk, ranks, seals
from harness.episodes import Episode, digest, episodes_digest
from harness.errors import HarnessError
from harness.experiment import Budget
from harness.method import MemoryMethod
from harness.progress import Progress
from harness.records import write_sealed

if TYPE_CHECKING:
    from harness.backbones import Backbone

PARAMETERS = "adapter_model.safetensors"
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
        report = seals.read(self.folder / "fit.json")
        told = {name: value for name, value in report.items() if name != "files"}
        return {**told, "address": self.address, "restored": self.restored}


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
    with ranks.led(FileLock(lock)):  # rows may share a fit: the second waits, and restores what the first has learned
        stored = ranks.told(find(results, name, retrain=retrain))
        if stored is None:
            folder = results / LEARNED / name[:16]
            with disk.writing(folder):
                return Fit(name, _learn(method, episodes, budget, folder, name, progress), False)
    restore(method, stored, name)
    return Fit(name, stored, stored.parent == results / REFERENCE)


def restore(method: MemoryMethod, folder: Path, address: str) -> None:
    """Load a stored fit.

    Raises:
        HarnessError: it is another fit's, or its bytes changed since it was stored.
    """
    report = seals.read(folder / "fit.json", f"delete {folder} and run again")
    if report["address"] != address:
        raise HarnessError(f"{folder} holds the fit of another address; delete it and run again")
    if wrong := changed(folder, report):
        raise HarnessError(f"{folder / wrong[0]} has changed since it was stored; delete {folder} and run again")
    method.load(folder)


def changed(folder: Path, report: dict[str, Any]) -> list[str]:
    """Files of a stored fit that are not those that its report tells; an older report tells of the parameters alone."""
    told = report.get("files") or {PARAMETERS: report["adapter_hash"]}
    found = seals.digests(folder)
    return [name for name, sha256 in told.items() if found.get(name) != sha256]


def adapter_hash(folder: Path) -> str:
    """sha256 of a fit's parameter file."""
    return seals.sha256(folder / PARAMETERS)


def save_module(module: Any, directory: Path, **facts: str) -> None:
    """A torch module that is not PEFT's, in bf16; what is saved is what a fit is, so the module is rounded too."""
    import torch
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in module.state_dict().items()}
    save_file(tensors, directory / PARAMETERS, metadata={"format": "pt", **facts})
    load_module(module, directory)


def load_module(module: Any, directory: Path) -> None:
    """Fill a module with what :func:`save_module` wrote.

    Raises:
        HarnessError: there is no file, or it is of another shape.
    """
    from safetensors.torch import load_file

    file = directory / PARAMETERS
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
    if report.ranks < ranks.count():
        raise HarnessError(
            f"method '{method.name}' learns in a loop of its own, which ranks cannot share; set run.fit_workers=1"
        )
    if not ranks.leads():
        method.load(ranks.told(None))
        return folder
    whole = work / "whole"
    shutil.rmtree(whole, ignore_errors=True)  # of a kill while it was saved
    method.save(whole)
    facts = {
        **report.as_dict(),
        "address": address,
        "adapter_hash": adapter_hash(whole),
        "files": seals.digests(whole),
        "method": method.name,
        "config": method.config.learned_with(),
        "fit_version": method.FIT_VERSION,
        "seed": method.seed,
        "trainable_parameters": method.trainable_parameters(),
    }
    write_sealed(whole / "fit.json", facts)
    if folder.is_dir():
        shutil.rmtree(folder)
    os.rename(whole, folder)
    shutil.rmtree(work)
    return ranks.told(folder)


def _left(checkpoints: Path) -> float:
    """Share of the steps that a fit which was cut off has still to make, as its checkpoints say."""
    left = [1.0]
    for path in checkpoints.glob("checkpoint-*/trainer_state.json"):
        with suppress(OSError, ValueError, KeyError):  # it is not whole, and the fit itself will see to that
            state = json.loads(path.read_text())
            left.append(1 - state["global_step"] / state["max_steps"])
    return min(left)

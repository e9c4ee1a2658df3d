"""Small fits that one worker and two ranks both make, for test_ranks.py: what the ranks found lies in a folder."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from harness import fits, ranks, training
from harness.errors import HarnessError
from harness.experiment import BackboneSpec, Budget, DataSpec, RunSpec
from harness.progress import Progress
from harness.registry import resolve

RANKS = 2
SETTINGS: dict[str, dict[str, Any]] = {
    "delta_mem_tsw": {},
    "delta_mem_ssw": {},
    "delta_mem_msw": {"recompute": 32},
    "delta_mem_tsw_release": {},
    "lora": {},
    "prefix_tuning": {"virtual_tokens": 4},
    "memgen": {"inference_latents": 2, "prompt_latents": 2},
    "mlp_memory": {},
}
"""Rows that learn, and settings that let them learn fast here."""
BUDGET = Budget(
    epochs=2,
    accumulation=4,
    learning_rate=3e-3,
    warmup_ratio=0.0,
    save_every=2,
    max_write_tokens=48,
    max_read_tokens=48,
)
"""Of eleven episodes an epoch is three steps, and the last of them has a forward pass less."""
ONCE = BUDGET.model_copy(update={"epochs": 1})
TWICE = ("lora", "delta_mem_tsw")
"""Rows that go on into a second epoch; for the others one has to do."""
CUT_AT = 3


class Cut(Progress):
    """Ends a fit in the middle, after its first checkpoint."""

    def update(self, what: str, done: int, total: int, **facts: Any) -> None:
        if what == "fit" and done == CUT_AT:
            raise InterruptedError


def opened(row: str):
    from harness.backbones import open_backbone

    cls, config = resolve(row, SETTINGS[row])
    return cls(config, open_backbone(BackboneSpec(random="tiny-llama"), RunSpec(device="cpu")), 1)


def episodes():
    from harness.tasks import task

    found = task("write_clear_read").load(DataSpec(source="generated"), "train", {}, 11).episodes
    return [e.with_questions(e.questions[:1]) for e in found]


def learned(method) -> dict[str, torch.Tensor]:
    """A copy of a method's parameters."""
    from peft import get_peft_model_state_dict

    module = getattr(method, "parts", None) or getattr(method, "network", None)
    found = module.state_dict() if module else get_peft_model_state_dict(method.peft)
    return {name: parameter.detach().clone() for name, parameter in found.items()}


def by_method(row: str, folder: Path, progress: Progress | None = None):
    """Losses and parameters of a method's fit."""
    method = opened(row)
    before = learned(method)
    budget = BUDGET if row in TWICE else ONCE
    report = method.fit(episodes(), budget, folder, progress or Progress(None))
    after = learned(method)
    moved = max(float((after[n] - before[n]).abs().max()) for n in after)
    return report.as_dict(), after, moved


def cut(row: str, folder: Path) -> None:
    """A fit that ends in its third step; its checkpoints stay."""
    try:
        by_method(row, folder, Cut(None))
    except InterruptedError:
        return
    raise AssertionError("the fit was not cut off")


def saved(work) -> list[int]:
    """The steps after which this process wrote a checkpoint."""
    steps, whole = [], training.EpisodeTrainer._save_checkpoint

    def watched(trainer, *arguments) -> None:
        steps.append(trainer.state.global_step)
        whole(trainer, *arguments)

    training.EpisodeTrainer._save_checkpoint = watched
    try:
        work()
    finally:
        training.EpisodeTrainer._save_checkpoint = whole
    return steps


class Odd(torch.nn.Module):
    """A parameter that every pass reaches, one that a single one does, and one that none does."""

    def __init__(self) -> None:
        super().__init__()
        self.often, self.seldom, self.never = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))


def odd(folder: Path):
    """A fit whose forward passes draw random numbers, as dropout would, and reach parameters unevenly."""
    model = Odd()

    def loss(model: Odd, batch: list[int]):
        torch.rand(1), random.random()
        value = (model.often * batch[0]).square().mean()
        return (value + model.seldom.sum() if batch[0] == 7 else value), 10 + batch[0]

    report = training.fit(
        model,
        range(11),
        list,
        loss,
        backbone=opened("lora").backbone,
        budget=BUDGET.model_copy(update={"weight_decay": 0.1, "learning_rate": 0.03}),
        seed=1,
        workdir=folder,
        progress=Progress(None),
    )
    return report.as_dict(), {n: p.detach() for n, p in model.named_parameters()}, 1.0


def unsynchronised(folder: Path):
    """A fit whose ranks tell each other their losses and not their gradients."""
    whole = ranks.summed
    ranks.summed = lambda _, *numbers: whole([], *numbers)
    try:
        return by_method("delta_mem_tsw", folder)
    finally:
        ranks.summed = whole


def stored(folder: Path) -> dict[str, Any]:
    """A fit by its address, made together and then restored; what this rank holds of it."""
    found = []
    for _ in range(2):
        method = opened("lora")
        fit = fits.obtain(method, method.backbone, episodes(), BUDGET, folder, Progress(None))
        found.append({**fit.facts(), "held": float(sum(p.double().sum() for p in learned(method).values()))})
    return {"first": found[0], "again": found[1]}


def own_loop(folder: Path) -> str:
    """The refusal of a method that trains by itself."""
    method = opened("lora")
    method.fit = lambda *_: training.FitReport(steps=1)
    try:
        fits.obtain(method, method.backbone, episodes()[:3], BUDGET, folder, Progress(None))
    except HarnessError as error:
        return str(error)
    return ""


def alone(folder: Path) -> int:
    """Ranks of a fit that one process makes for itself while the other does nothing."""
    if not ranks.leads():
        return 1
    model = Odd()
    report = training.fit(
        model,
        range(4),
        list,
        lambda model, batch: (model.often.sum() * batch[0], 1),
        backbone=opened("lora").backbone,
        budget=Budget(steps=1, accumulation=2),
        seed=1,
        workdir=folder,
        progress=Progress(None),
        alone=True,
    )
    return report.ranks


def main(rank: int, folder: Path) -> None:
    """What one of two ranks does."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=RANKS)
    found: dict[str, Any] = {row: by_method(row, folder / row) for row in SETTINGS}
    found["odd"] = odd(folder / "odd")
    found["unsynchronised"] = unsynchronised(folder / "unsynchronised")
    found["saved"] = saved(lambda: cut("delta_mem_tsw", folder / "cut"))
    dist.barrier()
    found["resumed"] = by_method("delta_mem_tsw", folder / "cut")
    found["widened"] = by_method("delta_mem_tsw", folder / "narrow")
    cut("delta_mem_tsw", folder / "wide")
    found["stored"] = stored(folder / "results")
    found["own loop"] = own_loop(folder / "refused")
    found["alone"] = alone(folder / "alone")
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()

"""A fit that two one-thread ranks share, against one worker with one thread: seconds and losses."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks._measured import Measured

GOAL = 1.6
"""How many times faster two ranks on two cores must be."""
LOSS = 1e-5
"""Nats a token by which a step's loss may differ."""


def measure(backbone: str, row: str, *, count: int = 2, steps: int = 4, accumulation: int = 8) -> list[Measured]:
    """Seconds a step of one worker and of ``count`` ranks, their ratio, and the largest difference of a step's loss.

    Args:
        backbone: As in :meth:`harness.session.Session.open`.
        row: A method that learns, or a preset of one.
        accumulation: Forward passes a step, of one episode each.
    """
    one, many = (_fitted(backbone, row, n, steps, accumulation) for n in (1, count))
    seconds = [report["seconds"] / report["steps"] for report in (one, many)]
    apart = max(abs(a - b) for a, b in zip(one["losses"], many["losses"], strict=True))
    return [
        Measured(f"{row}.1.step", seconds[0], "s"),
        Measured(f"{row}.{count}.step", seconds[1], "s"),
        Measured(f"{row}.ratio", seconds[0] / seconds[1], at_least=GOAL),
        Measured(f"{row}.loss_difference", apart, "nats", at_most=LOSS),
    ]


def _fitted(backbone: str, row: str, count: int, steps: int, accumulation: int) -> dict:
    """The report of a fit by so many fresh processes."""
    from torch.multiprocessing import start_processes

    with tempfile.TemporaryDirectory() as folder:
        start_processes(_rank, (count, Path(folder), backbone, row, steps, accumulation), count, start_method="spawn")
        return json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))


def _rank(index: int, count: int, folder: Path, backbone: str, row: str, steps: int, accumulation: int) -> None:
    import torch

    from harness import Session, ranks
    from harness.experiment import Budget, DataSpec, RunSpec
    from harness.progress import Progress
    from harness.tasks import task

    torch.set_num_threads(1)
    if count > 1:
        meeting = f"file://{folder / 'meeting'}"
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=index, world_size=count)
    data, settings = DataSpec(source="generated"), {"facts": 12, "values": 12}
    episodes = task("write_clear_read").load(data, "train", settings, steps * accumulation).episodes
    with Session.open(backbone, row, run=RunSpec(device="cpu")) as session:
        budget = Budget(steps=steps, accumulation=accumulation)
        report = session.method.fit(episodes, budget, folder / "trainer", Progress(None))
    if ranks.leads():
        (folder / "report.json").write_text(json.dumps(report.as_dict()), encoding="utf-8")

"""One fit on several workers: ranks that share the forward passes of every step, under Ray Train.

Each rank runs the whole job with a Trainer of its own, over the same episodes in the same order, and takes its turn at
the forward passes of a step; their gradients are then summed and all make the same step. What is learned is what one
worker learns, but for the order in which a sum is taken. Rank 0 leads: locks, files and progress are its own.

A process that is no rank is a group of one, for which nothing here does anything.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from harness.errors import HarnessError
from harness.experiment import RunSpec

if TYPE_CHECKING:
    from torch.nn import Parameter

    from harness.workers import Surroundings

ATTEMPTS = 3
"""Times that one fit may lose a rank; each goes on from the last checkpoint."""
PATIENCE = 24 * 3600
"""Seconds for which a rank waits for another: a fit may wait for one that another job is making."""
ENVIRONMENT = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",  # the workers whose places are taken have to end first
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


class RankLostError(Exception):
    """Another rank ended in the middle of what all do together."""


# --- in a rank -------------------------------------------------------------------------------------------------


def count() -> int:
    """Ranks of this fit; 1 in a process that is none."""
    group = _group()
    return group.get_world_size() if group else 1


def index() -> int:
    """This rank's number, from 0."""
    group = _group()
    return group.get_rank() if group else 0


def leads() -> bool:
    """Whether this process writes what is to be written."""
    return index() == 0


def collectives() -> str:
    """What carries the ranks' sums: gloo, nccl; empty in a process that is no rank."""
    group = _group()
    return "" if not group else "nccl" if "nccl" in group.get_backend_config() else "gloo"


@contextmanager
def led(lock: AbstractContextManager[Any]) -> Iterator[None]:
    """Hold a lock, which the leader takes for all of them."""
    if not leads():
        yield
        return
    with lock:
        yield


def told(value: Any) -> Any:
    """The leader's value, in every rank; all wait here for each other."""
    group = _group()
    if not group:
        return value
    box = [value]
    with _together():
        group.broadcast_object_list(box)
    return box[0]


def summed(parameters: Sequence[Parameter], *numbers: float) -> list[float]:
    """Sum the gradients over the ranks, in place, and some numbers beside them.

    A parameter that no rank's passes have reached is left without a gradient, as it is in one process.
    """
    import torch

    group = _group()
    beside = torch.tensor([*numbers, *(p.grad is not None for p in parameters)], dtype=torch.float64)
    with _together():
        group.all_reduce(beside)
        for parameter, reached in zip(parameters, beside[len(numbers) :].tolist(), strict=True):
            if reached:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                group.all_reduce(parameter.grad)
    return beside[: len(numbers)].tolist()


def _group() -> Any:
    """torch.distributed, where this process is one of several ranks."""
    import torch.distributed as group

    return group if group.is_available() and group.is_initialized() else None


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what gloo and NCCL raise where a connection ends
        raise RankLostError(f"rank {index()} lost another one ({error})") from error


def _rank(given: dict[str, Any]) -> dict[str, Any]:
    """What every rank does: the job, as a worker would.

    No variable tells transformers and accelerate of the ranks: they would share the work out a second time.
    """
    import ray.train
    import torch.distributed as group

    from harness.workers import Worker

    worker = Worker()
    if reason := worker.settle(given["surroundings"]):
        raise HarnessError(reason)
    here, patience = ray.train.get_context(), timedelta(seconds=PATIENCE)
    group.init_process_group(
        given["backend"], f"file://{given['meeting']}", patience, here.get_world_size(), here.get_world_rank()
    )
    from harness import jobs

    result = jobs.run(given["request"] if leads() else {**given["request"], "progress": None}, worker.shelf)
    group.destroy_process_group()
    return result


# --- beside the ranks ------------------------------------------------------------------------------------------


def fit(request: dict[str, Any], run: RunSpec, surroundings: Surroundings) -> dict[str, Any]:
    """Have a fit made by ``run.fit_workers`` ranks of a worker's size each, from a driver of a Ray cluster.

    Args:
        surroundings: What every rank has to find, as every worker has.

    Returns:
        The reply: ``result``, ``error`` (the user's mistake) or ``failure`` (ours).
    """
    os.environ.update(ENVIRONMENT)
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    folder = (Path(request["results"]) / ".locks" / "ranks").absolute()  # where all nodes see it
    folder.mkdir(parents=True, exist_ok=True)
    cause = ""
    for _ in range(ATTEMPTS):
        meeting = folder / uuid.uuid4().hex
        try:
            return {"result": _trainer(request, run, surroundings, meeting).fit().return_value}
        except (TrainingFailedError, RayError) as error:
            failures = list(getattr(error, "worker_failures", {0: error}).values())
            for failure in failures:
                if isinstance(failure, HarnessError):
                    return {"error": str(failure)}
            if not all(map(_is_loss, failures)):
                return {"failure": str(error)}
            cause = " ".join(str(min(failures, key=lambda f: isinstance(f, RankLostError))).split())[:400]
        finally:
            meeting.unlink(missing_ok=True)
    what = f"{request['kind']} of {request['backbone']}/{request['row']}"
    return {"error": f"the {what} lost a rank {ATTEMPTS} times ({cause}); give it more memory and run again"}


def _trainer(request: dict[str, Any], run: RunSpec, surroundings: Surroundings, meeting: Path) -> Any:
    """Ray's trainer for one attempt, whose ranks find each other in the file ``meeting``."""
    import ray.train.torch
    from ray.train.backend import Backend

    train: Any = ray.train  # whose types are those of its first version

    class Apart(train.torch.TorchConfig):
        """Ranks that meet by a file, not by a port that anyone could reach, each of which sees its own GPU alone."""

        @property
        def backend_cls(self) -> type:
            return Backend  # which starts nothing

    # NCCL wants a GPU a rank; where ranks share one, their sums go through memory.
    backend = "cpu:gloo,cuda:nccl" if run.gpus_per_worker >= 1 else "gloo"
    given = {"request": request, "surroundings": surroundings, "backend": backend, "meeting": str(meeting)}
    return train.torch.TorchTrainer(
        _rank,
        train_loop_config=given,
        torch_config=Apart(backend=backend),
        scaling_config=train.ScalingConfig(
            num_workers=run.fit_workers,
            use_gpu=run.gpus_per_worker > 0,
            resources_per_worker={"CPU": run.cpus_per_worker, "GPU": run.gpus_per_worker},
        ),
        run_config=train.RunConfig(
            name=meeting.parent.name,
            storage_path=str(meeting.parents[1]),
            failure_config=train.FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
            worker_runtime_env={"env_vars": _environment(run)},
        ),
    )


def _environment(run: RunSpec) -> dict[str, str]:
    """Environment variables of a rank: its threads and, on a cluster of this machine's own, the one way to others."""
    from harness.workers import THREADS

    found = {name: str(math.ceil(run.cpus_per_worker)) for name in THREADS}
    if not os.environ.get("RAY_ADDRESS"):
        interfaces = psutil.net_if_addrs().items()
        loopback = next(name for name, told in interfaces if any(a.address == "127.0.0.1" for a in told))
        found |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    return found


def _is_loss(failure: BaseException) -> bool:
    """Whether a rank, or its place, was lost, and not that its work failed."""
    return isinstance(failure, RankLostError) or type(failure).__module__.split(".")[0] == "ray"

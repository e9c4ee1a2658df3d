"""Any lm-eval task under any method: its documents are flat questions without a history.

What a method then adds is what it has learned, and, where it is written while the prompt is read, what it keeps of it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval's bars would stand between the lines of the table

import torch
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from harness import provenance
from harness.errors import HarnessError, nearest
from harness.lm import MemoryLM
from harness.memories import Memories
from harness.session import Session
from harness.tasks import tasks
from harness.tasks._lm_eval import prepare_ifeval

BOOTSTRAPS = 1000
"""Draws for standard errors of metrics that have no formula."""


def evaluate(
    names: Sequence[str], session: Session, *, limit: int | None = None, include: Sequence[Path] = ()
) -> dict[str, Any]:
    """lm-eval's results, and where they came from.

    Args:
        names: Tasks, groups or tags of lm-eval, or of the YAML files under ``include``.
        session: The method on its backbone, and the condition.
        limit: Documents a task at most, the first ones.

    Returns:
        ``results``, ``groups``, ``versions``, ``n-shot`` and ``n-samples`` as lm-eval gives them, and ``provenance``;
        no document and no answer.

    Raises:
        HarnessError: a task is unknown, its data cannot be had, or it asks for what a memory does not give.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = _manager(names, include)
    if any("ifeval" in name for name in names):
        prepare_ifeval()
    lm = MemoryLM(Memories(session.method), session.condition, batch_size=session.batch_size)
    try:
        loaded = manager.load(list(names))
    except (OSError, ValueError, RuntimeError) as error:  # what `datasets` raises where it finds neither net nor cache
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise HarnessError(
            f"the task '{', '.join(names)}' cannot be had ({reason}); go online, or mend its YAML file"
        ) from error
    found = simple_evaluate(
        lm,
        tasks=[*loaded["tasks"].values()],
        limit=limit,
        bootstrap_iters=BOOTSTRAPS,
        log_samples=False,
        task_manager=manager,
    )
    if found is None:
        raise HarnessError("lm-eval gave no result; run on rank 0")
    kept = ("results", "groups", "versions", "n-shot", "n-samples", "higher_is_better")
    return {**{key: found[key] for key in kept if key in found}, "provenance": _provenance(session, limit)}


def _manager(names: Sequence[str], include: Sequence[Path]) -> TaskManager:
    """An index that knows the tasks: of ``include`` alone where that is enough, for lm-eval's own take long to read."""
    for path in include:
        if not path.is_dir():
            raise HarnessError(f"--include-path names {path}, which is no folder; name one with lm-eval's YAML files")
    paths = [str(path) for path in include]
    if include:
        manager = TaskManager(include_path=paths, include_defaults=False)
        if set(names) <= set(manager.all_tasks):
            return manager
    manager = TaskManager(include_path=paths)
    for name in names:
        if name in manager.all_tasks:
            continue
        if name in tasks():
            raise HarnessError(f"'{name}' is a task of this project; ask it in an experiment, with its histories")
        raise HarnessError(f"lm-eval knows no task '{name}'; {nearest(name, manager.all_tasks)}")
    return manager


def _provenance(session: Session, limit: int | None) -> dict[str, Any]:
    method, backbone = session.method, session.backbone
    commit, dirty = provenance.code()
    return {
        "method": method.name,
        "config": method.config.model_dump(mode="json"),
        "fit": session.fit,
        "condition": session.condition,
        "backbone": backbone.describe(),
        "limit": limit,
        "batch_size": session.batch_size,
        "seed": method.seed,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "attention": backbone.model.config._attn_implementation,
        "device": provenance.device_name(backbone.device),
        "threads": torch.get_num_threads(),
        "commit": commit,
        "dirty": dirty,
        "versions": provenance.versions(),
    }


def lines(found: dict[str, Any]) -> list[list[str]]:
    """Task, metric, filter, value and standard error, as lm-eval prints them."""
    rows = []
    for name, metrics in {**found.get("groups", {}), **found["results"]}.items():
        for key, value in metrics.items():
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = metrics.get(f"{metric}_stderr,{filtered}")
            rows.append([name, metric, filtered, f"{value:.4f}", f"{error:.4f}" if isinstance(error, float) else ""])
    return rows

"""Checkpoints of a fit: it goes on from a whole one, and from no other.

The Trainer writes a checkpoint file by file under its final name. Its seal comes last: the digest of every file. What
was cut off, changed, or added to afterwards has none that holds, and is taken away.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints

from harness import seals
from harness.errors import HarnessError
from harness.progress import Progress
from harness.records import write_sealed

FILE = "whole.json"


class Sealing(TrainerCallback):
    """Seals each checkpoint once all of it is written."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.should_save:
            seal(Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


def seal(checkpoint: Path) -> None:
    """Say that a checkpoint is whole as it lies there."""
    write_sealed(checkpoint / FILE, {"files": _files(checkpoint)})


def last(workdir: Path, progress: Progress) -> Path | None:
    """The newest whole checkpoint; those after it are told and taken away. None where there is none."""
    found = [Path(name) for name in sort_checkpoints(str(workdir))] if workdir.is_dir() else []
    for checkpoint in reversed(found):
        if _whole(checkpoint):
            return checkpoint
        progress.say(f"{checkpoint} was not whole, or is not as it was written; the fit goes on from an earlier state")
        shutil.rmtree(checkpoint, ignore_errors=True)
    return None


def _whole(checkpoint: Path) -> bool:
    try:
        told = seals.read(checkpoint / FILE)["files"]
    except (HarnessError, KeyError):
        return False
    return _files(checkpoint) == told


def _files(checkpoint: Path) -> dict[str, str]:
    return {name: sha256 for name, sha256 in seals.digests(checkpoint).items() if name != FILE}

"""Disks that are full or read-only: path and mend are named, and nothing stands under its final name in part."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from harness import jobs, records
from harness.errors import HarnessError
from harness.experiment import Experiment
from tests.faults import disks

SPEC = {
    "name": "x",
    "backbones": {"tiny": {"random": "tiny-llama"}},
    "rows": ["delta_mem_tsw"],
    "tasks": [{"task": "write_clear_read", "episodes": 2, "max_new_tokens": 2}],
    "seeds": [1],
    "data": {"source": "generated"},
    "training": {"task": "write_clear_read", "episodes": 2},
    "budget": {"steps": 2, "batch_size": 1, "accumulation": 1, "save_every": 1},
    "run": {"executor": "inline", "device": "cpu", "workers": 1},
}
CELL = "x/tiny/delta_mem_tsw/seed1/write_clear_read/replayed/own"


def job(results, kind):
    spec = Experiment.model_validate(SPEC).model_dump(mode="json", by_alias=True)
    asked = {"kind": kind, "experiment": spec, "backbone": "tiny", "row": "delta_mem_tsw", "seed": 1}
    return jobs.run({**asked, "results": str(results), "progress": str(results / "x/logs/job.jsonl")})


@pytest.fixture(autouse=True)
def _no_gates(monkeypatch):
    monkeypatch.setattr(jobs, "_prove", lambda *_: None)


@pytest.fixture
def small(tmp_path):
    """A disk of its own with room for everything."""
    with disks.disk(tmp_path / "results", 10_000_000) as mounted:
        if not mounted:
            pytest.skip("this user may not mount a disk to fill")
        yield tmp_path / "results"


def whole(results: Path) -> None:
    """What stands under a final name can be read to its end."""
    for path in results.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(results).parts)
        if hidden or not path.is_file():
            continue
        if path.name == "record.json":
            records.load(path)
        elif path.suffix == ".parquet":
            pd.read_parquet(path)
        elif path.suffix == ".safetensors":
            load_file(path)


@pytest.mark.parametrize(
    ("fitted", "room"),
    [(False, 0), (False, 40_960), (True, 4_096), (True, 12_288)],
    ids=["progress", "checkpoint", "journal", "record"],
)
def test_a_full_disk_is_told_with_path_and_mend_and_the_same_command_goes_on(fitted, room, small):
    """The room lasts until the file that the case is named after."""
    if fitted:
        job(small, "fit")
    ballast = disks.fill(small, room)
    with pytest.raises(HarnessError, match=rf"^{small}\S* .*its disk is full; free some space there") as told:
        job(small, "evaluate" if fitted else "fit")
    print(told.value)
    whole(small)
    assert not (small / CELL / "record.json").exists()
    ballast.unlink()
    job(small, "fit")
    job(small, "evaluate")
    assert records.load(small / CELL / "record.json").questions == 4


def test_a_read_only_disk_is_told(small):
    job(small, "fit")
    disks.change(small, "ro")
    for kind in ("fit", "evaluate"):
        with pytest.raises(HarnessError, match=rf"^{small}\S* .*its disk is read-only; mount it writable"):
            job(small, kind)
    whole(small)
    disks.change(small, "rw")
    job(small, "evaluate")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    results = tmp_path_factory.mktemp("fitted")
    job(results, "fit")
    return results


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("journal.jsonl", errno.EIO),
        ("samples.parquet", errno.EDQUOT),
        ("record.json", errno.EACCES),
        ("evaluated.json", errno.ENOSPC),
    ],
)
def test_a_refusal_at_each_file_of_an_evaluation_names_it(name, number, fitted, tmp_path, monkeypatch):
    """The system's call that would put the file under its name, or add to it, is refused."""
    shutil.copytree(fitted, tmp_path, dirs_exist_ok=True)
    plain_replace, plain_open = os.replace, Path.open

    def refuse(path):
        if Path(path).name == name:
            raise OSError(number, os.strerror(number), str(path))

    def replace(source, target):
        refuse(target)
        plain_replace(source, target)

    def opened(self, mode="r", *rest, **options):
        if mode == "a":
            refuse(self)
        return plain_open(self, mode, *rest, **options)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(HarnessError, match=rf"{name} .*[;,] "):
        job(tmp_path, "evaluate")
    assert not (tmp_path / CELL / "samples.parquet").exists() or name in ("record.json", "evaluated.json")
    assert not list(tmp_path.glob(f"x/**/{name}")) or name == "journal.jsonl"
    assert not [p for p in tmp_path.rglob(".*.json.*") if p.is_file()]
    whole(tmp_path)

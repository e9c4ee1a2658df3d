"""Checkpoints: a fit goes on from a whole one; what is not whole is told and taken away."""

import json

import pytest

from harness import checkpoints
from harness.progress import Progress

FILES = {"trainer_state.json": b"{}", "optimizer.pt": b"moments", "rng_state.pth": b"random"}


@pytest.fixture
def workdir(tmp_path):
    """Three sealed checkpoints, of which the names do not sort as the steps do."""
    for step in (2, 9, 10):
        folder = tmp_path / "trainer" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
        checkpoints.seal(folder)
    return tmp_path / "trainer"


@pytest.fixture
def progress(tmp_path):
    return Progress(tmp_path / "said.jsonl")


def said(progress):
    return (
        [json.loads(line)["said"] for line in progress.path.read_text().splitlines()] if progress.path.exists() else []
    )


def test_the_newest_whole_one_is_taken(workdir, progress):
    assert checkpoints.last(workdir, progress).name == "checkpoint-10"
    assert said(progress) == []
    assert checkpoints.last(workdir / "nowhere", progress) is None


@pytest.mark.parametrize("name", [*FILES, checkpoints.FILE])
def test_every_bit_of_it_counts(workdir, progress, name):
    file = workdir / "checkpoint-10" / name
    whole = file.read_bytes()
    for place in range(0, len(whole), 5):
        file.parent.mkdir(exist_ok=True)
        for other, content in FILES.items():
            (file.parent / other).write_bytes(content)
        checkpoints.seal(file.parent)
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert checkpoints.last(workdir, progress).name == "checkpoint-9"
        assert not file.parent.exists()
    assert "checkpoint-10 was not whole" in said(progress)[0]


def cut(folder):
    (folder / "optimizer.pt").write_bytes(b"mom")


def half_written(folder):
    (folder / "rng_state.pth").unlink()
    (folder / checkpoints.FILE).unlink()


def added_to(folder):
    (folder / "adapter_model.bin").write_bytes(b"more")


@pytest.mark.parametrize("harm", [cut, half_written, added_to])
def test_what_is_not_whole_leads_to_an_older_one_and_then_to_the_start(workdir, progress, harm):
    for n, older in enumerate(("checkpoint-9", "checkpoint-2", None), 1):
        harm(workdir / f"checkpoint-{(10, 9, 2)[n - 1]}")
        found = checkpoints.last(workdir, progress)
        assert (found and found.name) == older
        assert len(said(progress)) == n
    assert list(workdir.iterdir()) == []


def test_one_that_is_sealed_again_is_whole(workdir, progress):
    cut(workdir / "checkpoint-10")
    checkpoints.seal(workdir / "checkpoint-10")
    assert checkpoints.last(workdir, progress).name == "checkpoint-10"

"""Progress: what is written, how often, and what a log shows."""

import json

import pytest

from harness import progress


def test_a_phase_writes_its_first_and_last_line_and_few_between(tmp_path):
    path = tmp_path / "logs" / "p.jsonl"
    worker = progress.Progress(path)
    for step in range(1, 101):
        worker.update("fit", step, 100, loss=0.5)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert (lines[0]["done"], lines[-1]["done"]) == (1, 100)
    assert len(lines) < 10
    assert lines[-1]["loss"] == 0.5


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    progress.Progress(None).update("fit", 1, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_log_shows_speed_and_time_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY_PLAIN", 0.05)
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(progress.time, "time", lambda: next(clock))
    path = tmp_path / "p.jsonl"
    with progress.follow(path, "fit lora"):
        worker = progress.Progress(path)
        worker.update("train", 1, 10, tokens=1000)
        progress.threading.Event().wait(0.3)
        worker.update("train", 3, 10, tokens=3000, loss=0.25)
    said = capsys.readouterr().err.splitlines()
    assert said == ["fit lora: train 1/10", "fit lora: train 3/10  200 tokens/s · 0:35 left · loss 0.25"]


def test_a_torn_line_waits_for_its_end(tmp_path):
    ended = progress.threading.Event()
    path = tmp_path / "p.jsonl"
    path.write_text('{"time": 1, "phase": "fit", "done": 1, "total": 2}\n{"time": 2, "ph')
    updates = progress._updates(path, ended, 0.01)
    assert next(updates)["done"] == 1
    with path.open("a") as file:
        file.write('ase": "fit", "done": 2, "total": 2}\n')
    ended.set()
    assert [u["done"] for u in updates] == [2]
    with pytest.raises(StopIteration):
        next(updates)

"""Progress: what is written, how often, and what a log shows."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

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


def test_what_was_met_on_the_way_is_told_at_the_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY_PLAIN", 0.05)
    path = tmp_path / "p.jsonl"
    with progress.follow(path, "fit lora"):
        worker = progress.Progress(path)
        worker.update("train", 1, 10)
        worker.say("größe: a line was torn")
        progress.threading.Event().wait(0.3)
        worker.update("train", 10, 10)
    said = [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()]
    assert said[-2:] == ["fit lora: train 10/10", "harness: größe: a line was torn"]
    with progress.follow(path, "fit lora"):
        pass
    assert capsys.readouterr().err == ""
    progress.Progress(None).say("nobody hears it")


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


FOLLOWED = """
import sys, time
from pathlib import Path
from harness import progress
progress.EVERY_WRITE = progress.EVERY_SHOW = progress.EVERY_PLAIN = 0.02
path = Path(sys.argv[1])
with progress.follow(path, "fit lora"):
    worker = progress.Progress(path)
    for step in range(1, 61):
        worker.update("train", step, 60, loss=0.5)
        time.sleep(0.05)
print("done")
"""


def test_a_terminal_that_is_resized_again_and_again_is_survived(tmp_path):
    """Under a pseudo-terminal, with SIGWINCH at every size; after the last one no line is wider than it."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    code = [sys.executable, "-c", FOLLOWED, str(tmp_path / "p.jsonl")]
    clean = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    child = subprocess.Popen(code, stdin=follower, stdout=follower, stderr=follower, env={**clean, "TERM": "xterm"})
    os.close(follower)
    said, widths, narrowed = b"", iter([20, 200, 1, 70]), 0
    while True:
        try:
            said += os.read(leader, 4096)
        except OSError:  # the terminal's other end is closed
            break
        if said.count(b"train") > 5 and (width := next(widths, None)) is not None:
            fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
            child.send_signal(signal.SIGWINCH)
            narrowed = len(said)
    os.close(leader)
    assert child.wait(timeout=30) == 0, said.decode(errors="replace")
    assert said.rstrip().endswith(b"done")
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", said).decode(errors="replace")
    after = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", said[narrowed:]).decode(errors="replace")
    drawn = [line for line in re.split(r"[\r\n]+", after) if "train" in line]
    assert next(widths, None) is None
    assert len(drawn) > 4
    assert max(map(len, drawn[3:])) <= 70  # the first ones were under way when it was resized
    assert "60/60" in plain


def test_a_redirected_run_writes_plain_lines(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FOLLOWED, str(tmp_path / "p.jsonl")], capture_output=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0
    assert b"\x1b" not in done.stderr
    lines = done.stderr.decode().splitlines()
    assert len(lines) >= 3
    assert lines[-1].startswith("fit lora: train 60/60")

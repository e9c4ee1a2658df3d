"""What a kill leaves is swept, of dead owners alone; what would grow is put aside."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from harness import leftovers, records

DEAD = "import os; print(os.getpid())"


@pytest.fixture(scope="module")
def dead():
    """The number of a process that has ended."""
    return int(subprocess.run([sys.executable, "-c", DEAD], capture_output=True, text=True, check=True).stdout)


def aged(path: Path, seconds: float) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_a_killed_writer_leaves_a_temporary_that_the_next_start_takes(tmp_path):
    """The real writer is killed in the middle; the one that lives keeps its own."""
    code = (
        "import os, signal, sys; from pathlib import Path; from harness.records import atomic\n"
        "with atomic(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    target = tmp_path / "cell" / "record.json"
    assert subprocess.run([sys.executable, "-c", code, str(target)]).returncode == -9
    (left,) = target.parent.iterdir()
    with records.atomic(tmp_path / "mine.json") as mine:
        mine.write_text("{}")
        assert leftovers.sweep(tmp_path) == [left]
    assert [p.name for p in sorted(tmp_path.rglob("*"))] == ["cell", "mine.json"]


def test_only_what_is_ours_goes(tmp_path, dead):
    """Other names stay, another machine's file for a day, and a living process' own."""
    host = leftovers.HERE
    goes = [
        tmp_path / f".a.json.{host}-{dead}.abcdefgh",
        aged_file(tmp_path / f".b.json.00000000-{os.getpid()}.abcdefgh", 2 * leftovers.DAY),
        aged_file(tmp_path / f".c.json.{host}-{os.getpid()}.abcdefgh", 10 * leftovers.DAY),  # before this process was
    ]
    goes[0].touch()
    folder = tmp_path / f".model-12.{host}-{dead}.zzzzzzzz"
    (folder / "deep").mkdir(parents=True)
    stays = [
        ".gitkeep",
        ".lock",
        "record.json",
        f".a.json.{host}-{os.getpid()}.abcdefgh",
        ".b.json.00000000-1.abcdefgh",
    ]
    for name in stays:
        (tmp_path / name).touch()
    assert set(leftovers.sweep(tmp_path)) == {*goes, folder}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(stays)


def aged_file(path: Path, seconds: float) -> Path:
    path.touch()
    return aged(path, seconds)


def test_checkpoints_stay_until_the_fit_is_whole(tmp_path):
    fits = tmp_path / "fits"
    for name in ("whole", "held", "cut"):
        (fits / f".{name}.work" / "trainer").mkdir(parents=True)
    for name in ("whole", "held"):
        (fits / name).mkdir()
        (fits / name / "fit.json").write_text("{}")
    (tmp_path / ".locks").mkdir()
    with FileLock(tmp_path / ".locks" / "held.lock"):
        assert leftovers.sweep_results(tmp_path, tmp_path / "none") == [fits / ".whole.work"]
    assert sorted(p.name for p in fits.iterdir()) == [".cut.work", ".held.work", "held", "whole"]


def test_folders_of_dead_clusters_go(tmp_path, dead):
    alive = subprocess.Popen([sys.executable, "-c", "input()", "harness.cluster"], stdin=subprocess.PIPE)
    try:
        for name, pid in (("dead", dead), ("alive", alive.pid), ("reused", os.getpid())):
            (tmp_path / f"delta-mem-{name}").mkdir()
            (tmp_path / f"delta-mem-{name}" / "pid").write_text(str(pid))
        for name in ("new", "stale"):
            (tmp_path / f"delta-mem-{name}").mkdir()
        aged(tmp_path / "delta-mem-stale", 2 * leftovers.HOUR)
        (tmp_path / "others").mkdir()
        (tmp_path / "delta-mem-link").symlink_to(tmp_path / "others")
        gone = {path.name for path in leftovers.sweep_clusters(tmp_path)}
    finally:
        alive.communicate(b"\n")
    assert gone == {"delta-mem-dead", "delta-mem-reused", "delta-mem-stale"}
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"delta-mem-alive", "delta-mem-new", "delta-mem-link", "others"}


def test_a_large_log_is_put_aside_once(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "LARGEST_LOG", 10)
    log = tmp_path / "cluster.log"
    leftovers.rotate(log)
    log.write_text("short")
    leftovers.rotate(log)
    assert log.exists()
    for text in ("first, and long", "second, and long"):
        log.write_text(text)
        leftovers.rotate(log)
    assert [p.name for p in tmp_path.iterdir()] == ["cluster.log.1"]
    assert (tmp_path / "cluster.log.1").read_text() == "second, and long"


def test_the_newest_logs_stay(tmp_path):
    for n in range(30):
        aged_file(tmp_path / f"{n:02d}.log", 100 - n)
    (tmp_path / "notes.txt").touch()
    leftovers.keep_newest(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [*(f"{n:02d}.log" for n in range(10, 30)), "notes.txt"]
    leftovers.keep_newest(tmp_path / "none")


def test_a_pipeline_sweeps_when_it_begins(tmp_path, monkeypatch, dead):
    from harness.pipeline import Pipeline

    run = Pipeline({"experiment": "smoke", "set": "run.executor=inline"}, tmp_path / "results", tmp_path / "tables")
    left = run.folder / "tiny_llama" / f".record.json.{leftovers.HERE}-{dead}.abcdefgh"
    left.parent.mkdir(parents=True)
    left.touch()
    monkeypatch.chdir(tmp_path)
    logs = tmp_path / ".snakemake" / "log"
    logs.mkdir(parents=True)
    for n in range(25):
        aged_file(logs / f"{n}.snakemake.log", 100 - n)
    run.begin()
    run.end()
    assert not left.exists()
    assert len(list(logs.iterdir())) == leftovers.NEWEST


def test_no_temporary_of_the_project_has_another_name():
    """Whoever makes one beside its target names its owner, so that it can be swept."""
    for file in [*Path("harness").rglob("*.py"), *Path("methods").rglob("*.py"), *Path("baselines").rglob("*.py")]:
        for line in file.read_text(encoding="utf-8").splitlines():
            if "mkstemp(" in line or "mkdtemp(" in line:
                assert "prefix=leftovers." in line, f"{file}: {line.strip()}"


def test_progress_is_bounded_and_still_followed(tmp_path, monkeypatch, capsys):
    from harness import progress

    monkeypatch.setattr(leftovers, "LARGEST_LOG", 2_000)
    monkeypatch.setattr(progress, "EVERY_WRITE", 0)
    monkeypatch.setattr(progress, "EVERY_PLAIN", 0.01)
    path = tmp_path / "p.jsonl"
    with progress.follow(path, "fit"):
        worker = progress.Progress(path)
        for step in range(1, 501):
            worker.update("fit", step, 500)
        time.sleep(0.1)
    assert path.stat().st_size < 2_200
    assert path.with_name("p.jsonl.1").stat().st_size < 2_200
    assert json.loads(path.read_text().splitlines()[-1])["done"] == 500
    assert "fit: fit 500/500" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 2

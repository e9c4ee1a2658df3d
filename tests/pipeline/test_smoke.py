"""The real Snakefile on the smoke experiment, through Ray: tables appear, and a second run does nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.pipeline

HERE = Path(__file__).resolve().parents[2]
COMMAND = [str(Path(sys.executable).with_name("snakemake")), "--cores", "all", "tables/main.tex", "--config"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder that looks like the checkout and has results and tables of its own."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in (
        "Snakefile",
        "config",
        "profiles",
        "harness",
        "methods",
        "baselines",
        "tables/reported",
        "tables/templates",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(HERE / name)
    return folder


def start(checkout: Path, *words: str) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        [*COMMAND, "experiment=smoke", *words],
        cwd=checkout,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(checkout: Path, *words: str, code: int = 0) -> str:
    process = start(checkout, *words)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == code, said
    return said


def clusters(owner: int) -> list[psutil.Process]:
    """Guards of one pipeline's clusters."""
    found = []
    for process in psutil.process_iter(["cmdline", "ppid"]):
        line = process.info["cmdline"] or []
        if "harness.cluster" in line and process.info["ppid"] == owner:
            found.append(process)
    return found


@pytest.fixture(scope="module")
def done(checkout):
    run(checkout)
    return checkout


def test_tables_and_figure_appear(done):
    for name in ("main.tex", "main.md", "main.csv", "paper.csv", "costs.tex", "memory.pdf"):
        assert (done / "tables" / name).stat().st_size > 0
    assert "\\toprule" in (done / "tables/main.tex").read_text(encoding="utf-8")


def test_report_and_audit_are_part_of_it(done):
    page = (done / "results/smoke/report/index.html").read_text(encoding="utf-8")
    assert "What is wrong with these numbers" in page
    assert (done / "tables/audit.md").stat().st_size > 0
    assert not list((done / "tables").glob("*.html"))  # it may hold others' words


def test_snakemake_tells_how_it_came_about_without_a_network(done, tmp_path):
    nowhere = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
    told = tmp_path / "workflow.html"
    said = subprocess.run(
        [COMMAND[0], "--report", str(told), "tables/main.tex", "--config", "experiment=smoke"],
        cwd=done,
        env={**os.environ, **nowhere, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    assert "downloading" not in said.stdout + said.stderr
    assert "Every memory is fitted once" in told.read_text(encoding="utf-8")


def test_a_second_run_does_nothing(done):
    before = (done / "tables/main.tex").stat().st_mtime_ns
    begun = time.monotonic()
    assert "Nothing to be done" in run(done)
    assert time.monotonic() - begun < 15
    assert (done / "tables/main.tex").stat().st_mtime_ns == before


def test_a_lost_record_is_made_again_and_the_table_stays_the_same(done):
    table = (done / "tables/main.tex").read_bytes()
    record = done / "results/smoke/tiny_llama/frozen/seed42/locomo/replayed/own/record.json"
    record.unlink()
    said = run(done, "set=run.executor=inline")
    assert "evaluate frozen (seed 42) on tiny_llama" in said
    assert "evaluate lora" not in said
    assert record.is_file()
    assert (done / "tables/main.tex").read_bytes() == table


def test_a_wrong_word_stops_before_the_dag_is_built(done):
    said = run(done, "methods=my_memory", code=2)
    assert "override 'methods+=my_memory': unknown method 'my_memory'" in said
    assert "Building DAG" not in said


def test_a_killed_pipeline_takes_its_cluster_along(done):
    process = start(done, "set=seeds=[7]")
    deadline = time.monotonic() + 60
    while not clusters(process.pid):
        assert time.monotonic() < deadline, "the pipeline started no cluster"
        time.sleep(0.2)
    (supervisor,) = clusters(process.pid)
    while not [c for c in supervisor.children(recursive=True) if "raylet" in c.name()]:
        assert time.monotonic() < deadline, "the cluster started no raylet"
        time.sleep(0.2)
    family = supervisor.children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs([supervisor, *family], timeout=20)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]

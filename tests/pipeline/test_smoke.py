"""The real Snakefile on the smoke experiment, through Ray: tables appear, and a second run does nothing."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from harness import cluster
from harness.experiment import RunSpec

pytestmark = pytest.mark.pipeline

HERE = Path(__file__).resolve().parents[2]
COMMAND = [str(Path(sys.executable).with_name("snakemake")), "--cores", "all", "tables/main.tex", "--config"]
SECRETS = {
    "HF_TOKEN": "hf_sentinelAAAAAAAAAAAA",
    "WANDB_API_KEY": "wandb-sentinel-BBBBBBBB",
    "AWS_SECRET_ACCESS_KEY": "aws-sentinel-CCCCCCCC",
}


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
        env={**os.environ, **SECRETS, "HF_HUB_OFFLINE": "1", "PATH": path, "OMP_NUM_THREADS": "1"},
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
    (checkout / "said.log").write_text(run(checkout), encoding="utf-8")
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
    assert "Nothing to be done" in run(done)
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
    deadline = time.monotonic() + 300
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


def test_no_secret_of_the_environment_is_in_any_output(done):
    """Records, samples, tables, figures, logs, what was printed, and errors of a backbone that cannot be had."""
    changes = ("name=broken", "run.executor=inline", "backbones.tiny_llama={hub: sentinel/sentinel, revision: main}")
    said = run(done, f"set=[{', '.join(map(json.dumps, changes))}]", code=1)
    assert "cannot be opened" in said
    (done / "broken.log").write_text(said, encoding="utf-8")
    files = [f for f in done.rglob("*") if f.is_file() and not any(p.is_symlink() for p in (f, *f.parents))]
    kinds = {f.suffix for f in files}
    assert {".json", ".jsonl", ".parquet", ".tex", ".pdf", ".csv", ".log", ".safetensors"} <= kinds
    assert len(files) > 50
    hits = [(str(f), name) for f in files for name, value in SECRETS.items() if value.encode() in f.read_bytes()]
    assert hits == []


def test_no_word_of_a_file_or_the_command_line_reaches_a_shell(done):
    """A hostile path and a hostile value, through the real rules; what they would run leaves no mark."""
    hostile = "$(touch mark1) 'q' \"r\"; touch mark2 {x} `touch mark3`.yaml"
    text = (HERE / "config/smoke.yaml").read_text(encoding="utf-8")
    (done / hostile).write_text(text.replace("name: smoke", "name: hostile"), encoding="utf-8")
    value = "set=title='$(touch mark4) {ON} ; touch mark5'"
    target = "results/hostile/tiny_llama/backbone.json"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    told = subprocess.run(
        [COMMAND[0], "--cores", "1", target, "--config", f"experiment={hostile}", value, "set=run.executor=inline"],
        cwd=done, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    assert (done / target).is_file()
    assert not list(done.rglob("mark?"))


def loopback(ip: str) -> bool:
    """Also of an IPv4 address in IPv6's clothes, ::ffff:127.0.0.1."""
    address = ip_address(ip)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def test_every_socket_of_a_local_cluster_listens_on_loopback():
    address = cluster.start(RunSpec(workers=1))
    try:
        with socket.socket(socket.AF_UNIX) as link:  # a reply means that head, raylet and worker are all up
            link.settimeout(180)
            link.connect(str(address))
            link.sendall(b'{"kind": "none", "experiment": {}, "backbone": "", "row": ""}\n')
            assert link.recv(100)
        supervisor = psutil.Process(int((address.parent / "pid").read_text()))
        family = [supervisor, *supervisor.children(recursive=True)]
        assert {"raylet", "gcs_server"} <= {p.name() for p in family}
        assert not any(map(loopback, ("0.0.0.0", "::", "10.0.0.1")))
        heard = {c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        assert heard
        assert not {ip for ip in heard if not loopback(ip)}
        dashboards = [line for p in family if "dashboard.py" in (line := " ".join(p.cmdline()))]
        assert all("--disable-frontend" in line for line in dashboards)  # what is left of it counts, and shows nothing
        assert stat.S_IMODE(address.parent.stat().st_mode) == 0o700  # the socket is for this user alone
    finally:
        cluster.stop(address)
    assert not address.parent.exists()

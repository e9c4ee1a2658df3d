"""The real Snakefile on an experiment that only measures: its tables appear, and a second run does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.pipeline

HERE = Path(__file__).resolve().parents[2]
EXPERIMENT = """
name: speed
backbones: {tiny: {random: tiny-llama}}
rows: [frozen, bm25_rag, delta_mem_tsw]
efficiency: {prompt_lengths: [256], decode_lengths: [4], repeats: 1}
run: {executor: inline, device: cpu}
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Snakefile", "profiles", "harness", "methods", "baselines", "tables/reported", "tables/templates"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(HERE / name)
    (folder / "config").mkdir()
    (folder / "config" / "speed.yaml").write_text(EXPERIMENT)
    return folder


def run(checkout):
    command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "all", "tables/main.tex"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--config", "experiment=speed"],
        cwd=checkout, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_tables_appear_and_a_second_run_does_nothing(checkout):
    run(checkout)
    written = {path.name for path in (checkout / "tables").iterdir() if path.is_file()}
    assert written == {
        "main.tex", "main.md", "main.csv", "paper.csv", "costs.tex", "costs.md", "efficiency.csv",
        "audit.md", "efficiency.pdf", "efficiency.png", "parameters.pdf", "parameters.png",
    }  # fmt: skip
    assert "none are asked for" in (checkout / "tables" / "main.tex").read_text(encoding="utf-8")
    assert "| delta_mem_tsw | removed |" in (checkout / "tables" / "costs.md").read_text(encoding="utf-8")
    assert "Nothing to be done" in run(checkout)

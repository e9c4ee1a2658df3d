"""docs/add-a-method.md, followed to the letter in a folder that looks like a fresh checkout: one file is written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.pipeline

HERE = Path(__file__).resolve().parents[2]
PAGE = HERE / "docs" / "add-a-method.md"
SEEN = ("Snakefile", "config", "profiles", "harness", "methods", "baselines", "tables/reported", "tables/templates")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_page_leads_to_a_row_of_the_table(tmp_path):
    for name in SEEN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(HERE / name)
    (file,) = re.findall(r"Save it as `([\w.]+)`", PAGE.read_text(encoding="utf-8"))
    (source,) = blocks("python")
    (tmp_path / file).write_text(source)  # the one file that the page asks for
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    for command in (line for block in blocks("bash") for line in block.splitlines()):
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    table = (tmp_path / "tables" / "main.md").read_text(encoding="utf-8")
    (row, *_) = re.findall(r"^\| my\\?_memory \|.*$", table, re.MULTILINE)
    assert len(re.findall(r"\d+\.\d", row)) >= 2
    assert r"my\_memory &" in (tmp_path / "tables" / "main.tex").read_text(encoding="utf-8")

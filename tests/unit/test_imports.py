"""The arrows between the rooms: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = sorted(Path("harness").rglob("*.py"))
METHODS = sorted([*Path("methods").rglob("*.py"), *Path("baselines").rglob("*.py")])


def imported(file: Path) -> set[str]:
    """Every module that a file names in an import, wherever it stands."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def rooms(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(file)}


@pytest.mark.parametrize("file", HARNESS, ids=str)
def test_the_harness_names_no_method(file):
    assert not rooms(file) & {"methods", "baselines", "tests", "benchmarks"}


@pytest.mark.parametrize("file", [f for f in HARNESS + METHODS if f.parent.name != "cli"], ids=str)
def test_nothing_imports_the_command_line(file):
    assert not {name for name in imported(file) if name == "harness.cli" or name.startswith("harness.cli.")}


@pytest.mark.parametrize("file", METHODS, ids=str)
def test_a_method_imports_no_other_method(file):
    """What methods share is in ``_*.py``, where none is found."""
    own = ".".join(file.with_suffix("").parts[:2])
    others = {n for n in imported(file) if n.startswith(("methods.", "baselines.")) and not n.startswith(own)}
    assert not {n for n in others if not n.split(".")[1].startswith("_")}


def test_finding_methods_and_tasks_imports_no_torch():
    code = (
        "import sys\nfrom harness import config, registry, tasks\n"
        "registry.row_names(); tasks.tasks(); config.load('embedded')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

"""Data files that are missing, empty, cut off or of another schema: one sentence that names the file and the mend."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
from pathlib import Path

import pandas as pd
import pytest

from harness import cli
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.tasks import task, tasks

FILES = {
    "locomo": "locomo/locomo10.json",
    "hotpotqa": "hotpotqa/hotpot_qa_distractor_validation.jsonl.gz",
    "qasper": "qasper/qasper_hf_train.jsonl",
    "gpqa": "gpqa/gpqa_diamond.csv",
    "ifeval": "ifeval/input_data.jsonl",
    "memory_agent_bench": "memory_agent_bench/data/Accurate_Retrieval-00000-of-00001.parquet",
    "own_data": "notes.jsonl",
}
"""A file of each task that reads any, as it lies in the data folder."""
OWN = Path("config/examples/notes.jsonl")


def write(rows, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            lines = csv.DictWriter(file, list(rows[0]) if isinstance(rows[0], dict) else ["x"])
            lines.writeheader()
            lines.writerows(row for row in rows if isinstance(row, dict))
    else:
        text = "\n".join(map(json.dumps, rows)) if ".jsonl" in path.name else json.dumps(rows)
        data = text.encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data folder with a file of each task, in the official schema."""
    root = tmp_path_factory.mktemp("data")
    for name, file in FILES.items():
        if name == "own_data":
            (root / file).write_bytes(OWN.read_bytes())
            continue
        module = importlib.import_module(f"harness.data.{name}")
        reader = "fetch_all" if hasattr(module, "fetch_all") else "fetch"
        plain, found = getattr(module, reader), []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, reader, lambda *a, p=plain, f=found: f.append(p(*a)) or f[0])
            load(name, root, "generated")
        raw = found[0][0] if isinstance(found[0], list) else found[0]
        write(raw.rows, root / file)
    return root


def load(name, root, source="official"):
    settings = {"file": str(root / FILES[name])} if name == "own_data" else {}
    one = task(name)
    return one.load(DataSpec(source=source), one.splits[0], settings, 4)


@pytest.fixture
def broken(whole, tmp_path, monkeypatch):
    """Puts something else in the place of a task's file."""

    def put(name, damage):
        monkeypatch.setenv("DELTA_MEM_DATA", str(tmp_path))
        file, bytes_ = tmp_path / FILES[name], (whole / FILES[name]).read_bytes()
        file.parent.mkdir(parents=True, exist_ok=True)
        damage(file, bytes_)
        return tmp_path

    return put


DAMAGES = {
    "missing": lambda file, data: None,
    "empty": lambda file, data: file.write_bytes(b""),
    "cut off": lambda file, data: file.write_bytes(data[: len(data) // 2 + 1]),
    "no text": lambda file, data: file.write_bytes(b"\xff\xfe\x00" * 99),
    "no rows": lambda file, data: write([{"x": None}][:0] if file.suffix not in (".csv",) else ["none"], file),
    "another schema": lambda file, data: write([{"x": "1"}, {"x": "2"}], file),
    "a folder": lambda file, data: file.mkdir(),
    "a link to nowhere": lambda file, data: file.symlink_to("nowhere"),
}


def test_every_task_that_reads_a_file_is_here():
    generated = {"write_clear_read", "granularity", "granularity_pairs", "online", "recall"}
    assert {name for name in tasks() if "@" not in name} - generated == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_is_read(name, broken):
    root = broken(name, lambda file, data: file.write_bytes(data))
    assert load(name, root).source in ("official", "own")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_with_the_mend(name, damage, broken):
    root = broken(name, DAMAGES[damage])
    with pytest.raises(HarnessError) as error:
        load(name, root)
    said = str(error.value)
    print(said)
    assert Path(FILES[name]).parent.name in said or Path(FILES[name]).name in said
    assert "; " in said
    assert "\n" not in said


def test_a_folder_of_data_that_is_not_mounted_ends_the_command_with_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DELTA_MEM_DATA", str(tmp_path / "not-mounted"))
    work = ["evaluate", "smoke", "--backbone", "tiny_llama", "--row", "frozen", "--seed", "42"]
    changes = ["--set", "run.executor=inline", "--set", "data.source=official", "--results", str(tmp_path / "results")]
    with pytest.raises(SystemExit) as left:
        cli.app([*work, *changes])
    assert left.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("harness: ")]
    assert said == [f"harness: DELTA_MEM_DATA names {tmp_path}/not-mounted, which is no folder; correct it or unset it"]
    assert not list((tmp_path / "results").rglob("record.json"))

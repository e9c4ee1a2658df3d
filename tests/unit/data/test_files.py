"""Reading: every wrong file ends in one sentence that names it and the mend."""

from __future__ import annotations

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from harness.data import hotpotqa, locomo
from harness.data.files import DataFile, HubRows, Raw, fetch, fetch_all, field, folder, read, rows_of, strings
from harness.errors import HarnessError
from harness.experiment import DataSpec

FILES = (DataFile("a/full.json"), DataFile("a/part.jsonl.gz", note="a part"))
HUB = HubRows("some/data", "plain", "train", "0" * 40)
DAMAGED = gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20


def rows(seed: int) -> list[dict]:
    return [{"seed": seed}]


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTA_MEM_DATA", str(tmp_path))
    (tmp_path / "a").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["x.json", "x.json.gz", "x.jsonl", "x.jsonl.gz"])
def test_every_form_of_json_reads_alike(tmp_path, name):
    value = [{"text": "café"}, {"text": "b"}]
    text = json.dumps(value) if ".jsonl" not in name else "\n".join(map(json.dumps, value)) + "\n\n"
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    assert read(tmp_path / name) == value


def test_line_separators_inside_a_string_do_not_split_a_line(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "one\u2028two\x85three"}\n', encoding="utf-8")
    assert read(tmp_path / "x.jsonl") == [{"text": "one\u2028two\x85three"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", b'[{"a": 1}, {"a"', "cut off"),
        ("x.jsonl", b'{"a": 1}\n{"a": \n', "line 2"),
        ("x.json.gz", gzip.compress(b"[1, 2, 3]" * 100, mtime=0)[:30], "cannot be read"),
        ("x.json.gz", b"[1]", "cannot be read"),
        ("x.json", b"\xff\xfe\x00", "cannot be read"),
        ("x.json.gz", DAMAGED, "cannot be read"),
        ("x.json", b"[" * 100_000, "cut off"),
        ("x.jsonl", b"[1]\n" + b"9" * 5_000, "line 2 is cut off or no JSON"),
    ],
)
def test_a_torn_file_is_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HarnessError, match=said) as error:
        read(tmp_path / name)
    assert name in str(error.value)
    assert "fetch it again" in str(error.value)


def test_a_folder_that_is_none_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("DELTA_MEM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(HarnessError, match="is no folder; correct it"):
        folder()


def test_auto_without_a_folder_generates_with_the_seed():
    raw = fetch(DataSpec(seed=7), FILES, rows, HUB)
    assert (raw.source, raw.rows, raw.file) == ("generated", [{"seed": 7}], "generated, seed 7")


def test_the_first_file_of_the_folder_is_read(data_folder):
    (data_folder / "a/part.jsonl.gz").write_bytes(gzip.compress(b'{"n": 2}\n', mtime=0))
    part = fetch(DataSpec(), FILES, rows)
    assert (part.rows, part.source, part.file, part.note) == ([{"n": 2}], "official", "a/part.jsonl.gz", "a part")
    (data_folder / "a/full.json").write_text("[1]")
    assert fetch(DataSpec(), FILES, rows).rows == [1]
    assert len(part.hash) == 64


@pytest.mark.parametrize("source", ["auto", "official"])
def test_a_folder_without_the_file_is_an_error_and_not_a_reason_to_generate(data_folder, source):
    with pytest.raises(HarnessError, match=r"holds no a/full\.json; put it there"):
        fetch(DataSpec(source=source), FILES, rows, HUB)


def test_generated_ignores_the_folder(data_folder):
    assert fetch(DataSpec(source="generated"), FILES, rows).source == "generated"


def test_official_without_folder_or_hub_says_what_to_set():
    with pytest.raises(HarnessError, match="set DELTA_MEM_DATA"):
        locomo.load(DataSpec(source="official"))


def test_hub_rows_are_read_at_the_pinned_revision(monkeypatch):
    import datasets

    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return datasets.Dataset.from_list(rows(3))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    raw = fetch(DataSpec(source="official"), FILES, rows, HUB)
    assert asked == [(("some/data", "plain"), {"split": "train", "revision": "0" * 40})]
    assert (raw.rows, raw.source, raw.note) == ([{"seed": 3}], "official", "")
    moving = HubRows("some/data", "plain", "train", "main")
    assert "not pinned" in fetch(DataSpec(source="official"), FILES, rows, moving).note


def test_no_way_to_the_hub_is_one_sentence(monkeypatch):
    import datasets

    def load_dataset(*_, **__):
        raise ConnectionError("Couldn't reach it\nand a long story")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(HarnessError, match=r"hotpotqa/hotpot_qa.*Couldn't reach it\); go online or set") as error:
        hotpotqa.load(DataSpec(source="official"))
    assert "\n" not in str(error.value)


def test_fields_are_checked_by_name_and_type():
    assert field({"a": 1}, "a", int, "f, row 0") == 1
    with pytest.raises(HarnessError, match="f, row 0: the field 'b' is missing"):
        field({"a": 1}, "b", int, "f, row 0")
    with pytest.raises(HarnessError, match="the field 'a' is int, not str or list"):
        field({"a": 1}, "a", (str, list), "f, row 0")
    with pytest.raises(HarnessError, match="missing"):
        field("no object", "a", int, "f, row 0")
    with pytest.raises(HarnessError, match="'a' holds int at 1, not str"):
        strings({"a": ["x", 1]}, "a", "f, row 0")


@pytest.mark.parametrize("content", [[], {}, "text", {"a": 1}])
def test_rows_must_be_a_list_with_something_in_it(content):
    with pytest.raises(HarnessError, match=r"f\.json is no list of rows, or an empty one"):
        rows_of(Raw(content, "official", "f.json", ""))


def test_parquet_reads_as_rows_with_null_for_what_is_null(tmp_path):
    value = [{"a": [["x"]], "b": {"c": None, "d": 1}}, {"a": [], "b": {"c": "é", "d": 2}}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(value), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == value
    whole = (tmp_path / "x.parquet").read_bytes()
    for torn in (b"", whole[:-7], whole[:100], b"PAR1 no table PAR1", b"[1]"):
        (tmp_path / "x.parquet").write_bytes(torn)
        with pytest.raises(HarnessError, match=r"x\.parquet cannot be read as Parquet.*fetch it again") as error:
            read(tmp_path / "x.parquet")
        assert "\n" not in str(error.value)


def test_of_several_files_those_that_are_there_are_read(data_folder):
    assert fetch_all(DataSpec(), FILES, rows) == []
    (data_folder / "a/part.jsonl.gz").write_bytes(gzip.compress(b'{"n": 2}\n', mtime=0))
    (part,) = fetch_all(DataSpec(), FILES, rows)
    assert (part.rows, part.source, part.note) == ([{"n": 2}], "official", "a part")
    (data_folder / "a/full.json").write_text("[1]")
    assert [raw.rows for raw in fetch_all(DataSpec(), FILES, rows)] == [[1], [{"n": 2}]]
    assert [raw.source for raw in fetch_all(DataSpec(), FILES, rows, rebuilt=(part.hash,))] == ["official", "rebuilt"]
    assert [raw.source for raw in fetch_all(DataSpec(source="generated"), FILES, rows)] == ["generated"]

"""Records: whole or not there, and read strictly."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from harness import records
from harness.errors import HarnessError


@pytest.fixture
def record():
    provenance = records.Provenance(
        config={},
        config_hash="c",
        commit="abc",
        dirty=False,
        versions={},
        backbone={},
        data={},
        prompt_hash="p",
        dtype="float32",
        attention="sdpa",
        batch_size=1,
        seed=1,
        device="cpu",
        threads=1,
    )
    return records.Record(
        experiment="x",
        backbone="tiny",
        row="frozen",
        method="frozen",
        task="t",
        condition="replayed",
        arm="own",
        seed=1,
        scores={"acc": records.Score(value=0.5, n=2, clusters=1)},
        primary_metric="acc",
        provenance=provenance,
        questions=2,
    )


def test_a_record_comes_back(record, tmp_path):
    records.save(record, pd.DataFrame({"question_id": ["a"]}), tmp_path / "cell")
    assert records.load(tmp_path / "cell" / "record.json") == record
    assert {p.name for p in (tmp_path / "cell").iterdir()} == {"record.json", "samples.parquet"}
    assert "n-shot" in json.loads((tmp_path / "cell" / "record.json").read_text())  # lm-eval's own spelling


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file"

    def break_off():
        with records.atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("half way")

    for before in (None, "old"):
        if before:
            path.write_text(before)
        with pytest.raises(RuntimeError, match="half way"):
            break_off()
        assert [p.name for p in path.parent.iterdir()] == ([path.name] if before else [])
        assert not before or path.read_text() == before
    with records.atomic(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644


def test_samples_stand_before_the_record(record, tmp_path, monkeypatch):
    plain = os.replace

    def full(source, target):
        if Path(target).name == "record.json":
            raise OSError("disk full")
        plain(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        records.save(record, pd.DataFrame({"question_id": ["a"]}), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["samples.parquet"]


def test_neither_gets_its_name_before_both_are_written(record, tmp_path, monkeypatch):
    records.save(record, pd.DataFrame({"question_id": ["a"]}), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(records.seals, "sealed", lambda text: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        records.save(record, pd.DataFrame({"question_id": ["b"]}), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_samples_are_those_that_the_record_was_written_with(record, tmp_path):
    frame = pd.DataFrame({"question_id": ["a"]})
    records.save(record, frame, tmp_path)
    pd.testing.assert_frame_equal(records.samples(records.load(tmp_path / "record.json"), tmp_path), frame)
    frame.assign(question_id="b").to_parquet(tmp_path / "samples.parquet")
    with pytest.raises(HarnessError, match=r"samples.parquet cannot be read \(it is not as it was written\); delete"):
        records.samples(record, tmp_path)
    older = record.model_copy(update={"samples_sha256": ""})
    assert list(records.samples(older, tmp_path)["question_id"]) == ["b"]
    (tmp_path / "samples.parquet").unlink()
    with pytest.raises(HarnessError, match=r"samples.parquet cannot be read \(No such file or directory\); delete"):
        records.samples(older, tmp_path)


def test_a_record_without_a_seal_is_an_older_one_and_read(record, tmp_path):
    path = tmp_path / "record.json"
    records.write_json(path, record.model_dump(mode="json", by_alias=True))
    assert records.load(path) == record


def test_a_changed_bit_of_a_record_is_told(record, tmp_path):
    path = tmp_path / "record.json"
    records.save(record, pd.DataFrame({"question_id": ["a"]}), tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"value": 0.5', b'"value": 0.7'))
    with pytest.raises(HarnessError, match=r"not a whole record \(its seal does not hold\); delete it and run again"):
        records.load(path)


def test_a_missing_torn_or_strange_record_is_refused(record, tmp_path):
    path = tmp_path / "record.json"
    with pytest.raises(HarnessError, match="there is no record"):
        records.load(path)
    records.save(record, pd.DataFrame({"question_id": ["a"]}), tmp_path)
    whole = path.read_text()
    for torn in ("", whole[: len(whole) // 2], whole.replace('"arm"', '"arms"'), "[]"):
        path.write_text(torn)
        with pytest.raises(HarnessError, match="is not a whole record"):
            records.load(path)

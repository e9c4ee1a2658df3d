"""Two backbones under one name are refused by name; two ways of computing are told, never averaged in silence."""

import pytest

from harness import records
from harness.errors import HarnessError
from harness.reporting import mixed, tables
from harness.reporting.summary import Summary


@pytest.fixture
def results(invented, tmp_path):
    chosen = invented.experiment(
        rows=["frozen", "lora"], tasks=[{"task": "locomo", "conditions": {"replayed": ["own"]}}], primary="locomo"
    )
    invented.fill(chosen, tmp_path)
    return chosen, tmp_path


def change(results, row, **provenance):
    """Write a row's record again with another provenance."""
    (path,) = (results / "embedded" / "smollm2" / row).rglob("record.json")
    record = records.load(path)
    changed = record.model_copy(update={"provenance": record.provenance.model_copy(update=provenance)})
    records.write_json(path, changed.model_dump(mode="json", by_alias=True))


def test_one_name_is_one_set_of_weights(results):
    chosen, folder = results
    change(folder, "lora", backbone={"digest": "ff" * 32})
    with pytest.raises(HarnessError) as told:
        tables.write(chosen, folder, folder / "out")
    for fact in ("'smollm2'", "abababababab in cell smollm2/frozen/seed42/locomo/replayed/own",
                 "ffffffffffff in cell smollm2/lora/seed42/locomo/replayed/own"):  # fmt: skip
        assert fact in str(told.value)
    assert not (folder / "out").exists()


def test_a_record_that_names_no_weights_accuses_none(results):
    chosen, folder = results
    change(folder, "frozen", backbone={})
    mixed.check(Summary(chosen, folder))


def test_two_ways_of_computing_are_told(results):
    chosen, folder = results
    assert mixed.notes(Summary(chosen, folder)) == []
    change(folder, "lora", dtype="bfloat16", attention="eager")
    (note,) = mixed.notes(Summary(chosen, folder))
    assert "bfloat16 with eager attention (smollm2/lora/seed42/locomo/replayed/own)" in note.text
    assert "float32 with sdpa attention (smollm2/frozen/seed42/locomo/replayed/own)" in note.text
    tables.write(chosen, folder, folder / "out")
    assert "**Mixed**: smollm2 ran in" in (folder / "out" / "main.md").read_text()

"""Joining runs: the same tables as one run, or every reason why not and nothing written."""

import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness import config, manifest, records
from harness.cli import app
from harness.episodes import digest
from harness.errors import HarnessError
from harness.merge import RefusedError, merge
from harness.reporting import tables
from harness.verify import verify


@pytest.fixture
def halves(whole, tmp_path):
    """The whole run's rows as two runs, without a manifest: the frozen backbone's here, LoRA's there."""
    folders = []
    for other, place in (("lora", "here"), ("frozen", "there")):
        results = tmp_path / place
        shutil.copytree(whole, results)
        shutil.rmtree(results / "smoke" / "tiny_llama" / other)
        manifest.void(results, "smoke")
        folders.append(results / "smoke")
    return folders


def record(folder, row="lora", task="write_clear_read", condition="removed"):
    return folder / "tiny_llama" / row / "seed42" / task / condition / "own" / "record.json"


def edited(path, edit):
    """Change a record, and its configuration's hash with it."""
    found = records.load(path)
    edit(found)
    found.provenance.config_hash = digest(found.provenance.config)
    records.write_json(path, found.model_dump(mode="json", by_alias=True))


def refused(out, *folders, **options):
    with pytest.raises(RefusedError) as error:
        merge(out, folders, **options)
    assert not out.exists()
    assert not [path for path in out.parent.glob(".*") if out.name in path.name]
    return error.value.reasons


def test_two_halves_give_the_tables_of_the_whole(halves, whole, tmp_path):
    out = tmp_path / "joined" / "both"
    file = merge(out, halves)
    assert file == out / "experiment.yaml"
    experiment = config.load(str(file))
    tables.write(experiment, out.parent, out / "tables")
    assert (out / "tables" / "main.csv").read_bytes() == (whole / "smoke" / "tables" / "main.csv").read_bytes()
    notes = (out / "tables" / "main.md").read_text()
    assert "- **Records**: smoke: 2 cells of commit cccccccccccc, on " in notes
    assert "- **Records**: smoke: 3 cells of commit cccccccccccc, on " in notes
    moved = records.load(record(out))
    assert moved.experiment == "both"
    assert moved.model_copy(update={"experiment": "smoke"}) == records.load(record(halves[1]))


def test_what_is_merged_verifies_and_can_be_merged_again(halves, tmp_path):
    out = tmp_path / "joined" / "both"
    tables.write(config.load(str(merge(out, halves))), out.parent, out / "tables")
    found = {check.kind: check for check in verify(out.parent, "both")}
    assert not [sentence for check in found.values() for sentence in check.wrong]
    assert (found["records"].held, found["fits"].held, found["tables"].held) == (
        5,
        1,
        len(list((out / "tables").iterdir())),
    )
    assert merge(tmp_path / "joined" / "again", [out, halves[0]]).is_file()


def test_the_same_inputs_give_the_same_file(halves, tmp_path):
    texts = {merge(tmp_path / place / "both", halves).read_bytes() for place in ("a", "b")}
    assert len(texts) == 1


def test_a_run_that_does_not_verify_is_refused_with_every_reason(halves, tmp_path):
    edited(record(halves[1]), lambda r: setattr(r, "git_hash", "d" * 40))
    samples = record(halves[0], "frozen", "locomo", "replayed").with_name("samples.parquet")
    samples.write_bytes(b"PAR1 torn")
    reasons = refused(tmp_path / "out", *halves)
    assert any("there/smoke (records): " in r and "it names two commits" in r for r in reasons)
    assert any("here/smoke (samples): " in r and "samples.parquet cannot be read" in r for r in reasons)


def test_a_run_whose_manifest_does_not_hold_is_refused(whole, halves, tmp_path):
    shutil.copytree(whole, tmp_path / "third")
    (tmp_path / "third" / "smoke" / "tables" / "main.md").write_text("by another hand")
    (reason,) = refused(tmp_path / "out", tmp_path / "third" / "smoke", halves[0])
    assert "third/smoke (manifest): " in reason


def test_equal_records_of_one_cell_are_one(halves, whole, tmp_path):
    edited(record(halves[1]), lambda r: setattr(r.costs, "wall_seconds", 99.0))
    out = tmp_path / "out"
    merge(out, [whole / "smoke", halves[1]])
    assert records.load(record(out)).costs.wall_seconds != 99.0


def other_answers(path):
    samples = path.with_name("samples.parquet")
    frame = pd.read_parquet(samples)
    frame.loc[0, ["answer", "answer_sha256"]] = ["another", digest("another")]
    records.save(records.load(path), frame, path.parent)


def test_two_records_of_one_cell_that_differ_are_refused_unless_one_is_preferred(halves, whole, tmp_path):
    other_answers(record(halves[1]))
    (reason,) = refused(tmp_path / "out", whole / "smoke", halves[1])
    assert "are of one cell and differ; name one's run after --prefer" in reason
    for n, preferred in enumerate((whole / "smoke", halves[1])):
        out = tmp_path / f"out{n}"
        merge(out, [whole / "smoke", halves[1]], prefer=preferred)
        kept = record(out).with_name("samples.parquet").read_bytes()
        assert kept == record(preferred).with_name("samples.parquet").read_bytes()


def weights(r):
    r.provenance.backbone["digest"] = "0" * 64
    r.addressed = {}


def data(r):
    r.provenance.data["hash"] = "0" * 64
    r.addressed = {}


def wording(r):
    r.provenance.wording_hash = "0" * 64
    r.addressed = {}


def parameters(r):
    r.provenance.fit["adapter_hash"] = "0" * 64
    r.addressed = {}


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (weights, "the weights of the backbone 'tiny_llama' are not the same in "),
        (data, "the data of the task 'locomo' are not the same in "),
        (wording, "the prompts of the task 'locomo' are not the same in "),
    ],
)
def test_one_name_for_two_things_is_refused(halves, tmp_path, edit, told):
    edited(record(halves[1], task="locomo", condition="replayed"), edit)
    reasons = refused(tmp_path / "out", *halves)
    assert any(told in reason for reason in reasons)


@pytest.mark.parametrize("edit", [data, wording])
def test_a_task_may_be_mixed_where_that_is_said(halves, tmp_path, edit):
    edited(record(halves[1], task="locomo", condition="replayed"), edit)
    assert merge(tmp_path / "out", halves, mixed=["locomo"]).is_file()


def test_two_fits_of_one_row_are_refused(halves, whole, tmp_path):
    """Cells of one row that two runs share between them must be of one fit."""
    first = tmp_path / "first"
    shutil.copytree(whole, first)
    manifest.void(first, "smoke")
    shutil.rmtree(record(first / "smoke").parents[2])
    for path in (halves[1]).rglob("record.json"):
        edited(path, parameters)
    facts = halves[1] / "tiny_llama" / "lora" / "seed42" / "fit.json"
    facts.unlink()
    shutil.rmtree(halves[1].parent / "fits")
    reasons = refused(tmp_path / "out", first / "smoke", halves[1], prefer=first / "smoke")
    assert any("the fit of the row 'lora on tiny_llama, seed 42' are not the same in " in r for r in reasons)


def test_a_task_of_other_settings_is_refused(halves, tmp_path):
    def edit(r):
        r.provenance.config["tasks"][1]["max_history_tokens"] = 300

    for path in halves[1].rglob("record.json"):
        edited(path, edit)
    (reason,) = refused(tmp_path / "out", *halves)
    assert "the task 'locomo' of " in reason
    assert "max_history_tokens: 320 and 300" in reason


def test_bad_words_are_told(halves, tmp_path):
    for out, folders, options, told in (
        (tmp_path / "no name", halves, {}, "must be a name of letters"),
        (halves[0], halves, {}, "is there already"),
        (tmp_path / "out", halves, {"prefer": tmp_path}, "is none of the runs to merge"),
        (tmp_path / "out", [tmp_path / "nowhere" / "x"], {}, "there is no results folder"),
    ):
        with pytest.raises(HarnessError, match=told):
            merge(out, folders, **options)


def test_the_command_names_the_file_or_every_refusal(halves, tmp_path):
    words = ["merge", str(tmp_path / "out"), *map(str, halves)]
    edited(record(halves[1]), lambda r: setattr(r, "git_hash", "d" * 40))
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 2
    assert "harness: nothing was merged\nrefused: " in found.stderr
    edited(record(halves[1]), lambda r: setattr(r, "git_hash", "c" * 40))
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0
    assert found.stdout == f"{tmp_path}/out/experiment.yaml\n"

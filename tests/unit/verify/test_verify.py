"""Verification: a whole run holds, each kind of damage is told by the kind of check that is for it."""

import json
import random
import shutil
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness import definition, manifest, records
from harness.cli import app
from harness.episodes import digest
from harness.errors import HarnessError
from harness.verify import KINDS, Run, experiments, verify

REFERENCE = Path("results/reference")


def checks(results, *kinds, name="smoke"):
    return {check.kind: check for check in verify(results, name, kinds)}


def wrong(results, *kinds, name="smoke"):
    """Every mismatch of these kinds, and all kinds that have one."""
    return [sentence for check in checks(results, *kinds, name=name).values() for sentence in check.wrong]


def files(run, room):
    """How many a room has."""
    return len(list((run.folder / room).iterdir()))


def test_a_whole_run_holds_and_everything_is_checked(run):
    found = checks(run.results)
    assert list(found) == list(KINDS)
    assert not [sentence for check in found.values() for sentence in check.wrong]
    assert not [reason for check in found.values() for reason in check.unchecked]
    held = {kind: check.held for kind, check in found.items()}
    assert held == {
        "manifest": len(manifest.read(run.results, "smoke").files),
        "records": 5, "samples": 5, "counts": 5, "answers": 26, "addresses": 5, "fits": 1, "backbones": 0, "data": 2,
        "measurements": 2, "tables": files(run, "tables"), "figures": files(run, "figures"), "report": 1,
    }  # fmt: skip


def test_two_hundred_flipped_bits_are_two_hundred_mismatches(run):
    """Every file of the run at least once, the manifest itself among them."""
    generator = random.Random(0)
    files = [*(run.results / name for name in manifest.read(run.results, "smoke").files), run.folder / manifest.FILE]
    found = 0
    for n in range(200):
        path = files[n % len(files)]
        whole = path.read_bytes()
        bit = generator.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        told = wrong(run.results, "manifest")
        found += len(told) == 1 and str(path) in told[0]
        path.write_bytes(whole)
    assert len(files) < 200
    assert found == 200
    assert not wrong(run.results, "manifest")


def test_what_is_missing_or_nobodys_is_told(run):
    (run.folder / "tables" / "main.md").unlink()
    (run.cell / "stray.json").write_text("{}")
    assert wrong(run.results, "manifest") == [
        f"{run.folder}/tables/main.md is missing",
        f"{run.cell}/stray.json is not in the manifest",
    ]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda r: r["provenance"]["config"].update(donors=7), "the hash of its configuration is not that"),
        (lambda r: r.update(seed=7), "its seed is 7 and that of its provenance 42"),
        (lambda r: r.update(git_hash="d" * 40), "it names two commits"),
        (lambda r: r.update(arm="donor"), "it says that it is cell smoke/tiny_llama/lora/seed42/"),
        (lambda r: r["provenance"].update(dtype="bfloat16"), "it ran in bfloat16, its configuration asks for float32"),
        (lambda r: r.update(schema_version=2), "has schema 2, this version reads 1"),
        (lambda r: r.update(row="other"), "its configuration names no row 'other'"),
        (lambda r: r.update(primary_metric="other"), "it has no score by its primary metric, other"),
        (lambda r: r.pop("questions"), "is not a whole record (questions: "),
    ],
)
def test_a_record_that_contradicts_itself_is_told(run, edit, told):
    run.change(run.cell / "record.json", edit)
    assert told in " ".join(wrong(run.results, "records"))


def test_a_record_that_is_not_text_is_told(run):
    (run.cell / "record.json").write_bytes(b"\xff\xfe")
    (told,) = wrong(run.results, "records")
    assert told.startswith(f"{run.cell}/record.json is not a whole record (")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("evaluated.json", "records"), ("fit.json", "fits"), ("record.json", "records"), ("efficiency.json", "records")],
)
def test_a_changed_bit_is_told(run, name, kind):
    path = sorted(run.folder.rglob(name))[0]
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    (told,) = wrong(run.results, kind)
    assert told.startswith(f"{path} is not ")
    assert "its seal does not hold" in told


def edited(run, edit):
    """The cell's samples as ``edit`` leaves them."""
    path = run.cell / "samples.parquet"
    edit(pd.read_parquet(path)).to_parquet(path, index=False)


def test_samples_that_give_other_scores_are_told(run):
    roots = pd.read_parquet(run.cell / "samples.parquet")["root"]
    edited(run, lambda frame: frame.assign(**{"score.acc": 1.0 - frame["score.acc"]}))
    (told,) = wrong(run.results, "samples")
    assert "its acc is 0.000000, its samples give 1.000000" in told
    edited(run, lambda frame: frame.assign(**{"score.acc": 1.0 - frame["score.acc"], "root": "one"}))
    assert "its samples over 6 in 1" in wrong(run.results, "samples")[0]
    edited(run, lambda frame: frame.assign(**{"score.acc": 0.0, "root": roots, "donor": "another"}))
    assert wrong(run.results, "samples")[0].endswith("its samples are not those that it was written with")
    edited(run, lambda frame: frame.drop(columns="score.acc"))
    assert "acc is in the record and not in its samples" in wrong(run.results, "samples")[0]
    (run.cell / "samples.parquet").write_bytes(b"PAR1 torn")
    assert "samples.parquet cannot be read" in wrong(run.results, "samples")[0]


def test_lost_and_doubled_samples_are_told(run):
    edited(run, lambda frame: frame.iloc[1:])
    told = " ".join(wrong(run.results, "counts"))
    assert "6 answers were asked for, 5 samples and 0 failures are there" in told
    assert "it tells of 6 questions, its samples of 5" in told
    run.change(run.cell / "record.json", lambda r: r.update(status="skipped"))
    assert "0 failures are told of 6 questions, 1 draws each" in wrong(run.results, "counts")[0]


def test_another_answer_than_its_digest_is_told(run):
    edited(run, lambda frame: frame.assign(answer=["another", *frame["answer"][1:]]))
    (told,) = wrong(run.results, "answers")
    assert "1 answers do not have their digest (first: question " in told
    edited(run, lambda frame: frame.drop(columns="answer"))
    found = checks(run.results, "answers")["answers"]
    assert found.line() == "20 hold; 6 not checked (their text is not kept with records of official data)"


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda r: r["addressed"].update(data_seed=9), "its address is not the digest of its parts"),
        (lambda r: r["provenance"]["backbone"].update(digest="0" * 64), "'backbone' is another in its address"),
        (lambda r: r["provenance"]["fit"].update(adapter_hash="0" * 64), "'fit' is another in its address"),
        (lambda r: r["provenance"].update(wording_hash="0" * 64), "'prompts' is another in its address"),
        (lambda r: r.update(condition="replayed"), "its address is of another condition or arm"),
    ],
)
def test_an_address_of_something_else_is_told(run, edit, told):
    run.change(run.cell / "record.json", edit)
    assert told in " ".join(wrong(run.results, "addresses"))


def test_a_record_without_the_parts_of_its_address_is_counted(run):
    run.change(run.cell / "record.json", lambda r: r.pop("addressed"))
    found = checks(run.results, "addresses")["addresses"]
    assert found.line() == "4 hold; 1 not checked (their records are older than the field `addressed`)"


def test_parameters_that_were_not_used_are_told(run):
    (stored,) = (run.results / "fits").iterdir()
    weights = stored / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    told = " ".join(wrong(run.results, "fits"))
    assert "its parameters are not those that its report tells the digest of" in told
    assert "its parameters are not those that were used" in told
    weights.write_bytes(whole)
    run.change(stored / "fit.json", lambda facts: facts.update(steps=9))
    assert "its report tells another 'steps' than its job" in wrong(run.results, "fits")[0]
    run.change(run.cell / "record.json", lambda r: r["provenance"]["fit"].update(adapter_hash="0" * 64))
    assert "it tells another adapter hash of fit" in " ".join(wrong(run.results, "fits"))
    shutil.rmtree(stored)
    run.change(run.cell / "record.json", lambda r: r["provenance"].update(fit=None))
    assert checks(run.results, "fits")["fits"].line() == "1 not checked (they are not stored here)"


def test_other_data_are_told(run):
    run.change(run.cell / "record.json", lambda r: r["provenance"]["data"].update(hash="0" * 64))
    (told,) = wrong(run.results, "data")
    assert "holds other data of write_clear_read than were asked" in told


def test_official_data_without_a_folder_are_counted(run, monkeypatch):
    monkeypatch.delenv("DELTA_MEM_DATA", raising=False)
    run.change(run.cell / "record.json", lambda r: r["provenance"]["data"].update(source="official"))
    found = checks(run.results, "data")["data"]
    assert found.line() == "2 hold; 1 not checked (no data folder is named by DELTA_MEM_DATA)"


def test_figures_of_a_measurement_that_do_not_follow_are_told(run):
    path = run.folder / "tiny_llama" / "lora" / "efficiency.json"
    run.change(path, lambda r: r["points"][0]["row"]["figures"].update(decode_seconds=1e-9))
    told = " ".join(wrong(run.results, "measurements"))
    assert "the figures of its row at " in told
    assert "its ratios at " in told


@pytest.mark.parametrize(
    ("room", "file"),
    [
        ("tables", "main.csv"),
        ("tables", "costs.md"),
        ("tables", "audit.md"),
        ("figures", "memory.png"),
        ("report", "index.html"),
    ],
)
def test_a_table_or_figure_by_another_hand_is_told(run, experiment, room, file):
    """Even where the manifest is of it."""
    path = run.folder / room / file
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1) if room == "tables" else path.read_bytes() + b" ")
    manifest.void(run.results, "smoke")
    manifest.write(experiment, run.results)
    assert not wrong(run.results, "manifest")
    assert wrong(run.results, room) == [f"{path} is not what this version makes of the records"]


def test_figures_that_another_matplotlib_drew_are_counted(run, monkeypatch):
    """Its bytes are its own; a missing figure is missing all the same."""
    path = run.folder / "figures" / "memory.png"
    path.write_bytes(path.read_bytes() + b" ")
    drawn_by = version("matplotlib")
    monkeypatch.setattr("harness.verify.outputs.version", lambda name: "9.9.9")
    found = checks(run.results, "figures")["figures"]
    assert not found.wrong
    assert found.unchecked == {f"they were drawn by matplotlib {drawn_by}": 1}
    path.unlink()
    assert checks(run.results, "figures")["figures"].wrong == [f"{path} is missing"]


def test_a_report_that_shows_official_words_is_counted(run):
    """It is not made again without the data folder that it was made with."""
    path = run.folder / "report" / "index.html"
    path.write_text(path.read_text() + " ")
    run.change(run.cell / "record.json", lambda r: r["provenance"]["data"].update(source="official"))
    found = checks(run.results, "report")["report"]
    assert found.line() == "1 not checked (it shows words of questions, which it took from a data folder)"


def test_a_table_that_is_missing_or_of_another_command_is_told(run):
    (run.folder / "tables" / "main.md").rename(run.folder / "tables" / "mine.md")
    found = checks(run.results, "tables")["tables"]
    assert found.wrong == [f"{run.folder}/tables/main.md is missing"]
    assert found.line() == f"{files(run, 'tables') - 1} hold; 1 wrong; 1 not checked (another command makes them)"


def test_without_a_manifest_the_records_say_what_the_tables_are_of(run):
    manifest.void(run.results, "smoke")
    found = checks(run.results, "manifest", "tables")
    assert found["manifest"].unchecked
    assert (found["tables"].held, found["tables"].wrong) == (files(run, "tables"), [])


def test_a_torn_manifest_is_a_mismatch_of_tables_too(run):
    manifest.path_of(run.results, "smoke").write_text("{")
    assert all("is not a whole manifest" in sentence for sentence in wrong(run.results, "manifest", "tables"))


def test_the_command_tells_a_line_a_kind_and_leaves_with_what_it_found(run):
    def call(*words):
        return CliRunner().invoke(app, ["verify", *map(str, words)])

    held = call(run.results, "smoke", "--only", "records", "--only", "backbones")
    assert (held.exit_code, held.stdout) == (0, "smoke\trecords\t5 hold\n")
    run.change(run.cell / "record.json", lambda r: r.update(git_hash="d" * 40))
    found = call(run.results, "--only", "records")
    assert found.exit_code == 1
    assert found.stdout.splitlines() == [
        "smoke\trecords\t4 hold; 1 wrong",
        f"smoke\trecords\twrong: {run.cell}/record.json: it names two commits",
    ]
    assert "1 mismatch" in found.stderr
    for words in ((run.results / "nowhere",), (run.results, "smok"), (run.results, "--only", "record")):
        assert call(*words).exit_code == 2


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(HarnessError, match="there is no record under"):
        experiments(tmp_path)


# --- what is published ---


@pytest.mark.parametrize("name", experiments(REFERENCE))
def test_what_is_published_verifies(name):
    """By the light kinds; tables are made again in tests/unit/reporting, and `harness verify` does all in a minute."""
    assert not wrong(REFERENCE, "records", "counts", "answers", "addresses", "fits", "measurements", name=name)


def test_a_published_run_verifies_whole():
    found = checks(
        REFERENCE, *[kind for kind in KINDS if kind not in ("tables", "figures", "manifest")], name="mlp_lambda"
    )
    assert not [sentence for check in found.values() for sentence in check.wrong]
    assert found["data"].held == 2


def test_weights_of_a_trained_backbone_are_computed_again(tmp_path):
    (stored,) = (REFERENCE / "backbones").iterdir()
    shutil.copytree(stored, tmp_path / "backbones" / stored.name)
    record = next((REFERENCE / "recall").rglob("record.json"))
    (tmp_path / record.relative_to(REFERENCE)).parent.mkdir(parents=True)
    shutil.copyfile(record, tmp_path / record.relative_to(REFERENCE))
    assert checks(tmp_path, "backbones", name="recall")["backbones"].held == 1
    weights = tmp_path / "backbones" / stored.name / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "its weights or its vocabulary" in wrong(tmp_path, "backbones", name="recall")[0]
    weights.write_bytes(whole[:50])
    assert "it cannot be read" in wrong(tmp_path, "backbones", name="recall")[0]


def test_several_runs_of_one_folder_give_one_experiment():
    """Each task as those ran it who answered it, wherever others named it otherwise."""
    run = Run(REFERENCE, "local")
    parts = definition.parts(run.everything)
    assert len(parts) > 1
    found = definition.union(parts, "local")
    assert {t.name for t in found.tasks} == {r.task for r in run.records.values()}
    limits = {t.name: t.limit for t in found.tasks}
    assert limits["locomo"] == max(p.config.tasks[1].limit for p in parts if "locomo" in p.tasks)


def test_names_that_mean_two_things_are_refused(run):
    first = records.load(run.cell / "record.json")
    other = first.model_copy(deep=True)
    other.provenance.config["tasks"][0]["episodes"] = 9
    other.provenance.config_hash = digest(other.provenance.config)
    with pytest.raises(HarnessError, match=r"the task 'write_clear_read' of .* is not that of .*episodes: ."):
        definition.union(definition.parts([first, other]), "smoke")
    unread = first.model_copy(deep=True)
    unread.provenance.config["unknown"] = 1
    with pytest.raises(HarnessError, match=r"is not read by this version .unknown: "):
        definition.parts([unread])


def test_the_manifest_is_plain_json(run):
    assert json.loads(manifest.path_of(run.results, "smoke").read_text())["schema_version"] == 1

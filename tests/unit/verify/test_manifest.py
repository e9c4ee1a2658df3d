"""The manifest: all outputs and nothing else, of whole runs, always the same, and gone when something changes."""

import json

import pytest
from typer.testing import CliRunner

from harness import jobs, manifest, rescoring
from harness.cli import app
from harness.errors import HarnessError
from harness.experiment import Experiment
from harness.verify import verify


def test_it_lists_every_output_and_no_log(run):
    found = manifest.read(run.results, "smoke")
    names = {name.split("/", 1)[1] for name in found.files}
    for name in (
        "tiny_llama/lora/seed42/fit.json",
        "tiny_llama/lora/seed42/evaluated.json",
        "tiny_llama/lora/seed42/write_clear_read/removed/own/record.json",
        "tiny_llama/frozen/seed42/locomo/replayed/own/samples.parquet",
        "tiny_llama/frozen/efficiency.json",
        "tables/main.tex",
        "tables/efficiency.csv",
        "figures/memory.png",
    ):
        assert name in names
    assert any(name.startswith("fits/") and name.endswith("adapter_model.safetensors") for name in found.files)
    assert not [name for name in names if name.endswith((".log", ".jsonl")) or "/." in name or name == manifest.FILE]
    assert not found.missing
    assert list(found.files) == sorted(found.files)


def test_equal_outputs_give_equal_bytes(run, experiment):
    path = manifest.path_of(run.results, "smoke")
    before = path.read_bytes()
    (run.folder / "logs").mkdir()
    (run.folder / "logs" / "tables.log").write_text("another day")
    (run.folder / ".lock").write_text("")
    (run.folder / "tiny_llama" / "lora" / "seed42" / "fit.tsv").write_text("1 s")
    assert manifest.write(experiment, run.results) == path
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "fit.json"])
def test_a_stored_fit_that_changed_since_a_job_read_it_is_not_listed(run, experiment, name):
    (stored,) = (run.results / "fits").glob("*/fit.json")
    path = stored.with_name(name)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    before = manifest.path_of(run.results, "smoke").read_bytes()
    with pytest.raises(HarnessError, match=f"{name} is not as it was written"):
        manifest.write(experiment, run.results)
    assert manifest.path_of(run.results, "smoke").read_bytes() == before


def test_the_experiment_in_it_keeps_its_order(run, experiment):
    told = Experiment.model_validate(manifest.read(run.results, "smoke").experiment)
    assert told == experiment
    assert [list(t.conditions) for t in told.tasks] == [list(t.conditions) for t in experiment.tasks]


def test_a_run_that_is_not_whole_is_refused_or_told(run, experiment):
    (run.cell / "record.json").unlink()
    (run.folder / "tiny_llama" / "frozen" / "efficiency.json").unlink()
    before = manifest.path_of(run.results, "smoke").read_bytes()
    with pytest.raises(HarnessError, match=r"is not whole .2 missing, first smoke/tiny_llama/lora/"):
        manifest.write(experiment, run.results)
    assert manifest.path_of(run.results, "smoke").read_bytes() == before
    manifest.write(experiment, run.results, partial=True)
    assert manifest.read(run.results, "smoke").missing == [
        "smoke/tiny_llama/lora/seed42/write_clear_read/removed/own",
        "smoke/tiny_llama/frozen/efficiency.json",
    ]


@pytest.mark.parametrize(
    "edit",
    [
        lambda value: value["experiment"].update(title="another"),
        lambda value: value["files"].popitem(),
        lambda value: value.update(digest="0" * 64),
        lambda value: value.update(missing=["a/b"]),
    ],
)
def test_a_manifest_that_was_changed_is_refused(run, edit):
    path = manifest.path_of(run.results, "smoke")
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    with pytest.raises(HarnessError, match="is not as it was written"):
        manifest.read(run.results, "smoke")


def test_one_of_another_schema_or_torn_is_refused(run):
    path = manifest.path_of(run.results, "smoke")
    text = path.read_text()
    path.write_text(text.replace('"schema_version": 1', '"schema_version": 2', 1))
    with pytest.raises(HarnessError, match="has schema 2, this version reads 1"):
        manifest.read(run.results, "smoke")
    path.write_text(text[: len(text) // 2])
    with pytest.raises(HarnessError, match="is not a whole manifest"):
        manifest.read(run.results, "smoke")


def test_a_job_that_runs_takes_it_away(run, experiment):
    request = {"experiment": experiment.model_dump(mode="json", by_alias=True), "results": str(run.results)}
    jobs.run({**request, "kind": "evaluate", "backbone": "tiny_llama", "row": "frozen", "seed": 42})
    assert manifest.read(run.results, "smoke") is None


DEMANDED = {
    "provenance": ("config", "config_hash", "commit", "versions", "prompt_hash", "wording_hash", "dtype", "attention",
                   "batch_size", "seed", "device", "threads", "machine"),
    "provenance.versions": ("torch", "transformers", "peft", "lm_eval", "ray", "snakemake"),
    "provenance.backbone": ("spec", "digest", "tokenizer_hash", "chat_template_hash"),
    "provenance.data": ("source", "file", "hash", "episodes", "questions"),
    "provenance.fit": ("address", "adapter_hash"),
    "costs": ("wall_seconds", "cpu_seconds", "prefill_seconds", "decode_seconds", "peak_bytes", "tokens_in",
              "tokens_out"),
    "": ("address", "addressed", "gates", "warnings"),
}  # fmt: skip


@pytest.mark.parametrize("part", DEMANDED)
def test_a_record_says_all_that_is_demanded_of_it(run, part):
    """Each is there and none is empty."""
    told = json.loads((run.cell / "record.json").read_text())
    for key in filter(None, part.split(".")):
        told = told[key]
    assert all(told[name] for name in DEMANDED[part])


def test_what_may_be_false_or_none_is_there_too(run):
    told = json.loads((run.cell / "record.json").read_text())
    assert told["provenance"]["dirty"] is False
    assert told["provenance"]["fit"]["restored"] is False
    assert "revision" in told["provenance"]["backbone"]
    assert {"write_seconds", "gpu_seconds"} <= told["costs"].keys()


def test_answers_scored_again_take_it_away(run, experiment):
    assert list(rescoring.rescore(experiment, run.results, "d" * 40))
    assert manifest.read(run.results, "smoke") is None


def test_what_is_published_has_a_manifest_of_its_own(run, changes):
    words = ["publish", "smoke", "--results", str(run.results), *changes]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    reference = run.results / "reference"
    assert found.stdout.splitlines()[-1] == str(manifest.path_of(reference, "smoke"))
    assert not [sentence for check in verify(reference, "smoke") for sentence in check.wrong]
    listed = manifest.read(reference, "smoke").files
    assert any(name.startswith("fits/") for name in listed)


def test_the_command_writes_it(run, changes):
    words = ["manifest", "smoke", "--results", str(run.results), *changes]
    before = manifest.path_of(run.results, "smoke").read_bytes()
    manifest.void(run.results, "smoke")
    found = CliRunner().invoke(app, words)
    assert found.stdout == f"{manifest.path_of(run.results, 'smoke')}\n"
    assert manifest.path_of(run.results, "smoke").read_bytes() == before
    (run.cell / "record.json").unlink()
    assert CliRunner().invoke(app, words).exit_code == 2
    assert CliRunner().invoke(app, [*words, "--partial"]).exit_code == 0

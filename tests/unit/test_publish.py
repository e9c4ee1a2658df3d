"""What is committed of a run: records, samples without a benchmark's words, fits."""

import pandas as pd
import pytest

from harness import config, jobs, publish, records
from harness.errors import HarnessError
from harness.experiment import Job, cells

SMALL = (
    "primary=locomo",
    "rows=[frozen, lora]",
    "tasks=[{task: locomo, limit: 2, episodes: 2, max_history_tokens: 320, max_new_tokens: 2}]",
    "budget.steps=1",
    "run.executor=inline",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole small run, inline, as if from a clean commit."""
    results = tmp_path_factory.mktemp("results")
    experiment = config.load("smoke", SMALL)
    request = {"experiment": experiment.model_dump(mode="json", by_alias=True), "results": str(results)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.provenance.code", lambda: ("c" * 40, False))
        for row, kinds in (("frozen", ["evaluate"]), ("lora", ["fit", "evaluate"])):
            for kind in kinds:
                jobs.run({**request, "kind": kind, "backbone": "tiny_llama", "row": row, "seed": 42})
    return experiment, results


def _cell(experiment, row):
    return cells(experiment, Job(experiment.name, "tiny_llama", row, 42))[0]


def test_records_samples_and_fits_are_copied_whole(run):
    experiment, results = run
    folder = publish.publish(experiment, results)
    cell = _cell(experiment, "lora")
    there = results / "reference" / cell.path
    assert folder == results / "reference" / "smoke"
    assert records.load(there / "record.json") == records.load(results / cell.path / "record.json")
    address = records.load(there / "record.json").provenance.fit["address"]
    assert (results / "reference" / "fits" / address[:16] / "adapter_model.safetensors").is_file()


def test_answers_to_generated_episodes_stay_and_official_ones_go(run):
    experiment, results = run
    cell = _cell(experiment, "frozen")
    publish.publish(experiment, results)
    assert "answer" in pd.read_parquet(results / "reference" / cell.path / "samples.parquet")

    path = results / cell.path / "record.json"
    record = records.load(path)
    official = record.model_copy(deep=True)
    official.provenance.data["source"] = "official"
    records.write_json(path, official.model_dump(mode="json", by_alias=True))
    try:
        publish.publish(experiment, results)
    finally:
        records.write_json(path, record.model_dump(mode="json", by_alias=True))
    samples = pd.read_parquet(results / "reference" / cell.path / "samples.parquet")
    assert not set(publish.TEXT) & set(samples)
    assert samples["answer_sha256"].str.len().eq(64).all()


def test_a_run_with_uncommitted_changes_is_refused(run):
    experiment, results = run
    path = results / _cell(experiment, "frozen").path / "record.json"
    record = records.load(path)
    dirty = record.model_copy(deep=True)
    dirty.provenance.dirty = True
    records.write_json(path, dirty.model_dump(mode="json", by_alias=True))
    try:
        with pytest.raises(HarnessError, match="uncommitted"):
            publish.publish(experiment, results)
    finally:
        records.write_json(path, record.model_dump(mode="json", by_alias=True))


def test_a_run_that_is_not_whole_is_refused(run, tmp_path):
    with pytest.raises(HarnessError, match="there is no record"):
        publish.publish(run[0], tmp_path)


def test_measurements_are_copied_and_not_of_uncommitted_code(tmp_path, monkeypatch):
    lengths = "efficiency={prompt_lengths: [100], decode_lengths: [2], repeats: 1, warm_up: 0}"
    experiment = config.load("efficiency", ["rows=[frozen]", "backbones={tiny: {random: tiny-llama}}", lengths])
    request = {"kind": "measure", "backbone": "tiny", "row": "frozen", "results": str(tmp_path)}
    request["experiment"] = experiment.model_dump(mode="json", by_alias=True)
    for dirty in (True, False):
        monkeypatch.setattr("harness.provenance.code", lambda dirty=dirty: ("c" * 40, dirty))
        jobs.run(request)
        if dirty:
            with pytest.raises(HarnessError, match=r"tiny/frozen/efficiency\.json was made with uncommitted changes"):
                publish.publish(experiment, tmp_path)
    publish.publish(experiment, tmp_path)
    place = ("efficiency", "tiny", "frozen", "efficiency.json")
    assert tmp_path.joinpath("reference", *place).read_bytes() == tmp_path.joinpath(*place).read_bytes()

"""What changed between two runs: told by fact, and by answer."""

import json
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness import records
from harness.cli import app
from harness.diff import diff, lines
from harness.errors import HarnessError


@pytest.fixture
def pair(run, whole):
    """The whole run, the copy that a test changes, and the cell in either."""
    return whole / "smoke", run


def facts(found):
    return {change.fact: (change.left, change.right, change.matters) for change in found.changes}


@pytest.mark.parametrize("below", ["", "tiny_llama/lora/seed42", "tiny_llama/lora/seed42/locomo/replayed/own"])
def test_a_run_is_equal_to_its_copy(pair, below):
    left, run = pair
    found = diff(left / below, run.folder / below)
    assert found.equal
    assert not found.changes
    assert found.cells == {"": 5, "tiny_llama/lora/seed42": 3}.get(below, 1)
    assert list(lines(found))[-1] == "equal in all that matters"


def test_code_versions_and_machine_are_told_and_do_not_matter(pair):
    left, run = pair

    def edit(r):
        r["provenance"].update(commit="d" * 40, device="another CPU", threads=4)
        r["provenance"]["versions"]["torch"] = "3.0"
        r["provenance"]["machine"]["cpu"] = "another CPU"

    run.change(run.cell / "record.json", edit)
    found = diff(left, run.folder)
    assert found.equal
    assert facts(found).keys() == {"commit", "device", "threads", "versions.torch", "machine.cpu"}
    assert {change.cells for change in found.changes} == {1}
    assert f"beside it: commit: {'c' * 12} -> {'d' * 12} (1 of 5 cells)" in list(lines(found))


def test_what_answers_follow_from_matters(pair):
    left, run = pair

    def edit(r):
        r["address"] = "0" * 64
        r["provenance"]["config"]["rows"][1]["with"] = {"rank": 2}
        r["provenance"]["config"]["rows"][0]["with"] = {"other": 1}
        r["provenance"]["config"]["tasks"].append({"task": "hotpotqa", "limit": 3})
        r["provenance"]["backbone"]["digest"] = "1" * 64
        r["provenance"]["data"]["hash"] = "2" * 64
        r["provenance"]["fit"]["address"] = "3" * 64
        r["provenance"].update(wording_hash="4" * 64, attention="eager")

    run.change(run.cell / "record.json", edit)
    found = facts(diff(left, run.folder))
    assert {fact for fact, (_, _, matters) in found.items() if matters} == {
        "config.rows.lora.with.rank", "backbone.digest", "data.hash", "fit.address", "wording", "attention",
    }  # fmt: skip
    assert found["config.rows.frozen.with.other"] == ("none", "1", False)  # of another row
    assert found["config.tasks.hotpotqa"] == ("none", "named", False)  # of another task


def test_an_address_alone_tells_of_what_no_fact_does(pair):
    left, run = pair
    run.change(run.cell / "record.json", lambda r: r.update(address="0" * 64))
    (change,) = diff(left, run.folder).changes
    assert change.fact.startswith("address")
    assert change.matters


def test_the_same_address_lets_configurations_differ(pair):
    left, run = pair
    run.change(run.cell / "record.json", lambda r: r["provenance"]["config"]["rows"].append({"row": "bm25_rag"}))
    found = diff(left, run.folder)
    assert found.equal
    assert facts(found) == {"config.rows.bm25_rag": ("none", "named", False)}


def test_prompts_of_older_records_are_compared_by_their_set(pair):
    left, run = pair
    run.change(run.cell / "record.json", lambda r: r["provenance"].update(prompt_hash="5" * 64))
    assert diff(left, run.folder).equal
    run.change(run.cell / "record.json", lambda r: (r["provenance"].update(wording_hash=""), r.update(address="")))
    assert facts(diff(left, run.folder))["prompts"][2]


def test_answers_and_scores_are_paired_by_question(pair):
    left, run = pair
    path = run.cell / "samples.parquet"
    frame = pd.read_parquet(path)
    frame.loc[:2, "score.acc"] = 1.0
    frame.loc[:1, "answer_sha256"] = "0" * 64
    frame.loc[0, "prompt_sha256"] = "0" * 64
    run.change(run.cell / "record.json", lambda r: r["scores"]["acc"].update(value=0.5))
    records.save(records.load(run.cell / "record.json"), frame.sample(frac=1, random_state=0), run.cell)
    found = diff(left, run.folder)
    assert not found.equal
    (outcome,) = [o for o in found.outcomes if not o.same]
    assert (outcome.questions, outcome.answers, outcome.prompts) == (6, 2, 1)
    assert outcome.difference.value == pytest.approx(0.5)
    told = list(lines(found))
    assert (
        "tiny_llama/lora/seed42/write_clear_read/removed/own: 2 of 6 answers changed, 1 prompts changed, "
        "acc 0.0 -> 50.0 (+50.0, 6 questions in 3 clusters)" in told
    )
    assert told[-2:] == ["4 cells have the same answers and scores", "not equal"]


def test_cells_of_one_side_are_named(pair):
    left, run = pair
    shutil.rmtree(run.cell)
    found = diff(left, run.folder)
    assert found.only_left == ["tiny_llama/lora/seed42/write_clear_read/removed/own"]
    assert not found.equal


def test_records_without_samples_are_compared_by_their_scores(pair):
    left, run = pair
    (run.cell / "samples.parquet").unlink()
    found = diff(left, run.folder)
    assert found.equal
    assert [o.difference for o in found.outcomes].count(None) == 1


def test_folders_that_cannot_be_compared_are_refused(pair, tmp_path):
    left, run = pair
    with pytest.raises(HarnessError, match="are folders of different kinds"):
        diff(left, run.cell)
    with pytest.raises(HarnessError, match="there is no record under"):
        diff(left, tmp_path / "nowhere")
    (run.cell / "samples.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(HarnessError, match=r"samples.parquet cannot be read"):
        diff(left, run.folder)


def test_the_command_prints_lines_or_json_and_leaves_as_asked(pair):
    left, run = pair

    def call(*words):
        return CliRunner().invoke(app, ["diff", str(left), str(run.folder), *words])

    assert call("--exit-code").exit_code == 0
    run.change(run.cell / "record.json", lambda r: r.update(address="0" * 64))
    assert call().exit_code == 0
    found = call("--json", "--exit-code")
    assert found.exit_code == 1
    told = json.loads(found.stdout)
    assert told["equal"] is False
    assert len(told["outcomes"]) == 5
    assert CliRunner().invoke(app, ["diff", str(left), "nowhere"]).exit_code == 2

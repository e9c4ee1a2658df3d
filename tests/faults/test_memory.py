"""Memory that does not suffice, at the smoke size: the batch is halved, and what is too large is a failure."""

import pandas as pd
import pytest
import torch

from harness import generation, jobs, records
from harness.errors import HarnessError
from harness.experiment import Experiment

SPEC = {
    "name": "x",
    "backbones": {"tiny": {"random": "tiny-llama"}},
    "rows": ["frozen", "delta_mem_tsw"],
    "tasks": [
        {
            "task": "write_clear_read",
            "episodes": 3,
            "max_new_tokens": 3,
            "settings": {"facts": 4},
            "conditions": {"replayed": ["own"], "removed": ["own", "mean"]},
        }
    ],
    "seeds": [1],
    "data": {"source": "generated"},
    "training": {"task": "write_clear_read", "episodes": 2},
    "budget": {"steps": 1, "batch_size": 2, "accumulation": 1},
    "run": {"executor": "inline", "device": "cpu", "workers": 1},
}
CELL = "x/tiny/frozen/seed1/write_clear_read/replayed/own"
QUESTIONS = 4
"""Of each of three episodes."""


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of a job's own handles it."""


def job(results, kind="evaluate", row="frozen", **more):
    spec = Experiment.model_validate(SPEC).model_dump(mode="json", by_alias=True)
    asked = {"kind": kind, "experiment": spec, "backbone": "tiny", "row": row, "seed": 1, "results": str(results)}
    return jobs.run({**asked, **more})


def short(monkeypatch, most, fail, too_large=()):
    """Memory for ``most`` questions together, and never for prompts of ``too_large``; gives the sizes tried."""
    tried, plain = [], generation._decode

    def decode(backbone, batch, *rest):
        tried.append(len(batch))
        if len(batch) > most or any(p.sha256 in too_large for p in batch):
            fail()
        return plain(backbone, batch, *rest)

    monkeypatch.setattr(generation, "_decode", decode)
    return tried


def runs_out():
    torch.empty(2**50, dtype=torch.uint8)


def is_killed():
    raise KilledError


@pytest.fixture(autouse=True)
def _no_gates(monkeypatch):
    """They ask too, before the first answer, and with batches of their own."""
    monkeypatch.setattr(jobs, "_prove", lambda *_: None)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    results = tmp_path_factory.mktemp("unbroken")
    job(results)
    assert records.load(results / CELL / "record.json").provenance.least_batch is None
    return left(results)


def left(results):
    return pd.read_parquet(results / CELL / "samples.parquet").sort_values("question_id", ignore_index=True)


def until_done(results):
    """What the cluster does: a killed worker's job begins again with half of its batch; gives the workers lost."""
    for killed in range(20):
        try:
            job(results, killed=killed)
        except KilledError:
            continue
        return killed
    raise AssertionError("it never ends")


def test_a_shortage_halves_the_batch_and_changes_no_answer(unbroken, tmp_path, monkeypatch):
    tried = short(monkeypatch, 1, runs_out)
    job(tmp_path)
    record = records.load(tmp_path / CELL / "record.json")
    assert tried[:6] == [4, 2, 1, 1, 1, 1]
    assert tried[6:] == [1] * 8  # the cell goes on with what memory suffices for
    assert (record.provenance.batch_size, record.provenance.least_batch) == (16, 1)
    assert (record.status, record.failures) == ("ok", [])
    pd.testing.assert_frame_equal(left(tmp_path), unbroken)


def test_a_question_that_is_too_large_alone_is_a_failure_with_its_reason(unbroken, tmp_path, monkeypatch):
    large = unbroken.iloc[1]
    tried = short(monkeypatch, 4, runs_out, {large["prompt_sha256"]})
    job(tmp_path)
    record = records.load(tmp_path / CELL / "record.json")
    (failure,) = record.failures
    assert (failure.question, failure.status) == (large["question_id"], "skipped")
    assert "memory ran short" in failure.reason
    assert "give its worker more memory" in failure.reason
    assert tried == [4, 2, 1, 1, 1, 1, 4, 4]  # of the other two histories each is one batch again
    pd.testing.assert_frame_equal(left(tmp_path), unbroken.drop(1).reset_index(drop=True))
    monkeypatch.undo()
    assert job(tmp_path)["answered"] == 1  # with more memory the same command completes it
    pd.testing.assert_frame_equal(left(tmp_path), unbroken)


def test_a_cell_of_which_nothing_can_be_answered_has_a_record_that_says_so(tmp_path, monkeypatch):
    tried = short(monkeypatch, 0, runs_out)
    job(tmp_path)
    record = records.load(tmp_path / CELL / "record.json")
    assert (record.status, record.questions, len(record.failures)) == ("skipped", 0, 12)
    assert len(tried) == 3 * (2 + QUESTIONS)


def test_a_history_that_memory_is_too_short_for_is_written_once_and_failed(tmp_path, monkeypatch):
    job(tmp_path, "fit", "delta_mem_tsw")
    from methods.delta_mem import DeltaMem

    tried = []
    monkeypatch.setattr(DeltaMem, "write", lambda self, history, state=None: tried.append(history) or runs_out())
    job(tmp_path, row="delta_mem_tsw")
    for arm in ("own", "mean"):
        cell = tmp_path / f"x/tiny/delta_mem_tsw/seed1/write_clear_read/removed/{arm}/record.json"
        assert (records.load(cell).status, len(records.load(cell).failures)) == ("skipped", 12)
    assert len(tried) == 3  # the cells share what could not be written


def test_a_killed_worker_is_followed_by_one_with_half_of_the_batch(unbroken, tmp_path, monkeypatch):
    tried = short(monkeypatch, 1, is_killed)
    assert until_done(tmp_path) == 2
    assert tried == [4, 2, *[1] * 12]
    record = records.load(tmp_path / CELL / "record.json")
    assert (record.provenance.batch_size, record.provenance.least_batch) == (16, 1)
    pd.testing.assert_frame_equal(left(tmp_path), unbroken)
    assert not list(tmp_path.rglob(".trail.json"))


def test_what_kills_a_worker_at_one_question_is_a_failure_in_the_end(unbroken, tmp_path, monkeypatch):
    large = unbroken.iloc[QUESTIONS + 1]  # of the second history
    short(monkeypatch, 4, is_killed, {large["prompt_sha256"]})
    assert until_done(tmp_path) == 3
    record = records.load(tmp_path / CELL / "record.json")
    assert {f.episode for f in record.failures} == {large["history_id"]}
    assert len(record.failures) == QUESTIONS
    assert "killed for want of memory" in record.failures[0].reason
    kept = unbroken[unbroken["history_id"] != large["history_id"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(left(tmp_path), kept)


def test_a_fit_that_runs_short_says_which_setting_mends_it(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.training.EpisodeTrainer.compute_loss", lambda *_, **__: runs_out())
    with pytest.raises(HarnessError, match=r"short in the fit of tiny/delta_mem_tsw \(.*lower budget.batch_size and"):
        job(tmp_path, "fit", "delta_mem_tsw")
    assert not list((tmp_path / "fits").glob("[!.]*"))


def test_gates_that_run_short_end_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_prove", lambda *_: runs_out())
    with pytest.raises(HarnessError, match="memory ran short in the evaluate of tiny/frozen"):
        job(tmp_path)

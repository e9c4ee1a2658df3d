"""What a run reads again, torn, flipped and exchanged: a few of each kind that ``make faults`` does by the hundred."""

from collections import Counter

import pytest

from harness import manifest
from harness.errors import HarnessError
from harness.experiment import cells, jobs
from tests.faults import campaign_flips, campaign_logs, campaign_payloads
from tests.faults.broken_off import broken_off


@pytest.fixture(scope="module")
def small():
    """A run that was broken off, and the tables of one that was not."""
    with broken_off() as found:
        yield found


def test_a_run_that_was_broken_off_ends_with_the_same_tables(small):
    broken, tables = small
    with broken.copy() as run:
        run.again()
        assert run.tables() == tables
        assert run.said() == []


def test_no_flipped_bit_is_used_unseen(small):
    broken, tables = small
    drawn = list(campaign_flips.drawn(broken, len(campaign_flips.ARTEFACTS)))
    found = {kind: campaign_flips.outcome(broken, file, bit, tables) for file, bit, kind in drawn}
    assert {kind: told for kind, told in found.items() if told not in campaign_flips.DETECTED} == {}
    assert Counter(found.values()).keys() == set(campaign_flips.DETECTED)


def test_a_flip_that_nothing_tells_fails_the_campaign(small, monkeypatch):
    broken, tables = small
    (record,) = broken.folder.glob("results/smoke/*/lora/seed2/write_clear_read/replayed/own/record.json")
    bit = 8 * record.read_bytes().index(b"pinned")  # a letter of what no table tells
    assert campaign_flips.outcome(broken, record.relative_to(broken.folder), bit, tables) == "refused"
    monkeypatch.setattr("harness.seals.opened", lambda text: b"{" + text[text.index(b",") + 1 :])
    assert campaign_flips.outcome(broken, record.relative_to(broken.folder), bit, tables) == "unseen in record.json"


def test_a_log_that_is_cut_loses_one_record_at_most(small):
    broken, tables = small
    cuts = campaign_logs.offsets(broken.folder / campaign_logs.JOURNAL)
    chosen = [cuts[0], cuts[1], cuts[len(cuts) // 2], cuts[-2], cuts[-1]]
    with campaign_logs.answering(broken) as run:
        assert [campaign_logs.wrong(run, cut, tables) for cut in chosen] == [""] * len(chosen)


def test_a_pickle_is_executed_at_no_door(small, tmp_path):
    mark = tmp_path / "mark"
    campaign_payloads.armed(mark)
    doors = campaign_payloads.doors(small[0], mark)
    assert len(doors) > 30
    found = {name: campaign_payloads.entered(door, mark) for name, door in doors.items()}
    assert [name for name, outcome in found.items() if outcome == "executed"] == []


def test_a_door_that_executes_a_pickle_is_seen(tmp_path):
    def careless():
        import pickle

        campaign_payloads.plain(tmp_path / "mark", tmp_path / "x")
        pickle.loads((tmp_path / "x").read_bytes())

    assert campaign_payloads.entered(careless, tmp_path / "mark") == "executed"


def test_marks_that_do_not_hold_are_made_again_and_records_are_refused(small):
    with small[0].copy() as run:
        pipeline = run.pipeline()
        job = next(job for job in jobs(pipeline.experiment) if job.path.match("lora/seed1"))
        marks = [run.results / job.path / name for name in ("fit.json", "evaluated.json")]
        for mark in marks:
            mark.write_bytes(campaign_flips.flip(mark.read_bytes(), 8 * 120))
        pipeline.forget()
        assert not any(mark.exists() for mark in marks)
        run.again()
        record = run.results / cells(pipeline.experiment, job)[0].path / "record.json"
        record.write_bytes(record.read_bytes()[:-9])
        manifest.path_of(run.results, "smoke").unlink()  # which would tell it too
        with pytest.raises(HarnessError, match="is not as it was written"):
            pipeline.forget()

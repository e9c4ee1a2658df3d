"""Hours: what is used is counted to the end, what would be too much is not begun, and nothing finished is lost."""

import json
from types import SimpleNamespace

import pytest

from harness import allowance, jobs, records
from harness.allowance import Allowance, Limit, SpentError
from harness.errors import HarnessError
from harness.experiment import Experiment

HOUR = 3600.0


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(allowance.time, "monotonic", lambda: now.seconds)
    return now


def worker(folder, name="tiny/row/evaluate-42", limit=None, **options):
    return Allowance(folder, name, limit=limit and Limit(limit, "worker"), **options)


def used(folder):
    return allowance.hours(folder, Limit(1, "worker"))


def test_two_ways_to_say_a_limit():
    assert Limit.given(None, None, 1) is None
    assert Limit.given(2, None, 1) == Limit(2, "gpu")
    assert Limit.given(None, 2, 0) == Limit(2, "worker")
    for given, said in (
        ((1, 2, 1), "two limits"),
        ((1, None, 0), "give max_worker_hours"),
        ((None, 0, 0), "give a positive number"),
        ((float("nan"), None, 1), "give a positive number"),
    ):
        with pytest.raises(HarnessError, match=said):
            Limit.given(*given)


def test_gpu_hours_are_seconds_times_the_gpus_of_the_worker(tmp_path, clock):
    job = Allowance(tmp_path, "tiny/row/fit-1", gpus=4)
    clock.seconds += HOUR / 2
    job.close()
    assert allowance.hours(tmp_path, Limit(1, "gpu")) == 2
    assert used(tmp_path) == 0.5


def test_every_run_of_every_job_counts(tmp_path, clock):
    for name in ("a/r/fit-1", "a/r/fit-1", "b/r/evaluate-1"):
        job = worker(tmp_path, name)
        clock.seconds += HOUR
        job.close()
    assert used(tmp_path) == 3


def test_a_piece_that_would_be_too_much_is_not_begun(tmp_path, clock):
    job = worker(tmp_path, limit=2.0, predicted={"short": HOUR, "long": 2 * HOUR})
    with job.piece("short"):
        clock.seconds += HOUR
    with pytest.raises(SpentError, match=r"long is predicted to take 2 worker-hours, and 1 of 2 worker-hours are used"):
        job.piece("long").__enter__()
    with job.piece("long", left=0.5):
        pass
    assert any(note.stopped for note in allowance.spent(tmp_path).values())


def test_what_is_promised_to_others_is_not_promised_twice(tmp_path, clock):
    first, second = (worker(tmp_path, f"{n}/r/fit-1", limit=1.0, predicted={"fit": 0.6 * HOUR}) for n in "ab")
    with first.piece("fit"), pytest.raises(SpentError):
        second.piece("fit").__enter__()
    first.close()
    with second.piece("fit"):
        pass


def test_the_pace_of_finished_pieces_corrects_what_is_predicted_of_the_next(tmp_path, clock):
    job = worker(tmp_path, limit=3.0, predicted={"one": HOUR, "two": HOUR})
    with job.piece("one"):
        clock.seconds += 2 * HOUR
    with pytest.raises(SpentError, match="two is predicted to take 2 worker-hours"):
        job.piece("two").__enter__()


def test_a_piece_that_takes_longer_than_predicted_ends_where_all_of_it_is_kept(tmp_path, clock):
    job = worker(tmp_path, limit=1.0, predicted={"cell": 60.0})
    job.piece("cell").__enter__()
    for _ in range(10):  # episodes
        clock.seconds += 0.1 * HOUR
        job.kept()
    clock.seconds += 0.1 * HOUR
    with pytest.raises(SpentError, match="no more may be used"):
        job.kept()
    job.close()
    assert used(tmp_path) == pytest.approx(1.1)
    assert not any(note.ahead for note in allowance.spent(tmp_path).values())


def test_a_kill_costs_seconds_of_the_log_and_its_promise_ends_with_the_next_run(tmp_path, clock):
    job = worker(tmp_path, limit=10.0, predicted={"cell": 9 * HOUR})
    job.piece("cell").__enter__()
    clock.seconds += HOUR
    job.kept()
    with job.path.open("a") as log:
        log.write('\n{"run": "torn')
    other = worker(tmp_path, "b/r/fit-1", limit=10.0, predicted={"fit": 2 * HOUR})
    with pytest.raises(SpentError):
        other.piece("fit").__enter__()
    allowance.release(tmp_path)
    with other.piece("fit"):
        pass
    assert used(tmp_path) == 1


def test_a_job_does_not_begin_where_all_is_used(tmp_path, clock):
    allowance.charge(tmp_path, "a/r/fit-1", HOUR, 0.0)
    job = worker(tmp_path, limit=1.0)
    with pytest.raises(SpentError, match="1 of 1 worker-hours"):
        job.begin()
    worker(tmp_path, limit=1.1).begin()


def test_what_ran_before_there_were_logs_is_charged_once(tmp_path):
    for _ in range(2):
        allowance.charge(tmp_path, "tiny/row/fit-1", HOUR, 0.0)
    assert used(tmp_path) == 1


def test_a_job_that_kept_a_log_is_charged_by_it_alone(tmp_path, clock):
    job = worker(tmp_path)
    with job.piece("fit"):
        clock.seconds += 2 * HOUR
    job.close()
    allowance.charge(tmp_path, str(job.path.relative_to(tmp_path / "spent").with_suffix("")), HOUR, 0.0)
    assert used(tmp_path) == 2


SPEC = {
    "name": "x",
    "backbones": {"tiny": {"random": "tiny-llama"}},
    "rows": ["frozen", "lora"],
    "tasks": [{"task": "write_clear_read", "as": f"t{n}", "episodes": 3, "max_new_tokens": 3} for n in range(3)],
    "seeds": [1],
    "data": {"source": "generated"},
    "training": {"task": "write_clear_read", "episodes": 8},
    "budget": {"steps": 4, "batch_size": 2, "accumulation": 1, "save_every": 1},
    "run": {"executor": "inline", "device": "cpu", "workers": 1, "gpus_per_worker": 1},
}
"""A run that reserves a GPU for its worker and has none, so that GPU-hours can be counted here."""


def request(results, kind, row, hours=None, predicted=()):
    spec = Experiment.model_validate(SPEC).model_dump(mode="json", by_alias=True)
    limit = hours and {"hours": hours, "unit": "gpu"}
    words = {"kind": kind, "experiment": spec, "backbone": "tiny", "row": row, "seed": 1, "results": str(results)}
    return {**words, "limit": limit, "predicted": dict(predicted)}


def answers(results):
    cells = sorted((results / "x").rglob("record.json"))
    return {str(p.relative_to(results)): [s.value for s in records.load(p).scores.values()] for p in cells}


def test_an_evaluation_stops_between_cells_and_a_larger_limit_goes_on(tmp_path):
    predicted = {f"t{n}/replayed/own": seconds for n, seconds in enumerate((1e-6, 1e-6, HOUR))}
    with pytest.raises(SpentError, match="t2/replayed/own is predicted to take"):
        jobs.run(request(tmp_path, "evaluate", "frozen", hours=0.5, predicted=predicted))
    stopped = answers(tmp_path)
    assert len(stopped) == 2
    assert jobs.run(request(tmp_path, "evaluate", "frozen", hours=1e12, predicted=predicted))["answered"] == 1
    assert answers(tmp_path).items() >= stopped.items()
    jobs.run(request(tmp_path / "unbroken", "evaluate", "frozen"))
    assert answers(tmp_path / "unbroken") == answers(tmp_path)


def test_a_fit_stops_at_a_checkpoint_and_goes_on_to_the_same_losses(tmp_path, monkeypatch):
    monkeypatch.setattr(allowance, "EVERY", 0.0)
    hours = iter([0.0, 0.0])  # when the job begins, and its fit
    counted = Allowance._hours
    monkeypatch.setattr(Allowance, "_hours", lambda self, notes: next(hours, 2.0))
    with pytest.raises(SpentError, match="no more may be used"):
        jobs.run(request(tmp_path, "fit", "lora", hours=1.0))
    monkeypatch.setattr(Allowance, "_hours", counted)
    states = [json.loads(path.read_text()) for path in (tmp_path / "fits").rglob("trainer_state.json")]
    assert [state["global_step"] for state in states] == [1]
    resumed = jobs.run(request(tmp_path, "fit", "lora"))
    whole = jobs.run(request(tmp_path / "unbroken", "fit", "lora"))
    assert resumed["losses"] == whole["losses"]
    assert resumed["adapter_hash"] == whole["adapter_hash"]

"""Speed and memory: exact lengths, bytes by the closed form, failures told, everything but times the same again."""

from __future__ import annotations

import json

import pytest
import torch

from harness import efficiency, efficiency_records, generation, jobs
from harness.efficiency_records import Peaks, Run, figures, load, ratios
from harness.errors import HarnessError, SkippedError, UnsupportedError
from harness.experiment import Experiment, Job, measured_under, measurements
from harness.progress import Progress
from harness.registry import resolve, row_names

SPEC = {
    "name": "x",
    "backbones": {"tiny": {"random": "tiny-llama"}},
    "efficiency": {"prompt_lengths": [256, 700], "decode_lengths": [1, 5], "repeats": 2},
    "run": {"executor": "inline", "device": "cpu", "workers": 1},
}
FEW = {
    "kv_prefix": {"steps": 2, "batch_size": 2, "longest": 8},
    "memory_bank_lm": {"summary_tokens": 8},
    "memit": {"steps": 2, "prefixes": 1, "moment_tokens": 64},
    "rome": {"steps": 2, "prefixes": 1},
}
LAYERS, HEADS, WIDTH, NUMBER = 2, 2, 16, 4
"""Of tiny-llama: layers, key-value heads, their width, and bytes of a number."""
POSITION = 2 * LAYERS * HEADS * WIDTH * NUMBER
"""Bytes of one token's keys and values."""


def experiment(row, settings=None, **changes):
    return Experiment.model_validate({**SPEC, "rows": [{"row": row, "with": settings or {}}], **changes})


def measured(backbone, row, settings=None, **changes):
    spec = experiment(row, settings, **changes)
    return efficiency.measure(spec, measurements(spec)[0], backbone, Progress(None))


def short(row, backbone, settings=None):
    lengths = {"prompt_lengths": [300], "decode_lengths": [3], "repeats": 1, "warm_up": 0}
    return measured(backbone, row, settings, efficiency=lengths)


def at(record, condition, prompt=256, decode=5):
    key = (condition, prompt, decode)
    return next(p for p in record.points if (p.condition, p.prompt_length, p.decode_length) == key)


@pytest.fixture(scope="module")
def backbone():
    from harness.backbones import open_backbone
    from harness.experiment import BackboneSpec, RunSpec

    torch.set_num_threads(1)
    return open_backbone(BackboneSpec(random="tiny-llama"), RunSpec(device="cpu"))


@pytest.fixture(scope="module")
def delta(backbone):
    return measured(backbone, "delta_mem_tsw")


# --- the prompt ---


@pytest.mark.parametrize("length", [64, 255, 256, 257, 700, 1024, 4000])
def test_history_and_question_are_a_prompt_of_exactly_so_many_tokens(backbone, length):
    given = efficiency.material(backbone, length)
    assert len(generation.prompt(backbone, given.history.messages, given.query).ids) == length
    assert given.written == len(backbone.encode(given.history.messages)[0])
    assert all(m.content.startswith(efficiency.SENTENCE[:8]) for m in given.history.messages)


def test_a_prompt_without_room_for_a_history_is_refused(backbone):
    with pytest.raises(UnsupportedError, match="no room beside the question's"):
        efficiency.material(backbone, 20)


# --- what is counted ---


def test_every_point_is_there_once(delta):
    keys = [(p.condition, p.prompt_length, p.decode_length) for p in delta.points]
    assert keys == [(c, n, d) for c in ("replayed", "removed") for n in (256, 700) for d in (1, 5)]
    assert all(len(side.runs) == 2 for p in delta.points for side in (p.row, p.frozen))


def test_lengths_are_exact(delta):
    for p in delta.points:
        assert p.frozen.prompt_tokens == p.prompt_length
        assert p.row.new_tokens == p.frozen.new_tokens == p.decode_length
        assert (p.row.prompt_tokens == p.prompt_length) == (p.condition == "replayed")


def test_an_end_of_turn_does_not_end_the_answer(tiny, monkeypatch):
    backbone = tiny()
    given, heard = efficiency.material(backbone, 64), []
    asked = generation.prompt(backbone, given.history.messages, given.query)
    free, steering = [], generation.Steering()
    generation.forced(backbone, asked, steering, 6, lambda at, token: free.append(int(token)))
    backbone.eos_token_ids = sorted({*backbone.eos_token_ids, free[1]})  # the second token now ends an answer
    answer = generation.answer(backbone, [asked], steering, max_new_tokens=6)[0][0]
    assert answer.new_tokens <= 2
    generation.forced(backbone, asked, steering, 6, lambda at, token: heard.append((at, int(token))))
    assert heard == list(enumerate(free))


def test_forced_tokens_are_those_of_an_answer(tiny):
    backbone = tiny()
    given, free = efficiency.material(backbone, 64), []
    asked = generation.prompt(backbone, given.history.messages, given.query)
    backbone.eos_token_ids = [257]
    generation.forced(backbone, asked, generation.Steering(), 6, lambda at, token: free.append(int(token)))
    answer = generation.answer(backbone, [asked], generation.Steering(), max_new_tokens=6)[0][0]
    assert backbone.tokenizer.decode(free, skip_special_tokens=True).startswith(answer.text)
    assert answer.new_tokens == 6 or 257 in free


def test_bytes_of_keys_and_values_are_the_closed_form(delta):
    for p in delta.points:
        assert p.frozen.kv_bytes == p.frozen.prompt_tokens * POSITION
        assert p.row.kv_bytes == p.row.prompt_tokens * POSITION


def test_a_prefix_of_keys_and_values_counts(backbone):
    point = at(measured(backbone, "prefix_tuning"), "replayed")
    assert point.row.kv_bytes == (256 + 80) * POSITION
    assert point.row.prompt_tokens == 256


@pytest.mark.parametrize("row", ["delta_mem_tsw", "delta_mem_msw", "bm25_rag", "kv_prefix"])
def test_bytes_of_a_state_are_those_that_the_state_tells(backbone, row):
    cls, config = resolve(row, FEW.get(row))
    method = cls(config, backbone, 0)
    try:
        state = method.write(efficiency.material(backbone, 300).history)
    finally:
        method.close()
    record = short(row, backbone, FEW.get(row))
    kept = [p.row for p in record.points if p.row]
    assert {side.state_bytes for side in kept} == {state.nbytes()}  # of δ-mem under replayed too: the cache carries it


def test_a_history_is_written_only_where_it_is_out_of_sight(delta):
    replayed, removed = (at(delta, c).row for c in ("replayed", "removed"))
    assert replayed.tokens_written == 0
    assert removed.tokens_written > 200
    assert all(run.write_seconds is None for run in replayed.runs)
    assert all(run.write_seconds > 0 for run in removed.runs)
    assert removed.memory.write_bytes > 0


def test_text_that_is_put_back_stands_for_the_history_that_is_removed(backbone):
    record = measured(backbone, "window", {"budget_tokens": 64})
    assert [p.condition for p in record.points] == ["replayed"] * 4 + ["own_text"] * 4
    point = at(record, "own_text", 700)
    assert 64 < point.row.prompt_tokens < 200
    assert at(record, "replayed").reason == "the row does not serve the condition 'replayed'"


def test_parameters_are_counted(delta, backbone):
    cls, config = resolve("delta_mem_tsw")
    method = cls(config, backbone, 0)
    assert delta.trainable_parameters == method.trainable_parameters() > 0
    method.close()
    assert (delta.backbone_weights, delta.method_weights, delta.provenance.fit) == ("random", "initial", None)


# --- beside the bare backbone ---


def test_frozen_is_its_own_reference(backbone):
    record = measured(backbone, "frozen")
    point = at(record, "replayed")
    assert point.row.answer_sha256 == point.frozen.answer_sha256
    assert (point.ratios["kv_bytes"], point.ratios["state_to_kv"]) == (1, 0)
    assert 0.05 < point.ratios["prefill_seconds"] < 20
    assert record.method_weights == "none"
    assert {p.status for p in record.points if p.condition == "removed"} == {"unsupported"}


def test_ratios_are_of_figures(delta):
    for p in delta.points:
        ours, theirs = p.row.figures, p.frozen.figures
        assert p.ratios["first_token_seconds"] == ours.first_token_seconds / theirs.first_token_seconds
        assert p.ratios["state_to_kv"] == p.row.state_bytes / p.frozen.kv_bytes
        assert ("decode_tokens_per_second" in p.ratios) == (p.decode_length > 1)


def test_figures_are_medians_and_what_follows():
    runs = [Run(write_seconds=w, read_seconds=r, prefill_seconds=2, decode_seconds=d) for w, r, d in
            ((1, 1, 2), (5, 3, 4), (3, 2, 9))]  # fmt: skip
    memory = Peaks(start_bytes=100, write_bytes=180, prefill_bytes=150, decode_bytes=160)
    found = figures(runs, memory, new_tokens=9)
    assert (found.write_seconds, found.read_seconds, found.first_token_seconds) == (3, 2, 4)
    assert (found.generate_tokens_per_second, found.decode_tokens_per_second) == (9 / 6, 2)
    assert (found.peak_bytes, found.peak_above_start_bytes, found.answer_above_start_bytes) == (180, 80, 60)


def test_what_the_system_does_not_tell_stays_empty():
    silent = Peaks(start_bytes=None, prefill_bytes=None, decode_bytes=None)
    found = figures([Run(read_seconds=0, prefill_seconds=1, decode_seconds=1)], silent, new_tokens=1)
    assert (found.peak_bytes, found.peak_above_start_bytes, found.decode_tokens_per_second) == (None, None, None)
    facts = {"prompt_tokens": 1, "new_tokens": 1, "kv_bytes": 1, "state_bytes": 0, "answer_sha256": ""}
    side = efficiency_records.Side(**facts, runs=[], memory=silent, figures=found)
    assert "peak_bytes" not in ratios(side, side)


# --- the same again, and the backbone as it was ---


def constant(record):
    """All but times and memory."""
    told = record.model_dump()
    del told["date"]
    for point in told["points"]:
        del point["ratios"]
        for side in filter(None, (point["row"], point["frozen"])):
            del side["runs"], side["figures"], side["memory"]
    return told


def test_everything_but_times_and_memory_is_the_same_again(delta, backbone):
    assert constant(measured(backbone, "delta_mem_tsw")) == constant(delta)


@pytest.mark.parametrize("row", sorted(row_names()))
def test_every_method_is_measured_and_the_backbone_restored(row, tiny, token_classifier):
    backbone, settings = tiny(), {"llmlingua2": {"classifier": token_classifier}, **FEW}.get(row)
    if row.startswith("context2lora"):
        settings = {"passes": None, "steps": 2, "batch_size": 2}
    before = backbone.model(input_ids=torch.arange(40)[None]).logits
    record = short(row, backbone, settings)
    arms = resolve(row, settings)[0].capabilities.arms
    assert [p.status == "ok" for p in record.points] == [bool(measured_under(arms, c)) for c in ("replayed", "removed")]
    assert all(p.ratios for p in record.points if p.status == "ok")
    assert torch.equal(backbone.model(input_ids=torch.arange(40)[None]).logits, before)
    assert not backbone.adapters


# --- failures ---


def test_beyond_the_window_is_told_at_its_point_alone(backbone):
    lengths = {"prompt_lengths": [256, 4090], "decode_lengths": [3, 10], "conditions": ["replayed"], "repeats": 1}
    record = measured(backbone, "frozen", efficiency=lengths)
    assert [p.status for p in record.points] == ["ok", "ok", "ok", "unsupported"]
    assert record.points[-1].reason == "4090 + 10 tokens are beyond the backbone's window of 4096"
    assert record.points[-1].row is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 byte"), "out_of_memory"),
        (SkippedError("its package is not here; install it"), "skipped"),
        (UnsupportedError("it cannot hold that; cut it"), "unsupported"),
    ],
)
def test_a_failure_of_one_length_leaves_the_others(backbone, monkeypatch, error, status):
    cls, _ = resolve("delta_mem_tsw")
    write = cls.write

    def fails_at_length(self, history, state=None):
        if len(self.backbone.encode(history.messages)[0]) > 400:
            raise error
        return write(self, history, state)

    monkeypatch.setattr(cls, "write", fails_at_length)
    record = measured(backbone, "delta_mem_tsw")
    found = {(p.condition, p.prompt_length): (p.status, p.reason) for p in record.points}
    assert found["removed", 700] == (status, str(error))
    assert {status for key, (status, _) in found.items() if key != ("removed", 700)} == {"ok"}
    assert not backbone.adapters


def test_where_the_bare_backbone_fails_the_row_is_measured_still(backbone, monkeypatch):
    bare = efficiency._Bench._bare

    def fails(self, *arguments):
        monkeypatch.setattr(efficiency.generation, "prompt", lambda *_: (_ for _ in ()).throw(MemoryError()))
        bare(self, *arguments)
        monkeypatch.undo()
        monkeypatch.setattr(efficiency._Bench, "_bare", fails)

    monkeypatch.setattr(efficiency._Bench, "_bare", fails)
    point = at(measured(backbone, "delta_mem_tsw"), "removed")
    assert point.status == "ok"
    assert point.frozen is None
    assert point.frozen_reason == "out of memory"
    assert point.ratios == {}


def test_an_error_everywhere_ends_the_job(backbone, monkeypatch):
    monkeypatch.setattr(resolve("frozen")[0], "steer", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measured(backbone, "frozen", efficiency={"prompt_lengths": [100], "conditions": ["replayed"]})


# --- the job and its record ---


def request(results, row="frozen", **changes):
    spec = experiment(row, **changes).model_dump(mode="json", by_alias=True)
    return {"kind": "measure", "experiment": spec, "backbone": "tiny", "row": row, "seed": 0, "results": str(results)}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    jobs.run(request(folder))
    return folder


def test_a_job_leaves_a_record(results):
    record = load(results / "x" / "tiny" / "frozen" / "efficiency.json")
    assert (record.row, record.provenance.batch_size, record.provenance.dtype) == ("frozen", 1, "float32")
    assert record.provenance.config["efficiency"]["prompt_lengths"] == [256, 700]
    assert [p.name for p in (results / "x" / "tiny" / "frozen").iterdir()] == ["efficiency.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: {**told, "points": "none"}, "is not a whole record"),
        (lambda told: {**told, "more": 1}, "is not a whole record"),
        (lambda told: {**told, "schema_version": 2}, "has schema 2, this version reads 1"),
    ],
)
def test_another_record_is_refused(results, tmp_path, change, said):
    told = json.loads((results / "x/tiny/frozen/efficiency.json").read_text(encoding="utf-8"))
    del told["seal"]
    (tmp_path / "efficiency.json").write_text(json.dumps(change(told)))
    with pytest.raises(HarnessError, match=said):
        load(tmp_path / "efficiency.json")


def test_a_record_that_is_not_there_is_told(tmp_path):
    with pytest.raises(HarnessError, match=r"there is no record at .*harness measure"):
        load(tmp_path / "efficiency.json")


def test_an_experiment_that_measures_nothing_is_refused(backbone):
    spec = {**SPEC, "rows": ["frozen"], "tasks": [{"task": "write_clear_read"}], "efficiency": None}
    with pytest.raises(HarnessError, match="measures nothing; give it the key 'efficiency'"):
        efficiency.measure(Experiment.model_validate(spec), Job("x", "tiny", "frozen", 0), backbone, Progress(None))

"""The plan: counts are exact where they can be, costs grow with what they depend on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness import config, loads
from harness import plan as planning
from harness.errors import HarnessError
from harness.experiment import BackboneSpec, RunSpec, cells, jobs
from harness.loads import Forms, Load, parameters
from harness.pilot import QUESTION_TOKENS
from harness.registry import resolve


@pytest.fixture(scope="module")
def smoke():
    return config.load("smoke")


def test_every_job_and_cell_is_planned(smoke):
    estimates = planning.plan(smoke)
    assert {e.job for e in estimates} == set(jobs(smoke))
    assert sum(e.cells for e in estimates) == sum(len(cells(smoke, job)) for job in jobs(smoke))
    assert {e.job.row for e in estimates if e.step == "fit"} == {"lora", "delta_mem_tsw"}


def test_questions_are_counted(smoke):
    counted = planning.size(smoke, smoke.tasks[0])
    assert (counted.histories, counted.questions) == (3, 6)
    assert planning.size(smoke, smoke.tasks[1]).questions == 4


def test_official_sizes_need_no_files():
    paper = config.load("paper")
    sizes = {spec.task.removesuffix("@release"): planning.size(paper, spec).questions for spec in paper.tasks}
    assert sizes == {"ifeval": 541, "hotpotqa": 7405, "gpqa": 198, "memory_agent_bench": 3671, "locomo": 1540}
    assert sum(e.gpu_hours for e in planning.plan(paper)) > 1


def test_the_plan_tells_how_many_questions_are_asked(smoke):
    estimates = planning.plan(smoke)
    told = [line for line in planning.lines(smoke, estimates) if line[1] == "locomo/replayed/own"]
    assert {line[3] for line in told} == {"4"}
    assert next(planning.lines(smoke, estimates))[3] == str(estimates[0].questions or "")


def test_a_task_may_take_its_data_from_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("DELTA_MEM_DATA", str(tmp_path))
    with pytest.raises(HarnessError, match=r"locomo10\.json"):
        planning.plan(config.load("smoke", ["data.source=auto"]))
    chosen = config.load("smoke", ["data.source=auto", "tasks.locomo.source=generated"])
    assert chosen.data_of(chosen.tasks[1]).source == "generated"
    assert chosen.data_of(chosen.tasks[0]).source == "auto"
    assert planning.plan(chosen)


def test_more_steps_cost_more(smoke):
    def seconds(experiment):
        return sum(e.seconds for e in planning.plan(experiment) if e.step == "fit")

    assert seconds(config.load("smoke", ["budget.steps=20"])) == pytest.approx(10 * seconds(smoke))
    tried = config.load("smoke", ["training.dev=2", "training.learning_rates=[0.1, 0.01, 0.001]"])
    assert seconds(tried) == pytest.approx(3 * seconds(smoke))


def test_ranks_divide_the_seconds_of_a_fit_and_not_its_gpu_hours():
    def fits(*changes):
        experiment = config.load("smoke", ["run.gpus_per_worker=1", "budget.accumulation=8", *changes])
        return [(e.seconds, e.gpu_hours) for e in planning.plan(experiment) if e.step == "fit"]

    one, two = fits(), fits("run.fit_workers=2")
    assert two == [(pytest.approx(seconds / 2), hours) for seconds, hours in one]


def test_sizes_of_backbones():
    assert parameters(BackboneSpec(hub="Qwen/Qwen3-4B-Instruct-2507")) == 4e9
    assert 5e4 < parameters(BackboneSpec(random="tiny-llama")) < 5e5
    with pytest.raises(HarnessError, match="unknown shape 'tiny'"):
        parameters(BackboneSpec(random="tiny"))
    with pytest.raises(HarnessError, match="is not installed"):
        parameters(BackboneSpec(gguf="no-such-package"))


def test_the_last_line_is_the_total(smoke):
    estimates = planning.plan(smoke)
    rows = list(planning.lines(smoke, estimates))
    assert len(rows) == len(estimates) + 1
    assert rows[-1][3:5] == [f"{sum(e.questions for e in estimates):,}", f"{sum(e.tokens for e in estimates):,}"]


def test_what_a_history_costs_to_write_is_planned(smoke):
    def seconds(row):
        experiment = config.load("local", [f"rows=[{row}]"])
        return sum(e.seconds for e in planning.plan(experiment) if e.step != "fit")

    cheap, reads = seconds("bm25_rag"), seconds("selective_context")
    assert reads > cheap
    assert all(seconds(row) > 5 * reads for row in ("context2lora", "kv_prefix", "memit"))


def test_a_write_that_is_skipped_costs_nothing():
    _, settings = resolve("context2lora")
    assert settings.write_load(4000, "cpu") == 0 < settings.write_load(4000, "cuda")
    assert settings.write_load(400, "cpu") == 0 < settings.write_load(16, "cpu")


LONG = planning.Size(1, 100, 20_000)
"""One history of LoCoMo's kind."""


def seconds_of(monkeypatch, name, size, *overrides, row="frozen", steps=("locomo/",)):
    """Of the cells of ``steps``, where every task has ``size``."""
    monkeypatch.setattr(planning, "_counted", lambda experiment, spec: (size.histories, size.questions, size.tokens))
    found = planning.plan(config.load(name, [f"rows=[{row}]", *overrides]))
    return sum(e.seconds for e in found if e.step.startswith(steps))


@pytest.mark.parametrize("shape", ["qwen3-4b", "qwen3-8b", "smollm3-3b"])
def test_widths_that_follow_from_parameters_are_those_of_the_shapes_within_a_factor_of_two(shape):
    known = json.loads((Path(loads.__file__).parent / f"shapes/{shape}.json").read_text())
    count = parameters(BackboneSpec(random=shape))
    layers, head = known["num_hidden_layers"], known.get("head_dim", 128)
    forms = Forms(count, RunSpec())
    looked = forms.layers * forms.width / (layers * known["num_attention_heads"] * head)
    kept = forms.layers * forms.width / 3 / (layers * known["num_key_value_heads"] * head)
    assert 0.5 < forms.layers / layers < 2
    assert 0.5 < looked < 2
    assert 0.5 < kept < 2


def test_what_a_token_looks_back_at_counts(monkeypatch):
    """Of Qwen3-4B: 20,000 tokens take 1.6e14 linear operations and 1.2e14 of attention; ten times as many, 1.2e16."""
    for tokens, known in ((20_000, 1.6e14 + 1.2e14), (200_000, 1.6e15 + 1.2e16)):
        assert 0.5 < Forms(4e9, RunSpec()).operations(Load(tokens, tokens**2 / 2)) / known < 2
    short, long = (
        seconds_of(monkeypatch, "one_gpu", replace(LONG, questions=1, tokens=n), "run.batch_size=1") for n in (2e4, 2e5)
    )
    assert long > 20 * short


def test_a_history_is_read_once_for_all_its_questions_and_text_put_back_once_a_question(monkeypatch):
    def tokens(row, condition, size):
        monkeypatch.setattr(planning, "_counted", lambda experiment, spec: (1, size.questions, size.tokens))
        found = planning.plan(config.load("one_gpu", [f"rows=[{row}]"]))
        return next(e.tokens for e in found if e.step == f"locomo/{condition}/own")

    asked = 100 * QUESTION_TOKENS
    assert tokens("frozen", "replayed", LONG) == 20_000 + asked
    assert tokens("bm25_rag", "own_text", LONG) == 100 * 4 * 100 + asked  # four units of a hundred tokens
    assert tokens("window", "own_text", LONG) == 100 * 512 + asked
    assert tokens("window", "own_text", replace(LONG, tokens=300)) == 100 * 300 + asked


def test_long_caches_slow_decoding_and_batches_share_the_weights(monkeypatch):
    def decoding(**changed):
        overrides = [f"run.batch_size={changed.pop('batch', 10)}"]
        return seconds_of(monkeypatch, "one_gpu", replace(LONG, **changed), *overrides)

    assert decoding(batch=1) > 3 * decoding(batch=10)
    forms = Forms(4e9, config.load("one_gpu").run)
    cached, alone = (forms.decoding(1, 100, context, 26) for context in (20_000, 0))
    # 100 rows of 20,000 tokens of 147 KB, copied as they grow, twenty-five times, at 2e12 bytes a second
    assert 0.5 < (cached - alone) / (100 * 20_000 * 147e3 * 3 * 25 / 2e12) < 2


def test_the_reads_of_donors_are_traced_once_and_a_shuffled_history_is_written_anew(monkeypatch):
    arms = "tasks.locomo.conditions={replayed: [own, donor, mean], removed: [own, shuffled, donor]}"
    monkeypatch.setattr(planning, "_counted", lambda experiment, spec: (10, 10, 1000))
    found = planning.plan(config.load("one_gpu", ["rows=[delta_mem_tsw]", arms, "donors=2"]))
    tokens = {e.step.removeprefix("locomo/"): e.tokens for e in found if e.step.startswith("locomo")}
    once, asked = 10 * (1000 + QUESTION_TOKENS), 10 * QUESTION_TOKENS
    assert tokens == {
        "replayed/own": once,
        "replayed/donor": 2 * once + once,
        "replayed/mean": once,
        "removed/own": 10_000 + asked,
        "removed/shuffled": 10_000 + asked,
        "removed/donor": 2 * asked,
    }


def test_a_window_shows_its_end_of_a_history_that_is_written_whole(monkeypatch):
    changed = ["rows=[delta_mem_tsw]", "tasks.locomo.visible_tokens=512", "donors=2"]
    arms = "tasks.locomo.conditions={windowed: [own, donor]}"
    monkeypatch.setattr(planning, "_counted", lambda experiment, spec: (10, 10, 1000))
    found = planning.plan(config.load("one_gpu", [*changed, arms]))
    tokens = {e.step: e.tokens for e in found if e.step.startswith("locomo")}
    seen = 10 * (512 + QUESTION_TOKENS)
    assert tokens == {"locomo/windowed/own": seen + 10_000, "locomo/windowed/donor": 2 * seen}


def test_one_gpu_takes_a_night():
    one = config.load("one_gpu")
    assert (one.run.workers, one.run.gpus_per_worker) == (1, 1)
    assert 5 < sum(e.gpu_hours for e in planning.plan(one)) <= 12
    sizes = {spec.name: planning.size(one, spec).questions for spec in one.tasks}
    assert (sizes["locomo"], sizes["hotpotqa"]) == (1540, 1000)


def test_measurements_are_planned_and_longer_ones_cost_more():
    estimates = planning.plan(config.load("efficiency"))
    assert {e.step for e in estimates} == {"measure"}
    assert len(estimates) == len(config.load("efficiency").rows)
    longer = planning.plan(config.load("efficiency", ["efficiency.prompt_lengths=[512, 2048]"]))
    assert all(b.tokens > a.tokens and b.seconds > a.seconds for a, b in zip(estimates, longer, strict=True))
    assert next(planning.lines(config.load("efficiency"), estimates))[:2] == ["small_qwen3/frozen", "measure"]


def test_a_step_of_training_takes_a_pass_there_and_one_back():
    """The weights are frozen, so that the way back computes no gradient of theirs: as much again, not twice."""
    forms, load = Forms(1e8, RunSpec()), Load(tokens=1000, pairs=5e5, calls=4)
    assert forms.training(load) == 2 * forms.reading(load)

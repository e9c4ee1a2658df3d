"""The plan: counts are exact where they can be, costs grow with what they depend on."""

import pytest

from harness import config
from harness import plan as planning
from harness.errors import HarnessError
from harness.experiment import BackboneSpec, cells, jobs
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
    assert planning.size(paper, paper.tasks[0]).questions == 1540
    assert sum(e.gpu_hours for e in planning.plan(paper)) > 1


def test_more_steps_cost_more(smoke):
    def seconds(experiment):
        return sum(e.seconds for e in planning.plan(experiment) if e.step == "fit")

    assert seconds(config.load("smoke", ["budget.steps=20"])) == pytest.approx(10 * seconds(smoke))
    tried = config.load("smoke", ["training.dev=2", "training.learning_rates=[0.1, 0.01, 0.001]"])
    assert seconds(tried) == pytest.approx(3 * seconds(smoke))


def test_a_step_is_done_again_when_what_its_method_shares_changes(tmp_path):
    for name, text in (("one.py", "a"), ("_shared.py", "b"), ("two.py", "c")):
        (tmp_path / name).write_text(text)
    before = planning._sources(tmp_path / "one.py")
    (tmp_path / "two.py").write_text("changed")
    assert planning._sources(tmp_path / "one.py") == before
    (tmp_path / "_shared.py").write_text("changed")
    assert planning._sources(tmp_path / "one.py") != before


def test_all_of_a_package_is_watched(tmp_path):
    for name in ("__init__.py", "_part.py", "helper.py"):
        (tmp_path / name).write_text(name)
    for file in ("__init__.py", "_part.py"):
        before = planning._sources(tmp_path / file)
        (tmp_path / "helper.py").write_text(f"changed {file}")
        assert planning._sources(tmp_path / file) != before


def test_sizes_of_backbones():
    assert planning.parameters(BackboneSpec(hub="Qwen/Qwen3-4B-Instruct-2507")) == 4e9
    assert 5e4 < planning.parameters(BackboneSpec(random="tiny-llama")) < 5e5
    with pytest.raises(HarnessError, match="unknown shape 'tiny'"):
        planning.parameters(BackboneSpec(random="tiny"))
    with pytest.raises(HarnessError, match="is not installed"):
        planning.parameters(BackboneSpec(gguf="no-such-package"))


def test_a_fit_follows_from_its_budget_and_not_from_the_questions(smoke):
    job = next(j for j in jobs(smoke) if j.row == "lora")

    def prints(*overrides):
        changed = config.load("smoke", overrides)
        return [planning.fingerprint(changed, job, step) for step in ("fit", "evaluate")]

    fit, evaluation = prints()
    assert prints("tasks.locomo.limit=2")[0] == fit
    assert prints("tasks.locomo.limit=2")[1] != evaluation
    assert prints("budget.steps=3")[0] != fit
    assert prints("run.executor=inline") == [fit, evaluation]
    assert prints("methods+=question_only") == [fit, evaluation]


def test_the_last_line_is_the_total(smoke):
    estimates = planning.plan(smoke)
    rows = list(planning.lines(smoke, estimates))
    assert len(rows) == len(estimates) + 1
    assert rows[-1][3] == f"{sum(e.tokens for e in estimates):,}"


def test_what_a_history_costs_to_write_is_planned(smoke):
    def seconds(row):
        experiment = config.load("local", [f"rows=[{row}]"])
        return sum(e.seconds for e in planning.plan(experiment) if e.step != "fit")

    cheap, reads = seconds("bm25_rag"), seconds("selective_context")
    assert reads > cheap
    assert all(seconds(row) > 10 * reads for row in ("context2lora", "kv_prefix", "memit"))


def test_a_write_that_is_skipped_costs_nothing():
    _, settings = resolve("context2lora")
    assert settings.write_load(4000, "cpu") == 0 < settings.write_load(4000, "cuda")
    assert settings.write_load(400, "cpu") == 0 < settings.write_load(16, "cpu")

"""The paper's contrasts beside ours: the right rows, the right gain, and a verdict only where it is one."""

import math
import shutil

import pandas as pd
import pytest

from harness import records, statistics
from harness.config import load
from harness.reporting import reported
from harness.reporting.aggregates import Score
from harness.reporting.audit import markdown
from harness.reporting.audit.tested import claims_tested
from harness.reporting.reported import FOLDER
from harness.reporting.summary import Place, Summary

QWEN = {"qwen": {"hub": "Qwen/Qwen3-4B-Instruct-2507", "reported_as": "Qwen3-4B-Instruct"}}


@pytest.fixture
def paper_like(invented, tmp_path, monkeypatch):
    """Makes an experiment on the paper's backbone, with whole benchmarks (60 questions here) of official data."""
    folder = shutil.copytree(FOLDER, tmp_path / "reported")
    everything = pd.read_csv(folder / "scores.csv", keep_default_na=False)
    everything.assign(questions=everything["category"].map(lambda c: 0 if c else 60)).to_csv(
        folder / "scores.csv", index=False
    )
    monkeypatch.setattr(reported, "FOLDER", folder)

    def make(rows, tasks=("hotpotqa", "locomo_release"), seeds=(1, 2, 3), condition="replayed"):
        chosen = invented.experiment(
            backbones=QWEN,
            rows=rows,
            tasks=[
                {"task": f"{task.removesuffix('_release')}@release", "as": task, "conditions": {condition: ["own"]}}
                for task in tasks
            ],
            seeds=list(seeds),
        )
        for cell in invented.cells(chosen):
            if cell.job.row in ("frozen", "question_only") and cell.job.seed != seeds[0]:
                continue  # what learns nothing runs once
            answers = invented.samples(cell)
            record = invented.record(cell, answers, source="official").model_copy(update={"truncated": 0})
            records.save(record, answers, tmp_path / "results" / cell.path)
        return chosen, Summary(chosen, tmp_path / "results")

    return make


def of(found, claim, score=None):
    (one,) = [t for t in found if t.id == claim and (score is None or t.score == score)]
    return one


def test_another_backbone_on_generated_data_is_not_comparable(embedded):
    chosen, results = embedded
    found = claims_tested(chosen, Summary(chosen, results))
    gain = of(found, "C10")
    assert gain.verdict == "not comparable"
    assert gain.reason.startswith("another backbone, generated data, a subset (60 of 7,405 questions)")
    assert gain.printed == pytest.approx(49.41 - 42.35)
    assert (gain.left.row, gain.right.row, gain.left.condition) == ("delta_mem_tsw", "frozen", "replayed")
    assert of(found, "E1").left.condition == "removed"
    assert of(found, "E1").right.row == "question_only"


def test_what_was_not_run_is_said_and_has_no_number(embedded):
    chosen, results = embedded
    found = claims_tested(chosen, Summary(chosen, results))
    overall = of(found, "C3")
    assert (overall.verdict, overall.ours, overall.printed) == ("not run", None, 4.87)
    assert {t.verdict for t in found if t.id in ("D1", "D2", "F1", "G1")} == {"not run"}
    wanted = "A1 A2 A3 A4 C3 C4 C10 C11 D1 D2 E1 E2 E3 E4 F1 F2 G1 G2 L1 L2"
    assert {t.id for t in found} >= set(wanted.split())


def test_a_claim_of_the_method_is_tested_for_each_variant_and_of_the_best_against_the_second(embedded):
    chosen, results = embedded
    found = claims_tested(chosen, Summary(chosen, results))
    assert [t.label for t in found if t.id == "A4"] == [f"{v} − the frozen backbone" for v in ("SSW", "TSW", "MSW")]
    assert of(found, "C8").against == "Context2LoRA"
    assert of(found, "F2").against == "delta-Mem (TSW) heads=qo"
    assert of(found, "G1").against == "delta-Mem (TSW) layers=Front 12"


def test_the_papers_own_setting_gets_a_verdict_from_the_gain_of_each_seed(paper_like):
    chosen, summary = paper_like(["frozen", "delta_mem_tsw"])
    gain = of(claims_tested(chosen, summary), "C10")
    left, right = (Place("qwen", row, "hotpotqa", "replayed") for row in ("delta_mem_tsw", "frozen"))
    (frozen,) = summary.seed_values(right, "em_release")
    gains = [100 * (value - frozen) for value in summary.seed_values(left, "em_release")]
    assert len(gains) == 3
    assert gain.verdict == statistics.verdict(gains, 49.41 - 42.35, 1.0)
    assert gain.verdict in ("compatible", "not reproduced", "reproduced")
    assert gain.reason == ""
    assert gain.ours == summary.contrast(left, right, "em_release")


def test_one_seed_of_a_fit_is_inconclusive(paper_like):
    chosen, summary = paper_like(["frozen", "delta_mem_tsw"], seeds=(1,))
    assert of(claims_tested(chosen, summary), "C10").verdict == "inconclusive"


def test_an_undisclosed_setting_of_either_side_gives_no_verdict(paper_like):
    chosen, summary = paper_like(["question_only", "delta_mem_tsw"], tasks=["hotpotqa"], condition="removed")
    alone = of(claims_tested(chosen, summary), "E1")
    assert alone.verdict == "setting undisclosed"
    assert alone.reason == "which variant; how the prompt reads without its context"


def test_an_average_is_of_all_its_tasks_or_was_not_run(paper_like):
    rows = [
        {"row": "r8", "method": "delta_mem_tsw", "with": {"heads": ["q", "k", "v", "o"]}},
        "delta_mem_tsw",
    ]
    chosen, summary = paper_like(rows)
    best = of(claims_tested(chosen, summary), "F2")
    parts = [
        summary.contrast(
            Place("qwen", "r8", task, "replayed"), Place("qwen", "delta_mem_tsw", task, "replayed"), metric
        )
        for task, metric in (("hotpotqa", "em_release"), ("locomo_release", "f1_release"))
    ]
    assert best.ours.value == pytest.approx(sum(p.value for p in parts) / 2)
    halves = [(p.high - p.low) / 2 for p in parts]
    assert best.ours.high - best.ours.low == pytest.approx(math.hypot(*halves))
    assert best.ours.n == sum(p.n for p in parts)
    assert best.printed == pytest.approx(48.05 - 47.97)
    assert best.verdict in ("reproduced", "compatible", "not reproduced", "inconclusive")
    assert of(claims_tested(chosen, summary), "C3").verdict == "not run"  # its five tasks


def test_half_an_average_was_not_run(paper_like):
    rows = [{"row": "r8", "method": "delta_mem_tsw", "with": {"heads": ["q", "k", "v", "o"]}}, "delta_mem_tsw"]
    chosen, summary = paper_like(rows, tasks=["locomo_release"])
    assert of(claims_tested(chosen, summary), "F2").verdict == "not run"


def test_other_settings_are_not_comparable(paper_like):
    rows = ["frozen", {"row": "delta_mem_tsw", "with": {"rank": 4}}]
    chosen, summary = paper_like(rows)
    gain = of(claims_tested(chosen, summary), "C10")
    assert (gain.verdict, gain.reason) == ("not comparable", "other settings")


def test_the_page_has_our_runs_in_a_column_and_in_a_table(embedded):
    chosen, results = embedded
    text = markdown(chosen, Summary(chosen, results))
    (line,) = [line for line in text.splitlines() if line.startswith("| C10 | HotpotQA")]
    assert line.endswith("not comparable |")
    assert "| C3 | TSW's gain" in text
    assert "Not run: A1, A2, A3" in text
    assert text.count("\n| C10 |") == 2
    (untested,) = [line for line in text.splitlines() if line.startswith("| C5 |")]
    assert untested.endswith("|  |")  # no contrast
    assert "| H1 |" in text


def test_a_task_asked_twice_is_told_twice():
    chosen = load("recover")
    found = [t for t in claims_tested(chosen, Summary(chosen, FOLDER.parents[1] / "results" / "reference")) if t.ours]
    assert [t.left.task for t in found if t.id == "E1"] == ["hotpotqa_closed_book", "hotpotqa_empty_context"]
    assert {t.score for t in found if t.id == "E3"} == {Score("HotpotQA", "EM", "bridge")}


def test_answers_that_are_drawn_once_decide_no_gain(paper_like, tmp_path):
    """The frozen backbone learns nothing, but another draw of its answers would score otherwise."""
    chosen, summary = paper_like(["frozen", "delta_mem_tsw"])
    assert of(claims_tested(chosen, summary), "C10").verdict != "inconclusive"
    for record in summary.records.values():
        if record.row == "frozen":
            record.configs["hotpotqa"] = {"generation_kwargs": {"do_sample": True}}
    assert of(claims_tested(chosen, summary), "C10").verdict == "inconclusive"

"""The printed numbers stand beside ours only with an honest verdict."""

import csv
from typing import get_args

import pandas as pd
import pytest

from harness import records, statistics
from harness.config import load
from harness.registry import resolve, row_names
from harness.reporting import reported
from harness.reporting.aggregates import Paper, Score
from harness.reporting.reported import (
    FOLDER,
    VERDICTS,
    answers,
    bands,
    columns,
    comparisons,
    judged,
    not_run,
    printed,
)  # fmt: skip
from harness.reporting.summary import Summary
from harness.tasks import tasks


def test_every_name_of_ours_answers_to_a_printed_one():
    rows = pd.read_csv(FOLDER / "rows.csv", keep_default_na=False)
    scores = pd.read_csv(FOLDER / "scores.csv", keep_default_na=False)
    assert set(rows["method"]) <= set(printed()["method"])
    known = set(printed()[["benchmark", "metric", "subset"]].itertuples(index=False, name=None))
    assert set(scores[["benchmark", "reported_metric", "subset"]].itertuples(index=False, name=None)) <= known
    assert all(row.metric in {m.name for m in tasks()[row.task].metrics} for row in scores.itertuples())


def test_another_backbone_on_generated_data_is_not_comparable(embedded):
    chosen, results = embedded
    found = comparisons(chosen, Summary(chosen, results))
    assert {(c.verdict, c.dagger) for c in found} == {("not comparable", True)}
    frozen = next(c for c in found if (c.place.row, c.score) == ("frozen", "f1"))
    assert (frozen.printed, frozen.backbone) == (40.79, "Qwen3-4B-Instruct")
    assert frozen.reason == (
        "another backbone, generated data, a subset (60 of 1,540 questions), "
        "asked otherwise than by the release, histories cut at 400 tokens"
    )
    assert any(c.score == "f1_release, bridge" for c in found)
    assert not any(c.place.task == "write_clear_read" or c.place.arm != "own" for c in found)


RELEASE = {"task": "locomo@release", "as": "locomo_release"}


def paper_like(invented, tmp_path, monkeypatch, row, seeds, with_=None, sampled=False):
    """All of a benchmark (60 questions here) on the paper's backbone, from official data."""
    everything = pd.read_csv(FOLDER / "scores.csv", keep_default_na=False).assign(questions=60)
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    everything.to_csv(tmp_path / "scores.csv", index=False)
    monkeypatch.setattr(reported, "FOLDER", tmp_path)
    chosen = invented.experiment(
        backbones={"qwen": {"hub": "Qwen/Qwen3-4B-Instruct-2507", "reported_as": "Qwen3-4B-Instruct"}},
        rows=[{"row": row, "with": with_ or {}}],
        tasks=[{**RELEASE, "conditions": {"replayed": ["own"], "removed": ["own"], "own_text": ["own"]}}],
        seeds=seeds,
    )
    for cell in invented.cells(chosen):
        answers = invented.samples(cell)
        record = invented.record(cell, answers, source="official")
        if sampled:
            record = record.model_copy(
                update={"configs": {"locomo_release": {"generation_kwargs": {"do_sample": True}}}}
            )
        records.save(record, answers, tmp_path / "results" / cell.path)
    found = comparisons(chosen, Summary(chosen, tmp_path / "results"))
    return next(c for c in found if c.score == "f1_release" and c.place.condition != "removed")


@pytest.mark.parametrize(
    ("row", "seeds", "verdict"),
    [
        ("frozen", [1], "not reproduced"),
        ("bm25_rag", [1], "setting undisclosed"),
        ("delta_mem_tsw", [1], "inconclusive"),
        ("delta_mem_ssw", [1, 2, 3], "not reproduced"),
    ],
)
def test_the_papers_own_setting_gets_a_verdict(invented, tmp_path, monkeypatch, row, seeds, verdict):
    assert paper_like(invented, tmp_path, monkeypatch, row, seeds).verdict == verdict


def test_a_verdict_needs_no_dagger_and_an_undisclosed_setting_says_what(invented, tmp_path, monkeypatch):
    found = paper_like(invented, tmp_path, monkeypatch, "bm25_rag", [1])
    assert (found.reason, found.dagger) == ("size of the chunks and how many are retrieved", False)


def test_a_row_that_samples_is_not_held_to_one_number(invented, tmp_path, monkeypatch):
    """Of a row without a fit, drawn answers need seeds as a fit does."""
    assert paper_like(invented, tmp_path, monkeypatch, "frozen", [1], sampled=True).verdict == "inconclusive"


def test_context2lora_stands_beside_lora_with_a_dagger_that_says_why(invented, tmp_path, monkeypatch):
    found = paper_like(invented, tmp_path, monkeypatch, "lora", [1, 2, 3])
    assert (found.method, found.verdict, found.dagger) == ("Context2LoRA", "setting undisclosed", True)
    assert found.reason.startswith("what it is trained on and for how long; read as one static adapter")
    assert "5,898,240" in found.reason


def test_context2lora_stands_beside_its_namesakes_too_and_is_never_held_against_them():
    names = {name for name in row_names() if name.startswith("context2lora")}
    lines = [line for line in answers() if line.row in names]
    assert {line.row for line in lines} == names
    for line in lines:
        verdict, reason = judged(line, [], [50.0], 48.11, 1.0, True)
        assert (line.method, verdict) == ("Context2LoRA", "not comparable")
        assert reason.startswith("an adapter a ")
        assert "5,898,240" in reason


def test_every_printed_row_answers_to_a_row_of_ours():
    served = {(name, condition) for name in row_names() for condition in resolve(name)[0].capabilities.arms}
    lines = answers()
    assert {(line.row, line.condition) for line in lines} <= served
    assert set(printed()["method"]) - {line.method for line in lines} == {"gain"}  # a difference of two others


def test_every_printed_score_answers_to_a_task_of_ours():
    found = {entry.score for entries in columns().values() for entry in entries}
    known = set(printed()[["benchmark", "metric", "subset"]].itertuples(index=False, name=None))
    assert known - found == {("Overall", "avg", "all")}  # of several tasks


UNDISCLOSED = {"BM25 RAG", "LLMLingua-2", "MemoryBank", "MemGen", "MLP Memory", "Context2LoRA"}


def test_rows_whose_settings_the_paper_does_not_state_get_no_other_verdict():
    for line in answers():
        if line.method in UNDISCLOSED:
            assert judged(line, [], [0.0, 0.0, 0.0], 50.0, 1.0, True)[0] in ("setting undisclosed", "not comparable")
    assert {line.method for line in answers() if line.undisclosed} == UNDISCLOSED | {
        "frozen (no context)", "delta-Mem (state only)", "delta-Mem (TSW)",
    }  # fmt: skip


def test_bands_follow_from_the_printed_digits_and_the_questions():
    """Δ = max(half the last printed digit, one question, 1 point), for every printed score."""
    asked = {entry.score: entry.questions for entries in columns().values() for entry in entries}
    within = bands()
    seen = set()
    for name in ("table1", "table2", "table3_heads", "table4_depth", "figure2_no_context"):
        with (FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
            for line in csv.DictReader(file):
                score = Score(line["benchmark"], line["metric"], line["subset"])
                if line["value"]:
                    half = 0.5 * 10.0 ** -len(line["value"].split(".")[1])
                    question = 100 / asked[score] if score in asked else 0.0
                    assert within[score] == pytest.approx(max(half, question, 1.0), abs=0.005), line
                    seen.add(score)
    assert seen == set(within)
    assert {s: q for s, q in Paper().questions.items()} == asked


def test_verdicts_read_the_bands(invented, tmp_path, monkeypatch):
    frozen = paper_like(invented, tmp_path, monkeypatch, "frozen", [1])
    assert frozen.verdict == "not reproduced"
    off = abs(100 * frozen.ours.value - frozen.printed)
    lines = (tmp_path / "bands.csv").read_text().replace("LoCoMo,F1,avg,1540,1.00", f"LoCoMo,F1,avg,1540,{off + 1:.2f}")
    (tmp_path / "bands.csv").write_text(lines)
    chosen = invented.experiment(
        backbones={"qwen": {"hub": "Qwen/Qwen3-4B-Instruct-2507", "reported_as": "Qwen3-4B-Instruct"}},
        rows=["frozen"], tasks=[{**RELEASE, "conditions": {"replayed": ["own"]}}], seeds=[1],
    )  # fmt: skip
    found = comparisons(chosen, Summary(chosen, tmp_path / "results"))
    assert {c.verdict for c in found if c.score == "f1_release"} == {"reproduced"}


def test_what_was_not_run_is_known(embedded):
    chosen, results = embedded
    summary = Summary(chosen, results)
    missing, beside = not_run(chosen, summary), comparisons(chosen, summary)
    assert {found.verdict for found in missing} == {"not run"}
    assert {(found.backbone, found.method) for found in missing if found.score.benchmark == "LoCoMo"} >= {
        ("Qwen3-4B-Instruct", "MemGen"), ("Qwen3-4B-Instruct", "delta-Mem (MSW)"),
    }  # fmt: skip
    ran = {(c.backbone, c.method, c.printed) for c in beside}
    assert not [m for m in missing if (m.backbone, m.method, m.printed) in ran and m.score.benchmark == "LoCoMo"]
    assert not [m for m in missing if m.method.endswith("heads=qo")]  # TSW by another name, which ran
    assert ("frozen", "IFEval") in {(m.method, m.score.benchmark) for m in missing}
    assert len({m[:3] for m in missing}) == len(missing)


def test_the_verdicts_are_those_of_the_contract():
    assert set(get_args(statistics.Verdict)) | {"not comparable", "setting undisclosed", "not run"} == set(VERDICTS)


def test_other_settings_are_not_comparable(invented, tmp_path, monkeypatch):
    found = paper_like(invented, tmp_path, monkeypatch, "delta_mem_tsw", [1], {"rank": 4})
    assert (found.verdict, found.reason) == ("not comparable", "other settings")


def test_an_ablation_stands_beside_its_own_printed_row(invented, tmp_path, monkeypatch):
    found = paper_like(invented, tmp_path, monkeypatch, "delta_mem_tsw", [1], {"heads": ["q"]})
    assert (found.method, found.printed) == ("delta-Mem (TSW) heads=q", 43.15)
    assert found.verdict != "not comparable"


def test_every_printed_ablation_is_run():
    """All rows of Tables 3 and 4 but the base, which both tables call by their own name."""
    entries = pd.read_csv(FOLDER / "rows.csv", keep_default_na=False, converters={"settings": reported._settings})
    ours = [row.with_ for row in load("ablations").rows if row.method == "delta_mem_tsw"]
    answered = {entry.method for entry in entries.itertuples() if entry.settings and entry.settings in ours}
    tables = pd.concat(pd.read_csv(FOLDER / f"{name}.csv") for name in ("table3_heads", "table4_depth"))
    assert set(tables["method"]) - answered == {"delta-Mem (TSW) heads=qo", "delta-Mem (TSW) layers=All Layers"}
    assert {} in ours


def test_what_the_release_asks_otherwise_is_not_held_to_its_number(invented, tmp_path):
    chosen = invented.experiment(
        backbones={"qwen": {"hub": "Qwen/Qwen3-4B-Instruct-2507", "reported_as": "Qwen3-4B-Instruct"}},
        rows=["frozen"], tasks=[{"task": "locomo", "conditions": {"replayed": ["own"]}}], seeds=[1],
    )  # fmt: skip
    invented.fill(chosen, tmp_path, source="official")
    for found in comparisons(chosen, Summary(chosen, tmp_path)):
        assert found.verdict == "not comparable"
        assert "asked otherwise than by the release" in found.reason


def test_ours_is_held_to_what_the_printed_categories_make_of_an_average(invented, tmp_path, monkeypatch):
    """SmolLM3's MemoryAgentBench averages are plain means of categories; ours are of all questions."""
    average = Score("MemoryAgentBench", "score", "avg")
    assert reported.value_of("SmolLM3-3B", "frozen", average) == 14.21
    assert reported.recomputed("SmolLM3-3B", "frozen", average) == pytest.approx(11.077, abs=1e-3)
    assert reported.recomputed("Qwen3-4B-Instruct", "frozen", average) is None
    assert reported.overall("SmolLM3-3B", "frozen") == pytest.approx(25.45, abs=0.01)
    frozen = paper_like(invented, tmp_path, monkeypatch, "frozen", [1])
    assert (frozen.verdict, frozen.reason) == ("not reproduced", "")
    monkeypatch.setattr(reported, "recomputed", lambda *_: 100 * frozen.ours.value)
    held = paper_like(invented, tmp_path, monkeypatch, "frozen", [1])
    assert (held.verdict, held.printed) == ("reproduced", frozen.printed)
    assert held.reason == f"held to {100 * frozen.ours.value:.2f}, which the printed parts make"


def test_a_category_without_questions_was_not_run(invented, tmp_path):
    chosen = invented.experiment(
        backbones={"qwen": {"hub": "Qwen/Qwen3-4B-Instruct-2507", "reported_as": "Qwen3-4B-Instruct"}},
        rows=["frozen"], tasks=[{**RELEASE, "conditions": {"replayed": ["own"]}}], seeds=[1],
    )  # fmt: skip
    for cell in invented.cells(chosen):
        answers = invented.samples(cell)
        answers = answers[answers["category"] != "open_domain"].reset_index(drop=True)
        records.save(invented.record(cell, answers), answers, tmp_path / cell.path)
    summary = Summary(chosen, tmp_path)
    missing = {(m.method, m.score) for m in not_run(chosen, summary)}
    assert ("frozen", Score("LoCoMo", "F1", "open")) in missing
    assert ("frozen", Score("LoCoMo", "F1", "multi")) not in missing

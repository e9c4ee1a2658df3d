"""The printed numbers recompute where the paper's do, and stand beside ours only with an honest verdict."""

import pandas as pd
import pytest

from harness import records
from harness.config import load
from harness.reporting import reported
from harness.reporting.reported import FOLDER, comparisons, printed
from harness.reporting.summary import Summary
from harness.tasks import tasks

LOCOMO = {"multi": 282, "temporal": 321, "open": 96, "single": 841}
HOTPOTQA = {"bridge": 5918, "comparison": 1487}


def weighted(values, weights):
    return sum(values[name] * weight for name, weight in weights.items()) / sum(weights.values())


def rows_of(benchmark, metric, whole):
    """Each printed aggregate with the parts that it should follow from."""
    files = [pd.read_csv(path) for path in sorted(FOLDER.glob("t*.csv"))] + [
        pd.read_csv(FOLDER / "figure2_no_context.csv")
    ]
    table = pd.concat(files)
    table = table[(table["benchmark"] == benchmark) & (table["metric"] == metric)].dropna(subset="value")
    for key, group in table.groupby(["table", "backbone", "method"]):
        values = dict(zip(group["subset"], group["value"], strict=True))
        if len(values) > 1:
            yield key, values.pop(whole), values


def test_locomo_averages_follow_from_the_categories():
    found = list(rows_of("LoCoMo", "F1", "avg"))
    assert len(found) > 35
    for key, average, parts in found:
        assert average == pytest.approx(weighted(parts, LOCOMO), abs=0.011), key


@pytest.mark.parametrize("metric", ["EM", "F1"])
def test_hotpotqa_totals_follow_from_bridge_and_comparison(metric):
    found = list(rows_of("HotpotQA", metric, "all"))
    assert len(found) == 18
    for key, total, parts in found:
        assert total == pytest.approx(weighted(parts, HOTPOTQA), abs=0.011), key


def test_ablation_averages_are_of_hotpotqa_em_and_locomo():
    for name in ("table3_heads", "table4_depth"):
        table = pd.read_csv(FOLDER / f"{name}.csv")
        for _, group in table.groupby("method"):
            value = group.set_index(["benchmark", "metric", "subset"])["value"]
            mean = (value["HotpotQA", "EM", "all"] + value["LoCoMo", "F1", "avg"]) / 2
            assert value["Overall", "avg", "all"] == pytest.approx(mean, abs=0.011)


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
    assert {c.verdict for c in found} == {"not comparable"}
    frozen = next(c for c in found if (c.place.row, c.score) == ("frozen", "f1"))
    assert (frozen.printed, frozen.backbone) == (40.79, "Qwen3-4B-Instruct")
    assert frozen.reason == (
        "another backbone, generated data, a subset (60 of 1,540 questions), histories cut at 400 tokens"
    )
    assert any(c.score == "f1_release, bridge" for c in found)
    assert not any(c.place.task == "write_clear_read" or c.place.arm != "own" for c in found)


def paper_like(invented, tmp_path, monkeypatch, row, seeds, with_=None):
    """All of a benchmark (60 questions here) on the paper's backbone, from official data."""
    everything = pd.read_csv(FOLDER / "scores.csv", keep_default_na=False).assign(questions=60)
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    everything.to_csv(tmp_path / "scores.csv", index=False)
    monkeypatch.setattr(reported, "FOLDER", tmp_path)
    chosen = invented.experiment(
        backbones={"qwen": {"hub": "Qwen/Qwen3-4B-Instruct-2507", "reported_as": "Qwen3-4B-Instruct"}},
        rows=[{"row": row, "with": with_ or {}}],
        tasks=[{"task": "locomo", "conditions": {"replayed": ["own"], "removed": ["own"], "own_text": ["own"]}}],
        seeds=seeds,
    )
    for cell in invented.cells(chosen):
        answers = invented.samples(cell)
        records.save(invented.record(cell, answers, source="official"), answers, tmp_path / "results" / cell.path)
    found = comparisons(chosen, Summary(chosen, tmp_path / "results"))
    return next(c for c in found if c.score == "f1" and c.place.condition != "removed")


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

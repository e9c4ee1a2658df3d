"""The paper's tables: each printed number stands beside the cell of ours that answers to it, and no number is lost."""

import csv
import io

import pytest

from harness import records
from harness.experiment import Cell, Job
from harness.reporting import paper, tables
from harness.reporting.aggregates import Score
from harness.reporting.beside import Pair, joint
from harness.reporting.matching import Printed
from harness.reporting.reported import comparisons
from harness.reporting.summary import Place, Summary
from harness.statistics import Estimate

QWEN = {"qwen": {"hub": "Qwen/Qwen3-4B-Instruct-2507", "reported_as": "Qwen3-4B-Instruct"}}
EIGHT = {"eight": {"hub": "Qwen/Qwen3-8B", "reported_as": "Qwen3-8B"}}
SEEN = [{"task": "locomo", "conditions": {"replayed": ["own"], "own_text": ["own"]}}]


def made(chosen, results):
    summary = Summary(chosen, results)
    return paper.tables(chosen, summary, comparisons(chosen, summary)), summary


def filled(invented, results, source="generated", **changes):
    """The paper's tables of an experiment, and its summary."""
    chosen = invented.experiment(**{"primary": "locomo", **changes})
    invented.fill(chosen, results, source=source)
    return made(chosen, results)


@pytest.fixture(scope="module")
def embedded_paper(embedded):
    return made(*embedded)


def table(found, key):
    return next(t for t in found.tables if t.key == key)


def block(of, row, arm="own"):
    return next(b for b in of.blocks if b.row == row and b.arm == arm)


def place_of(of, title):
    return next(n for n, pair in enumerate(zip(of.heads, of.titles, strict=True)) if pair == title)


def test_every_number_of_table_1_stands_once_a_row_of_the_paper(embedded_paper):
    found, _ = embedded_paper
    first, printed = table(found, "table1"), Printed("table1")
    for method in printed.methods("Qwen3-4B-Instruct"):
        blocks = [b for b in first.blocks if b.method == method]
        assert blocks, method
        for entries in (b.entries for b in blocks):
            values = [printed.value("Qwen3-4B-Instruct", method, column) for column in printed.columns]
            assert [e.printed for e in entries[: len(values)]] == values


def test_ours_is_the_estimate_of_its_cell(embedded_paper):
    found, summary = embedded_paper
    first = table(found, "table1")
    entry = block(first, "delta_mem_tsw").entries[place_of(first, ("LoCoMo", "single"))]
    estimate = summary.estimate(Place("smollm2", "delta_mem_tsw", "locomo", "replayed"), "f1", "single_hop")
    assert (entry.ours, entry.printed, entry.verdict) == (estimate, 55.36, "not comparable")
    assert entry.difference == pytest.approx(estimate.value - 0.5536)
    assert first.counts[place_of(first, ("LoCoMo", "single"))] == ("15", "5", "generated")


def test_what_did_not_run_is_empty_and_says_so(embedded_paper):
    found, _ = embedded_paper
    memgen = next(b for b in table(found, "table1").blocks if b.method == "MemGen")
    assert (memgen.row, memgen.ran) == ("", False)
    assert {e.verdict for e in memgen.entries if e.printed is not None} == {"not run"}
    ifeval = block(table(found, "table1"), "frozen").entries[0]
    assert (ifeval.ours, ifeval.printed, ifeval.verdict) == (None, 81.89, "not run")


def test_a_row_that_the_paper_lacks_stands_without_a_printed_number(invented, tmp_path):
    found, _ = filled(invented, tmp_path, rows=["frozen", "window"], tasks=SEEN)
    mine = block(table(found, "table1"), "window")
    assert (mine.method, mine.told, mine.ran) == ("", False, True)
    assert table(found, "table1").blocks[-1] is mine


def test_averages_say_how_many_and_take_the_frozen_backbones_where_one_is_missing(embedded_paper):
    found, _ = embedded_paper
    first = table(found, "table1")
    hotpotqa, locomo = place_of(first, ("HotpotQA", "EM")), place_of(first, ("LoCoMo", "avg"))
    measured, rule = block(first, "delta_mem_tsw").entries[-2:]
    two = [block(first, "delta_mem_tsw").entries[n].ours.value for n in (hotpotqa, locomo)]
    assert measured.ours.value == pytest.approx(sum(two) / 2)
    assert (measured.remark, rule.ours, rule.printed, rule.recomputed) == ("2 of 5", None, 51.66, pytest.approx(51.162))


def five(invented, folder, **lost):
    """All five benchmarks of the headline; ``lost`` names tasks that a row did not answer."""
    names = ("ifeval", "hotpotqa@release", "gpqa@release", "memory_agent_bench@release", "locomo@release")
    chosen = invented.experiment(
        backbones=QWEN, rows=["frozen", "delta_mem_tsw"], primary=names[1],
        tasks=[{"task": name, "conditions": {"replayed": ["own"]}} for name in names],
    )  # fmt: skip
    metrics = dict(zip(names, ("prompt_level_strict_acc", "em_release", "acc_release", "score_release", "f1_release"),
                       strict=True))  # fmt: skip
    for row in chosen.rows:
        for task, metric in metrics.items():
            if task not in lost.get(row.row, ()):
                cell = Cell(Job(chosen.name, "qwen", row.row, 42), task, "replayed", "own")
                answers = invented.samples(cell).rename(columns={"score.acc": f"score.{metric}"})
                record = invented.record(cell, answers.assign(**{"score.acc": answers[f"score.{metric}"]}))
                record.scores, record.primary_metric = {metric: record.scores["acc"]}, metric
                records.save(record, answers, folder / cell.path)
    first = table(made(chosen, folder)[0], "table1")
    columns = [first.columns.index(column) for column in paper.FIVE]
    return {b.row: ([b.entries[n].ours for n in columns], b.entries[-2:]) for b in first.blocks if b.row}


def test_the_papers_rule_is_the_mean_with_the_frozen_backbones_score_in_the_gap(invented, tmp_path):
    rows = five(invented, tmp_path, delta_mem_tsw=["ifeval"])
    bare, own = rows["frozen"][0], rows["delta_mem_tsw"][0]
    measured, rule = rows["delta_mem_tsw"][1]
    assert own[0] is None
    assert measured.remark == "4 of 5"
    assert rule.ours.value == pytest.approx((bare[0].value + sum(e.value for e in own[1:])) / 5)
    assert measured.ours.value == pytest.approx(sum(e.value for e in own[1:]) / 4)


def test_the_papers_rule_is_empty_where_the_frozen_backbone_lacks_it_too(invented, tmp_path):
    gone = {"frozen": ["ifeval"], "delta_mem_tsw": ["ifeval"]}
    for measured, rule in (rows[1] for rows in five(invented, tmp_path, **gone).values()):
        assert (measured.remark, rule.ours) == ("4 of 5", None)


def test_a_printed_average_that_does_not_follow_has_what_does_beside_it():
    five = Printed("table1", paper.FIVE)
    for key, of in (("table1", five), ("table2", Printed("table2", paper.FIVE))):
        wrong = {
            (backbone, method, column.benchmark)
            for backbone in of.backbones
            for method in of.methods(backbone)
            for column in (*of.columns, paper.OVERALL)
            if of.recomputed(backbone, method, column) is not None
        }
        assert ("Qwen3-4B-Instruct", "delta-Mem (TSW)", "Overall") in wrong
        assert len(wrong) == {"table1": 2, "table2": 6}[key]
    assert five.recomputed("Qwen3-4B-Instruct", "BM25 RAG", Score("MemoryAgentBench", "score", "avg")) == (
        pytest.approx(24.433, abs=1e-3)
    )


def test_context2lora_is_marked_and_explained_once(embedded, embedded_paper, tmp_path):
    found, _ = embedded_paper
    first = table(found, "table1")
    assert block(first, "lora").method == "Context2LoRA"
    assert sum(note.startswith("†") for note in first.notes) == 1
    tables.write(*embedded, tmp_path)
    assert r"\textit{Context2LoRA}\dag{}" in (tmp_path / "main.tex").read_text()


def test_tables_that_have_nothing_to_do_with_it_are_one_line_each(embedded_paper):
    found, _ = embedded_paper
    assert {t.key for t in found.tables} == {"table1", "figure2_no_context"}
    assert [line.split(",")[0] for line in found.omitted] == ["Table 2", "Table 3", "Table 4"]


def test_heads_stand_in_table_3_and_not_in_table_1(invented, tmp_path):
    rows = ["frozen", {"row": "q", "method": "delta_mem_tsw", "with": {"heads": ["q"]}}]
    chosen = invented.experiment(backbones=QWEN, rows=rows, tasks=SEEN, primary="locomo")
    for cell in invented.cells(chosen):
        plain = Cell(Job("embedded", "qwen", "delta_mem_tsw", 42), cell.task, cell.condition, cell.arm)
        answers = invented.samples(plain)
        record = invented.record(plain, answers)
        record.row = cell.job.row
        records.save(record, answers, tmp_path / cell.path)
    found, _ = made(chosen, tmp_path)
    third = table(found, "table3_heads")
    entry = block(third, "q").entries[place_of(third, ("LoCoMo", "avg"))]
    assert (entry.printed, entry.ours is not None) == (43.15, True)
    assert block(third, "q").entries[-1].printed == 44.51
    assert not any(b.row == "q" for b in table(found, "table1").blocks)
    assert "table4_depth" not in {t.key for t in found.tables}


def test_another_of_the_papers_backbones_stands_in_table_2_alone(invented, tmp_path):
    found, _ = filled(invented, tmp_path, backbones={**QWEN, **EIGHT}, rows=["frozen", "delta_mem_ssw"], tasks=SEEN)
    assert [t.key for t in found.tables] == ["table1", "table2"]
    second = table(found, "table2")
    column = place_of(second, ("LoCoMo", "avg"))
    beside = {(b.backbone, b.row): b.entries[column].printed for b in second.blocks if b.row}
    printed = Printed("table2")
    for backbone, name in (("qwen", "Qwen3-4B-Instruct"), ("eight", "Qwen3-8B")):
        assert beside[backbone, "frozen"] == printed.value(name, "frozen", Score("LoCoMo", "F1", "avg"))
    assert {b.backbone for b in table(found, "table1").blocks} == {"qwen"}


def test_recovery_holds_state_bare_gain_and_controls(embedded_paper):
    found, summary = embedded_paper
    second = table(found, "figure2_no_context")
    column = place_of(second, ("HotpotQA", "F1 bridge"))
    own = Place("smollm2", "delta_mem_tsw", "hotpotqa", "removed")
    bare = own._replace(row="question_only")
    gain = block(second, "delta_mem_tsw", "own − question_only").entries[column]
    assert gain.ours == summary.contrast(own, bare, "f1_release", "bridge")
    assert (gain.printed, gain.verdict) == (4.80, "not comparable")
    assert block(second, "delta_mem_tsw").entries[column].printed == 11.05
    assert block(second, "question_only").entries[column].printed == 6.25
    donor = block(second, "delta_mem_tsw", "donor")
    assert donor.entries[column].ours == summary.estimate(own._replace(arm="donor"), "f1_release", "bridge")
    assert not donor.told


def test_parameters_are_those_of_the_records(embedded_paper):
    found, _ = embedded_paper
    sizes = {size.row: size for size in found.sizes if size.row}
    assert (sizes["delta_mem_tsw"].trainable, sizes["delta_mem_tsw"].millions) == (1_400_000, 4.87)
    assert sizes["delta_mem_tsw"].told == "not comparable: another backbone"
    assert {s.method for s in found.sizes if not s.row} >= {"MLP Memory", "MemGen"}
    assert all(s.verdict == "not run" for s in found.sizes if not s.row)


@pytest.mark.parametrize(("count", "verdict"), [(4_866_336, "reproduced"), (4_900_000, "not reproduced")])
def test_a_count_on_the_papers_backbone_is_the_printed_one_or_it_is_not(invented, tmp_path, count, verdict):
    chosen = invented.experiment(backbones=QWEN, rows=["delta_mem_tsw"], tasks=SEEN, primary="locomo")
    for cell in invented.cells(chosen):
        answers = invented.samples(cell)
        record = invented.record(cell, answers)
        record.costs.trainable_parameters = count
        record.provenance.backbone["parameters"] = 4_022_468_096
        records.save(record, answers, tmp_path / cell.path)
    found, _ = made(chosen, tmp_path)
    size = next(size for size in found.sizes if size.row)
    assert size.verdict == verdict
    assert size.share == pytest.approx(100 * count / 4_022_468_096)


def test_the_csv_has_every_place_and_its_difference(embedded, embedded_paper, tmp_path):
    found, _ = embedded_paper
    tables.write(*embedded, tmp_path)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "paper.csv").read_text(encoding="utf-8"))))
    shown = sum(e.ours is not None or e.printed is not None for t in found.tables for b in t.blocks for e in b.entries)
    assert len(lines) == shown + 2 * len(found.sizes)
    for line in lines:
        if line["ours"] and line["paper"]:
            assert float(line["difference"]) == pytest.approx(float(line["ours"]) - float(line["paper"]), abs=0.006)
        assert bool(line["verdict"]) == bool(line["paper"])


def test_every_comparison_stands_in_some_table(embedded, embedded_paper):
    found, summary = embedded_paper
    shown = {(e.place, e.metric, e.category) for t in found.tables for b in t.blocks for e in b.entries}
    methods = {b.method for t in found.tables for b in t.blocks}
    beside = [c for c in comparisons(embedded[0], summary) if c.method in methods]
    expected = {(c.place, c.metric, c.category) for c in beside}
    assert len(expected) > 20
    assert expected <= shown


def test_of_two_tasks_the_one_nearest_to_the_papers_is_shown_and_the_other_named(invented, tmp_path):
    asked = {"task": "locomo", "conditions": {"replayed": ["own"]}}
    chosen = invented.experiment(rows=["frozen"], tasks=[asked, {**asked, "as": "official"}], primary="locomo")
    for name, source in (("locomo", "generated"), ("official", "official")):
        plain = Cell(Job("embedded", "smollm2", "frozen", 42), "locomo", "replayed", "own")
        answers = invented.samples(plain)
        record = invented.record(plain, answers, source=source)
        record.task = name
        records.save(record, answers, tmp_path / "embedded/smollm2/frozen/seed42" / name / "replayed/own")
    first = table(made(chosen, tmp_path)[0], "table1")
    entry = block(first, "frozen").entries[place_of(first, ("LoCoMo", "avg"))]
    assert (entry.place.task, entry.grade) == ("official", "official")
    assert any("LoCoMo is official (official data; locomo in the panels above)" in note for note in first.notes)


def part(verdict, *seeds):
    return Pair(Estimate(0.5, None, None, 10, 10), 50.0, verdict, "why", seeds=seeds, fitted=len(seeds) > 1)


@pytest.mark.parametrize(
    ("verdicts", "seeds", "verdict"),
    [
        (("reproduced", "not comparable"), (50.0,), "not comparable"),
        (("reproduced", "setting undisclosed"), (50.0,), "setting undisclosed"),
        (("reproduced", "not run"), (50.0,), "not comparable"),
        (("reproduced", "reproduced"), (50.0,), "reproduced"),
        (("reproduced", "reproduced"), (54.0,), "not reproduced"),
        (("reproduced", "reproduced"), (50.0, 50.1, 49.9), "reproduced"),
        (("reproduced", "reproduced"), (50.0, 50.1), "inconclusive"),
    ],
)
def test_what_is_made_of_parts_has_no_better_verdict_than_they(verdicts, seeds, verdict):
    import numpy as np

    whole = Pair(Estimate(0.5, None, None, 2, 0), 50.0)
    assert joint(whole, [part(v, *seeds) for v in verdicts], np.mean)[0] == verdict


def test_one_fit_of_a_part_leaves_the_whole_open():
    import numpy as np

    whole = Pair(Estimate(0.5, None, None, 2, 0), 50.0)
    once = Pair(Estimate(0.5, None, None, 10, 10), 50.0, "inconclusive", seeds=(50.0,), fitted=True)
    assert joint(whole, [part("reproduced", 50.0, 50.1, 49.9), once], np.mean)[0] == "inconclusive"
    assert joint(whole, [part("reproduced", 50.0, 50.1, 49.9), part("reproduced", 50.0)], np.mean)[0] == "reproduced"
    assert joint(whole, [part("reproduced", 50.0)], np.mean, 54.0)[0] == "not reproduced"


@pytest.mark.parametrize(
    ("row", "count", "verdict", "reason", "percent"),
    [
        ("mlp_memory_small", 9_000_000, "not comparable", "a smaller form (4 blocks)", "a smaller form (4 blocks)"),
        ("mlp_memory", 3_078_000_000, "reproduced", "", "held to 76.52, which the printed parts make"),
    ],
)
def test_a_count_of_another_form_and_a_share_that_does_not_follow(
    invented, tmp_path, monkeypatch, row, count, verdict, reason, percent
):
    chosen = invented.experiment(backbones=QWEN, rows=[row], tasks=SEEN, primary="locomo")
    cell = Cell(Job("embedded", "qwen", row, 42), "locomo", "replayed", "own")
    answers = invented.samples(Cell(Job("embedded", "qwen", "frozen", 42), "locomo", "replayed", "own"))
    record = invented.record(cell, answers)
    record.costs.trainable_parameters = count
    record.provenance.backbone["parameters"] = 4_022_468_096
    records.save(record, answers, tmp_path / cell.path)
    size = next(size for size in made(chosen, tmp_path)[0].sizes if size.row)
    assert (size.verdict, size.reason) == (verdict, reason)
    assert next(line for line in size.lines() if line["metric"] == "percent_of_backbone")["reason"] == percent

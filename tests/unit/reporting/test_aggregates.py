"""The paper's 158 aggregates, recomputed: ten miss, and are these."""

import csv
import shutil

import pytest

from harness import parameters
from harness.errors import HarnessError
from harness.experiment import BackboneSpec
from harness.reporting import closed_forms
from harness.reporting.aggregates import FOLDER, Paper, Score, Value
from tests.unit.reporting.printed import change

QWEN, SMOL = "Qwen3-4B-Instruct", "SmolLM3-3B"
MISSES = {
    ("Table 1", QWEN, "BM25 RAG", "MemoryAgentBench"): (24.49, 24.433),
    ("Table 1", QWEN, "delta-Mem (TSW)", "Overall"): (51.66, 51.162),
    ("Table 2", QWEN, "delta-Mem (TSW)", "Overall"): (51.66, 51.162),
    ("Table 2", SMOL, "frozen", "MemoryAgentBench"): (14.21, 11.077),
    ("Table 2", SMOL, "delta-Mem (SSW)", "MemoryAgentBench"): (19.22, 15.587),
    ("Table 2", SMOL, "delta-Mem (TSW)", "MemoryAgentBench"): (20.74, 16.828),
    ("Table 2", SMOL, "delta-Mem (MSW)", "MemoryAgentBench"): (20.54, 16.807),
    ("Table 2", SMOL, "Context2LoRA", "MemoryAgentBench"): (17.62, 14.233),
    ("Figure 4", QWEN, "MLP Memory", "parameters"): (76.40, 76.520),
    ("Figure 4", QWEN, "MemGen", "parameters"): (1.13, 1.149),
}
"""Printed, and what its parts give. Nine numbers: TSW's stands in two tables."""


@pytest.fixture
def folder(tmp_path):
    """A copy of the printed numbers, to change."""
    return shutil.copytree(FOLDER, tmp_path / "reported")


def test_exactly_ten_of_158_aggregates_miss():
    paper = Paper()
    assert len(paper.aggregates) == 158
    found = {
        (*miss.row, miss.score.benchmark): (miss.printed, round(miss.recomputed.value, 3)) for miss in paper.misses
    }
    assert found == MISSES


def test_four_averages_of_smollm3_are_plain_means():
    plain = {miss.row.method for miss in Paper().misses if miss.is_plain}
    assert plain == {"frozen", "delta-Mem (SSW)", "delta-Mem (MSW)", "Context2LoRA"}


def test_aggregates_are_of_every_kind():
    kinds: dict[str, int] = {}
    for found in Paper().aggregates:
        kind = "gain" if found.row.method == "gain" else found.score.benchmark
        kinds[kind] = kinds.get(kind, 0) + 1
    assert kinds == {
        "LoCoMo": 42, "MemoryAgentBench": 25, "Overall": 40, "HotpotQA": 34, "gain": 11, "parameters": 6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "start", "of"),
    [
        ("table1", "table1,Qwen3-4B-Instruct,MemGen,LoCoMo,F1,single", "LoCoMo"),
        ("table3_heads", "table3,Qwen3-4B-Instruct,delta-Mem (TSW) heads=q,HotpotQA,EM,bridge", "HotpotQA"),
        ("table2", "table2,Qwen3-8B,frozen,IFEval,prompt_strict_acc,all", "Overall"),
        ("figure2_no_context", "figure2,Qwen3-4B-Instruct,gain,LoCoMo,F1,open", "LoCoMo"),
    ],
)
def test_another_part_makes_another_miss(folder, file, start, of):
    change(folder, file, start, "55.55")
    assert of in {miss.score.benchmark for miss in Paper(folder).misses if (*miss.row, of) not in MISSES}


def test_a_cell_that_is_not_printed_counts_as_the_frozen_backbones():
    paper = Paper()
    row = paper.row(QWEN, "MemoryBank", Score("Overall", "avg"))
    assert paper.printed(row, Score("HotpotQA", "EM")) is None
    assert paper.recomputed(row, Score("Overall", "avg")).agrees(43.88)


def test_rounding_is_followed_through_a_ratio():
    over = Value(38.85).over(Value(29.54))
    assert over.agrees(1.31)  # 1.315, which its parts could round either way
    assert over.agrees(1.32)
    assert not over.agrees(1.30)


def test_closed_forms_are_what_the_modules_have():
    shape = closed_forms.shape("qwen3-4b")
    outline = parameters.outline(BackboneSpec(random="qwen3-4b"))
    rows = {
        "delta_mem_tsw": closed_forms.delta_mem(shape),
        "delta_mem_msw": closed_forms.delta_mem(shape, states=4),
        "lora": closed_forms.lora(shape),
        "memgen": closed_forms.memgen(shape),
        "mlp_memory": closed_forms.mlp_memory(shape),
    }
    assert {count.row: count.trainable for count in parameters.counts(outline, list(rows))} == rows
    assert parameters.size(outline) == closed_forms.backbone(shape) == 4_022_468_096


def test_every_printed_number_names_its_source():
    names = {"table1": "Table 1", "figure4_parameters": "Figure 4", "figure2_no_context": "Figure 2"}
    for name, source in names.items():
        with (FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
            assert {line["source"] for line in csv.DictReader(file)} == {source}


@pytest.mark.parametrize(
    ("text", "said"),
    [("table1,Q,frozen,IFEval,m,all,many,Table 1\n", "'many', which is no number"), ("a,b\n", "not as many fields")],
)
def test_a_torn_file_is_refused(folder, text, said):
    with (folder / "table1.csv").open("a") as file:
        file.write(text)
    with pytest.raises(HarnessError, match=said):
        Paper(folder)


def test_a_missing_file_is_refused(folder):
    (folder / "table2.csv").unlink()
    with pytest.raises(HarnessError, match=r"table2\.csv cannot be read"):
        Paper(folder)

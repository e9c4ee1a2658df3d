"""Every claim of the paper has a verdict, and another printed number gives another one."""

import os
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.reporting.aggregates import FOLDER, Paper
from harness.reporting.audit import claims, markdown, repeated, slips, standing
from harness.reporting.audit.facts import FOLLOWS, MEANING, facts
from tests.unit.reporting.printed import change, reprint

COUNTS = {"A": 7, "B": 2, "C": 12, "D": 2, "E": 6, "F": 2, "G": 2, "H": 7, "I": 2, "J": 2, "K": 2, "L": 4}
VERDICTS = {
    "holds": "A5 A6 B1 C5 C6 C7 C8 C9 C10 C11 D1 D2 E1 E2 E3 E4 F1 F2 G1 G2 H1 H2 H3 H4 H7 L3 L4",
    "holds for one variant": "A1 A2 A3 A4 B2",
    "holds in part": "A7 C12 H5 H6",
    "does not recompute": "C1",
    "follows from C1": "C3 C4 L1 L2",
    "does not hold": "E5",
    "text and figure disagree": "E6",
    "not resolved": "C2",
    "not tested": "K1 K2",
    "not checkable": "I1 I2 J1 J2",
}
FIXED = {"I1", "I2", "J1", "J2", "K2"}
"""Nothing printed could change their verdict."""
IFEVAL = "IFEval,prompt_strict_acc,all"
MAB = "MemoryAgentBench,score"


def one(method, score, value, file="table1", backbone="Qwen3-4B-Instruct"):
    """Another number in one place of a table."""
    table = file.split("_")[0]
    return [(file, f"{table},{backbone},{method},{score}", value)]


def heads(name, value):
    return one(
        f"delta-Mem (TSW) {name}", "HotpotQA,EM,all", value, "table4_depth" if "layers" in name else "table3_heads"
    )


def state(metric, subset, value):
    return one("delta-Mem (state only)", f"HotpotQA,{metric},{subset}", value, "figure2_no_context")


def share(method, value):
    return one(method, "parameters,percent_of_backbone,all", value, "figure4_parameters")


TSW_MENDED = one("delta-Mem (TSW)", IFEVAL, "85.48")
CHANGES = {
    "A1": (one("delta-Mem (SSW)", IFEVAL, "60.00"), "does not recompute"),
    "A2": (one("delta-Mem (SSW)", IFEVAL, "60.00"), "does not recompute"),
    "A3": (one("delta-Mem (MSW)", f"{MAB},AR", "30.00"), "does not recompute"),
    "A4": (one("delta-Mem (MSW)", "LoCoMo,F1,single", "40.00"), "does not recompute"),
    "A5": (one("delta-Mem (MSW)", "GPQA-D,accuracy,all", "20.00"), "does not hold"),
    "A6": (one("delta-Mem (TSW)", "parameters,trainable_millions,all", "5.47", "figure4_parameters"), "does not hold"),
    "A7": (
        one("frozen", f"{MAB},LRU", "10.00") + one("frozen", IFEVAL, "50.00")
        + one("frozen", "GPQA-D,accuracy,all", "20.00"),
        "holds",
    ),
    "B1": (one("frozen", f"{MAB},TTL", "27.00"), "text and figure disagree"),
    "B2": (one("delta-Mem (SSW)", f"{MAB},TTL", "40.00"), "does not recompute"),
    "C1": (TSW_MENDED, "holds"),
    "C2": (TSW_MENDED, "holds"),
    "C3": (TSW_MENDED, "holds"),
    "C4": (TSW_MENDED, "holds"),
    "C5": (one("delta-Mem (SSW)", IFEVAL, "90.00"), "does not recompute"),
    "C6": (one("delta-Mem (MSW)", IFEVAL, "90.00"), "does not recompute"),
    "C7": (one("delta-Mem (MSW)", f"{MAB},AR", "30.00"), "does not recompute"),
    "C8": (one("Context2LoRA", "LoCoMo,F1,single", "70.00"), "does not hold"),
    "C9": (one("Context2LoRA", "LoCoMo,F1,open", "30.00"), "holds in part"),
    "C10": (one("delta-Mem (TSW)", "HotpotQA,EM,all", "50.00"), "text and figure disagree"),
    "C11": (one("frozen", "HotpotQA,F1,all", "50.00"), "text and figure disagree"),
    "C12": (one("Context2LoRA", "GPQA-D,accuracy,all", "99.00"), "does not hold"),
    "D1": (one("frozen", IFEVAL, "70.00", "table2", "Qwen3-8B"), "does not recompute"),
    "D2": (one("delta-Mem (MSW)", IFEVAL, "70.00", "table2", "SmolLM3-3B"), "does not recompute"),
    "E1": (state("EM", "bridge", "5.00"), "does not recompute"),
    "E2": (state("F1", "comparison", "20.00"), "does not recompute"),
    "E3": (state("EM", "bridge", "5.00"), "text and figure disagree"),
    "E4": (state("F1", "bridge", "5.00"), "text and figure disagree"),
    "E5": (state("EM", "comparison", "1.00") + state("F1", "comparison", "17.00"), "holds"),
    "E6": ([("claims", "E6", "6.89 -> 9.62")], "holds"),
    "F1": (heads("heads=q", "60.00"), "does not hold"),
    "F2": (heads("heads=qo", "49.61"), "not resolved"),
    "G1": (heads("layers=Front 12", "60.00"), "does not hold"),
    "G2": (heads("layers=All Layers", "60.00"), "does not recompute"),
    "H1": (share("delta-Mem (TSW)", "0.50"), "holds in part"),
    "H2": ([("claims", "H2", "0.22")], "does not recompute"),
    "H3": ([("claims", "H3", "18.00")], "holds in part"),
    "H4": ([("claims", "H4", "0.22")], "does not recompute"),
    "H5": (share("MemGen", "1.15"), "holds"),
    "H6": (share("MLP Memory", "76.52"), "holds"),
    "H7": (share("Context2LoRA", "0.50"), "holds in part"),
    "K1": (
        one("Context2LoRA", "parameters,trainable_millions,all", "4.90", "figure4_parameters"),
        "holds in part",
    ),
    "L1": (TSW_MENDED, "holds"),
    "L2": (TSW_MENDED, "holds"),
    "L3": ([("claims", "L3", "0.22")], "does not recompute"),
    "L4": ([("claims", "L4", "0.22")], "does not recompute"),
}  # fmt: skip
"""Another number where the paper prints one, and the verdict that it gives."""


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FOLDER, tmp_path / "reported")


def test_the_fifty_claims_are_all_there_and_in_order():
    wanted = [f"{letter}{n}" for letter, count in COUNTS.items() for n in range(1, count + 1)]
    assert [claim.id for claim in claims()] == wanted
    assert len(wanted) == 50


def test_verdicts_are_these():
    found: dict[str, list[str]] = {}
    for claim in claims():
        found.setdefault(claim.verdict, []).append(claim.id)
        assert claim.verdict in MEANING
        assert claim.sentence.endswith(".")
    assert {verdict: " ".join(ids) for verdict, ids in found.items()} == VERDICTS


def test_every_claim_that_can_change_is_changed_below():
    assert set(CHANGES) == {fact.id for fact in facts()} - FIXED


@pytest.mark.parametrize("claim", CHANGES)
def test_another_number_gives_another_verdict(folder, claim):
    before = {c.id: c for c in claims(folder)}[claim]
    for file, start, value in CHANGES[claim][0]:
        if file == "claims":
            reprint(folder, start, value)
        else:
            change(folder, file, start, value)
    after = {c.id: c for c in claims(folder)}[claim]
    assert after.verdict == CHANGES[claim][1] != before.verdict
    assert after.sentence != before.sentence or after.recomputed != before.recomputed or after.printed != before.printed


def test_one_slip_is_told_once_with_all_that_it_bears_on(folder):
    found = slips()
    assert len(found) == 6
    assert found[0].claims == ("C1", "C2", "C3", "C4", "L1", "L2")
    assert "Table 1 and Table 2" in found[0].text
    assert {claim for slip in found[1:] for claim in slip.claims} == {"D2", "H5", "H6"}
    change(folder, *TSW_MENDED[0])
    assert "(Table 2, Qwen" in next(slip.text for slip in slips(folder) if "overall average" in slip.text)


def test_the_slip_names_what_follows_from_it():
    slip = next(claim for claim in claims() if claim.id == "C1")
    assert slip.sentence == "Its own row gives 51.162, 0.50 less than printed. C3, C4, L1 and L2 follow from it."
    assert all("a gain of" in claim.sentence for claim in claims() if claim.verdict.startswith(FOLLOWS))


def test_the_printed_and_the_recomputed_stand_in_their_units():
    found = {claim.id: (claim.printed, claim.recomputed) for claim in claims()}
    assert found["A1"] == ("1.10×", "SSW 1.099, TSW 1.093, MSW 1.084")
    assert found["C7"] == ("29.54 → 38.85%", "29.541 → 38.847")
    assert found["H1"] == ("4.87M", "4,866,336; 0.121%")
    assert found["E6"] == ("3.49 → 8.05%", "6.89 → 9.62")
    assert found["A6"] == ("8 × 8", "8 × 8")


def test_numbers_printed_twice_agree_and_a_changed_one_is_seen(folder):
    assert repeated(Paper()) == (79, 0)
    change(folder, *one("frozen", IFEVAL, "80.00")[0])
    assert repeated(Paper(folder)) == (79, 1)


def test_what_stands_is_said_beside_what_does_not():
    assert standing(Paper(), "frozen") == (9, 9)
    assert standing(Paper(), "Context2LoRA") == (8, 9)
    text = markdown()
    assert text.index("27 hold as printed") < text.index("148 of 158") < text.index("## What an erratum would list")
    assert "10 do not (9 numbers, for some stand in two tables); they have 6 independent causes" in text


def test_the_page_has_a_line_a_claim_and_the_same_bytes_anywhere():
    text = markdown()
    assert sum(line.startswith("| ") and "**" in line for line in text.splitlines()) == 50
    assert "our runs" not in text
    script = "import sys; from harness.reporting.audit import markdown; sys.stdout.buffer.write(markdown().encode())"
    for seed, zone in (("1", "UTC"), ("7", "Asia/Tokyo")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C"}
        found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
        assert found.stdout.decode() == text


def test_it_is_computed_without_torch():
    script = "import sys; from harness.reporting.audit import claims; claims(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_command_prints_and_writes(tmp_path):
    assert CliRunner().invoke(app, ["audit"]).output == markdown()
    file = tmp_path / "audit.md"
    assert CliRunner().invoke(app, ["audit", "--out", str(file)]).exit_code == 0
    assert file.read_text(encoding="utf-8") == markdown()
    assert CliRunner().invoke(app, ["audit", "--out", str(file / "no")]).exit_code == 2
    assert CliRunner().invoke(app, ["audit", "embedded", "--results", str(tmp_path)]).exit_code == 2

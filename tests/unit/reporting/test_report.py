"""The report: what it says, that it holds nothing that acts, and that equal records give equal bytes."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import cli, config, records
from harness.experiment import DataSpec
from harness.reporting.report import samples as sampling
from harness.reporting.report import write
from harness.reporting.report.inert import plain, script
from harness.tasks import task

ROOT = Path(__file__).parents[3]
HOSTILE = "</script><img src=x onerror=alert(1)>\\end{document}\0\u202egnp.exe\ud800"


def data(page: str) -> dict:
    """What the page's script reads."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def place(page: str, name: str) -> dict:
    return next(p for p in data(page)["places"] if p["id"] == name)


@pytest.fixture(scope="module")
def page(embedded, tmp_path_factory):
    """The report of the invented experiment."""
    return write(*embedded, tmp_path_factory.mktemp("report") / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def told(invented, tmp_path_factory):
    """A page whose questions are real generated ones and whose answers and notes are hostile."""
    results = tmp_path_factory.mktemp("told")
    chosen = invented.experiment(
        rows=["frozen", "delta_mem_tsw"],
        tasks=[{"task": "write_clear_read", "episodes": 6, "conditions": {"replayed": ["own"], "removed": ["own"]}}],
        data={"source": "generated"},
    )
    loaded = task("write_clear_read").load(DataSpec(source="generated"), "test", {}, 6)
    asked = [(e.id, e.root, q) for e in loaded.episodes for q in e.questions]
    for cell in invented.cells(chosen):
        answers = invented.samples(cell, len(asked)).assign(
            question_id=[q.id for *_, q in asked],
            history_id=[name for name, *_ in asked],
            root=[root for _, root, _ in asked],
            answer=HOSTILE.replace("\ud800", ""),
            notes=json.dumps({"retrieved": [HOSTILE], "kept_ratio": 0.25}),
        )
        record = invented.record(cell, answers)
        record.provenance.data["hash"] = loaded.hash
        records.save(record, answers, results / cell.path)
    return write(chosen, results, results / "index.html").read_text(encoding="utf-8"), asked


def test_a_place_says_what_its_record_says(embedded, page):
    _, results = embedded
    cell = "embedded/smollm2/delta_mem_tsw/seed42/locomo/removed/own"
    score = records.load(results / cell / "record.json").scores["f1"]
    found = place(page, "smollm2/delta_mem_tsw/locomo/removed/own")
    assert found["s"][3:] == [f"{100 * score.value:.1f}", f"[{100 * score.low:.1f}, {100 * score.high:.1f}]"]
    assert (found["n"], found["k"], found["f"]) == (60, 10, "online state")
    assert found["donor"][0] > 0
    assert found["seeds"][0]["path"] == f"{cell}/record.json"
    assert [name for name, *_ in found["seeds"][0]["scores"]] == ["f1"]
    gates = data(page)["pool"][found["seeds"][0]["gates"]]
    assert ["equality.batch.in_situ", "warn", "", "", ""] in gates


def test_every_cell_that_ran_has_a_place(invented, embedded, page):
    chosen, _ = embedded
    ids = {f"{c.job.backbone}/{c.job.row}/{c.task}/{c.condition}/{c.arm}" for c in invented.cells(chosen)}
    assert {p["id"] for p in data(page)["places"]} == ids


def test_faults_are_found_in_the_records(page):
    for sentence in (
        "The histories of write_clear_read, hotpotqa and locomo are invented",
        "locomo draws on 10 source documents, so that no sign-flip test can go below p = 0.002.",
        "On locomo up to 6 histories were cut, losing 93% of the tokens",
        "The arm mean did not run on write_clear_read (replayed), hotpotqa (replayed, removed)",
        "has one training seed, 42",
        "were restored, not learned in this run",
        "The gate equality.batch.in_situ warned on delta_mem_tsw and delta_mem_ssw.",
    ):
        assert sentence in page


def test_rows_without_an_answer_and_missing_ones_are_told(invented, tmp_path):
    chosen = invented.experiment(rows=["frozen", "bm25_rag", "lora"])
    invented.fill(chosen, tmp_path)
    shutil.rmtree(tmp_path / "embedded/smollm2/lora/seed42/locomo/replayed")
    path = tmp_path / "embedded/smollm2/bm25_rag/seed42/locomo/own_text/own/record.json"
    record = records.load(path)
    record.status, record.scores = "skipped", {}
    record.failures = [records.Failure(episode="h", question="q", status="skipped", reason="no index <here>")]
    records.write_json(path, record.model_dump(mode="json", by_alias=True))
    page = write(chosen, tmp_path, tmp_path / "index.html").read_text()
    assert "1 cell of 10 did not run or left no record, those of lora." in page
    assert "bm25_rag was skipped on locomo (own_text): no index &lt;here&gt;." in page
    silent = place(page, "smollm2/bm25_rag/locomo/own_text/own")
    assert (silent["status"], silent["reason"]) == ("skipped", "no index <here>")


def test_uncommitted_changes_and_several_commits_are_told(invented, tmp_path):
    chosen = invented.experiment(rows=["frozen"])
    invented.fill(chosen, tmp_path)
    path = tmp_path / "embedded/smollm2/frozen/seed42/locomo/replayed/own/record.json"
    record = records.load(path)
    record.provenance.dirty, record.provenance.commit = True, "a" * 40
    records.write_json(path, record.model_dump(mode="json", by_alias=True))
    page = write(chosen, tmp_path, tmp_path / "index.html").read_text()
    assert "1 of 3 records was made with uncommitted changes" in page
    assert "The records come from 2 commits" in page


def test_samples_hold_question_gold_answer_and_what_the_memory_gave(told):
    page, asked = told
    found = place(page, "smollm2/delta_mem_tsw/write_clear_read/removed/own")["seeds"][0]["samples"]
    assert (found["of"], len(found["rows"]), found["why"]) == (len(asked), min(len(asked), sampling.PER_CELL), "")
    row = found["rows"][0]
    question = next(q for _, _, q in asked if q.id == row["q"])
    assert data(page)["questions"]["write_clear_read"][row["h"]][row["q"]] == [question.text, question.answers[0]]
    assert row["m"] == [["retrieved", plain(HOSTILE)], ["kept_ratio", "0.25"]]
    assert row["a"].startswith("</script><img")  # as JSON, where it is a text like any other


def test_memories_are_asked_the_same_questions(told):
    shown = {tuple(r["q"] for r in p["seeds"][0]["samples"]["rows"]) for p in data(told[0])["places"]}
    assert len(shown) == 1


def test_nothing_that_others_wrote_can_act(told):
    page, _ = told
    assert "<img src=x" not in page
    assert page.count("</script>") == 2
    assert "\0" not in page
    assert "\u202e" not in page
    assert "[U+0000][U+202E]gnp.exe" in page


def test_a_hostile_title_is_text(invented, tmp_path):
    chosen = invented.experiment(rows=["frozen"], title=HOSTILE)
    invented.fill(chosen, tmp_path)
    page = write(chosen, tmp_path, tmp_path / "index.html").read_text(encoding="utf-8")
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in page
    assert "[U+D800]" in page
    assert "<img src=x" not in page


def test_json_in_a_script_cannot_end_it():
    value = {"</script>": ["<!--", "&", "\u2028", "\u2029", "é中"]}
    text = script(value)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == value


def test_words_stay_out_where_the_data_is_another(page):
    for found in data(page)["places"]:
        samples = found["seeds"][0]["samples"]
        assert samples["why"]
        assert not any({"a", "m"} & row.keys() for row in samples["rows"])
    assert "an invented answer" not in page


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpqa", "shown nowhere"),
        ("memory_agent_bench", "licences of their own"),
        ("locomo", "DELTA_MEM_DATA named no folder"),
    ],
)
def test_words_stay_out_where_a_licence_or_the_authors_ask(invented, monkeypatch, name, said):
    monkeypatch.delenv("DELTA_MEM_DATA", raising=False)
    chosen = invented.experiment(rows=["frozen"], tasks=[{"task": name}])
    cell = next(invented.cells(chosen))
    record = invented.record(cell, invented.samples(cell), source="official")
    words = sampling.Words(chosen, chosen.tasks[0], [record])
    assert said in words.why
    assert not words.of(record)


def test_official_words_are_joined_from_the_folder_with_their_credit(invented, monkeypatch):
    folder = Path(os.environ.get("DELTA_MEM_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "locomo").is_dir():
        pytest.skip("there is no folder of real data")
    monkeypatch.setenv("DELTA_MEM_DATA", str(folder))
    chosen = invented.experiment(rows=["frozen"], tasks=[{"task": "locomo"}], data={"source": "official"})
    cell = next(invented.cells(chosen))
    record = invented.record(cell, invented.samples(cell), source="official")
    record.provenance.data["hash"] = task("locomo").load(chosen.data, "test", {}).hash
    words = sampling.Words(chosen, chosen.tasks[0], [record])
    assert words.of(record)
    assert len(words.asked) == 1540
    assert "CC BY-NC 4.0" in words.credit


def test_fewer_samples_are_shown_where_they_would_take_too_much(embedded, page, monkeypatch, tmp_path):
    monkeypatch.setattr(sampling, "BYTES", 15_000)
    small = write(*embedded, tmp_path / "index.html").read_text(encoding="utf-8")
    rows = [len(p["seeds"][0]["samples"]["rows"]) for p in data(small)["places"]]
    assert len(set(rows)) == 1
    assert 0 < rows[0] < sampling.PER_CELL
    assert f"So that this file stays small, {rows[0]} questions a cell are shown in the place of 20" in small
    assert len(small) < len(page)


def test_long_texts_say_how_much_is_left_out():
    text = sampling.clipped("x" * (sampling.LONGEST + 1234))
    assert text.endswith("[… 1,234 more characters]")
    assert len(text) < sampling.LONGEST + 40


def test_notes_that_are_no_object_are_shown_as_they_are():
    assert sampling.gave("no json") == [["notes", "no json"]]
    assert sampling.gave(None) == []
    assert sampling.gave('{"retrieved": [], "kept_ratio": 0.5}') == [["kept_ratio", "0.5"]]


def test_the_file_asks_for_nothing(page):
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in html.unescape(page)
    assert not re.findall(r'(?:src|href|action)="(?!data:|#)', page)
    assert not re.findall(r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket", page)


def test_what_reads_aloud_is_there(page):
    assert '<html lang="en">' in page
    assert re.findall(r'<img src="data:image/[^"]+" alt="[^"]+', page)
    assert "<noscript>" in page
    for found in re.findall(r"<table.*?</table>", page, re.DOTALL):
        assert "<caption" in found
    assert not re.findall(r'<th(?! scope="(?:col|row)")[ >]', page)


def test_equal_records_give_equal_bytes(invented, page, tmp_path):
    chosen = invented.experiment()
    invented.fill(chosen, tmp_path, reverse=True)
    code = (
        "import sys, pathlib\nfrom harness.experiment import Experiment\nfrom harness.reporting.report import write\n"
        "chosen = Experiment.model_validate_json(sys.stdin.read())\n"
        f"write(chosen, pathlib.Path({str(tmp_path)!r}), pathlib.Path({str(tmp_path / 'index.html')!r}))"
    )
    elsewhere = {"PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Pacific/Chatham", "LANG": "tr_TR.UTF-8"}
    told = chosen.model_dump_json(by_alias=True)
    subprocess.run([sys.executable, "-c", code], input=told, text=True, check=True, env={**os.environ, **elsewhere})
    assert (tmp_path / "index.html").read_bytes() == page.encode()


def test_published_records_have_a_report(tmp_path):
    out = tmp_path / "index.html"
    words = ["report", "embedded", "--results", str(ROOT / "results/reference"), "--out", str(out)]
    said = CliRunner().invoke(cli.app, words)
    assert said.exit_code == 0, said.output
    found = data(out.read_text(encoding="utf-8"))
    assert len(found["places"]) == len(list((ROOT / "results/reference/embedded").rglob("record.json"))) > 40
    assert all(not p["seeds"][0]["samples"]["why"] for p in found["places"])  # generated words are there


def test_an_experiment_that_asks_nothing_has_a_report(tmp_path):
    out = write(config.load("efficiency", []), ROOT / "results/reference", tmp_path / "index.html")
    page = out.read_text(encoding="utf-8")
    assert "No question is asked here" in page
    assert "delta_mem_tsw" in page
    assert '<script type="application/json"' not in page


def test_several_seeds_stand_in_one_place(invented, tmp_path):
    chosen = invented.experiment(seeds=[1, 2], rows=["lora"], tasks=[{"task": "hotpotqa"}])
    invented.fill(chosen, tmp_path)
    page = write(chosen, tmp_path, tmp_path / "index.html").read_text()
    assert [seed["seed"] for seed in data(page)["places"][0]["seeds"]] == [1, 2]
    assert "Fits have 2 training seeds" in page


def test_donors_are_named_and_one_draw_is_shown(page):
    found = place(page, "smollm2/delta_mem_tsw/locomo/removed/donor")["seeds"][0]["samples"]
    assert (found["draws"], found["of"]) == (3, 60)
    assert {row["d"] for row in found["rows"]} == {"other"}


def test_what_json_cannot_say_makes_no_page():
    with pytest.raises(ValueError, match="JSON"):
        script({"value": float("nan")})

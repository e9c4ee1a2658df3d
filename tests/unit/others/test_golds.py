"""Official gold answers beside those of a file: found by id or by text, compared, and used where that is asked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.experiment import DataSpec
from harness.tasks import task

NAMED = os.environ.get("DELTA_MEM_DATA")
BESIDE = Path(__file__).resolve().parents[4] / "shared" / "data"


def paragraph(name, question, answer):
    context = [["Kites", ["A kite is red."]]]
    return {"_id": name, "question": question, "answer": answer, "type": "bridge", "level": "hard",
            "supporting_facts": [["Kites", 0]], "context": context}  # fmt: skip


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with three questions of HotpotQA's schema, two of the same text."""
    rows = [paragraph("h1", "What is red?", "kite"), paragraph("h2", "Who?", "Ada"), paragraph("h3", "Who?", "Ben")]
    folder = tmp_path / "data"
    (folder / "hotpotqa").mkdir(parents=True)
    (folder / "hotpotqa" / "hotpot_dev_distractor_v1.json").write_text(json.dumps(rows), encoding="utf-8")
    monkeypatch.setenv("DELTA_MEM_DATA", str(folder))
    return folder


def test_by_id_and_by_text(data, written, run):
    rows = [
        {"id": "h1", "prediction": "kite", "gold": "kite"},
        {"id": "x1", "question": "Context... What is red? Answer:", "prediction": "kite", "gold": "kite"},
        {"id": "h3", "prediction": "Ben", "gold": "Ada"},
        {"id": "x2", "question": "Who?", "prediction": "Ben", "gold": "Ben"},
        {"id": "x3", "question": "Where?", "prediction": "there", "gold": "there"},
    ]
    found = run(written("a.jsonl", [*rows[:1], *rows[2:]]), "--task", "hotpotqa")
    assert found["golds"] == {"used": "file", "same": 1, "fewer": 0, "differ": ["h3"], "unknown": 2}
    assert any("1 are the official ones, 1 differ (h3), 2 are of questions" in s for s in found["sentences"])
    assert found["scores"]["em"]["value"] == 0.75
    assert found["scores"]["em/bridge"]["n"] == 2  # the official category of those that are found
    assert run(written("b.jsonl", rows[1:2]), "--task", "hotpotqa")["golds"]["same"] == 1


def test_one_question_under_two_names_is_refused(data, written, refused):
    rows = [
        {"id": "h1", "prediction": "kite", "gold": "kite"},
        {"id": "x1", "question": "What is red?", "prediction": "kite", "gold": "kite"},
    ]
    assert "line 2: the question 'h1' is answered in" in refused(written("a.jsonl", rows), "--task", "hotpotqa")


def test_an_id_with_another_text_is_another_question(data, written, run):
    rows = [{"id": "h1", "question": "Is it blue?", "prediction": "no", "gold": "no"}]
    assert run(written("a.jsonl", rows), "--task", "hotpotqa")["golds"]["unknown"] == 1


def test_official_golds_score_where_asked(data, written, run, refused):
    rows = [{"id": "h3", "prediction": "Ben", "gold": "Ada"}, {"id": "h1", "prediction": "kite", "gold": "kite"}]
    path = written("a.jsonl", rows)
    assert run(path, "--task", "hotpotqa")["scores"]["em"]["value"] == 0.5
    found = run(path, "--task", "hotpotqa", "--official-golds")
    assert found["scores"]["em"]["value"] == 1
    assert found["golds"] == {"used": "official", "same": 1, "fewer": 0, "differ": ["h3"], "unknown": 0}
    strange = written("b.jsonl", [*rows, {"id": "q", "prediction": "x", "gold": "x"}])
    assert "line 3: the question 'q' is none of the official ones" in refused(
        strange, "--task", "hotpotqa", "--official-golds"
    )


def test_without_a_folder_it_is_said(written, run):
    path = written("a.jsonl", [{"id": "h1", "prediction": "kite", "gold": "kite"}])
    assert any("DELTA_MEM_DATA names no folder" in s for s in run(path, "--task", "hotpotqa")["sentences"])
    result = CliRunner().invoke(app, ["rescore", str(path), "--task", "hotpotqa", "--official-golds"])
    assert (result.exit_code, "DELTA_MEM_DATA names no folder" in result.stderr) == (2, True)


def test_gpqa_is_not_compared(data, written, run):
    row = {"id": "r", "prediction": "(B)", "gold": "B", "options": ["a", "b", "c", "d"]}
    found = run(written("a.jsonl", [row]), "--task", "gpqa")
    assert found["golds"] == {"used": "file"}
    assert any("the order of the options is the file's own" in sentence for sentence in found["sentences"])


@pytest.fixture
def real(monkeypatch):
    root = Path(NAMED) if NAMED else BESIDE
    if not root.is_dir():
        pytest.skip("there is no folder of real data")
    monkeypatch.setenv("DELTA_MEM_DATA", str(root))
    return root


def test_every_question_of_locomo_is_known_again_by_its_text(real, written, run):
    """All but those whose text its conversation has twice; gold answers given back earn all but the explanations."""
    episodes = task("locomo").load(DataSpec(source="official"), "test", {}).episodes
    content = [
        {"sample_id": e.id, "qa": [
            {"question": q.text, "answer": q.answers[0], "category": q.category, "prediction": q.answers[0]}
            for q in e.questions
        ]}
        for e in episodes
    ]  # fmt: skip
    found = run(written("locomo.json", content), "--task", "locomo")
    golds = found["golds"]
    assert (found["answers"], golds["differ"], golds["fewer"]) == (1540, [], 0)
    assert golds["unknown"] <= 15
    assert found["scores"]["f1"]["clusters"] == 10
    assert found["scores"]["f1"]["value"] > 0.99

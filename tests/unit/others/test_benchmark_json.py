"""Benchmark JSON: rows of prediction and answer in several shapes, whose claims are the release's."""

from __future__ import annotations

import json

import pytest

ROWS = [
    {"id": "a", "question": "Where?", "type": "bridge", "answer": "US", "prediction": "U.S.", "em": 0, "f1": 0.0},
    {"id": "b", "question": "Is it?", "type": "comparison", "answer": "yes", "prediction": "yes it is", "em": 0,
     "f1": 0.5},
]  # fmt: skip
"""By hand: official em 1 0, F1 1 0; release em 0 0, F1 0 2/4."""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", ROWS),
        ("object.json", {"model": "invented", "em": 0.0, "f1": 0.25, "results": ROWS}),
        ("summary.json", {"summary": {"em": 0.0, "f1": 25.0, "seconds": 9.5}, "details": ROWS}),
        ("lines.jsonl", ROWS),
    ],
)
def test_claims_are_the_releases(name, content, written, run):
    found = run(written(name, content))
    assert found["format"] == "benchmark JSON (rows of prediction and answer)"
    assert found["task"] == "hotpotqa"
    assert found["scores"]["em"]["value"] == 0.5
    assert found["scores"]["em/bridge"]["value"] == 1
    claims = {claim["name"]: claim for claim in found["claims"]}
    assert {name: claim["metric"] for name, claim in claims.items()} == {"em": "em_release", "f1": "f1_release"}
    assert all(claim["holds"] and claim["otherwise"] == 0 for claim in claims.values())
    assert claims["f1"]["value"] == 0.25


def test_a_claim_that_is_the_other_rules_says_so(written, run):
    found = run(
        written("r.json", {"em": 0.5, "results": [{k: v for k, v in row.items() if k != "em"} for row in ROWS]})
    )
    said = "the file says 50.00% for em, but em_release gives 0.00% (-50.00); em gives what the file says"
    assert said in found["sentences"]


def test_conversations_with_their_questions(written, run):
    """LoCoMo's own form: the conversation is the cluster, and adversarial questions are left out."""
    content = [
        {
            "sample_id": f"conv-{n}",
            "qa": [
                {"question": "When?", "answer": 2023, "category": 2, "prediction": "in 2023", "f1": 0.6667},
                {"question": "What?", "answer": "kite, lamp", "category": 1, "prediction": "kite", "f1": 0.5},
                {"question": "Who?", "adversarial_answer": "Ada", "category": 5, "prediction": "not mentioned"},
            ],
        }
        for n in range(6)
    ]
    found = run(written("locomo.json", content))
    assert (found["task"], found["answers"]) == ("locomo", 12)
    assert found["scores"]["f1"]["clusters"] == 6
    assert found["scores"]["f1_release/temporal"]["value"] == pytest.approx(0.6667)
    assert found["scores"]["f1/multi_hop"]["value"] == 0.5
    assert [(c["metric"], c["holds"], c["otherwise"]) for c in found["claims"]] == [("f1_release", True, 0)]
    assert any(s.startswith("6 adversarial questions (category 5) are left out") for s in found["sentences"])


def test_unknown_scores_are_named_and_not_compared(written, run):
    found = run(written("r.json", [{**row, "rouge": 0.5} for row in ROWS]))
    assert "scores that are not compared: rouge" in found["sentences"]


def test_what_is_wrong_is_one_sentence(written, refused, tmp_path):
    plain = {"prediction": "x", "answer": "x"}
    for content, options, said in [
        ([plain], (), "its rows tell no task; say whose rules score it with --task"),
        ([plain], ("--task", "hotpot"), "unknown task 'hotpot'"),
        ({"a": ROWS, "b": ROWS}, (), "has 2 lists of answers"),
        ([ROWS[0], 3], (), "row 1: int and no object"),
        ([ROWS[0], {"id": "c", "prediction": "x"}], (), "row 1: the field 'answer' is missing"),
        ([ROWS[0], {"id": "c", "answer": "x"}], (), "row 1: the field 'prediction' is missing"),
        ([ROWS[0], {**ROWS[1], "task": "LoCoMo"}], (), "row 1: the row is of 'locomo', others of 'hotpotqa'"),
        ([ROWS[0], ROWS[0]], (), "row 1: the question 'a' is answered in"),
        ({"results": {"em": 1}}, (), "is of no known format"),
        ([], (), "is of no known format"),
    ]:
        assert said in refused(written("r.json", content), *options)
    torn = tmp_path / "torn.json"
    torn.write_text(json.dumps(ROWS, indent=1)[:90], encoding="utf-8")
    assert "is cut off or no JSON" in refused(torn)

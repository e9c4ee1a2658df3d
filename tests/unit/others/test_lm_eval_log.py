"""Sample logs as lm-eval itself writes them: evaluated in-process, on invented tasks."""

from __future__ import annotations

import json

import pytest
from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from harness.tasks import task

ROWS = [
    {"id": "q1", "question": "Where is the kite?", "gold": ["the US", "America"], "type": "bridge"},
    {"id": "q2", "question": "Is it red?", "gold": ["yes"], "type": "comparison"},
    {"id": "q3", "question": "What flies?", "gold": ["well known kite"], "type": "bridge"},
]
SAID = {"Where": "U.S.", "Is": "yes it is", "What": "well-known kite"}
"""By hand, official: em 1 0 0, F1 1 0 2/5; release: em 0 0 1, F1 0 2/4 1."""
COMMON = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
"""
GENERATE = """
doc_to_target: "{{gold}}"
output_type: generate_until
generation_kwargs: {until: ["\\n"], max_gen_toks: 16}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_punctuation: true}]
"""
FILTERS = """
filter_list:
  - {name: whole, filter: [{function: take_first}]}
  - {name: first_word, filter: [{function: regex, regex_pattern: "(\\\\w+)"}, {function: take_first}]}
"""
CHOICE = """
doc_to_target: 0
output_type: multiple_choice
doc_to_choice: ["a", "b"]
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


class Canned(LM):
    """Says what the question's first word asks for."""

    def generate_until(self, requests):
        return [SAID.get(request.args[0].split()[0], "nothing") for request in requests]

    def loglikelihood(self, requests):
        return [(-1.0, False) for _ in requests]

    def loglikelihood_rolling(self, requests):
        return [-1.0 for _ in requests]


def log(home, names, include, **options):
    """Evaluate and write results and samples as lm-eval's command does; the sample log of each task."""
    manager = TaskManager(include_path=[str(include)], include_defaults=False)
    results = simple_evaluate(
        Canned(), tasks=names, task_manager=manager, log_samples=True, bootstrap_iters=0, **options
    )
    samples = results.pop("samples")
    tracker = EvaluationTracker(output_path=str(home))
    tracker.general_config_tracker.model_name_sanitized = "canned"
    tracker.save_results_aggregated(results, samples)
    for name, rows in samples.items():
        tracker.save_results_samples(name, rows)
    found = {name: next((home / "canned").glob(f"samples_{name}_[0-9]*.jsonl")) for name in names}
    return found, next((home / "canned").glob("results_*.json"))


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """The logs of four tasks, and their results JSON."""
    home = tmp_path_factory.mktemp("logs")
    patch = pytest.MonkeyPatch()
    patch.delenv("DELTA_MEM_DATA", raising=False)
    patch.setattr("datasets.config.HF_DATASETS_CACHE", home / "cache")
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    common = COMMON.format(file=home / "rows.jsonl")
    yaml = home / "yaml"
    yaml.mkdir()
    for name, text in {"kites": GENERATE, "kites_twice": GENERATE + FILTERS, "kites_choice": CHOICE}.items():
        (yaml / f"{name}.yaml").write_text(f"task: {name}\n{common}{text}", encoding="utf-8")
    files, results = log(home, ["kites", "kites_twice", "kites_choice"], yaml)
    yield files, results
    patch.undo()


def test_both_rules_beside_what_lm_eval_says(logged, run):
    files, results = logged
    found = run(files["kites"], "--task", "hotpotqa")
    assert found["format"] == "lm-eval's sample log"
    told = {name: found["scores"][name]["value"] for name in ("em", "f1", "em_release", "f1_release")}
    assert told == pytest.approx({"em": 1 / 3, "f1": 1.4 / 3, "em_release": 1 / 3, "f1_release": 1.5 / 3})
    assert found["scores"]["em/bridge"] == {**found["scores"]["em/bridge"], "value": 0.5, "n": 2}
    theirs = json.loads(results.read_text(encoding="utf-8"))["results"]["kites"]["exact_match,none"]
    (claim,) = found["claims"]
    assert (claim["name"], claim["metric"], claim["total"]) == ("exact_match", "em", pytest.approx(theirs))
    assert claim["own"] == pytest.approx(theirs)
    # lm-eval's exact_match is another rule: "U.S." without its marks is no "the US".
    assert (theirs, claim["holds"], claim["otherwise"]) == (0, False, 1)
    # 5, 9 and 15 bytes: none can have 16 tokens.
    assert found["cap_hit"] == {"hits": 0, "known": 0, "bounded": 3, "n": 3, "rate": 0.0}


def test_every_filter_claims_and_an_answer_counts_once(logged, run, shuffled):
    path = logged[0]["kites_twice"]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 6
    found = run(path, "--task", "hotpotqa")
    assert found["answers"] == found["scores"]["em"]["n"] == 3
    assert [claim["name"] for claim in found["claims"]] == ["exact_match,first_word", "exact_match,whole"]
    assert all(claim["n"] == 3 for claim in found["claims"])
    scores = run(shuffled(path, 1), "--task", "hotpotqa")["scores"]
    assert scores == found["scores"]


def test_our_own_tasks_are_known_again(logged, run, tmp_path, monkeypatch):
    """Their logs hold ids alone; the generated questions are made again, gold answers, categories, roots and all."""
    files, _ = log(tmp_path, ["locomo"], "harness/tasks/lm_eval", limit=6)
    found = run(files["locomo"])
    assert found["task"] == "locomo"
    assert all(claim["holds"] and not claim["otherwise"] for claim in found["claims"])
    assert {claim["metric"] for claim in found["claims"]} == {"f1", "f1_release"}
    assert any(name.startswith("f1/") for name in found["scores"])


def test_without_its_results_a_log_claims_its_own_means(logged, run, tmp_path):
    path = tmp_path / logged[0]["kites"].name
    path.write_bytes(logged[0]["kites"].read_bytes())
    found = run(path, "--task", "hotpotqa")
    assert found["claims"][0]["total"] is None
    assert any("no results JSON beside it" in sentence for sentence in found["sentences"])


def test_a_total_that_its_own_lines_do_not_give_is_told(logged, run, tmp_path):
    files, results = logged
    for file in (files["kites"], results):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    told = json.loads(results.read_text(encoding="utf-8"))
    told["results"]["kites"]["exact_match,none"] = 0.9
    (tmp_path / results.name).write_text(json.dumps(told), encoding="utf-8")
    found = run(tmp_path / files["kites"].name, "--task", "hotpotqa")
    assert any(
        s.startswith("the file says 90.00% for exact_match, but em gives 33.33% (-56.67)") for s in found["sentences"]
    )
    assert any(s.startswith("the file's total for exact_match is 90.00%, but") for s in found["sentences"])


def test_what_cannot_be_scored_is_one_sentence(logged, refused, tmp_path):
    files, results = logged
    assert "lm-eval's task 'kites' is none of ours" in refused(files["kites"])
    assert "holds likelihoods of choices and no text" in refused(files["kites_choice"], "--task", "hotpotqa")
    assert "lm-eval's results JSON, which has no answers" in refused(results)
    rows = [json.loads(line) for line in files["kites"].read_text(encoding="utf-8").splitlines()]
    bad = {
        "mixed": [rows[0], {**rows[1], "doc": {"other": 1}}],
        "twice": [rows[0], rows[0]],
        "doc": [rows[0], {**rows[1], "doc": 3}],
        "resps": [rows[0], {**rows[1], "resps": []}],
        "lost": [rows[0], {key: value for key, value in rows[1].items() if key != "target"}],
        "runs": [rows[0], {**rows[0], "filter": "other", "resps": [["another"]]}],
    }
    said = {
        "mixed": "line 2: its 'doc' has other columns",
        "twice": "line 2: the question 'q1' is answered in",
        "doc": "line 2: the field 'doc' is int",
        "resps": "line 2: the field 'resps' holds no answer",
        "lost": "line 2: the field 'target' is missing",
        "runs": "line 2: the question 'q1' has another answer than in",
    }
    for name, wrong in bad.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in wrong), encoding="utf-8")
        assert said[name] in refused(path, "--task", "hotpotqa")


def written(tmp_path, name, samples):
    """A log of lm-eval's own writer, of samples that an evaluation would have given."""
    tracker = EvaluationTracker(output_path=str(tmp_path))
    tracker.general_config_tracker.model_name_sanitized = "canned"
    tracker.save_results_aggregated({"results": {}, "configs": {}}, None)
    tracker.save_results_samples(name, samples)
    return next((tmp_path / "canned").glob("samples_*.jsonl"))


def sample(n, doc, target, said, **metrics):
    return {
        "doc_id": n, "doc": doc, "target": target, "resps": [[said]], "filtered_resps": [said], "filter": "none",
        "arguments": [("prompt", {"max_gen_toks": 1280})], "metrics": [*metrics], **metrics,
    }  # fmt: skip


def test_ifeval_counts_instructions(tmp_path, run):
    """Two prompts, of one and of two instructions; the file says that all are followed, and one is not."""
    docs = [
        {"key": 1, "prompt": "Say nothing with a comma.", "kwargs": [{}],
         "instruction_id_list": ["punctuation:no_comma"]},
        {"key": 2, "prompt": "Small, in quotes.", "kwargs": [{"num_words": None}, {}],
         "instruction_id_list": ["change_case:english_lowercase", "startend:quotation"]},
    ]  # fmt: skip
    said = ["a kite, red", '"a kite is red and it flies over the house"']
    samples = [
        sample(n, doc, "0", said[n], prompt_level_strict_acc=True, inst_level_strict_acc=[True] * (n + 1))
        for n, doc in enumerate(docs)
    ]
    found = run(written(tmp_path, "ifeval", samples))
    claims = {claim["name"]: claim for claim in found["claims"]}
    assert (claims["prompt_level_strict_acc"]["value"], claims["prompt_level_strict_acc"]["ours"]) == (1.0, 0.5)
    assert (claims["inst_level_strict_acc"]["value"], claims["inst_level_strict_acc"]["ours"]) == (
        1.0,
        pytest.approx(2 / 3),
    )


def test_gpqa_is_scored_by_three_rules_and_never_printed(tmp_path, run):
    options = ["alpha secret", "beta secret", "gamma secret", "delta secret"]
    docs = [{"Question": f"secret {n}", "choices": options, "answer": "(B)", "Record ID": f"rec{n}"} for n in range(4)]
    said = ["The answer is (B).", 'It is {"answer": "B"}', "correct answer: (B)", "B. secret"]
    samples = []
    for n, doc in enumerate(docs):
        row = sample(n, doc, "(B)", said[n], exact_match=float(n == 0))
        samples += [{**row, "filter": "strict-match"}, {**row, "filter": "flexible-extract"}]
    path = written(tmp_path, "gpqa_diamond_cot_zeroshot", samples)
    found = run(path)
    rules = {m.name: found["scores"][m.name]["value"] for m in task("gpqa").metrics}
    assert rules == pytest.approx({"acc": 1 / 2, "acc_strict": 1 / 4, "acc_release": 3 / 4})
    told = {claim["metric"]: (claim["value"], claim["otherwise"]) for claim in found["claims"]}
    assert told == {"acc": (0.25, 1), "acc_strict": (0.25, 0)}
    assert "secret" not in json.dumps(found).replace(str(path), "")

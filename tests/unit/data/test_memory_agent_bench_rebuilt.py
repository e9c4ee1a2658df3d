"""Rebuilt rows: the published facts about the official ones hold for them, on the real parts."""

from __future__ import annotations

import gzip
import json
import re

import pytest

from harness.data import memory_agent_bench as bench
from harness.data.files import read
from harness.data.memory_agent_bench import Sizes, rebuilt, rebuilt_texts
from harness.data.memory_agent_bench.inventory import LABELLED, SOURCES, source_of
from harness.errors import HarnessError
from harness.experiment import DataSpec

KNOWN = ("ruler_qa1", "ruler_qa2", "longmemeval_s", "redial", *LABELLED)


def rows(root, *names, seed=0, **sizes):
    parts = Sizes(rebuild=names, **sizes)
    return rebuilt.rows([source_of(name) for name in names], parts, root, seed).rows


def labels(context: str) -> list[tuple[str, str]]:
    return re.findall(r"(.*?)\nlabel: (\d+)(?:\n\n|\Z)", context, re.DOTALL)


# --- without data ---


def test_rounds_have_each_label_once_and_few_exemplars_come_again_only_when_all_were_shown():
    train = [*((f"a{n}", "a") for n in range(9)), ("b0", "b"), *((f"c{n}", "c") for n in range(3))]
    found = rebuilt.balanced(train, 16, seed=5)
    assert len(found) == 16
    for at in range(0, 15, 3):
        assert sorted(label for _, label in found[at : at + 3]) == ["a", "b", "c"]
    shown = [text for text, label in found if label == "c"]
    assert len(set(shown[:3])) == 3 or len(set(shown)) == 3
    assert found == rebuilt.balanced(train, 16, seed=5) != rebuilt.balanced(train, 16, seed=6)


def test_marks_are_taken_off_an_utterance():
    assert rebuilt_texts.unmarked("wake me at [time : five am] [date : tomorrow]") == "wake me at five am tomorrow"


def test_a_damaged_part_is_named(tmp_path):
    (tmp_path / "part.gz").write_bytes(gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20)
    with pytest.raises(HarnessError, match=r"part\.gz cannot be read \(.*\); fetch it again"):
        rebuilt_texts.plain(tmp_path, "part.gz")


CASE = {
    "requested_rewrite": [
        {
            "prompt": "{} lies in",
            "subject": "A",
            "target_true": {"str": "B"},
            "target_new": {"str": "C"},
            "question": "?",
        }
    ],
    "single_hops": [{"cloze": "A lies in", "answer": "B"}, {"cloze": "B speaks", "answer": "x"}],
    "new_single_hops": [{"cloze": "A lies in", "answer": "C"}, {"cloze": "C speaks", "answer": "y"}],
    "questions": ["What is spoken where A lies?"],
    "new_answer": "y",
    "new_answer_alias": ["Y!"],
}


def test_a_counterfactual_comes_after_what_it_replaces():
    import random

    for seed in range(20):
        context, single, chained = rebuilt_texts.facts([CASE], "f", 10, random.Random(seed))
        assert context.index("A lies in B.") < context.index("A lies in C.")
        assert {line.partition(". ")[2] for line in context.splitlines()[1:]} == {
            "A lies in B.",
            "A lies in C.",
            "B speaks x.",
            "C speaks y.",
        }
    assert (single, chained) == ([("?", ["C"])], [("What is spoken where A lies?", ["y", "Y!"])])


def test_a_case_that_contradicts_an_earlier_one_is_left_out():
    import random

    other = json.loads(json.dumps(CASE).replace('"C"', '"D"').replace("C speaks", "D speaks"))
    _, single, chained = rebuilt_texts.facts([CASE, other], "f", 100, random.Random(0))
    assert (len(single), len(chained)) == (1, 1)


def test_what_cannot_be_rebuilt_is_named(tmp_path, monkeypatch):
    with pytest.raises(HarnessError, match="no parts of eventqa_full are known"):
        rows(tmp_path, "eventqa_full")
    with pytest.raises(HarnessError, match=r"holds no squad_v2/dev-v2\.0\.json, which `rebuild` needs"):
        rows(tmp_path, "ruler_qa1")
    monkeypatch.delenv("DELTA_MEM_DATA", raising=False)
    monkeypatch.setattr(bench, "fetch_all", lambda *_: [])
    with pytest.raises(HarnessError, match="`rebuild` needs the parts in a folder"):
        bench.load(DataSpec(source="official"), Sizes(rebuild=("ruler_qa1",)))


OFFICIAL = {"row_index": 0, "questions": [3], "answers": [["0"]]}
SCHEMAS = {
    "ruler_qa1": '{"data": [{"paragraphs": [{"context": "x"}]}]}',
    "ruler_qa2": '[{"context": [["one"]]}]',
    "longmemeval_s": '[{"question_id": "q", "haystack_session_ids": ["s"], "haystack_dates": [], '
    '"haystack_sessions": []}]',
    "redial": '{"input": "x", "rec": [], "dialog_id": "d", "resp": "y"}',
    "factconsolidation_sh_6k": '[{"requested_rewrite": [{}]}]',
    "banking77": "a,b\n1,2\n",
    "clinic150": '{"train": [["one"]], "oos_train": []}',
    "nlu": "a;b\n1;2\n",
    "trec_coarse": "",
}


@pytest.mark.parametrize("short", SCHEMAS)
def test_a_part_of_another_schema_is_named_with_its_sub_data_set(tmp_path, short):
    source = source_of(short)
    name = rebuilt.FILES[short if short in rebuilt.FILES else "facts"][0]
    official = json.dumps({**OFFICIAL, "metadata": {"source": source.name, "question_ids": ["q"]}})
    files = {name: SCHEMAS[short], rebuilt.QUESTIONS: official, rebuilt.LABELS: f'{{"{short}": {{}}}}'}
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        data = text.encode()
        (tmp_path / file).write_bytes(gzip.compress(data, mtime=0) if file.endswith(".gz") else data)
    said = rf"^{short} cannot be rebuilt from {re.escape(name)}.* not of its schema \(.*\); fetch the files again"
    with pytest.raises(HarnessError, match=said):
        rows(tmp_path, short)


def test_where_all_is_generated_nothing_is_rebuilt(monkeypatch):
    monkeypatch.delenv("DELTA_MEM_DATA", raising=False)
    plain = bench.load(DataSpec(source="auto"), Sizes())
    assert bench.load(DataSpec(source="auto"), Sizes(rebuild=("ruler_qa1",))) == plain
    assert {e.source for e in plain.episodes} == {"generated"}
    with pytest.raises(HarnessError, match="no sub-data set 'rular_qa1'"):
        bench.load(DataSpec(source="generated"), Sizes(rebuild=("rular_qa1",)))


# --- with data ---


def test_the_label_numbers_reproduce_every_gold(real):
    numbers = read(real / rebuilt.LABELS)
    official = {row["metadata"]["source"]: row for row in read(real / rebuilt.QUESTIONS)}
    for short in LABELLED:
        questions = official[source_of(short).name]["questions"]
        assert len(questions) == 100
        known = list(numbers[short])
        if short == "trec_coarse":
            known = ["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"]
        if short == "banking77":
            known = sorted(known, key=str.lower)
        assert rebuilt.label_numbers(known, rebuilt.label_seed(questions[0])) == numbers[short], short


def test_the_labels_of_the_test_questions_give_the_golds(real):
    """Each question's label in its own data set, as a number, is its gold answer."""
    numbers = read(real / rebuilt.LABELS)
    tests = {
        "banking77": _banking77(real),
        "clinic150": dict(read(real / "clinc150/data_oos_plus.json.gz")["val"]),
        "trec_fine": _trec(real, True),
        "trec_coarse": _trec(real, False),
    }
    tests["clinic150"] |= dict(read(real / "clinc150/data_oos_plus.json.gz")["oos_val"])
    official = {row["metadata"]["source"]: row for row in read(real / rebuilt.QUESTIONS)}
    for short, known in tests.items():
        row = official[source_of(short).name]
        golds = [[str(numbers[short][known[question]])] for question in row["questions"]]
        assert golds == row["answers"], short


def _banking77(root):
    import csv

    with (root / "banking77/test.csv").open(encoding="utf-8", newline="") as stream:
        return {line["text"]: line["category"] for line in csv.DictReader(stream)}


def _trec(root, fine):
    lines = (root / "trec/TREC_10.label").read_text(encoding="latin-1").splitlines()
    pairs = (line.split(" ", 1) for line in lines)
    return {text.strip(): label if fine else label.split(":")[0] for label, text in pairs}


@pytest.mark.parametrize("short", ["banking77", "clinic150", "trec_coarse", "trec_fine"])
def test_at_full_size_the_recipe_gives_the_file_of_the_folder(real, short):
    stored = bench.load(DataSpec(), Sizes(sources=(short,)))
    if stored.source != "rebuilt":
        pytest.skip("the folder holds another file than the rebuilt one")
    (row,) = rows(real, short, shots=LABELLED[short])
    assert row["context"] == "".join(m.content for m in stored.episodes[0].history.messages)
    if short == "trec_fine":
        assert len(set(labels(row["context"]))) == 3008


@pytest.mark.parametrize("short", list(LABELLED))
def test_a_small_classification_keeps_numbers_questions_and_balance(real, short):
    (row,) = rows(real, short, shots=160)
    shown = labels(row["context"])
    assert len(shown) == 160
    numbers = {str(n) for n in read(real / rebuilt.LABELS)[short].values()}
    assert {number for _, number in shown} <= numbers
    counts = [sum(number == n for _, number in shown) for n in {number for _, number in shown}]
    assert max(counts) - min(counts) <= 1
    assert len(row["questions"]) == 100
    if short == "nlu":
        assert not {text for text, _ in shown} & set(row["questions"])


def test_document_questions_are_the_official_ones(real):
    official = {row["metadata"]["source"]: row for row in read(real / rebuilt.QUESTIONS)}
    for short, documents in (("ruler_qa1", 60), ("ruler_qa2", 1200)):
        (row,) = rows(real, short, documents=documents)
        named = official[source_of(short).name]
        assert row["questions"] == named["questions"]
        assert [set(a) for a in row["answers"]] == [set(a) for a in named["answers"]]
        assert len(re.findall(r"^Document \d+:$", row["context"], re.MULTILINE)) == min(
            documents, 991 if short == "ruler_qa2" else 60
        )
    (least,) = rows(real, "ruler_qa1", documents=41)
    assert len(least["questions"]) == 100
    assert len("".join(re.split(r"\n*Document \d+:\n", least["context"]))) == 26_492


def test_few_documents_answer_the_questions_that_are_kept(real):
    (row,) = rows(real, "ruler_qa1", documents=5)
    assert 5 < len(row["questions"]) < 100
    assert all(any(gold in row["context"] for gold in golds) for golds in row["answers"])
    assert rows(real, "ruler_qa1", documents=5) == [row] != rows(real, "ruler_qa1", documents=5, seed=1)


def test_rebuilt_facts_answer_single_and_chained_questions(real):
    chained, single = rows(real, "factconsolidation_mh_6k", "factconsolidation_sh_6k", told=450)
    assert chained["context"] == single["context"]
    lines = single["context"].splitlines()[1:]
    assert [line.split(". ")[0] for line in lines] == [str(n) for n in range(len(lines))]
    assert 440 <= len(lines) <= 480
    assert min(len(chained["questions"]), len(single["questions"])) >= 40
    told = [line.partition(". ")[2] for line in lines]
    cases = read(real / "mquake/MQuAKE-hard.json.gz")

    def newest(cloze):
        return next(fact[len(cloze) + 1 : -1] for fact in reversed(told) if fact.startswith(f"{cloze} "))

    clozes = {e["question"]: e["prompt"].format(e["subject"]) for c in cases for e in c["requested_rewrite"]}
    assert [[newest(clozes[q])] for q in single["questions"]] == single["answers"]
    paths = {c["questions"][0]: (c["new_single_hops"], c["new_answer"]) for c in cases}
    for question, golds in zip(chained["questions"], chained["answers"], strict=True):
        path, gold = paths[question]
        assert [newest(hop["cloze"]) for hop in path] == [hop["answer"] for hop in path]
        assert golds[0] == gold


def test_sessions_are_pooled_in_order_of_time_with_their_questions(real):
    found = rows(real, "longmemeval_s", pool=30)
    assert len(found) == 5
    for row in found:
        dates = re.findall(r"^Session Date: (.*)$", row["context"], re.MULTILINE)
        assert len(dates) == 30
        assert dates == sorted(dates)
        assert len(row["questions"]) == len(row["metadata"]["question_ids"]) >= 10
        assert all("Current Date: " in q for q in row["questions"])
        assert len(row["metadata"]["haystack_sessions"][0]) == 30


def test_movies_have_all_their_golds_and_no_dialogue_of_a_question(real):
    (row,) = rows(real, "redial", pool=25)
    assert len(row["questions"]) == 200
    assert sum(len(a) > 1 for a in row["answers"]) == 58
    assert len(re.findall(r"^Dialogue \d+:$", row["context"], re.MULTILINE)) == 25
    assert not any(q.strip() in row["context"] for q in row["questions"] if len(q) > 200)


def test_rebuilt_rows_take_the_place_of_official_ones_and_are_marked(real):
    data = bench.load(DataSpec(), Sizes(sources=("SF",), rebuild=("factconsolidation_sh_6k",), told=60))
    grades = {e.id: e.source for e in data.episodes}
    if "factconsolidation_mh_6k-0" not in grades:
        pytest.skip("the folder has not the official facts")
    assert grades["factconsolidation_sh_6k-0"] == "rebuilt"
    assert grades["factconsolidation_mh_6k-0"] == "official"
    assert data.source == "rebuilt"
    assert "rebuilt: factconsolidation_sh_6k;" in data.note


def test_the_questions_file_has_the_counted_questions(real):
    every = read(real / rebuilt.QUESTIONS)
    assert (len(every), sum(len(row["questions"]) for row in every)) == (42, 3171)
    found: dict[str, int] = {}
    for row in every:
        name = row["metadata"]["source"]
        found[name] = found.get(name, 0) + len(row["questions"])
    expected = {name: source.questions for name, source in SOURCES.items() if name != "infbench_sum_eng_shots2"}
    assert found == {**expected, "eventqa_131072": 100}

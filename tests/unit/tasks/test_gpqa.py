"""GPQA: options in an order of the record alone, both rules, and no text of it in any file. Every row is invented."""

from __future__ import annotations

import csv
import random
import string

import pandas as pd
import pytest

from harness import certificate, generation, jobs, publish, records, rescoring
from harness.data import gpqa
from harness.data.files import Raw
from harness.errors import HarnessError
from harness.experiment import DataSpec, Experiment
from harness.tasks import task
from harness.tasks.gpqa import extract

ROW = {
    "Record ID": "rec1",
    "Question": "How many legs has a stool?",
    "Correct Answer": "three",
    "Incorrect Answer 1": "four ",
    "Incorrect Answer 2": "five",
    "Incorrect Answer 3": "six",
    "High-level domain": "Physics",
}


def questions(*rows):
    return [e.questions[0] for e in gpqa.read(Raw(list(rows), "official", "gpqa.csv", "h")).episodes]


# --- the release's extraction, once more, by scanning -----------------------------------------------------------


def second(answer):
    """The release's order of forms, without regular expressions."""
    for form in (fenced, keyed, boxed, lambda t: named(t, ":"), lambda t: named(t, "is")):
        if found := form(answer):
            return found[-1]
    lines = [line.strip() for line in answer.split("\n") if line.strip()]
    for line in [*lines[:1], *lines[-1:]]:
        if line[0].upper() in "ABCD" and (len(line) == 1 or line[1] in ".):,"):
            return line[0].upper()
    return ""


def keyed(text):
    found, at = [], 0
    while (at := text.lower().find('"answer"', at)) >= 0:
        at += len('"answer"')
        rest = text[at:].lstrip()
        if rest.startswith(":") and (rest := rest[1:].lstrip()).startswith('"'):
            inner, closed, _ = rest[1:].partition('"')
            if closed and inner.strip().upper() in ("A", "B", "C", "D"):
                found.append(inner.strip().upper())
    return found


def fenced(text):
    found, rest = [], text
    while "```" in rest:
        rest = rest.partition("```")[2]
        body, closed, after = rest.partition("```")
        body = body[4:] if body.lower().startswith("json") else body
        body = body.strip()
        if closed and body.startswith("{") and body.endswith("}") and not set("{}") & set(body[1:-1]) and keyed(body):
            found.append(keyed(body)[-1])
            rest = after
    return found


def boxed(text):
    return [
        inner.strip().upper()
        for piece in text.split("\\boxed{")[1:]
        if (inner := piece.partition("}")[0]).strip().upper() in ("A", "B", "C", "D") and "}" in piece
    ]


def named(text, mark):
    """``final answer: X`` or ``correct answer is X``, the letter perhaps in brackets, quotes or asterisks."""
    found, low = [], text.lower()
    for at in range(len(low)):
        start = next((word for word in ("final", "correct") if low.startswith(word, at)), None)
        if start is None or (at and (low[at - 1].isalnum() or low[at - 1] == "_")):
            continue
        rest = text[at + len(start) :]
        if rest == rest.lstrip() or not rest.lstrip().lower().startswith("answer"):
            continue
        rest = rest.lstrip()[len("answer") :]
        if mark == "is":
            if rest == rest.lstrip() or not rest.lstrip().lower().startswith("is"):
                continue
            rest = rest.lstrip()[2:]
            if rest.lstrip().startswith(":"):
                rest = " " + rest.lstrip()[1:]
        elif rest.lstrip().startswith(":"):
            rest = rest.lstrip()[1:]
        else:
            continue
        letter = rest.lstrip()
        if mark == "is" and letter == rest and letter[:1] not in tuple("*_(['\""):
            letter = ""  # "isA" is no answer
        letter = letter.lstrip("*_([\"'")
        if letter[:1].upper() in tuple("ABCD") and not (letter[1:2].isalnum() or letter[1:2] == "_"):
            found.append(letter[0].upper())
    return found


PIECES = (
    '```json\n{"answer": "%"}\n```', '``` {"why": "x", "answer" : "%"} ```', '{"answer": "%"}', '"Answer" :" % "',
    '{"answer": %}', "\\boxed{%}", "\\boxed{ % }", "\\boxed{\\text{%}}", "Final answer: %", "final answer: (%)",
    "Correct  answer is **%**",
    "the correct answer is %.", "final answer is: %", "Answer: %", "finalanswer: %", "%", "%.",
    "%) because", "% is it", "(%)",
    "So it is %", "Thinking.", "", "```", "My final answer: Apples", "correct answer: %x",
)  # fmt: skip


def test_the_releases_rule_equals_a_second_derivation():
    rng, found = random.Random(4), []
    for _ in range(3000):
        pieces = rng.choices(PIECES, k=rng.randint(1, 4))
        said = rng.choice(("\n", " ", "\n\n")).join(p.replace("%", rng.choice("ABCDEabcd")) for p in pieces)
        assert extract(said) == second(said), said
        found.append(extract(said))
    assert set(found) == {"", "A", "B", "C", "D"}
    assert 300 < found.count("") < 2000


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ('A.\n```json\n{"answer": "C"}\n```\nFinal answer: B', "C"),
        ('{"answer": "A"} or {"answer": "b"}', "B"),
        ("\\boxed{D} and the final answer is A", "D"),
        ("Final answer: A, no, final answer: C", "C"),
        ("the correct answer is (B)", "B"),
        ("B\nbecause", "B"),
        ("because\nD.", "D"),
        ("Because of that", ""),
        ("Answer: C", ""),
        ("", ""),
    ],
)
def test_the_order_of_the_releases_forms(said, letter):
    assert extract(said) == letter == second(said)


# --- options, wording, official rule ------------------------------------------------------------------------------


def test_the_order_of_options_is_the_records_alone():
    orders = [gpqa.shuffled(f"rec{n}") for n in range(400)]
    assert orders == [gpqa.shuffled(f"rec{n}") for n in range(400)]
    firsts = [order.index(0) for order in orders]
    assert all(70 < firsts.count(k) < 130 for k in range(4))
    (q,) = questions(ROW)
    letter = q.answers[0][1]
    assert q.doc["choices"][string.ascii_uppercase.index(letter)] == "three"
    assert (q.id, q.category) == ("rec1", "Physics")


def test_an_order_is_pinned():
    """md5 of ``rec1:42`` begins with 8 hex digits that seed the shuffle."""
    import hashlib

    order = [0, 1, 2, 3]
    random.Random(int(hashlib.md5(b"rec1:42").hexdigest()[:8], 16)).shuffle(order)
    assert gpqa.shuffled("rec1") == order


def test_the_official_form_is_lm_evals_and_the_releases_asks_for_json():
    (q,) = questions(ROW)
    own, release = task("gpqa"), task("gpqa@release")
    letter = q.answers[0][1]
    text = own.question(q)
    assert f"({letter}) three" in text
    assert "four \n" not in text  # lm-eval strips options
    assert own._own(own.document(q)).config.generation_kwargs["until"] == list(own.stop)
    assert f"{letter}. three" in release.question(q)
    assert '{"answer": "C"}' in release.question(q)
    assert own.system() == release.system() == ""


def test_both_rules_score_an_answer():
    (q,) = questions(ROW)
    one, letter = task("gpqa"), q.answers[0][1]
    wrong = "ABCD".replace(letter, "")[0]
    assert one.score(f"The answer is ({letter}).", q) == {"acc": 1, "acc_strict": 1, "acc_release": 0}
    assert one.score(f'{{"answer": "{letter}"}}', q)["acc_release"] == 1
    assert one.score(f"({wrong}), no, ({letter})", q)["acc"] == 1
    assert one.score(f"The answer is ({wrong}).", q) == {"acc": 0, "acc_strict": 0, "acc_release": 0}
    assert one.score("", q) == {"acc": 0, "acc_strict": 0, "acc_release": 0}


def test_generated_rows_can_be_answered():
    found = task("gpqa").load(DataSpec(source="generated"), "test", {}, 30)
    for e in found.episodes:
        doc = e.questions[0].doc
        a, b = (int(w) for w in doc["Question"].replace(".", " ").split() if w.isdigit())
        right = doc["choices"]["ABCD".index(doc["answer"][1])]
        assert right.split()[0] == str(a * b)
        assert len(set(doc["choices"])) == 4
    assert {e.questions[0].category for e in found.episodes} == {"Physics", "Chemistry", "Biology"}


# --- data ---------------------------------------------------------------------------------------------------------


def test_the_users_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTA_MEM_DATA", str(tmp_path))
    (tmp_path / "gpqa").mkdir()
    rows = [ROW, {**ROW, "Record ID": "rec2", "Question": 'Two lines,\n"quoted"?'}]
    with (tmp_path / "gpqa" / "gpqa_diamond.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, [*ROW, "Canary String"])
        writer.writeheader()
        writer.writerows(rows)
    data = task("gpqa").load(DataSpec(source="official"), "test", {})
    assert (data.source, data.file) == ("official", "gpqa/gpqa_diamond.csv")
    assert [e.questions[0] for e in data.episodes] == questions(*rows)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"Record ID": None}, "the field 'Record ID' is NoneType"),
        ({"Correct Answer": " "}, "the field 'Correct Answer' is empty"),
        ({"Incorrect Answer 2": None}, "the field 'Incorrect Answer 2' is NoneType"),
        ({"High-level domain": 3}, "the field 'High-level domain' is int"),
    ],
)
def test_a_wrong_row_is_named_with_its_field_and_without_its_text(changed, said):
    with pytest.raises(HarnessError, match=r"gpqa\.csv, row 0") as error:
        questions({**ROW, **changed})
    assert said in str(error.value)
    assert not any(text in str(error.value) for text in ("stool", "three", "five"))


def test_a_record_twice_is_refused():
    with pytest.raises(HarnessError, match="row 1: its Record ID is there twice"):
        questions(ROW, ROW)


# --- secrecy ------------------------------------------------------------------------------------------------------

SPEC = {
    "name": "s",
    "backbones": {"tiny": {"random": "tiny-llama"}},
    "rows": ["frozen"],
    "tasks": [{"task": name, "limit": 3, "max_new_tokens": 4} for name in ("gpqa", "gpqa@release")],
    "data": {"source": "generated"},
    "run": {"executor": "inline", "device": "cpu", "workers": 1},
}  # fmt: skip
WORDS = ("metres", "flask", "plants carries", "cart moves")


def run(results):
    experiment = Experiment.model_validate(SPEC)
    spec = experiment.model_dump(mode="json", by_alias=True)
    request = {"kind": "evaluate", "experiment": spec, "backbone": "tiny", "row": "frozen", "seed": 42}
    jobs.run({**request, "results": str(results), "progress": str(results / "log.jsonl")})
    return experiment


def told(folder):
    """All that a folder's files say, tables read."""
    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        found.append(pd.read_parquet(path).to_csv() if path.suffix == ".parquet" else path.read_text(errors="replace"))
    return "\n".join(found)


@pytest.fixture
def echoing(monkeypatch):
    """Answers say the prompt again; gates, which want scores, are left out."""
    monkeypatch.setattr(certificate, "run", lambda *asked: [])

    def answer(backbone, prompts, steering, **options):
        texts = [backbone.tokenizer.decode(p.ids) for p in prompts]
        assert any(word in text for text in texts for word in WORDS)
        return [generation.Answer(t, len(p.ids), 3, False, p.sha256) for t, p in zip(texts, prompts, strict=True)], (
            generation.Seconds()
        )

    monkeypatch.setattr(generation, "answer", answer)


def test_no_text_reaches_a_file_a_log_or_what_is_published(echoing, tmp_path, caplog, capfd, monkeypatch):
    experiment = run(tmp_path)
    assert not any(word in told(tmp_path) for word in WORDS)
    said = capfd.readouterr()
    assert not any(word in text for text in (said.out, said.err, caplog.text) for word in WORDS)
    (path,) = tmp_path.rglob("gpqa/replayed/own/samples.parquet")
    samples = pd.read_parquet(path)
    assert set(samples["answer_sha256"].str.len()) == {64}
    assert not {"answer", "notes"} & set(samples)
    assert not list(tmp_path.rglob("journal.jsonl"))
    assert list(rescoring.rescore(experiment, tmp_path, "c")) == []
    for record in tmp_path.rglob("record.json"):
        whole = records.load(record)
        whole.provenance.dirty = False
        records.save(whole, pd.read_parquet(record.with_name("samples.parquet")), record.parent)
    publish.publish(experiment, tmp_path)
    assert len(list((tmp_path / "reference").rglob("samples.parquet"))) == 2
    assert not any(word in told(tmp_path) for word in WORDS)


def test_a_failure_tells_its_kind_and_not_its_words(tmp_path, monkeypatch):
    asked = []

    def fail(backbone, prompts, steering, batches, **options):
        asked.append(len(prompts))
        if len(asked) == 2:  # the first is a gate's
            return [generation.Answer("x", 1, 1, False, "h")], generation.Seconds()
        raise ValueError(f"cannot read {backbone.tokenizer.decode(prompts[0].ids)}")

    monkeypatch.setattr(generation, "attempt", fail)
    with pytest.raises(HarnessError, match="whose words are kept back") as error:
        run(tmp_path)  # the second task has no answer at all
    assert not any(word in str(error.value) for word in WORDS)
    (path,) = tmp_path.rglob("gpqa/replayed/own/record.json")
    assert [f.reason.split(",")[0] for f in records.load(path).failures] == ["ValueError"] * 2
    assert not any(word in told(tmp_path) for word in WORDS)

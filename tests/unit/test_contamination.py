"""What training shares with a test: planted overlap is found exactly, and none between sets that share nothing."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.cli import app
from harness.contamination import Index, flat, hashes, ngrams, overlap, share
from harness.data.files import TaskData
from harness.data.own import Wording, load
from harness.episodes import Episode, History, Message, Question
from harness.tasks import task

QASPER, HOTPOTQA = task("qasper"), task("hotpotqa")


def words(kind: str, count: int, start: int = 0) -> str:
    return " ".join(f"{kind}{n}" for n in range(start, start + count))


def paper(name: str = "p", history: str = "", question: str = "") -> Episode:
    told = (Message(f"Title of {name}\n{words(f'abstract{name}', 20)}", id="p0"), Message(history, id="p1"))
    return Episode(f"{name}-q", History(told), (Question(f"{name}-q", question, ("x",)),), name, "official")


def asked(name: str, history: str = "", question: str = "", title: str = "") -> Episode:
    told = (Message(f"{title or name}: {words(name, 30)} {history} {words(name, 30, 40)}", id=title or name),)
    return Episode(name, History(told), (Question(name, question or words(f"{name}q", 20), ("x",)),), name, "official")


TRAINING = [
    paper("p1", words("kite", 40), "How far does the red kite fly over the hill?"),
    paper("p2", words("lamp", 40)),
]


def compare(*tests: Episode, training: list[Episode] = TRAINING):
    data = TaskData(tests, "official", "hotpot.json", "h")
    return overlap(Index(QASPER, tuple(training)), "hotpotqa", HOTPOTQA, data, tests)


def test_nothing_is_found_between_sets_that_share_nothing():
    found = compare(asked("t1"), asked("t2"))
    assert (found.episodes, found.questions, found.histories) == (2, 2, 2)
    assert found.same == {"id": [], "root": [], "title": [], "history": [], "question": []}
    assert [(r.words, r.texts, r.hit, r.worst) for r in found.question_runs] == [(13, 2, 0, {}), (8, 2, 0, {})]
    assert [(r.words, r.texts, r.hit, r.worst) for r in found.history_runs] == [(13, 2, 0, {}), (8, 2, 0, {})]
    assert found.share == 0


def test_two_files_of_ones_own_without_names_share_nothing(tmp_path):
    rows = [words("kite", 20), words("lamp", 20)]
    for name, told in zip(("train", "notes"), rows, strict=True):
        row = {"messages": [told], "questions": [{"question": f"What of {told}?", "answer": "x"}]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    training, tests = (load(tmp_path / f"{name}.jsonl", Wording()) for name in ("train", "notes"))
    own = task("own_data")
    assert overlap(Index(own, training.episodes), "notes", own, tests, tests.episodes).share == 0
    assert overlap(Index(own, tests.episodes), "notes", own, tests, tests.episodes).share == 1


def test_generated_tasks_share_nothing_with_generated_training(tmp_path):
    result = CliRunner().invoke(app, ["contamination", "embedded", "--out", str(tmp_path), "--fail-above", "0"])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "contamination.json").read_text())
    assert found["share"] == 0
    assert [t["task"] for t in found["tests"]] == ["write_clear_read", "locomo", "hotpotqa"]


@pytest.mark.parametrize(
    ("length", "hits"), [(7, {13: 0, 8: 0}), (8, {13: 0, 8: 1}), (12, {13: 0, 8: 5}), (15, {13: 3, 8: 8})]
)
def test_a_planted_run_of_words_is_found_by_its_length_and_counted_exactly(length, hits):
    """Case and punctuation are no matter; 60 words of its own and the title's one stand around it."""
    planted = f"{words('kite', length, 11)}.".upper().replace(" ", ", ")
    found = compare(asked("t1"), asked("t2", planted), asked("t3"))
    for runs in found.history_runs:
        grams = 61 + length - runs.words + 1
        assert (runs.texts, runs.hit) == (3, int(hits[runs.words] > 0))
        assert runs.worst == ({"t2": pytest.approx(hits[runs.words] / grams)} if hits[runs.words] else {})
    assert found.share == (pytest.approx(1 / 3) if hits[13] else 0)


def test_a_planted_question_is_found_whole_and_by_its_runs_and_short_ones_have_none():
    found = compare(asked("t1", question="how FAR does the red kite fly over the hill"), asked("t2", question="Why?"))
    assert found.same["question"] == ["t1"]
    assert [(r.words, r.texts, r.hit, r.worst) for r in found.question_runs] == [(13, 0, 0, {}), (8, 1, 1, {"t1": 1.0})]
    assert found.share == 0.5


def test_the_same_title_root_id_and_history_are_named_by_the_tests_ids():
    training = [*TRAINING, asked("both", title="Other")]
    found = compare(asked("t1", title="TITLE of p1!"), asked("both", title="Other"), asked("t3"), training=training)
    assert found.same == {
        "id": ["both"],
        "root": ["both"],
        "title": ["t1"],
        "history": ["both"],
        "question": ["both"],
    }


def test_the_worst_come_first_and_a_text_that_is_asked_often_counts_once():
    tests = [asked(f"t{n}", words("kite", 12 + n)) for n in range(1, 9)]
    assert list(compare(*tests).history_runs[0].worst) == ["t8", "t7", "t6", "t5", "t4"]
    twice = [Episode(f"e{n}", tests[0].history, tests[n].questions, "r", "official") for n in (0, 1)]
    found = compare(*twice)
    assert (found.histories, found.questions, found.history_runs[0].hit) == (1, 2, 1)


small = st.lists(st.sampled_from("abc"), max_size=30).map(" ".join)


@given(small, st.lists(small, min_size=1, max_size=4), st.sampled_from((1, 3, 8)))
def test_the_share_of_runs_is_that_of_plain_sets_of_words(text, known, n):
    def plain(given):
        parts = given.split()
        return [tuple(parts[i : i + n]) for i in range(len(parts) - n + 1)]

    index = np.unique(np.concatenate([ngrams(hashes(t), n) for t in known]))
    mine, theirs = plain(text), {gram for t in known for gram in plain(t)}
    assert len(index) == len(theirs)
    assert share(ngrams(hashes(text), n), index) == (sum(g in theirs for g in mine) / len(mine) if mine else 0.0)


def test_the_order_of_words_is_part_of_a_run():
    shuffled = words("kite", 40).split()
    random.Random(0).shuffle(shuffled)
    assert compare(asked("t1", " ".join(shuffled))).share == 0
    assert flat("The U.S., “kite”_1") == "the u s kite _1"


def test_titles_are_those_of_papers_and_paragraphs_and_the_evidence_file_has_none():
    assert QASPER.titles(TRAINING[0]) == ("Title of p1",)
    rebuilt = Episode("p", History((Message("Evidence."),)), (), "p", "rebuilt")
    assert QASPER.titles(rebuilt) == ()
    assert HOTPOTQA.titles(asked("t1", title="Some town")) == ("Some town",)
    assert task("recall").titles(TRAINING[0]) == ()


def test_the_files_hold_ids_and_counts_and_no_text_and_the_limit_ends_the_command(tmp_path, monkeypatch):
    learnt = TaskData((TRAINING[0], TRAINING[1]), "official", "qasper.json", "h", "a note")
    tests = TaskData((asked("t1", words("kite", 20), "What?"), asked("t2")), "official", "hotpot.json", "g")
    monkeypatch.setattr(
        "harness.tasks.write_clear_read.WriteClearRead._load", lambda *given: learnt if given[2] == "train" else tests
    )
    for name in ("locomo.LoCoMo", "hotpotqa.HotpotQA"):
        monkeypatch.setattr(f"harness.tasks.{name}._load", lambda *_: tests)
    command = ["contamination", "embedded", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    texts = [(tmp_path / f"contamination.{end}").read_text() for end in ("json", "md")]
    for text in (*texts, result.output):
        assert "t1" in text
        assert not {"kite", "abstract", "title of"} & set(text.lower().split())
        assert "kite0" not in text
    over = CliRunner().invoke(app, [*command, "--fail-above", "0.4"])
    assert over.exit_code == 1
    assert "harness: 50.00% of 'write_clear_read' is in the training episodes, more than 40%; leave out" in over.stderr
    assert CliRunner().invoke(app, [*command, "--fail-above", "0.5"]).exit_code == 0
    assert CliRunner().invoke(app, [*command, "--fail-above", "2"]).exit_code == 2
    taken = str(tmp_path / "contamination.md")
    refused = CliRunner().invoke(app, ["contamination", "embedded", "--out", taken])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == f"harness: {taken} cannot be written to (File exists); name another folder\n"


def test_a_report_of_the_training_split_itself_finds_all_of_it():
    data = TaskData(tuple(TRAINING), "official", "qasper.json", "h")
    found = overlap(Index(QASPER, tuple(TRAINING)), "qasper", QASPER, data, tuple(TRAINING))
    assert found.share == 1.0
    assert {what: len(ids) for what, ids in found.same.items()} == {
        "id": 2,
        "root": 2,
        "title": 2,
        "history": 2,
        "question": 1,  # the other asks nothing
    }
    assert [r.worst for r in found.history_runs] == [{"p1-q": 1.0, "p2-q": 1.0}] * 2

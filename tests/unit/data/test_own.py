"""A user's own file: what it may hold, and what is said of every mistake in it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from harness.data import own
from harness.data.own import Wording, load
from harness.episodes import Message
from harness.errors import HarnessError

GOOD = {"messages": ["Rosa keeps bees."], "questions": [{"question": "Who?", "answer": "Rosa"}]}


@pytest.fixture
def write(tmp_path):
    """Writes lines, as objects or as they stand, and gives the path."""

    def lines(*rows, name="notes.jsonl"):
        path = tmp_path / name
        texts = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path.write_bytes(b"\n".join(texts))
        return path

    return lines


def read(path, **wording):
    return load(path, Wording(**wording))


def row(**changes):
    return {**GOOD, **changes}


def asking(**question):
    """A row of three messages and this question."""
    told = [{"id": "a", "content": "One."}, "Two.", {"id": "c", "content": "Three."}]
    return {"id": "e", "messages": told, "questions": [{"question": "?", "answer": "x", **question}]}


def test_what_is_left_out_has_a_plain_default(write):
    path = write(GOOD, b"", row(id="two", root="r", system="Be brief."))
    data = read(path)
    first, second = data.episodes
    assert (data.source, data.file, data.hash) == ("own", str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    assert (first.id, first.root, first.history.system, first.continues) == ("notes:1", "notes:1", "", None)
    assert first.history.messages == (Message("Rosa keeps bees.", id="1"),)
    (question,) = first.questions
    assert (question.id, question.text, question.answers, question.category) == ("notes:1/1", "Who?", ("Rosa",), "")
    assert (second.id, second.root, second.history.system) == ("two", "r", "Be brief.")
    assert {e.source for e in data.episodes} == {"own"}


def test_everything_that_may_be_said_is_kept(write):
    said = {"content": "Hm.", "role": "assistant", "time": "2 March", "id": 7}
    asked = {"id": "q", "question": "?", "answers": [3, 2.5, "x"], "category": "a/b", "evidence": [7]}
    (episode,) = read(write({"messages": [said], "questions": [asked]})).episodes
    assert episode.history.messages == (Message("Hm.", "assistant", "2 March", "7"),)
    (question,) = episode.questions
    assert (question.id, question.answers, question.category) == ("notes:1/q", ("3", "2.5", "x"), "a/b")
    assert question.evidence == ("7",)


def test_choices_stand_under_the_question(write):
    (episode,) = read(write(asking(answer="b", choices=["a", "b"]))).episodes
    (question,) = episode.questions
    assert question.text == "?\nA. a\nB. b"
    assert question.choices == ("a", "b")


def test_questions_on_the_way_make_a_chain(write):
    questions = [
        {"question": "late?", "answer": "x"},
        {"question": "early?", "answer": "x", "after": "a", "evidence": ["a"]},
        {"question": "second?", "answer": "x", "after": 2},
        {"question": "also late?", "answer": "x", "after": "c"},
    ]
    early, second, late = read(write({**asking(), "questions": questions})).episodes
    assert [e.id for e in (early, second, late)] == ["e@a", "e@2", "e"]
    assert [e.continues for e in (early, second, late)] == [None, "e@a", "e@2"]
    assert {e.root for e in (early, second, late)} == {"e"}
    assert [[q.text for q in e.questions] for e in (early, second, late)] == [
        ["early?"],
        ["second?"],
        ["late?", "also late?"],
    ]
    assert [q.id for e in (early, second, late) for q in e.questions] == ["e/2", "e/3", "e/1", "e/4"]
    assert early.history.messages == late.history.messages[:1]
    assert second.history.messages == late.history.messages[:2]


def test_an_experiment_words_instruction_and_question(write):
    path = write(row(system="Own."), {**GOOD, "id": "x"})
    first, second = read(path, system="Given.", question="Q: {question} {x}").episodes
    assert (first.history.system, second.history.system) == ("Own.", "Given.")
    assert (first.questions[0].shown, first.questions[0].removed) == ("Q: Who? {x}",) * 2
    (question,) = read(path, question_removed="R: {question}").episodes[0].questions
    assert (question.shown, question.removed) == (None, "R: Who?")


def test_a_byte_order_mark_and_windows_line_ends_are_read(write):
    line = json.dumps(GOOD).encode()
    path = write(b"\xef\xbb\xbf" + line + b"\r", line + b"\r", b"\r")
    assert [e.id for e in read(path).episodes] == ["notes:1", "notes:2"]


def test_the_shortest_are_trained_on_first(write):
    data = read(write(row(messages=["Long, long."]), row(messages=["Short."]), row(messages=["Middling"])))
    assert [e.id for e in own.shortest(data, 2).episodes] == ["notes:2", "notes:3"]
    assert own.shortest(data, 2).note == ""
    assert own.shortest(data, 9).note == "3 of the 9 episodes asked for, all there are"


def test_the_page_shows_what_is_read(write):
    page = Path("docs/own-data.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```json\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert [e.id for e in read(write(json.loads(shown))).episodes] == ["trip@2", "trip"]
    told = {*json.loads(shown)["messages"]}
    example = read(Path("config/examples/notes.jsonl")).episodes
    assert told == {m.content for e in example if e.id == "trip" for m in e.history.messages}
    for row in (own.EpisodeRow, own.MessageRow, own.QuestionRow):
        assert all(f"`{name}`" in page for name in row.model_fields)


MISTAKES = {
    "unknown key": (row(quesions=[]), ": unknown key 'quesions'; did you mean 'questions'?"),
    "unknown key of a question": (asking(anwser="y"), ", question 1: unknown key 'anwser'; did you mean 'answer'?"),
    "unknown key of a message": (
        row(messages=[{"content": "x", "rol": "user"}]),
        ", message 1: unknown key 'rol'; did you mean 'role'?",
    ),
    "no messages": ({"questions": GOOD["questions"]}, ": the field 'messages' is missing; add it"),
    "no message": (row(messages=[]), ", messages: it holds fewer than 1; mend it"),
    "no question": (row(questions=[]), ", questions: it holds fewer than 1; mend it"),
    "a question without its text": (row(questions=[{"answer": "x"}]), ", question 1: the field 'question' is missing"),
    "no answer": (row(questions=[{"question": "?"}]), ", question 1: give 'answer', or 'answers' where several"),
    "two kinds of answer": (asking(answers=["y"]), ", question 1: give 'answer', or 'answers' where several"),
    "no answers": (asking(answer=None, answers=[]), ", question 1, answers: it holds fewer than 1"),
    "an empty answer": (asking(answer=" "), ", question 1, answer: it is empty; write its text or take it out"),
    "a truth for an answer": (asking(answer=True), ", question 1, answer: input should be a valid string, not true"),
    "an empty message": (row(messages=["x", ""]), ", message 2, content: it is empty; write its text or take it out"),
    "a message that is a number": (row(messages=[3]), ", message 1: it is no object, not 3; mend it"),
    "messages in one string": (row(messages="x"), ', messages: it is no list, not "x"; mend it'),
    "a role": (row(messages=[{"content": "x", "role": "system"}]), ", message 1, role: input should be 'user' or"),
    "a choice": (asking(choices=["a", "b"]), ", question 1: the answer 'x' is none of the choices; write it as"),
    "one choice": (asking(choices=["x"]), ", question 1, choices: it holds fewer than 2; mend it"),
    "the overlay's category": (asking(category="clean/x"), ", question 1, category: 'clean' is the category of all"),
    "a category": (asking(category="a//b"), ", question 1, category: no line breaks or tabs are allowed here"),
    "evidence": (asking(evidence=["b"]), ", question 1: 'evidence' names the message 'b', which is not there; known"),
    "after": (asking(after=9), ", question 1: 'after' names the message '9', which is not there; known: 2, a, c"),
    "late evidence": (asking(after="a", evidence=["c"]), ", question 1: its evidence 'c' is told after it is asked"),
    "two messages of a name": (
        row(messages=["x", {"content": "y", "id": 1}]),
        ", message 2: the id '1' is another message's (one without an id goes by its number); give it another",
    ),
    "two questions of a name": (
        row(questions=[{"id": n, "question": "?", "answer": "x"} for n in ("q", "q")]),
        ": the name 'notes:3/q' is another question's; give one of them another id",
    ),
    "two episodes of a name": (row(id="first"), ": the name 'first' is another episode's of line 1; give one"),
    "an empty id": (row(id=""), ", id: it is empty; write its text or take it out"),
    "a long id": (row(id="x" * 201), ", id: it holds more than 200; mend it"),
    "a line break in an id": (row(id="a\nb"), ", id: no line breaks or tabs are allowed here"),
    "a line cut off": (b'{"messages": ["x"], "quest', " is cut off or no JSON (Unterminated string"),
    "several lines for an episode": (b"{", " is cut off or no JSON (Expecting property name"),
    "a list": (b"[]", " is no object; write each episode as one object on a line of its own"),
    "no JSON number": (b'{"messages": [NaN]}', " is cut off or no JSON (NaN is no JSON number)"),
    "a key twice": (b'{"id": "a", "id": "b"}', ": the key 'id' is given twice in one object; keep one"),
    "too deep": (b"[" * 100_000, " is cut off or no JSON ("),
    "no UTF-8": (b'{"messages": ["caf\xe9"]}', " is not UTF-8 text (byte 19); save the file as UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), " is not UTF-8 text (byte 1); save the file as UTF-8"),
    "half a character": (b'{"messages": ["\\ud83d"]}', " holds half a character ('\\ud83d'); write it out"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_sentence_with_its_line(mistake, write):
    wrong, said = MISTAKES[mistake]
    path = write(row(id="first"), b"", wrong)
    with pytest.raises(HarnessError) as error:
        read(path)
    assert str(error.value).startswith(f"{path} line 3{said}")
    assert len(str(error.value)) < 350
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rows", [(), (b"", b"  ", b"")])
def test_an_empty_file_is_refused(rows, write):
    with pytest.raises(HarnessError, match=r"notes.jsonl is empty; write an episode a line"):
        read(write(*rows))


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path):
    with pytest.raises(HarnessError, match=r"gone.jsonl cannot be read \(No such file or directory\); name a file"):
        read(tmp_path / "gone.jsonl")
    with pytest.raises(HarnessError, match=r"cannot be read \(Is a directory\)"):
        read(tmp_path)


def test_a_huge_line_is_refused_before_it_is_read(write, monkeypatch):
    monkeypatch.setattr(own, "MAX_LINE", 2**20)
    with pytest.raises(HarnessError, match="line 2 is longer than 1 MiB; write each episode on a line of its own"):
        read(write(GOOD, b"x" * (2**20 + 1), GOOD))

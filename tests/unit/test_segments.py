"""Where sentences begin, and which tokens are in one."""

import pytest

from harness.episodes import Message
from harness.segments import by_sentence, sentence_starts, statement_starts


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n ", []),
        ("no mark", ["no mark"]),
        ("a. b", ["a.", " b"]),
        ("One; two: three? four! five.", ["One;", " two:", " three?", " four!", " five."]),
        ('He said "go." She went.', ['He said "go.', '" She went.']),
        ("(Yes!) No.", ["(Yes!", ") No."]),
        ("3.14 is v1.2", ["3.14 is v1.2"]),
        ("a title\n\n\nits text\na line", ["a title", "\n\n\nits text\na line"]),
        ("The end. \n", ["The end. \n"]),
        ("\n\nA start.", ["\n\nA start."]),
    ],
)
def test_a_text_is_cut_behind_its_marks(text, sentences):
    starts = sentence_starts(text)
    assert [text[a:b] for a, b in zip(starts, [*starts[1:], None], strict=False)] == sentences


def test_a_token_belongs_to_the_sentence_in_which_it_starts():
    assert by_sentence("a. b", [(0, 1), (1, 2), (2, 4)]) == [0, 0, 1]
    assert by_sentence("a. b", [(0, 1), (1, 2), (3, 4)]) == [0, 0, 1]  # tokenizers may leave spaces out of a span


def test_a_token_over_a_boundary_makes_one_sentence():
    assert by_sentence("a. b", [(0, 1), (1, 3), (3, 4)]) == [0, 0, 0]


def test_sentences_count_on_and_the_templates_tokens_are_in_none(tiny):
    backbone = tiny()
    said = [Message("One. Two!"), Message(" ", role="assistant"), Message("Three", time="May")]
    ids, owner = backbone.encode(said, system="Be kind. Always.", answer_next=True, unit="sentence")
    part = lambda n: backbone.tokenizer.decode([i for i, o in zip(ids, owner, strict=True) if o == n])  # noqa: E731
    assert [part(n) for n in range(max(owner) + 1)] == ["One.", " Two!", "[May]\nThree"]
    outside = backbone.tokenizer.decode([i for i, o in zip(ids, owner, strict=True) if o < 0])
    assert "Be kind. Always." in outside and outside.endswith("<|im_start|>assistant\n")  # noqa: PT018
    assert backbone.encode(said, system="Be kind. Always.", answer_next=True)[0] == ids
    assert backbone.encode([], unit="sentence") == ([], [])


def test_a_speakers_name_goes_with_what_is_said():
    text = "Ann: Hello! Bob: see\nthis: a kite."
    assert [text[a:] for a in statement_starts(text)] == [text, " Bob: see\nthis: a kite."]

"""Numbers as the tables print them, and escaping of single characters."""

import pytest

from harness.reporting.render import interval, markdown, number, tex, value
from harness.statistics import Estimate


@pytest.mark.parametrize(
    ("share", "signed", "text"),
    [
        (0.4123, False, "41.2"),
        (0.1, True, "+10.0"),
        (-0.031, True, "−3.1"),
        (-0.0001, True, "+0.0"),
        (1.0, False, "100.0"),
    ],
)
def test_number(share, signed, text):
    assert number(share, signed) == text


def test_what_did_not_run_is_empty():
    assert value(None) == interval(None) == ""
    assert interval(Estimate(0.5, None, None, 10, 3)) == ""
    assert interval(Estimate(0.5, 0.25, 0.75, 10, 10)) == "[25.0, 75.0]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b", r"a\_b"),
        ("\\", r"\textbackslash{}"),
        ("λ", r"$\lambda$"),
        ("é", "é"),
        ("þ", "[U+00FE]"),
        ("\x00", "[U+0000]"),
    ],
)
def test_tex(text, expected):
    assert tex(text) == expected
    assert tex(tex(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b", "a_b"),
        ("_a_", r"\_a\_"),
        ("a|b", r"a\|b"),
        ("<i>", "&lt;i&gt;"),
        ("a\nb", "a b"),
        ("[x](y)", r"\[x\](y)"),
    ],
)
def test_markdown(text, expected):
    assert markdown(text) == expected

"""The score sheet itself."""

from pathlib import Path

import pytest

from tests.faults import sheet
from tests.faults.sheet import Result

MET = Result("a kill", "same bytes 2 of 2", "2 of 2", True)
EXPLAINED = Result("a | bar", "none", "one", False, "no such\ndevice")


def test_the_sheet_is_one_line_a_result():
    assert sheet.sheet([MET, EXPLAINED]).splitlines()[2:] == [
        "| a kill | same bytes 2 of 2 | 2 of 2 | yes |  |",
        "| a \\| bar | none | one | no | no such device |",
    ]


def test_a_goal_that_is_not_met_needs_a_reason():
    assert sheet.passes([MET, EXPLAINED])
    assert not sheet.passes([MET, Result("a kill", "same bytes 2 of 2", "1 of 2", False)])


def test_a_campaign_that_breaks_fails_the_sheet():
    def broken(quick):
        yield MET
        raise ValueError("odd")

    results = list(sheet.play({"broken": broken, "next": lambda quick: [MET]}, True))
    assert [r.met for r in results] == [True, False, True]
    assert results[1].figure == "ValueError: odd"
    assert not sheet.passes(results)


def test_an_unknown_campaign_is_told():
    with pytest.raises(SystemExit, match="there is no campaign 'kils'"):
        sheet.campaigns(["kils"])


def test_every_campaign_has_its_line_in_the_page():
    page = Path("docs/faults.md").read_text(encoding="utf-8")
    assert [name for name in sheet.campaigns() if f"\n| `{name}` | " not in page] == []

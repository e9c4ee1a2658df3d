"""The journal: whatever a kill leaves of it, at most its last line is lost."""

from __future__ import annotations

import pytest

from harness.journal import Journal

ROWS = {f"e{n}/0": [{"answer": f"größe {n}\nline", "n": n}] for n in range(3)}


@pytest.fixture
def written(tmp_path):
    journal = Journal(tmp_path / "cell" / "journal.jsonl", "address")
    for key, value in ROWS.items():
        journal.add(key, value)
    return journal.path


def test_it_reads_back_what_was_added(written):
    assert Journal(written, "address").done == ROWS


def test_torn_at_every_byte_of_its_last_line_it_loses_that_line_at_most(written):
    whole = written.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    before = dict(list(ROWS.items())[:2])
    for end in range(start, len(whole)):
        written.write_bytes(whole[:end])
        journal = Journal(written, "address")
        assert journal.done in (before, ROWS)
        assert end < len(whole) - 1 or journal.done == ROWS  # only the line's end is missing
        journal.add("next/0", [])
        assert list(Journal(written, "address").done) == [*journal.done]


@pytest.mark.parametrize(
    "rubbish", [b"", b"\xff\xfe\x00", b"{}\n", b"null\n", b"[1]\n", b'{"address": "another"}\n{"key": 1}\n']
)
def test_a_journal_that_is_not_this_cells_is_started_anew(rubbish, written):
    written.write_bytes(rubbish)
    journal = Journal(written, "address")
    assert journal.done == {}
    journal.add("a", 1)
    assert Journal(written, "address").done == {"a": 1}


def test_another_address_keeps_nothing(written):
    assert Journal(written, "another").done == {}


def test_it_goes_when_it_has_served(written):
    journal = Journal(written, "address")
    journal.remove()
    journal.remove()
    assert not written.exists()

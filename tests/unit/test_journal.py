"""The journal: whatever a kill or a changed bit leaves of it, at most what was hit is lost, and it is counted."""

from __future__ import annotations

import pytest

from harness.journal import Journal

ROWS = {f"e{n}/0": [{"answer": f"größe {n}\nline", "n": n, "spent": 1e-05}] for n in range(3)}


@pytest.fixture
def written(tmp_path):
    journal = Journal(tmp_path / "cell" / "journal.jsonl", "address")
    for key, value in ROWS.items():
        journal.add(key, value)
    return journal.path


def test_it_reads_back_what_was_added(written):
    again = Journal(written, "address")
    assert (again.done, again.damaged) == (ROWS, 0)


def test_torn_at_every_byte_of_its_last_line_it_loses_that_line_at_most(written):
    whole = written.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    before = dict(list(ROWS.items())[:2])
    for end in range(start, len(whole)):
        written.write_bytes(whole[:end])
        journal = Journal(written, "address")
        kept = end == len(whole) - 1  # only the line's end is missing
        assert journal.done == (ROWS if kept else before)
        assert journal.damaged == (0 if kept or end == start else 1)
        journal.add("next/0", [])
        again = Journal(written, "address")
        assert (list(again.done), again.damaged) == ([*journal.done], 0)


def test_a_flipped_bit_costs_the_lines_that_it_hits_and_no_other(written):
    whole = written.read_bytes()
    for place in range(0, len(whole), 7):
        for bit in (0, 3, 5, 6):
            written.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
            journal = Journal(written, "address")
            assert all(ROWS[key] == value for key, value in journal.done.items())
            assert journal.damaged >= 1
            assert len(ROWS) - len(journal.done) == (2 if whole[place] == 10 and place < len(whole) - 1 else 1)


@pytest.mark.parametrize(
    ("rubbish", "damaged"),
    [
        (b"", 0),
        (b"\xff\xfe\x00", 1),
        (b"{}\n", 1),
        (b"null\n", 1),
        (b"[1]\n", 1),
        (b'{"address": "another"}\n{"key": 1}\n', 2),
        (b'{"address": "another", "key": 1, "value": 1}\n', 0),
    ],
)
def test_a_journal_that_is_not_this_cells_is_started_anew(rubbish, damaged, written):
    written.write_bytes(rubbish)
    journal = Journal(written, "address")
    assert (journal.done, journal.damaged) == ({}, damaged)
    journal.add("a", 1)
    assert Journal(written, "address").done == {"a": 1}


def test_another_address_keeps_nothing(written):
    again = Journal(written, "another")
    assert (again.done, again.damaged) == ({}, 0)
    assert written.read_bytes() == b""


def test_a_whole_journal_is_not_written_anew(written):
    before = written.stat()
    Journal(written, "address")
    assert (before.st_ino, before.st_mtime_ns) == (written.stat().st_ino, written.stat().st_mtime_ns)


def test_it_goes_when_it_has_served(written):
    journal = Journal(written, "address")
    journal.remove()
    journal.remove()
    assert not written.exists()

"""A log of answers that is cut anywhere in its last record: that one is lost at most, told, and answered again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from harness.errors import HarnessError
from harness.lm import MemoryLM
from tests.faults.broken_off import Run, broken_off
from tests.faults.sheet import Result

JOURNAL = "results/smoke/tiny_llama/frozen/seed1/recall/replayed/own/journal.jsonl"
EPISODES = 3


def run(quick: bool) -> Iterator[Result]:
    with broken_off() as (broken, tables), answering(broken) as broken:
        cuts = list(offsets(broken.folder / JOURNAL))
        kept = cuts[:: len(cuts) // 10] if quick else cuts
        problems = [problem for cut in kept if (problem := wrong(broken, cut, tables))]
    met = len(kept) - len(problems)
    yield Result(
        f"a sample log cut at {'some' if quick else 'every one'} of the {len(cuts)} byte offsets of its last record",
        f"one record lost at most, and told; rerun ends, no duplicate, tables byte-equal {len(kept)} of {len(kept)}",
        f"{met} of {len(kept)}{'; ' + problems[0] if problems else ''}",
        met == len(kept),
    )


@contextmanager
def answering(broken: Run) -> Iterator[Run]:
    """A run of which all is done but the cell whose journal is cut."""
    job = Path(JOURNAL).parents[3]
    with broken.copy() as run:
        run.again()
        shutil.rmtree(run.folder / job)
        shutil.copytree(broken.folder / job, run.folder / job)
        yield run


def offsets(journal: Path) -> range:
    """Lengths to which it is cut: all of its last line gone, up to its last byte."""
    whole = journal.read_bytes()
    return range(whole.rstrip(b"\n").rfind(b"\n") + 1, len(whole))


def wrong(broken: Run, cut: int, tables: dict[str, bytes]) -> str:
    """What was not as it should be after a cut; empty where all was."""
    with broken.copy() as run:
        journal = run.folder / JOURNAL
        whole = journal.read_bytes()
        journal.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n") + (cut == len(whole) - 1)  # where only the line's end is gone, nothing is
        torn = cut > whole[:cut].rfind(b"\n") + 1 and cut < len(whole) - 1
        try:
            with _answers_to(journal) as answered:
                run.again()
        except HarnessError as error:
            return f"refused at {cut} ({error})"
        told = [sentence for sentence in run.said() if str(journal) in sentence and "in 1 of its lines" in sentence]
        if len(told) != torn:
            return f"told {len(told)} times at {cut}"
        if len(set(answered)) != len(answered) or len(answered) != EPISODES - kept:
            return f"answered {answered} at {cut}"
        return "" if run.tables() == tables else f"other tables at {cut}"


@contextmanager
def _answers_to(journal: Path) -> Iterator[list[str]]:
    """The episodes that are answered for the cell of a journal."""
    answered: list[str] = []
    plain = MemoryLM._answer

    def answer(self: MemoryLM, requests: Any) -> Any:
        if self.journal and self.journal.path == journal:
            answered.append(requests[0].doc["history_id"])
        return plain(self, requests)

    with patch.object(MemoryLM, "_answer", answer):
        yield answered

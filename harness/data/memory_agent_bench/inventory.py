"""What MemoryAgentBench consists of: its four categories, its sub-data sets, and what is published of each.

Counts, caps and metrics are those of the data set's card, of the benchmark's paper (Hu, Wang, McAuley, 2026) and of its
configuration files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from harness.errors import HarnessError, nearest

Rule = Literal["substring", "exact", "recall", "f1", "option"]
"""How a sub-data set's answers are scored; see ``harness/tasks/memory_agent_bench.py``."""
Unit = Literal["document", "session", "exemplar", "dialogue", "fact", "text"]
"""What a context consists of; ``text`` has no parts of its own."""


@dataclass(frozen=True)
class Source:
    """A sub-data set, which rows name in ``metadata.source``."""

    name: str
    """As rows name it."""
    short: str
    """As tables name it, beneath its category."""
    split: str
    rows: int
    questions: int
    """Of all rows together."""
    rule: Rule
    max_new_tokens: int
    unit: Unit
    form: str
    """Which wording of ``prompts.yaml`` asks its questions."""
    ablation: bool = False
    """Not among the 2,071 questions of the benchmark's headline; the paper of δ-mem asks it too."""

    @property
    def category(self) -> str:
        """``AR/ruler_qa1``: counts in ``AR`` and in itself."""
        return f"{CATEGORIES[self.split]}/{self.short}"


CATEGORIES = {
    "Accurate_Retrieval": "AR",
    "Test_Time_Learning": "TTL",
    "Long_Range_Understanding": "LRU",
    "Conflict_Resolution": "SF",
}
"""Splits of the data set, in its order, and what the papers call them."""

LABELLED = {"banking77": 5900, "clinic150": 7050, "nlu": 8296, "trec_coarse": 6600, "trec_fine": 6400}
"""Exemplars of each classification set."""
SIZES = ("6k", "32k", "64k", "262k")
"""Of FactConsolidation, in tokens."""


def _sources() -> Iterable[Source]:
    first, second, third, last = CATEGORIES
    yield Source("ruler_qa1_197K", "ruler_qa1", first, 1, 100, "substring", 50, "document", "documents")
    yield Source("ruler_qa2_421K", "ruler_qa2", first, 1, 100, "substring", 50, "document", "documents")
    for length in ("full", "65536", "131072"):
        name = f"eventqa_{length}"
        yield Source(name, name, first, 5, 500, "substring", 40, "text", "events", ablation=length != "full")
    yield Source("longmemeval_s*", "longmemeval_s", first, 5, 300, "substring", 50, "session", "sessions")
    yield Source("recsys_redial_full", "redial", second, 1, 200, "recall", 300, "dialogue", "movies")
    for name, shots in LABELLED.items():
        yield Source(f"icl_{name}_{shots}shot_balance", name, second, 1, 100, "exact", 20, "exemplar", "exemplars")
    yield Source("infbench_sum_eng_shots2", "infbench_sum", third, 100, 100, "f1", 1200, "text", "summary")
    yield Source("detective_qa", "detective_qa", third, 10, 71, "option", 2000, "text", "mystery")
    for hops in ("mh", "sh"):
        for size in SIZES:
            name = f"factconsolidation_{hops}_{size}"
            yield Source(name, name, last, 1, 100, "substring", 10, "fact", "facts", ablation=size != "262k")


SOURCES = {source.name: source for source in _sources()}
"""Every sub-data set by its name in ``metadata.source``: 146 rows and 3,671 questions."""


@cache
def source_of(category: str) -> Source:
    """The sub-data set of a question, by category (``AR/ruler_qa1``), short name or name in the rows.

    Raises:
        HarnessError: there is none of that name.
    """
    name = category.rpartition("/")[2]
    for source in SOURCES.values():
        if name in (source.short, source.name):
            return source
    known = [source.short for source in SOURCES.values()]
    raise HarnessError(f"MemoryAgentBench has no sub-data set '{name}'; {nearest(name, known)}")


def chosen(names: Iterable[str], *, ablations: bool = True) -> list[Source]:
    """Sub-data sets by category (``SF``), short name, name in the rows, or all of them where none is named.

    Args:
        ablations: Whether a category, or none, takes in what is not in the headline; a name always does.

    Raises:
        HarnessError: a name is unknown.
    """
    wanted: set[str] = set()
    for name in names or CATEGORIES.values():
        if name in CATEGORIES.values():
            wanted |= {
                s.name for s in SOURCES.values() if CATEGORIES[s.split] == name and (ablations or not s.ablation)
            }
        else:
            wanted.add(source_of(name).name)
    return [source for source in SOURCES.values() if source.name in wanted]


def size_of(source: Source) -> str:
    """``6k`` of FactConsolidation, whose single- and multi-hop rows of one size share a context."""
    return re.sub(r"factconsolidation_[ms]h_", "", source.short)

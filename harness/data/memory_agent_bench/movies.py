"""Movie titles: from the names of a knowledge base, and from a written list of recommendations.

The rules are those of the benchmark's own scoring (``eval_other_utils.py``): titles lose what stands in brackets, a
list begins at its ``1.``, and each line of it counts as the known title with the least edit distance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from harness.errors import HarnessError


def named(ids: Mapping[str, int]) -> dict[int, str]:
    """Titles by id, of names such as ``<http://dbpedia.org/resource/Water_(1985_film)>``."""
    plain = {number: _unbracketed(re.sub(r"[_\->]", " ", name.rpartition("/")[2])) for name, number in ids.items()}
    return {number: " ".join(name.split()) for number, name in plain.items()}


def title(gold: str, titles: Mapping[int, str], where: str) -> str:
    """The title of a gold answer, which is a number.

    Raises:
        HarnessError: it is none, or nothing has it.
    """
    try:
        return titles[int(gold)]
    except (ValueError, KeyError) as error:
        raise HarnessError(
            f"{where}: the gold answer '{gold}' is no movie's number; compare redial/entity2id.json"
        ) from error


def recommended(answer: str, titles: Sequence[str], most: int) -> list[str]:
    """The first ``most`` known titles that an answer lists.

    A line that is empty takes a place, as it does in the benchmark. Of titles equally near, the first counts; there,
    any may.
    """
    _, numbered, listed = answer.partition("1.")
    lines = (listed if numbered else answer.replace(",", "\n")).split("\n")[:most]
    known = tuple(titles)
    return [_nearest(" ".join(_unnumbered(_unbracketed(line.strip())).split()), known) for line in lines]


def _unbracketed(text: str) -> str:
    return re.sub(r"\([^()]*\)", "", text)


def _unnumbered(text: str) -> str:
    return re.sub(r"^(\d+[.)、]?\s*[-—–]?\s*)?", "", text)


@lru_cache(maxsize=4096)
def _nearest(text: str, titles: tuple[str, ...]) -> str:
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import extractOne

    _, _, place = extractOne(text.lower(), _lowered(titles), scorer=Levenshtein.distance)
    return titles[place]


@lru_cache(maxsize=4)
def _lowered(titles: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(t.lower() for t in titles)

"""Scores of an answer against a gold answer, 0 to 1: the benchmarks' own rules and the paper's released ones.

Sources: LoCoMo, ``task_eval/evaluation.py`` (Maharana et al., 2024); HotpotQA, ``hotpot_evaluate_v1.py``
(Yang et al., 2018); the release of δ-mem (normalisation of HotpotQA answers, rounding of LoCoMo scores). The release
loses LoCoMo's stemming where nltk is not installed, which this harness does not copy: nltk is always there.
``docs/scoring.md`` says every rule in words.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

import regex

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED = frozenset({"yes", "no", "noanswer"})


class Share(float):
    """How many of ``of`` parts of an answer are right, as a share; it counts ``of`` times in a mean."""

    of: int

    def __new__(cls, right: int, of: int) -> Share:
        share = super().__new__(cls, right / of)
        share.of = of
        return share


def weight(score: float) -> int:
    """How many times a score counts in a mean: once, but for a :class:`Share`."""
    return score.of if isinstance(score, Share) else 1


def mean(scores: Iterable[float]) -> float:
    """The weighted mean of scores, of which there must be some."""
    found = list(scores)
    return math.fsum(s * weight(s) for s in found) / sum(map(weight, found))


def bag_f1(answer: Sequence[str], gold: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over two bags of words; 0 where either is empty."""
    same = (Counter(answer) & Counter(gold)).total()
    return 2 * same / (len(answer) + len(gold)) if same else 0.0


@lru_cache(maxsize=65536)
def normalize(text: str) -> str:
    """SQuAD's and HotpotQA's: lower case, no punctuation, no a/an/the, single spaces."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split())


@lru_cache(maxsize=65536)
def normalize_release(text: str) -> str:
    """The release's: lower case, no a/an/the, then every non-word character a space.

    The order matters: ``U.S.`` becomes ``u s`` and not ``us``; underscores stay.
    """
    return " ".join(re.sub(r"\W", " ", re.sub(r"\b(a|an|the)\b", " ", text.lower())).split())


def exact(answer: str, gold: str, normal: Callable[[str], str] = normalize) -> float:
    """1 where both normalise to the same string."""
    return float(normal(answer) == normal(gold))


def f1(answer: str, gold: str, normal: Callable[[str], str] = normalize) -> float:
    """Bag F1 of normalised words."""
    return bag_f1(normal(answer).split(), normal(gold).split())


def hotpotqa_f1(answer: str, gold: str) -> float:
    """Official HotpotQA F1: as ``f1``, but yes, no and noanswer earn nothing unless both sides are equal."""
    one, other = normalize(answer), normalize(gold)
    if one != other and (one in _CLOSED or other in _CLOSED):
        return 0.0
    return f1(answer, gold)


def locomo_f1(answer: str, gold: str, category: str) -> float:
    """Official LoCoMo F1 over Porter stems.

    Args:
        category: ``multi_hop`` compares lists (split at commas) and averages, over the parts of the gold answer, the
            best part of the answer; ``open_domain`` reads the gold answer up to its first semicolon, what follows
            being explanation; every other category compares the whole.
    """
    if category == "multi_hop":
        given = answer.split(",")
        wanted = gold.split(",")
        return sum(max(bag_f1(_stems(g), _stems(w)) for g in given) for w in wanted) / len(wanted)
    if category == "open_domain":
        gold = gold.split(";")[0]
    return bag_f1(_stems(answer), _stems(gold))


def locomo_f1_release(answer: str, gold: str, category: str) -> float:
    """The release's: LoCoMo's own of decomposed accents, rounded to four decimals before any average."""
    return round(locomo_f1(unicodedata.normalize("NFD", answer), unicodedata.normalize("NFD", gold), category), 4)


@lru_cache(maxsize=65536)
def _stems(text: str) -> tuple[str, ...]:
    # LoCoMo finds the ends of words with `regex`, to which an accent that follows its letter is part of the word.
    words = regex.sub(r"\b(a|an|the|and)\b", " ", text.lower().translate(_PUNCTUATION)).split()
    return tuple(map(_stem, words))


@lru_cache(maxsize=1 << 18)
def _stem(word: str) -> str:
    return _stemmer().stem(word)


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer  # here, because nltk takes a second to import

    return PorterStemmer()

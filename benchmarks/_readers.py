"""Programs that answer the questions of generated tasks from what a model would see: messages, and a question.

A capable reader follows rules that the wording allows; with a *flaw* it reads carelessly in one way. They know the
phrases of the tasks and the world (which country a city is in), never the generator's choices. A guesser has no
history: it has learnt, from other seeds, what is answered most often to a question of the form.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from harness.data.generated import words
from harness.episodes import Episode, spoken
from harness.tasks import Task
from harness.tasks.granularity import MARKS, RULES

Reader = Callable[[Sequence[str], str, str], str]
"""Texts of the messages as a reader sees them, question and flaw (empty: none), to an answer."""
WORD = r"[A-Z]\w+"


def read(task: Task, episodes: Iterable[Episode], flaw: str = "", category: str = "") -> float:
    """Mean of the task's primary metric, over the questions (of a category), of its reader with a flaw or none."""
    reader = READERS[task.name]
    scores = []
    for episode in episodes:
        texts = spoken(episode.history.messages)
        for q in episode.questions:
            if category in ("", q.category):
                scores.append(task.score(task.answer(reader(texts, q.text, flaw)), q)[task.primary_metric])
    return sum(scores) / len(scores)


# --- LoCoMo ----------------------------------------------------------------------------------------------------

SINGLES = {
    r"What does (\w+)'s friend (\w+) work as\?": (
        "My friend {} works as an? (.+) now|{}, my friend, has found work as an? (.+)"
    ),
    r"Which dish does (\w+)'s cousin (\w+) cook\?": (
        "My cousin {} mostly cooks (.+) now|{}, my cousin, cooks (.+) every day"
    ),
    r"In which city does (\w+)'s colleague (\w+) live\?": (
        "My colleague {} lives in (.+) now|{}, my colleague, has moved to (.+)"
    ),
}
LISTS = {
    r"Which instruments has (\w+) taken up\?": "I took up the (.+)",
    r"Which sports has (\w+) tried\?": "I tried (.+) for the first time",
    r"Which animals has (\w+) watched by the lake\?": "I watched (.+) by the lake",
    r"Which vegetables has (\w+) sown\?": "I sowed (.+) in the garden",
    r"Which languages has (\w+) begun to learn\?": "I have begun to learn (.+)",
}
PAST = {base: past for past, base in words.EVENTS}
"""What an irregular verb's past is."""


def locomo(texts: Sequence[str], question: str, flaw: str) -> str:
    """Flaws: ``first`` (mention), ``anybody`` (the last mention, of whomever), ``one_hop``, ``no_dates``."""
    turns = list(_turns(texts))
    for form, telling in SINGLES.items():
        if asked := re.match(form, question):
            who, x = asked.groups()
            found = [v for _, v in _said(turns, who, telling.replace("{}", r"\w+" if flaw == "anybody" else x))]
            return (found[0] if flaw == "first" else found[-1]) if found else ""
    for form, telling in LISTS.items():
        if asked := re.match(form, question):
            found = [v for _, v in _said(turns, asked[1], telling)]
            return ", ".join(found[:1] if flaw == "one_hop" else found)
    if asked := re.match(r"When did (\w+) (.+)\?", question):
        day, when = next(_said(turns, asked[1], f"I {PAST[asked[2]]} (.+)"))
        return words.date(day if flaw == "no_dates" else day - dt.timedelta(days=_ago(day, when)))
    if asked := re.match(r"Which country did (\w+) go to with (\w+)\?", question):
        _, city = next(_said(turns, asked[1], f"I went to (.+) with {asked[2]}"))
        return words.CITIES[city]
    raise AssertionError(f"no rule reads '{question}'")


def _turns(texts: Sequence[str]) -> Iterable[tuple[dt.date, str, str]]:
    """Day, speaker and words of each turn."""
    day = dt.date.min
    for text in texts:
        if dated := re.match(r"\[.+ on (\d+) (\w+), (\d+)\]\n", text):
            day = dt.date(int(dated[3]), words.MONTHS.index(dated[2]) + 1, int(dated[1]))
            text = text[dated.end() :]
        speaker, _, said = text.partition(": ")
        yield day, speaker, said


def _said(turns: Sequence[tuple[dt.date, str, str]], who: str, pattern: str) -> Iterable[tuple[dt.date, str]]:
    """The day of each of a speaker's turns that match, and what the pattern's group caught."""
    for day, speaker, said in turns:
        if speaker == who and (found := re.fullmatch(f"(?:{pattern})\\.", said)):
            yield day, next(group for group in found.groups() if group)


def _ago(day: dt.date, when: str) -> int:
    """Days before ``day`` that an expression means."""
    if when in ("today", "yesterday"):
        return int(when == "yesterday")
    if many := re.match(r"(\w+) (day|week)s ago", when):
        return (words.NUMBERS.index(many[1]) + 2) * (7 if many[2] == "week" else 1)
    return (day.weekday() - words.WEEKDAYS.index(when.removeprefix("last "))) % 7 or 7


# --- HotpotQA --------------------------------------------------------------------------------------------------

LEADS = (r"is a novel by (.+?)\.", r"was born in (\w+)", r"lies on the river (\w+)", r"first mapped by (.+?)\.")


def hotpotqa(texts: Sequence[str], question: str, flaw: str) -> str:
    """Flaws: ``two_hops`` (and no further), ``part`` (of a title is enough), ``first`` (any title will do)."""
    pages = dict(text.split(": ", 1) for text in texts)

    def page(title: str, lead: str) -> str:
        alike = {
            "part": lambda other: bool({*title.split()} & {*other.split()} - {"The"}),
            "first": lambda other: True,
        }.get(flaw, title.__eq__)
        return next((text for other, text in pages.items() if alike(other) and re.search(lead, text)), "")

    def follow(thing: str, leads: Sequence[str]) -> str:
        for lead in leads:
            found = re.search(lead, page(thing, lead))
            thing = found[1] if found else thing
        return thing

    if both := re.match(r"Were (.+) and (.+) born in the same town\?", question):
        one, two = (follow(name, LEADS[1:2]) for name in both.groups())
        return "yes" if one == two else "no"
    if both := re.match(r"Which novel was published first, (.+) or (.+)\?", question):
        return min(both.groups(), key=lambda title: follow(title, [r"published in (\d+)"]))
    hops = 2 + ("river" in question) + ("mapped" in question)
    asked = re.search(r"the novel (.+) (?:was )?born", question)
    assert asked, f"no rule reads '{question}'"
    title = asked[1].removesuffix(" was")
    return follow(title, LEADS[: 2 if flaw == "two_hops" else hops])


# --- QASPER ----------------------------------------------------------------------------------------------------

ASPECTS = {
    "Which corpus do they train on?": r"trained on the (.+) corpus",
    "How many sentences do they collect?": r"collected (.+) sentences",
    "Which baseline do they compare with?": r"compared the model with (.+)",
    "Which optimiser do they use?": r"optimised with (.+)",
    "What do they measure?": r"measured (.+)",
    "How many points do they gain?": r"gained (.+) points on the test set",
    "Which language do they work on?": r"worked on (.+) texts",
    "How many annotators do they pay?": r"paid (.+) annotators",
    "After how many epochs do they stop?": r"stopped after (.+) epochs",
    "Do they release the code?": r"(released|withheld) the code",
    "Do they start from a pretrained encoder?": r"(started from|did without) a pretrained encoder",
}
CLOSED = {"released": "yes", "started from": "yes", "withheld": "no", "did without": "no"}


def qasper(texts: Sequence[str], question: str, flaw: str) -> str:
    """Flaws: ``anybody`` (what is told of others will do), ``credulous`` (where nothing is told of this paper)."""
    sentences = [s for text in texts for s in re.split(r"\. (?=[A-Z])|\.$|\n", text)]
    ours = [f[1] for s in sentences if (f := re.fullmatch(f"We {ASPECTS[question]}", s))]
    anybodys = [f[1] for s in sentences if (f := re.search(f" {ASPECTS[question]}$", s))]
    found = anybodys if flaw == "anybody" or (flaw == "credulous" and not ours) else ours
    return CLOSED.get(found[0], found[0]) if found else "unanswerable"


# --- the other generated tasks ---------------------------------------------------------------------------------


def facts(texts: Sequence[str], question: str, flaw: str) -> str:
    """Of write_clear_read and granularity. Flaws: ``first`` (telling), ``anybody`` (the last telling of all)."""
    asked = re.match(r"What colour is (\w+)'s (\w+)\?", question)
    assert asked, f"no rule reads '{question}'"
    plain = [[w for w in text.split() if w not in MARKS] for text in texts if text not in RULES]
    told = [re.sub(r"\W*$", "", line[-1]) for line in plain
            if flaw == "anybody" or all(re.search(rf"\b{w}\b", " ".join(line)) for w in asked.groups())]  # fmt: skip
    return told[0 if flaw == "first" else -1]


def pairs(texts: Sequence[str], question: str, flaw: str) -> str:
    """Of recall and granularity_pairs. Flaws as of :func:`facts`."""
    plain = [[w for w in text.split() if w not in MARKS] for text in texts]
    told = [line[0] for line in plain if len(line) == 2 and (flaw == "anybody" or line[1] == question)]
    return told[0 if flaw == "first" else -1]


READERS: dict[str, Reader] = {
    "locomo": locomo,
    "hotpotqa": hotpotqa,
    "qasper": qasper,
    "write_clear_read": facts,
    "granularity": facts,
    "recall": pairs,
    "granularity_pairs": pairs,
}
FLAWS = {
    "locomo": ("first", "anybody", "one_hop", "no_dates"),
    "hotpotqa": ("first", "part", "two_hops"),
    "qasper": ("anybody", "credulous"),
    **dict.fromkeys(("write_clear_read", "granularity", "recall", "granularity_pairs"), ("first", "anybody")),
}


# --- without a history -----------------------------------------------------------------------------------------


def form(question: str) -> str:
    """The beginning of a question, its names left out; nothing of a question of one word."""
    first, *rest = question.split()
    masked = [first, *("_" if re.match(WORD, word) else word for word in rest)]
    return " ".join(masked[:3]) if rest else ""


def chance(episodes: Sequence[Episode]) -> float:
    """Mean over the questions of :func:`chances`, a half where two things are named to choose from."""
    shares = chances(episodes)
    each = [max(shares[form(q.text)], 0.5 * bool(_named(q.text))) for e in episodes for q in e.questions]
    return sum(each) / len(each)


def chances(episodes: Iterable[Episode]) -> dict[str, float]:
    """By form of question, the share of its most frequent gold answer."""
    return {name: golds.most_common(1)[0][1] / golds.total() for name, golds in _golds(episodes).items()}


def guess(task: Task, learnt: Iterable[Episode], asked: Iterable[Episode]) -> float:
    """Mean of the primary metric of a guesser: the most frequent gold of the form; of two things named, the first."""
    usual = {name: golds.most_common(1)[0][0] for name, golds in _golds(learnt).items()}
    scores = []
    for q in (q for e in asked for q in e.questions):
        answer = _named(q.text) or usual.get(form(q.text), "")
        scores.append(task.score(task.answer(answer), q)[task.primary_metric])
    return sum(scores) / len(scores)


def _named(question: str) -> str:
    """The first of two things that a question lets choose from."""
    found = re.search(r", (.+) or .+\?$", question)
    return found[1] if found else ""


def _golds(episodes: Iterable[Episode]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for q in (q for e in episodes for q in e.questions):
        found[form(q.text)][q.answers[0]] += 1
    return found

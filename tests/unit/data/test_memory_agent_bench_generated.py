"""Generated rows can be answered from their context, and from it alone."""

from __future__ import annotations

import ast
import re

import pytest

from harness.data import memory_agent_bench as bench
from harness.data.memory_agent_bench import Sizes, generated
from harness.data.memory_agent_bench.inventory import source_of
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.tasks import task

TASK = task("memory_agent_bench")
FORMS = tuple(source_of(name).short for name in generated.FORMS)


def made(seed=3, count=60, **sizes):
    return bench.load(DataSpec(source="generated", seed=seed), Sizes(**sizes), count)


def latest(context: str) -> dict[str, str]:
    """What each numbered line says last."""
    return dict(
        re.match(r"\d+\. (.* (?:of|is)) ([^.]+)\.$", line).groups()  # type: ignore[union-attr]
        for line in context.splitlines()[1:]
    )


def read(context: str, question: str, form: str) -> str:
    """An able reader, which knows how the rows are worded."""
    if form == "ruler_qa1":
        who = re.search(r"that (.*) planned\?", question)[1]
        return re.search(rf"that {who} planned was opened in (\d+)", context)[1]
    if form == "eventqa_full":
        options = ast.literal_eval(re.search(r"next:\n\n(\[.*\])", question)[1])
        return next(option for option in options if option in context)
    if form == "trec_coarse":
        words = ["rain", "alarm", "song", "soup", "ticket"]
        topic = next(w for w in words if w in question)
        return re.search(rf"^.*{topic}.*\nlabel: (\d+)", context, re.MULTILINE)[1]
    if form == "detective_qa":
        options = dict(re.findall(r"^([A-D])\. (.*)$", question, re.MULTILINE))
        if question.startswith("Who"):
            right = re.search(r"([A-Z]\w+ [A-Z]\w+) was seen by nobody", context)[1]
        elif question.startswith("What"):
            right = next(o for o in options.values() if f"The {o} stood" not in context)
        else:
            right = re.search(r"candle burned in the (\w+)", context)[1]
        return next(f"{letter}. {o}" for letter, o in options.items() if o == right)
    return follow(latest(context), question)


def follow(told: dict[str, str], question: str) -> str:
    if person := re.match(r"Who is the (\w+) of (.*)\?", question):
        return told[f"The {person[1]} of {person[2]} is"]
    who = re.match(r"In which city was (.*) born\?", question)[1]
    *links, who = who.split(" of ")
    for link in reversed(links):
        who = told[f"The {link.removeprefix('the ')} of {who} is"]
    return told[f"{who} was born in the city of"]


def guess(question: str, form: str) -> str:
    """One who has the question alone, and takes the first answer of the right kind."""
    if form == "eventqa_full":
        return ast.literal_eval(re.search(r"next:\n\n(\[.*\])", question)[1])[0]
    if form == "detective_qa":
        return re.search(r"^A\. .*$", question, re.MULTILINE)[0]
    return {"ruler_qa1": "1850", "trec_coarse": "2"}.get(form, "Oslo")


def mean(data, form, answer) -> float:
    scores = [
        TASK.score(answer("".join(m.content for m in e.history.messages), q.text), q)["score"]
        for e in data.episodes
        for q in e.questions
        if q.category.endswith(f"/{form}")
    ]
    assert len(scores) >= 30
    return sum(scores) / len(scores)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"facts": 12, "distractors": 40},
        {"facts": 8, "distractors": 0, "updates": 3, "hops": 4},
        {"facts": 5, "updates": 0, "hops": 1},
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_an_able_reader_is_right_and_a_guess_is_chance(form, sizes):
    data = made(count=120, **sizes)
    assert mean(data, form, lambda context, question: read(context, question, form)) == 1.0
    chance = {"eventqa_full": 1 / 6, "trec_coarse": 1 / 5, "detective_qa": 1 / 4, "ruler_qa1": 1 / 300}
    found = mean(data, form, lambda context, question: guess(question, form))
    assert found <= chance.get(form, 1 / 12) + 0.13  # four standard errors of the smallest of these samples, about


def test_who_takes_the_first_telling_is_wrong_about_all_that_changed():
    data = made(updates=2, distractors=6)

    def first(context, question):
        lines = context.splitlines()
        return follow(latest("\n".join([lines[0], *reversed(lines[1:])])), question)

    assert mean(data, "factconsolidation_sh_262k", first) == 0.0
    assert mean(data, "factconsolidation_mh_262k", first) < 0.25


def test_every_category_is_there_and_facts_come_in_pairs_of_one_context():
    data = made(count=12)
    assert {q.category.split("/")[0] for e in data.episodes for q in e.questions} == {"AR", "TTL", "LRU", "SF"}
    pairs = [e for e in data.episodes if e.root.startswith("factconsolidation")]
    assert [e.root for e in pairs] == ["factconsolidation_262k"] * 2 + ["factconsolidation_262k-1"] * 2
    assert pairs[0].history == pairs[1].history != pairs[2].history
    assert len({e.root for e in data.episodes}) == 10


def test_rows_follow_from_seed_and_knobs():
    assert made().episodes == made().episodes
    assert made(seed=4).episodes != made().episodes
    sizes = [sum(len(m.content) for e in made(distractors=n).episodes for m in e.history.messages) for n in (0, 4, 40)]
    assert sizes == sorted(sizes)
    assert {e.source for e in made().episodes} == {"generated"}
    assert made().note == ""


def test_only_what_is_chosen_is_generated():
    assert {e.id.split("-")[0] for e in made(sources=("LRU",), count=3).episodes} == {"detective_qa"}
    with pytest.raises(HarnessError, match=r"none of the chosen sub-data sets is generated; these are: ruler_qa1_197K"):
        made(sources=("redial",))
    with pytest.raises(HarnessError, match=r"wrong setting 'hops'.*may not exceed 2,"):
        TASK.load(DataSpec(source="generated"), "test", {"facts": 400, "hops": 6, "updates": 16})

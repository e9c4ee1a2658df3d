"""MemoryAgentBench's rules against second derivations of them, its questions' wording, and the release's form."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import time
import unicodedata
from collections import Counter

import pytest
from nltk.metrics.distance import edit_distance

from harness.data.memory_agent_bench import movies
from harness.data.memory_agent_bench.inventory import SOURCES
from harness.episodes import Question
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.tasks import memory_agent_bench as rules
from harness.tasks import task

TASK = task("memory_agent_bench")
RELEASE = task("memory_agent_bench@release")


def asked(source: str, *golds: str) -> Question:
    return Question("q", "Which one?", golds, SOURCES[source].category)


FACTS, LABELS = "factconsolidation_sh_6k", "icl_trec_fine_6400shot_balance"

# --- a second derivation, from the descriptions: character by character and word by word ---

ASCII_MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def is_word(character: str) -> bool:
    """As regular expressions have it, from what Unicode says of the character."""
    return character == "_" or character.isalnum()


def without_articles(text: str) -> str:
    """Articles that stand alone become a space."""
    found, at = [], 0
    for word, group in itertools.groupby(text, key=is_word):
        part = "".join(group)
        at += len(part)
        found.append(" " if word and part in ("a", "an", "the") else part)
    return "".join(found)


def plain(text: str) -> str:
    """The benchmark's: lower case, marks out, articles out, single spaces."""
    return " ".join(without_articles("".join(c for c in text.lower() if c not in ASCII_MARKS)).split())


def plain_release(text: str) -> str:
    """The release's: lower case, articles out, other marks a space."""
    return " ".join("".join(c if is_word(c) else " " for c in without_articles(text.lower())).split())


def after_answer(text: str) -> str:
    place = text.lower().find("answer:")
    line = (text[place + 7 :] if place >= 0 else text).split("\n")[0].strip()
    return line[7:].strip() if line.lower().startswith("answer:") else line


def overlap(one: list[str], other: list[str]) -> float:
    left, same = list(other), 0
    for word in one:
        if word in left:
            left.remove(word)
            same += 1
    if not same:
        return 0.0
    precision, recall = same / len(one), same / len(other)
    return 2 * precision * recall / (precision + recall)


def substring_again(answer, golds):
    return float(any(plain(answer).count(plain(g)) or plain(after_answer(answer)).count(plain(g)) for g in golds))


def exact_again(answer, golds):
    given = after_answer(answer)
    if given.lower().startswith("label:"):
        given = given[6:]
    return float(plain(given) in {plain(g) for g in golds})


def f1_again(answer, golds):
    forms = (answer, after_answer(answer))
    return max(overlap(plain(a).split(), plain(g).split()) for a in forms for g in golds)


def release_again(answer, golds):
    """Equal to the answer or its first line, or within it."""
    forms = [plain_release(answer), plain_release(answer.split("\n")[0])]
    return float(any(plain_release(g) == f or plain_release(g) in f for f in forms for g in golds))


def release_f1_again(answer, golds):
    forms = (answer, answer.split("\n")[0])
    return max(overlap(plain_release(a).split(), plain_release(g).split()) for a in forms for g in golds)


GOLDS = [
    "Belgium",
    "12",
    "the U.S.",
    "Saint-Étienne",
    "a",
    "Kūkai",
    "C. Xi Yan",
    "7,008",
    "An_other",
    "東京",
    "no",
    "O'Hara",
]
ODD = [
    "",
    " ",
    "\n",
    "the",
    "...",
    "Answer:",
    "answer: ",
    "label: 12",
    "label: 112",
    "LABEL:12",
    "ﬁne",
    "É",
    "É",
    "_",
    "12.0",
]


def answers(count: int) -> list[tuple[str, list[str]]]:
    """Answers beside golds: bare, in a sentence, on a later line, after a prefix, in other case, cut, doubled, odd."""
    rng = random.Random(5)
    made = [(odd, [gold]) for odd in ODD for gold in GOLDS]
    while len(made) < count:
        golds = rng.sample(GOLDS, rng.randint(1, 3))
        gold = rng.choice([rng.choice(golds), rng.choice(GOLDS)])
        forms = [
            gold,
            f"I think it is {gold}, the one.",
            f"Well.\nAnswer: {gold}\nand more",
            f"answer:answer: {gold}",
            f"{gold}\n{rng.choice(GOLDS)}",
            f"\n{gold}",
            gold.upper(),
            gold[: max(1, len(gold) - 1)],
            f"{gold} {gold}",
            f"label: {gold}",
            f"Label:{gold}.",
            f"x{gold}x",
            unicodedata.normalize("NFD", gold),
            " ".join(rng.sample(GOLDS, 4)),
            f"An answer, the {gold}; a b",
        ]
        made.append((rng.choice(forms), golds))
    return made


MANY = answers(3000)


@pytest.mark.parametrize(
    ("source", "official", "release"),
    [
        (FACTS, substring_again, release_again),
        ("ruler_qa2_421K", substring_again, release_again),
        ("eventqa_full", substring_again, release_again),
        ("longmemeval_s*", substring_again, release_again),
        (LABELS, exact_again, release_again),
        ("infbench_sum_eng_shots2", f1_again, release_f1_again),
    ],
)
def test_each_rule_is_what_its_description_says(source, official, release):
    for answer, golds in MANY:
        found = TASK.score(answer, asked(source, *golds))
        assert found["score"] == pytest.approx(official(answer, golds), abs=1e-12), (answer, golds)
        assert found["score_release"] == pytest.approx(release(answer, golds), abs=1e-12), (answer, golds)


def test_the_sample_tells_right_from_wrong():
    for source in (FACTS, LABELS):
        for metric in ("score", "score_release"):
            mean = sum(TASK.score(a, asked(source, *g))[metric] for a, g in MANY) / len(MANY)
            assert 0.15 < mean < 0.85


def test_the_release_is_lax_with_numbers_and_the_benchmark_is_not():
    assert TASK.score("label: 112", asked(LABELS, "12")) == {"score": 0.0, "score_release": 1.0}
    assert TASK.score("label: 12", asked(LABELS, "12")) == {"score": 1.0, "score_release": 1.0}
    assert TASK.score("U.S.", asked(FACTS, "US")) == {"score": 1.0, "score_release": 0.0}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('{"answer": "C. The Brandt couple", "reasoning": "..."}', 1),
        ('Sure.\n```json\n{"answer": "C"}\n```', 1),
        ('{"answer":"C. The Brandt couple", "reasoning":" one ",\n " two "}', 1),  # no JSON, as the example has it
        ('{"answer": "B. Mr. and Mrs. MacNamara", "reasoning": "not C. The Brandt couple"}', 0),
        ("C. The Brandt couple", 1),
        ("C.The Brandt couple", 1),
        ("(c)", 1),
        ("C", 1),
        ("Answer: C. whoever", 1),
        ("I say:\nAnswer: c)", 1),
        ("the Brandt couple", 1),
        ("A couple called Brandt", 0),
        ("D. The Brandt couple", 0),
        ("B", 0),
        ("", 0),
        ('{"answer": 3}', 0),
        ("{}", 0),
        ('{"reply": "C"}', 0),
        ("[1, 2]", 0),
        ('{"answer": ' + "[" * 100_000 + "}", 0),
    ],
)
def test_an_option_is_told_by_its_letter_or_by_its_text(answer, right):
    assert TASK.score(answer, asked("detective_qa", "C. The Brandt couple"))["score"] == right


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("A. Crow", "C. A. Crow", 1),
        ("C", "C. A. Crow", 1),
        ("A. Gull", "C. A. Crow", 0),
        ("A", "(B)", 0),
        ("B", "(B)", 1),
    ],
)
def test_the_text_of_an_option_may_begin_as_a_letter_does(answer, gold, right):
    assert TASK.score(answer, asked("detective_qa", gold))["score"] == right


def test_options_agree_with_a_second_derivation():
    """500 replies in seven forms: right where the letter is, and without one where the text is."""
    rng = random.Random(1)
    options = {"A": "the baker", "B": "Mr. Crow", "C": "a spy, of course", "D": "nobody"}
    for _ in range(500):
        gold, given = rng.choice("ABCD"), rng.choice("ABCD")
        text = rng.choice([options[given], "who knows"])
        reply, lettered = rng.choice(
            [
                (f"{given}. {text}", True),
                (f"({given.lower()}) {text}", True),
                (f"{given}", True),
                (json.dumps({"answer": f"{given}. {text}", "reasoning": options[gold]}), True),
                (f"Answer: {given}, {text}", True),
                (text, False),
                (f"Let us see\nAnswer: {text}", False),
            ]
        )
        expected = given == gold if lettered else text == options[gold]
        assert TASK.score(reply, asked("detective_qa", f"{gold}. {options[gold]}"))["score"] == expected, reply


# --- movies ---

NAMES = {
    f"<http://x/resource/{name}>": n
    for n, name in enumerate(
        [
            "Water_(1985_film)",
            "The_Sixth_Hour",
            "Spider-Crab",
            "Se7en_Days",
            "Up",
            "Two_Suns",
            "Ahab_(film)",
            "Zoo_Story_2",
        ]
    )
}


@pytest.fixture
def library(tmp_path, monkeypatch):
    (tmp_path / "redial").mkdir()
    (tmp_path / "redial/entity2id.json.gz").write_bytes(gzip.compress(json.dumps(NAMES).encode(), mtime=0))
    monkeypatch.setenv("DELTA_MEM_DATA", str(tmp_path))
    return ["Water", "The Sixth Hour", "Spider Crab", "Se7en Days", "Up", "Two Suns", "Ahab", "Zoo Story 2"]


def test_names_of_the_knowledge_base_become_titles(library):
    assert list(movies.named(NAMES).values()) == library


def recall_again(answer, golds, titles):
    """From the description: from ``1.`` on, a title a line, each the known one at the least distance; of five, gold."""
    text = answer[answer.index("1.") + 2 :] if "1." in answer else answer.replace(",", "\n")
    found = set()
    for line in text.split("\n")[:5]:
        line = line.strip()
        while "(" in line and ")" in line[line.index("(") :]:
            start = line.index("(")
            line = line[:start] + line[line.index(")", start) + 1 :]
        digits = len(line) - len(line.lstrip("0123456789"))
        if digits:
            line = line[digits:].removeprefix(line[digits : digits + 1] if line[digits : digits + 1] in ".)、" else "")
            line = line.lstrip().removeprefix("-").removeprefix("—").lstrip()
        line = " ".join(line.split()).lower()
        found.add(min(titles, key=lambda title: edit_distance(line, title.lower())))
    return sum(gold in found for gold in golds) / len(golds)


def test_recall_agrees_with_a_second_derivation(library):
    rng = random.Random(2)
    for _ in range(500):
        titles = [
            rng.choice([t, t.upper(), t[1:], f"{t} ({rng.randint(1950, 2020)})", f"The {t}", "", "Nothing alike"])
            for t in rng.sample(library, rng.randint(1, 8))
        ]
        form = rng.randrange(4)
        answer = {
            0: "\n".join(f"{n}. {t}" for n, t in enumerate(titles, 1)),
            1: "Here they are:\n" + "\n".join(f"{n}.{t}" for n, t in enumerate(titles, 1)),
            2: ", ".join(titles),
            3: "\n".join(f"{n}) - {t}" for n, t in enumerate(titles, 1)),
        }[form]
        golds = rng.sample(library, rng.randint(1, 3))
        found = TASK.score(answer, asked("recsys_redial_full", *golds))
        expected = recall_again(answer, golds, library)
        assert found == {"score": pytest.approx(expected, abs=1e-12), "score_release": found["score"]}, answer


def test_only_the_first_five_count(library):
    listed = "\n".join(f"{n}. {t}" for n, t in enumerate(library, 1))
    question = asked("recsys_redial_full", "Up", "Two Suns")
    assert TASK.score(listed, question)["score"] == 0.5


def test_lines_of_others_name_their_sub_data_set_and_give_movies_as_numbers(library):
    line = {"prediction": "1. Up", "category": "recsys_redial_full", "gold": ["4"]}
    assert TASK.score("1. Up", TASK.question_of(line))["score"] == 1.0
    with pytest.raises(HarnessError, match="category"):
        TASK.question_of({"prediction": "x", "gold": "x"})
    with pytest.raises(HarnessError, match="'Up' is no movie's number"):
        TASK.question_of({**line, "gold": "Up"})
    assert TASK.question_of({"category": "TTL/nlu", "gold": 12}).answers == ("12",)


# --- the task ---


def test_a_category_that_is_none_is_refused_and_names_are_taken_as_others_write_them():
    with pytest.raises(HarnessError, match="no sub-data set 'ruler_q1'; did you mean 'ruler_qa1'"):
        TASK.score("x", Question("q", "?", ("x",), "AR/ruler_q1"))
    assert TASK.score("x", Question("q", "?", ("x",), "ruler_qa1_197K"))["score"] == 1.0


@pytest.mark.parametrize("source", SOURCES)
def test_every_sub_data_set_has_a_wording(source):
    question = asked(source, "x")
    for removed in (False, True):
        assert "Which one?" in TASK.question(question, removed=removed)
        assert RELEASE.question(question, removed=removed) == "Question: Which one?\nAnswer:"


def test_the_release_reads_one_message_and_the_two_ends_of_a_long_context():
    generated = DataSpec(source="generated")
    long = {"facts": 100, "distractors": 2000, "sources": ["ruler_qa1"]}
    (whole,) = TASK.load(generated, "test", long, 1).episodes
    (cut,) = RELEASE.load(generated, "test", long, 1).episodes
    context = "".join(m.content for m in whole.history.messages)
    (message,) = cut.history.messages
    marker = "\n\n[... context truncated ...]\n\n"
    head, _, tail = message.content.partition(marker)
    assert len(context) > 120_000 >= len(message.content) > 119_990
    assert context.startswith(head)
    assert context.endswith(tail)
    assert abs(2 * len(head) - len(tail)) < 100
    assert whole.questions == cut.questions
    assert (TASK.primary_metric, RELEASE.primary_metric) == ("score", "score_release")


def test_a_hundred_thousand_answers_are_scored_in_a_minute():
    start = time.process_time()
    for n in range(20_000):
        answer, golds = MANY[n % len(MANY)]
        TASK.score(f"{answer} {n}", asked(FACTS, *golds))
    assert time.process_time() - start < 12


def test_scores_by_category_are_means_over_questions():
    import pandas as pd

    from harness.rescoring import scores

    lines = [("AR/ruler_qa1", 1.0)] * 3 + [("AR/eventqa_full", 0.0)] * 1 + [("SF/factconsolidation_sh_6k", 0.0)] * 4
    table = pd.DataFrame(
        {
            "question_id": [f"q{n}" for n in range(len(lines))],
            "history_id": "h",
            "root": [f"r{n}" for n in range(len(lines))],
            "category": [c for c, _ in lines],
            "draw": 0,
            "score.score": [s for _, s in lines],
            "score.score_release": [s for _, s in lines],
        }
    )
    found = {name: score.value for name, score in scores(TASK, table).items()}
    assert found["score"] == pytest.approx(3 / 8)
    assert found["score/AR"] == pytest.approx(3 / 4)
    assert found["score/AR/eventqa_full"] == 0.0
    assert found["score/SF"] == 0.0
    assert Counter(name.split("/")[0] for name in found) == {"score": 6, "score_release": 6}
    assert rules.RECALL_AT == 5


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, (146, 3671)),
        ({"ablations": False}, (130, 2071)),
        ({"sources": ["TTL"]}, (6, 700)),
        ({"sources": ["LRU"], "questions": 15}, (25, 30)),
    ],
)
def test_the_plan_knows_how_much_of_the_official_rows_is_asked(settings, size):
    assert task("memory_agent_bench").published(settings) == size


def test_a_blank_gold_is_refused_for_by_the_rule_it_is_within_every_answer():
    assert rules.contains("zzz", [""])
    with pytest.raises(HarnessError, match="'gold' holds an empty text"):
        TASK.question_of({"prediction": "zzz", "gold": ["", "d"], "category": "AR/ruler_qa1"})

"""IFEval: the file's counts, lm-eval's verdicts beside a second derivation, no download, and the same twice."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from harness.data import ifeval
from harness.data.files import Raw
from harness.data.files import read as read_file
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.scoring import Share
from harness.tasks import task
from harness.tasks._lm_eval import STAND_IN, has_punkt

FOLDER = Path(os.environ.get("DELTA_MEM_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")
FILE = FOLDER / ifeval.FILES[0].name
needs_file = pytest.mark.skipif(not FILE.is_file(), reason="there is no file of IFEval")


def questions(rows, source="official"):
    return [e.questions[0] for e in ifeval.read(Raw(rows, source, "rows", "h")).episodes]


def asked(kind, prompt="Say something.", **arguments):
    row = {"key": 7, "prompt": prompt, "instruction_id_list": [kind], "kwargs": [arguments]}
    return questions([row])[0]


# --- a second derivation, from the paper's descriptions of the instructions -------------------------------------


def words_of(text):
    """Runs of letters, digits and underscores."""
    found, run = [], ""
    for c in [*text, " "]:
        if c.isalnum() or c == "_":
            run += c
        elif run:
            found.append(run)
            run = ""
    return found


def compared(count, relation, threshold):
    return count < threshold if relation == "less than" else count >= threshold


def between(text, opening, closing):
    """Contents of non-overlapping ``opening ... closing`` on one line, the shortest from the left."""
    found = []
    for line in text.split("\n"):
        at = line.find(opening)
        while at >= 0 and (end := line.find(closing, at + len(opening))) >= 0:
            found.append(line[at + len(opening) : end])
            at = line.find(opening, end + len(closing))
    return found


def bold(text):
    """Contents of ``**...**`` without an asterisk within."""
    found, at = [], 0
    while at < len(text):
        end = text.find("*", at + 2)
        if text.startswith("**", at) and end >= 0 and text.startswith("**", end) and "\n" not in text[at:end]:
            found.append(text[at + 2 : end])
            at = end + 2
        else:
            at += 1
    return found


def parts(text, mark):
    """What stands between marks, blank ends left out; None where an inner part is blank."""
    found = [part.strip() for part in text.split(mark)]
    found = found[1:] if not found[0] else found
    found = found[:-1] if found and not found[-1] else found
    return None if "" in found else found


def is_bullet(line):
    return line.startswith("-") or (len(line) > 1 and line[0] == "*" != line[1])


def is_json(text):
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        if text.startswith(fence):
            text = text[len(fence) :]
    text = text[:-3] if text.endswith("```") else text
    try:
        json.loads(text.strip())
    except ValueError:
        return False
    return True


def sections(text, splitter):
    rest = [piece for piece in text.split(splitter)][1:]
    return sum(bool(piece[:1].isdigit() or (piece[:1].isspace() and piece[1:2].isdigit())) for piece in rest)


def nth_first(text, count, nth, first):
    found = text.split("\n\n")
    filled = sum(bool(p.strip()) for p in found)
    if nth > filled or not found[nth - 1].strip():
        return False
    word = found[nth - 1].split()[0].lstrip("'").lstrip('"')
    cut = min([word.find(c) for c in ".,?!'\"" if c in word], default=len(word))
    return filled == count and word[:cut].lower() == first


def postscript(text, marker):
    letters = ["p", "p", "s"] if marker == "P.P.S" else ["p", "s"]
    squeezed = "".join(text.lower().split())
    return ".".join(letters) + ("" if marker == "P.P.S" else ".") in squeezed


SECOND = {
    "punctuation:no_comma": lambda r: "," not in r,
    "detectable_format:title": lambda r: any(t.strip("<>").strip() for t in between(r, "<<", ">>")),
    "startend:quotation": lambda r: len(r.strip()) > 1 and r.strip()[0] == r.strip()[-1] == '"',
    "keywords:existence": lambda r, keywords: all(k.lower() in r.lower() for k in keywords),
    "keywords:frequency": lambda r, keyword, relation, frequency: compared(
        r.lower().count(keyword.lower()), relation, frequency
    ),
    "keywords:forbidden_words": lambda r, forbidden_words: not (
        {w.lower() for w in words_of(r)} & {w.lower() for w in forbidden_words}
    ),
    "keywords:letter_frequency": lambda r, letter, let_relation, let_frequency: compared(
        r.lower().count(letter.lower()), let_relation, let_frequency
    ),
    "length_constraints:number_words": lambda r, num_words, relation: compared(len(words_of(r)), relation, num_words),
    "length_constraints:number_paragraphs": lambda r, num_paragraphs: (
        (found := parts(r, "***")) is not None and len(found) == num_paragraphs
    ),
    "length_constraints:nth_paragraph_first_word": lambda r, num_paragraphs, nth_paragraph, first_word: nth_first(
        r, num_paragraphs, nth_paragraph, first_word
    ),
    "detectable_content:number_placeholders": lambda r, num_placeholders: len(between(r, "[", "]")) >= num_placeholders,
    "detectable_content:postscript": lambda r, postscript_marker: postscript(r, postscript_marker),
    "detectable_format:number_bullet_lists": lambda r, num_bullets: (
        sum(is_bullet(line.strip()) for line in r.split("\n")) == num_bullets
    ),
    "detectable_format:constrained_response": lambda r: any(f"My answer is {w}." in r for w in ("yes", "no", "maybe")),
    "detectable_format:number_highlighted_sections": lambda r, num_highlights: (
        sum(bool(h.strip()) for h in [*between(r, "*", "*"), *bold(r)]) >= num_highlights
    ),
    "detectable_format:multiple_sections": lambda r, section_spliter, num_sections: (
        sections(r, section_spliter.strip()) >= num_sections
    ),
    "detectable_format:json_format": is_json,
    "combination:two_responses": lambda r: (
        (found := parts(r, "******")) is not None and len(found) == 2 and found[0] != found[1]
    ),
    "combination:repeat_prompt": lambda r, prompt_to_repeat: (
        r.strip().lower().startswith(prompt_to_repeat.strip().lower())
    ),
    "startend:end_checker": lambda r, end_phrase: (
        r.strip().strip('"').lower().endswith(end_phrase.strip().lower())
    ),
}  # fmt: skip


def derivable(kind, given):
    """Whether the second derivation speaks of this instruction: of letters that are some, and words that are one."""
    if kind == "keywords:letter_frequency":
        return given["letter"].isalpha()
    plain = given.get("forbidden_words", []) + given.get("keywords", []) + [given.get("keyword", "x")]
    return kind in SECOND and all(w.replace(" ", "").isalnum() for w in plain) and (
        kind != "keywords:forbidden_words" or all(w.isalnum() for w in plain)
    )  # fmt: skip


def strict(kind, given, response):
    return bool(response.strip()) and bool(SECOND[kind](response, **given))


def loose(kind, given, response):
    lines = response.split("\n")
    cut = [lines, lines[1:], lines[:-1], lines[1:-1]]
    texts = [response, *("\n".join(each).strip() for each in cut[1:])]
    return any(strict(kind, given, text) for text in [*texts, *(t.replace("*", "") for t in texts)])


# --- responses that lie about the edges ---------------------------------------------------------------------------

LINES = (
    "The river is long and quiet.", "tea is made with water", "Trains, buses, and a kite", "<<A walk>>", "<< >>",
    "* one point", "* a second point", "- a third point", "*a highlight* and *another*", "**bold** words", "***",
    "******", "P.S. more", "P. S. more", "P.P.S. even more", "Section 1", "SECTION 2 goes on", "[name] and [place]",
    "[]", "My answer is no.", "My answer is perhaps.", '{"a": 1}', "```json", "```", "", "Any other questions?",
    "ÄÖÜ naïve 12_3", '"', "Jazz quiz, jazz!", "sections 3", "PARAGRAPH 2", "[an open one", "**",
    "weekend. however? Yes!",
)  # fmt: skip


def response(q, rng):
    """Random lines, and now and then what the instructions ask for."""
    lines = rng.choices(LINES, k=rng.randint(0, 9))
    for given in q.doc["kwargs"]:
        for value in given.values():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and rng.random() < 0.6:
                    lines.insert(rng.randint(0, len(lines)), " ".join([text] * rng.randint(1, 3)))
    text = rng.choice(("\n", "\n\n", "\n\n")).join(lines)
    for kind, given in zip(q.doc["instruction_id_list"], q.doc["kwargs"], strict=True):
        if rng.random() < 0.4:
            text = followed(kind, given, text, rng)
    return text


def followed(kind, given, text, rng):
    """A text nearer to what an instruction asks for, and now and then one too few or too many."""
    some = lambda n: max(0, n + rng.choice((0, 0, -1, 1)))  # noqa: E731
    match kind:
        case "startend:quotation":
            return f'"{text}"'
        case "startend:end_checker":
            return f"{text} {given['end_phrase']}"
        case "combination:repeat_prompt":
            return f"{given['prompt_to_repeat']}\n{text}"
        case "combination:two_responses":
            return f"one\n{'*' * 6}\ntwo"
        case "detectable_format:json_format":
            return f"```json\n{json.dumps({'a': text})}\n```"
        case "punctuation:no_comma":
            return text.replace(",", "")
        case "detectable_format:number_bullet_lists":
            return "\n".join(["* point"] * some(given["num_bullets"]))
        case "length_constraints:number_paragraphs":
            return "\n***\n".join(["word"] * max(1, some(given["num_paragraphs"])))
        case "length_constraints:number_words":
            return " ".join(["word"] * some(given["num_words"]))
        case "detectable_format:multiple_sections":
            return "\n".join(f"{given['section_spliter']} {n}\ntext" for n in range(1, some(given["num_sections"]) + 1))
        case "length_constraints:nth_paragraph_first_word":
            found = ["word goes"] * some(given["num_paragraphs"])
            return "\n\n".join(
                [*found[: given["nth_paragraph"] - 1], f"{given['first_word']}, and", *found[1:]][: len(found)]
            )
    return text


def check(asked_of, each, seed):
    """Compare every derivable verdict; gives how many responses, and the verdicts by type."""
    one, rng, seen, count = task("ifeval"), random.Random(seed), Counter(), 0
    for q in asked_of:
        for _ in range(each):
            said = response(q, rng)
            found = one.official(said, q)["none"]
            count += 1
            pairs = zip(q.doc["instruction_id_list"], q.doc["kwargs"], strict=True)
            for n, (kind, given) in enumerate(pairs):
                if not derivable(kind, given):
                    continue
                ours = strict(kind, given, said), loose(kind, given, said)
                theirs = found["inst_level_strict_acc"][n], found["inst_level_loose_acc"][n]
                assert ours == tuple(map(bool, theirs)), (kind, given, said)
                seen[kind, ours[0]] += 1
            assert bool(found["prompt_level_strict_acc"]) == all(found["inst_level_strict_acc"])
            assert bool(found["prompt_level_loose_acc"]) == all(found["inst_level_loose_acc"])
    return count, seen


def test_verdicts_equal_a_second_derivation_on_generated_prompts():
    data = task("ifeval").load(DataSpec(source="generated"), "test", {}, 60)
    count, seen = check([e.questions[0] for e in data.episodes], 10, 1)
    assert count == 600
    kinds = {kind for kind, _ in seen}
    assert len(kinds) >= 13
    assert all(seen[kind, verdict] for kind in kinds for verdict in (True, False))


@needs_file
def test_verdicts_equal_a_second_derivation_on_the_official_prompts():
    count, seen = check(questions(read_file(FILE)), 1, 2)
    assert count == 541
    kinds = {kind for kind, _ in seen}
    assert kinds == set(SECOND)
    assert sum(seen.values()) > 600


SENTENCES, CAPITALS = "length_constraints:number_sentences", "change_case:capital_word_frequency"


# --- what the second derivation leaves out ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "arguments", "follows", "fails"),
    [
        ("language:response_language", {"language": "de"}, "Der Fluss ist lang und still.", "The river is long."),
        ("change_case:english_lowercase", {}, "the river is long and quiet.", "The river is long and quiet."),
        ("change_case:english_capital", {}, "THE RIVER IS LONG AND QUIET.", "The river is long and quiet."),
        (SENTENCES, {"num_sentences": 3, "relation": "at least"}, "It rains. Is it? Yes!", "It rains. It pours."),
        (SENTENCES, {"num_sentences": 2, "relation": "less than"}, "Dr. Li saw 3.5 of it.", "It rains. It pours."),
        (CAPITALS, {"capital_frequency": 2, "capital_relation": "at least"}, "ONE and TWO.", "ONE and two."),
    ],
)
def test_checkers_that_want_downloads_or_draws_run_without_and_alike(kind, arguments, follows, fails):
    one, q = task("ifeval"), asked(kind, **arguments)
    for _ in range(3):
        assert one.score(follows, q)["prompt_level_strict_acc"] == 1
        assert one.score(fails, q)["prompt_level_strict_acc"] == 0


def test_a_letter_that_is_none_is_drawn_alike_each_time():
    """lm-eval draws another letter for it; Python's own random numbers are left as they were."""
    one = task("ifeval")
    q = asked("keywords:letter_frequency", letter="#", let_frequency=2, let_relation="at least")
    random.seed(3)
    before = random.getstate()
    told = [one.score("aab bcc", q)["prompt_level_strict_acc"] for _ in range(20)]
    assert len(set(told)) == 1
    assert random.getstate() == before


def test_nothing_is_fetched_and_the_stand_in_is_named():
    data = task("ifeval").load(DataSpec(source="generated"), "test", {}, 3)
    assert (STAND_IN in data.note) == (not has_punkt())
    code = (
        "import nltk, socket\n"
        "def no(*a, **k): raise AssertionError('a download')\n"
        "nltk.download = no; socket.socket.connect = no\n"
        "from harness.data import ifeval\nfrom harness.data.files import Raw\nfrom harness.tasks import task\n"
        "row = {'key': 1, 'prompt': 'x', 'instruction_id_list': ['length_constraints:number_sentences'],"
        " 'kwargs': [{'num_sentences': 2, 'relation': 'at least'}]}\n"
        "q = ifeval.read(Raw([row], 'official', 'r', 'h')).episodes[0].questions[0]\n"
        "print(task('ifeval').score('One. Two.', q)['prompt_level_strict_acc'], nltk.download is no)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "1.0 True\n"


# --- lm-eval's own settings and score -----------------------------------------------------------------------------


def test_cap_and_stops_are_lm_evals():
    one, q = task("ifeval"), asked("punctuation:no_comma")
    own = one._own(q.doc)
    assert own.config.generation_kwargs["max_gen_toks"] == one.max_new_tokens
    assert tuple(own.config.generation_kwargs["until"]) == one.stop
    assert list(own.aggregation()) != []
    assert set(own.aggregation()) == {m.name for m in one.metrics}
    assert one.question(q) == q.text
    assert one.system() == ""


def test_by_instruction_a_prompt_counts_as_often_as_it_has_some():
    q = questions([{"key": 1, "prompt": "x", "instruction_id_list": ["punctuation:no_comma"] * 3, "kwargs": [{}] * 3}])[
        0
    ]
    found = task("ifeval").score("a, b", q)["inst_level_strict_acc"]
    assert isinstance(found, Share)
    assert (found, found.of) == (0, 3)


# --- data ---------------------------------------------------------------------------------------------------------


@needs_file
def test_the_counts_of_the_official_file(monkeypatch):
    monkeypatch.setenv("DELTA_MEM_DATA", str(FOLDER))
    data = task("ifeval").load(DataSpec(source="official"), "test", {})
    found = [e.questions[0] for e in data.episodes]
    assert len(found) == 541
    assert sum(len(q.doc["instruction_id_list"]) for q in found) == 834
    assert len({kind for q in found for kind in q.doc["instruction_id_list"]}) == len(ifeval.ARGUMENTS) == 25
    assert Counter(q.category for q in found) == {"1_instruction": 305, "2_instructions": 179, "3_instructions": 57}
    assert not any(e.history.messages for e in data.episodes)


@needs_file
def test_the_hubs_padding_is_dropped():
    rows = read_file(FILE)
    every = {key: None for given in ifeval.ARGUMENTS.values() for key in given}
    padded = [{**row, "kwargs": [{**every, **given} for given in row["kwargs"]]} for row in rows]
    assert questions(padded) == questions(rows)


ROW = {"key": 1, "prompt": "x", "instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["a"]}]}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"key": "1"}, "rows, row 0: the field 'key' is str, not int"),
        ({"prompt": None}, "the field 'prompt' is NoneType"),
        ({"instruction_id_list": ["keywords:existense"]}, "did you mean 'keywords:existence'"),
        ({"kwargs": []}, "'kwargs' has 0 entries for 1 instructions"),
        ({"kwargs": [{}]}, "kwargs 0: the field 'keywords' is missing"),
        ({"kwargs": [{"keywords": "a"}]}, "the field 'keywords' is str, not list"),
        ({"kwargs": [{"keywords": ["a"], "letter": "b"}]}, "takes no 'letter'"),
        ({"kwargs": ["a"]}, "are str, not dict"),
    ],
)
def test_a_wrong_row_is_named_with_its_field(changed, said):
    with pytest.raises(HarnessError, match="rows, row 0") as error:
        questions([{**ROW, **changed}])
    assert said in str(error.value)


def test_a_key_twice_is_refused():
    with pytest.raises(HarnessError, match="row 1: the key 1 is there twice"):
        questions([ROW, ROW])


def test_generated_prompts_are_seeded_and_of_the_schema():
    load = lambda seed: task("ifeval").load(DataSpec(source="generated", seed=seed), "test", {})  # noqa: E731
    assert load(1) == load(1)
    assert replace(load(1), note="") != replace(load(2), note="")
    found = [e.questions[0] for e in load(1).episodes]
    assert Counter(q.category for q in found) == {"1_instruction": 12, "2_instructions": 12, "3_instructions": 12}
    assert len({kind for q in found for kind in q.doc["instruction_id_list"]}) >= 14

"""Invented prompts in IFEval's schema: a small wish, and one to three instructions whose following can be checked."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

WISHES = (
    "Tell a friend about a walk along a river.",
    "Describe how tea is made.",
    "Say what a good library needs.",
    "Explain why bread rises.",
    "Recommend a game for a rainy day.",
    "Write a note to a neighbour about a lost kite.",
    "Advise someone who wants to learn the violin.",
    "Compare trains with buses.",
)
WORDS = ("lantern", "harbour", "meadow", "copper", "winter", "orchard", "pebble", "signal")
PHRASES = ("That is all for today.", "More tomorrow.", "Take good care.")

Kind = tuple[str, str, Callable[[random.Random], dict[str, Any]]]
"""Type of instruction, its sentence, and what it is told."""


def _fixed(**arguments: Any) -> Callable[[random.Random], dict[str, Any]]:
    return lambda rng: arguments


KINDS: tuple[Kind, ...] = (
    ("punctuation:no_comma", "Do without commas.", _fixed()),
    (
        "detectable_format:title",
        "Give it a title in double angular brackets, as in <<a title>>.",
        _fixed(),
    ),
    ("change_case:english_lowercase", "Write in English, all in lower case.", _fixed()),
    ("startend:quotation", "Put the whole answer between double quotation marks.", _fixed()),
    (
        "keywords:existence",
        "Use the words {keywords[0]} and {keywords[1]}.",
        lambda rng: {"keywords": sorted(rng.sample(WORDS, 2))},
    ),
    (
        "keywords:forbidden_words",
        "Avoid the words {forbidden_words[0]} and {forbidden_words[1]}.",
        lambda rng: {"forbidden_words": sorted(rng.sample(WORDS, 2))},
    ),
    (
        "keywords:frequency",
        "Use the word {keyword} {relation} {frequency} times.",
        lambda rng: {"keyword": rng.choice(WORDS), "relation": "at least", "frequency": rng.randint(2, 4)},
    ),
    (
        "keywords:letter_frequency",
        "Let the letter {letter} appear {let_relation} {let_frequency} times.",
        lambda rng: {"letter": rng.choice("jqxz"), "let_relation": "less than", "let_frequency": rng.randint(3, 6)},
    ),
    (
        "length_constraints:number_words",
        "Write {relation} {num_words} words.",
        lambda rng: {"relation": rng.choice(("less than", "at least")), "num_words": rng.randrange(20, 60, 10)},
    ),
    (
        "length_constraints:number_sentences",
        "Write {relation} {num_sentences} sentences.",
        lambda rng: {"relation": "less than", "num_sentences": rng.randint(3, 8)},
    ),
    (
        "length_constraints:number_paragraphs",
        "Write {num_paragraphs} paragraphs, with a line of *** between them.",
        lambda rng: {"num_paragraphs": rng.randint(2, 4)},
    ),
    (
        "detectable_content:number_placeholders",
        "Leave at least {num_placeholders} placeholders in square brackets, as in [name].",
        lambda rng: {"num_placeholders": rng.randint(1, 3)},
    ),
    ("detectable_content:postscript", "Add a postscript that starts with P.S.", _fixed(postscript_marker="P.S.")),
    (
        "detectable_format:number_bullet_lists",
        "Use exactly {num_bullets} bullet points, each on a line that starts with *.",
        lambda rng: {"num_bullets": rng.randint(2, 4)},
    ),
    (
        "detectable_format:number_highlighted_sections",
        "Highlight at least {num_highlights} parts, as in *a highlighted part*.",
        lambda rng: {"num_highlights": rng.randint(1, 3)},
    ),
    ("startend:end_checker", "End with exactly: {end_phrase}", lambda rng: {"end_phrase": rng.choice(PHRASES)}),
    (
        "change_case:capital_word_frequency",
        "Write words in capital letters {capital_relation} {capital_frequency} times.",
        lambda rng: {"capital_relation": "less than", "capital_frequency": rng.randint(2, 5)},
    ),
)
APART = (
    {"startend:quotation", "startend:end_checker", "detectable_format:title", "detectable_content:postscript"},
    {"change_case:english_lowercase", "change_case:capital_word_frequency", "detectable_content:postscript",
     "startend:end_checker"},
    {"detectable_format:number_bullet_lists", "length_constraints:number_paragraphs",
     "detectable_format:number_highlighted_sections"},
    {"length_constraints:number_words", "length_constraints:number_sentences"},
    {"keywords:existence", "keywords:forbidden_words", "keywords:frequency"},
)  # fmt: skip
"""Of each of these sets a prompt has one instruction at most: together they could hardly be followed."""


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """``count`` prompts with one, two or three instructions in turn."""
    rng = random.Random(f"ifeval/{seed}")
    return [_row(1000 + n, n % 3 + 1, rng) for n in range(count)]


def _row(key: int, count: int, rng: random.Random) -> dict[str, Any]:
    chosen: list[Kind] = []
    for kind in rng.sample(KINDS, len(KINDS)):
        names = {kind[0], *(name for name, _, _ in chosen)}
        if len(chosen) < count and all(len(names & together) < 2 for together in APART):
            chosen.append(kind)
    arguments = [draw(rng) for _, _, draw in chosen]
    told = [sentence.format(**given) for (_, sentence, _), given in zip(chosen, arguments, strict=True)]
    return {
        "key": key,
        "prompt": " ".join([rng.choice(WISHES), *told]),
        "instruction_id_list": [name for name, _, _ in chosen],
        "kwargs": arguments,
    }

"""LLMLingua-2's rule on a tiny random classifier, against a slow plain one that looks at a token at a time."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForTokenClassification,
    RobertaConfig,
    RobertaForTokenClassification,
)

from baselines.llmlingua2 import Word, rule, split
from harness import chunks, generation
from harness.episodes import History, Message, Query
from harness.errors import HarnessError, SkippedError
from harness.registry import resolve

HISTORY = History(
    (
        Message("Ann's car is red.  It cost 3.5 coins!\n\nReally? Yes, yes,, it did", id="a", role="assistant"),
        Message("  ", id="blank"),
        Message("Bob has the blue kite. Bob has 2 dogs; Bob walked them. " * 3, id="b", time="June"),
    )
)
FORCED = ("\n", "?", "!", ".", ",")


@pytest.fixture
def make(tiny, token_classifier):
    def build(**settings):
        cls, config = resolve("llmlingua2", {"classifier": token_classifier, **settings})
        return cls(config, tiny(), 0)

    return build


def plainly(folder, count, rate, forced=FORCED, digits=False, greatest=False, once=True, size=510):
    """The words that stay of HISTORY, message by message, by the rule as the specification tells it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    words = []  # message, text, ids, ends a piece
    for n, message in enumerate(HISTORY.messages):
        for text in re.findall(r"\n|\w+|[^\w\s]", message.content):
            if text == "\n" and text not in forced:
                if words:
                    words[-1][3] = True
                continue
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            words.append([n, text, ids, text in (".", "\n")])
        if words:
            words[-1][3] = True
    for a, b in pairwise(words):
        a[3] = a[3] or b[1] == "\n"
    pieces, at = [], 0
    while at < len(words):
        end = at
        while end < len(words) and sum(len(w[2]) for w in words[at : end + 1]) <= size:
            end += 1
        if end < len(words):
            back = end
            while back > at and not words[back - 1][3]:
                back -= 1
            end = back if back > at else end
        pieces.append(words[at:end])
        at = end
    kept = [[] for _ in HISTORY.messages]
    for piece in pieces:
        ids = [tokenizer.cls_token_id, *[i for w in piece for i in w[2]], tokenizer.sep_token_id]
        with torch.no_grad():
            found = model(input_ids=torch.tensor([ids])).logits[0].softmax(-1)[1:-1, 1].tolist()
        scores, weights = [], []
        for _, text, own, _ in piece:
            values, found = found[: len(own)], found[len(own) :]
            if digits:
                pieces_of = tokenizer.convert_ids_to_tokens(own)
                values = [1.0 if re.search(r"\d", p) else v for p, v in zip(pieces_of, values, strict=True)]
            scores.append(1.0 if text in forced else max(values) if greatest else float(np.mean(values)))
            weights.append(count(text))
        if once:
            high, last, between = np.percentile(scores, 100 * (1 - rate)), None, False
            for n, (_, text, _, _) in enumerate(piece):
                if text not in forced:
                    between = between or scores[n] > high
                elif between:
                    between, last = False, text
                else:
                    scores[n] = 0.0 if text == last else scores[n]
                    last = text
        least = np.percentile([s for s, w in zip(scores, weights, strict=True) for _ in range(w)], 100 * (1 - rate) + 1)
        stayed = []
        for (n, text, _, _), score in zip(piece, scores, strict=True):
            if not (score > least or (least == 1.0 and score == least)):
                continue
            if once and text in forced and stayed and stayed[-1] == text:
                continue
            stayed.append(text)
            kept[n].append(text)
    return kept


@pytest.mark.parametrize("size", [510, 60, 25])
@pytest.mark.parametrize("rate", [0.25, 0.5, 0.75])
@pytest.mark.parametrize(
    "settings",
    [{}, {"digits": True, "greatest": True}, {"once": False}, {"forced": ()}],
    ids=["default", "digits-max", "all", "unforced"],
)
def test_the_words_that_stay_are_those_of_a_plain_reading_of_the_rule(rate, settings, size, make, token_classifier):
    method = make(
        rate=rate,
        piece_tokens=size,
        force_tokens=settings.get("forced", FORCED),
        force_reserve_digit=settings.get("digits", False),
        word="max" if settings.get("greatest") else "mean",
        drop_consecutive=settings.get("once", True),
    )
    expected = plainly(token_classifier, method.backbone.count, rate, size=size, **settings)
    state = method.write(HISTORY)
    found = {m.id: m.content for m in state.messages}
    for message, words in zip(HISTORY.messages, expected, strict=True):
        told = "".join(re.findall(r"\n|\S", found.get(message.id, "")))
        if settings.get("forced") == ():  # a line break is then whitespace before a word, and stays with it
            told = told.replace("\n", "")
        while words and words[-1] == "\n":  # blank ends are cut
            words.pop()
        while words and words[0] == "\n":
            words.pop(0)
        assert told == "".join(words)


def test_at_rate_1_the_prompt_is_the_frozen_one(make):
    method = make(rate=1)
    steering = method.steer(method.write(HISTORY), Query("", "?"))
    assert steering.messages == HISTORY.messages
    asked = Query("", "Whose kite is blue?")
    assert generation.prompt(method.backbone, steering.messages, asked) == generation.prompt(
        method.backbone, HISTORY.messages, asked
    )


@pytest.mark.parametrize("budget", [1, 20, 60, 120, 500])
def test_a_budget_is_kept(budget, make):
    method = make(budget_tokens=budget)
    state = method.write(HISTORY)
    told = chunks.told_tokens(state.messages, method.backbone)
    assert told <= budget
    assert told > budget / 2 or budget in (1, 500)
    if budget == 500:
        assert state.messages == HISTORY.messages


def test_continued_online_what_is_new_comes_after(make):
    method, new = make(), History((Message("A violet boat sails.", id="new"),))
    first, alone = method.write(HISTORY), method.write(new)
    assert method.write(new, first).messages == first.messages + alone.messages
    assert method.write(History(())) is None
    assert method.write(History(()), first) is first
    tight = make(budget_tokens=60)
    held = tight.write(new, tight.write(HISTORY))
    assert chunks.told_tokens(held.messages, tight.backbone) <= 60


def test_the_backbone_is_not_asked_and_the_classifier_is_counted(make, token_classifier):
    method = make()
    method.write(HISTORY)
    assert not any(vars(method.effort).values())
    model = AutoModelForTokenClassification.from_pretrained(token_classifier)
    # embeddings of 49 + 48 pieces and marks, 512 positions and 2 kinds; one block; two classes
    sizes = model.config.vocab_size + 512 + 2, 4 * (16 * 16 + 16) + 2 * (16 * 16 + 16) + 3 * 2 * 16, 2 * 16 + 2
    assert method.extra_parameters() == sizes[0] * 16 + sizes[1] + sizes[2]


# --- bad input ---


def test_without_a_classifier_the_row_is_skipped(tiny, episodes):
    cls, config = resolve("llmlingua2")
    method = cls(config, tiny(), 0)
    assert method.extra_parameters() == 0
    with pytest.raises(SkippedError, match="needs a token classifier; set 'classifier' to a folder"):
        method.write(episodes[0].history)


def test_a_classifier_that_is_not_here_is_skipped_by_name(make, episodes):
    with pytest.raises(SkippedError, match=r"'/no/such' is not here .*; name the folder"):
        make(classifier="/no/such").write(episodes[0].history)


def test_another_number_of_classes_is_refused(make, episodes, tmp_path, token_classifier):
    AutoTokenizer.from_pretrained(token_classifier).save_pretrained(tmp_path)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForTokenClassification(BertConfig(num_labels=3, vocab_size=120, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(HarnessError, match=r"3 classes.*; name a classifier of two classes"):
        make(classifier=str(tmp_path)).write(episodes[0].history)


def test_pieces_beyond_the_classifier_are_refused(make, episodes):
    with pytest.raises(HarnessError, match="pieces of 511 tokens are beyond the classifier's 510; lower piece_tokens"):
        make(piece_tokens=511).write(episodes[0].history)


@pytest.mark.parametrize("settings", [{"rate": 0}, {"rate": 1.1}, {"budget_tokens": 0}, {"piece_tokens": 0}])
def test_what_cannot_be_is_refused(settings):
    with pytest.raises(HarnessError, match=f"wrong setting '{next(iter(settings))}'"):
        resolve("llmlingua2", settings)


# --- the rule and the pieces ---


def words(*told, keep=0.5, ends=()):
    return [
        Word(0, (0, 0), text, [n], 1, text in FORCED, n in ends, 1.0 if text in FORCED else keep)
        for n, text in enumerate(told)
    ]


def test_equal_forced_words_with_nothing_between_are_one():
    piece = words("a", ".", ".", "b", ".", ",", ".", ".")
    piece[0].keep = 0.9
    assert rule(piece, 10, True) == [True, True, False, True, False, True, True, False]
    assert rule(piece, 10, False) == [True, True, True, False, True, True, True, True]


def test_a_repeat_does_not_raise_the_threshold():
    """Worked by hand: at 50, the repeats of the line break count as 0, so that 0.6 and 0.7 are above the median."""
    piece = words("a", "\n", "\n", "\n", "b", "c", "d", "e")
    for word, keep in zip([w for w in piece if not w.forced], (0.6, 0.7, 0.2, 0.3, 0.5), strict=True):
        word.keep = keep
    assert [w.text for w, stays in zip(piece, rule(piece, 51, True), strict=True) if stays] == ["a", "\n", "b", "e"]


def test_words_of_probability_1_stay_where_the_threshold_is_1():
    piece = words("5", "5", "x", ".", "7", ",")
    for n in (0, 1, 4):
        piece[n].keep = 1.0
    assert rule(piece, 80, True) == [True, True, False, True, True, True]


@pytest.mark.parametrize("kind", ["encoder", "roberta"])
def test_a_head_is_never_made_up(kind, make, episodes, tmp_path, token_classifier):
    from transformers import BertModel

    AutoTokenizer.from_pretrained(token_classifier).save_pretrained(tmp_path)
    sizes = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 120,
    }
    if kind == "encoder":
        BertModel(BertConfig(**sizes)).save_pretrained(tmp_path)
        message = "lacks 2 parameters of a token classifier .*drawn at random"
    else:
        config = RobertaConfig(**sizes, max_position_embeddings=514, pad_token_id=1)
        RobertaForTokenClassification(config).save_pretrained(tmp_path)
        message = "pieces of 511 tokens are beyond the classifier's 510"
    with pytest.raises(HarnessError, match=message):
        make(classifier=str(tmp_path), piece_tokens=511).write(episodes[0].history)


def test_a_word_counts_as_often_as_it_has_tokens():
    piece = words("a", "b", "c")
    for word, keep, weight in zip(piece, (0.1, 0.2, 0.3), (1, 10, 1), strict=True):
        word.keep, word.weight = keep, weight
    assert rule(piece, 50, True) == [False, False, True]
    piece[1].weight = 1
    piece[0].weight = 10
    assert rule(piece, 50, True) == [False, True, True]


def test_a_piece_ends_where_a_sentence_does():
    told = words(*"abcdefgh", ends=(2, 3))
    assert [len(p) for p in split(told, 5)] == [4, 4]
    assert [len(p) for p in split(told[4:], 3)] == [3, 1]
    told[0].tokens = list(range(9))  # longer than a piece: alone
    assert len(split(told, 3)[0]) == 1

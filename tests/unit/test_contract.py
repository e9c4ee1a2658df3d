"""What every registered method keeps to: found by scanning, so a new method is held to it without a new test."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from transformers import LogitsProcessor

from harness import certificate, generation
from harness.episodes import History, Message, Query
from harness.errors import HarnessError, UnsupportedError
from harness.experiment import Budget
from harness.lm import STREAMED
from harness.method import MemoryState
from harness.progress import Progress
from harness.registry import resolve, row_names

ROWS = sorted(row_names())
FITTED = [row for row in ROWS if resolve(row)[0].capabilities.fits]


@pytest.fixture
def make(tiny, token_classifier):
    """A method on a fresh backbone; what it learns is moved off its start, so that it shows in the answers."""

    few = {"passes": None, "steps": 2, "batch_size": 2}
    settings = {
        "llmlingua2": {"classifier": token_classifier},
        **{row: few for row in ROWS if row.startswith("context2lora")},
        "kv_prefix": {"steps": 2, "batch_size": 2, "longest": 8},
        "memory_bank_lm": {"summary_tokens": 8},
        "memit": {"steps": 2, "prefixes": 1, "moment_tokens": 64},
        "rome": {"steps": 2, "prefixes": 1},
    }

    def build(row, seed=1, shaken=True):
        cls, config = resolve(row, settings.get(row))
        backbone = tiny()
        given = set(backbone.model.parameters())
        method = cls(config, backbone, seed)
        own = [value for value in vars(method).values() if isinstance(value, torch.nn.Module)]
        holders = [backbone.model, *backbone.adapters.values(), *own]
        method.learned = list(dict.fromkeys(p for h in holders for p in h.parameters() if p not in given))
        rng = torch.Generator().manual_seed(7)
        for p in method.learned if shaken else ():
            p.data.add_(0.3 * torch.randn(p.shape, generator=rng))
        return method

    return build


def bare(backbone):
    with torch.no_grad():
        return backbone.model(input_ids=torch.arange(40)[None]).logits


class Scores(LogitsProcessor):
    """Passes next-token scores on, after the method's own processor, and keeps them."""

    def __init__(self, before=None):
        self.before, self.seen = before, []

    def __call__(self, input_ids, scores):
        scores = self.before(input_ids, scores) if self.before else scores
        self.seen.append(scores[0].tolist())
        return scores


def asked(method, episode, condition, state=None, n=0):
    """Answer and exact scores of every token of it, for one question."""
    question = episode.questions[n]
    query = Query("", question.text, question.id, question.evidence if method.capabilities.gold else ())
    streams = condition in STREAMED
    return steered(method, episode, condition, query, method.steer(None if streams else state, query, writes=streams))


def in_sight(episode, condition, steering):
    """What stands in the prompt; under ``windowed`` the last message alone."""
    told = episode.history.messages
    return {"own_text": steering.messages or (), "removed": (), "windowed": told[-1:]}.get(condition, told)


def steered(method, episode, condition, query, steering):
    visible = in_sight(episode, condition, steering)
    prompts, scores = [generation.prompt(method.backbone, visible, query)], Scores(steering.logits_processor)
    watched = replace(steering, logits_processor=scores)
    return generation.answer(method.backbone, prompts, watched, max_new_tokens=4)[0][0], scores.seen


def answers(method, episodes, state_of=None):
    found = []
    for e in episodes[:2]:
        for condition in method.capabilities.arms:
            state = (state_of or method.write)(e.history)
            found.append(asked(method, e, condition, state))
    return found


@pytest.mark.parametrize("row", ROWS)
def test_leaving_a_steering_and_closing_restore_the_backbone(row, tiny, make, episodes):
    before = bare(tiny())
    method = make(row)
    assert torch.equal(bare(method.backbone), before)
    answers(method, episodes)
    assert torch.equal(bare(method.backbone), before)
    method.close()
    assert torch.equal(bare(method.backbone), before)
    assert not method.backbone.adapters
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in method.backbone.model.modules())
    assert not any(p.requires_grad for p in method.backbone.model.parameters())


@pytest.mark.parametrize("row", ROWS)
def test_the_gates_are_passed(row, make, episodes):
    method = make(row)
    for condition in method.capabilities.arms:
        found = certificate.run(method, episodes[:2], condition)
        names = [gate.name for gate in found]
        assert {"isolation.answers", "equality.answers_batch", "isolation.backbone"} <= set(names)
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", ROWS)
def test_a_seed_fixes_the_answers(row, make, episodes):
    assert answers(make(row), episodes) == answers(make(row), episodes)


@pytest.mark.parametrize("row", ROWS)
def test_construction_draws_nothing_from_the_global_generator(row, make):
    before = torch.get_rng_state()
    make(row, shaken=False)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("row", FITTED)
def test_another_seed_is_another_start(row, make):
    first, second = (make(row, seed, shaken=False).learned for seed in (1, 2))
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("row", ROWS)
def test_save_and_load_give_the_same_answers(row, make, episodes, tmp_path):
    method = make(row)
    method.save(tmp_path)
    other = make(row, seed=5 if row in FITTED else 1, shaken=False)  # where nothing is learned, a seed may act in write
    other.load(tmp_path)
    assert answers(other, episodes) == answers(method, episodes)
    assert not list(tmp_path.rglob("*.bin")) + list(tmp_path.rglob("*.pt")) + list(tmp_path.rglob("*.pkl"))


@pytest.mark.parametrize("row", ROWS)
def test_a_saved_state_answers_alike(row, make, episodes, tmp_path):
    method = make(row)

    def through_disk(history):
        state = method.write(history)
        if state is None:
            return None
        folder = tmp_path / history.digest()
        state.save(folder)
        loaded = type(state).load(folder)
        assert loaded.nbytes() == state.nbytes() > 0
        assert loaded.describe() == state.describe()
        return loaded

    assert answers(method, episodes, through_disk) == answers(method, episodes)


@pytest.mark.parametrize("row", ROWS)
def test_a_steering_never_changes_the_state(row, make, episodes, tmp_path):
    method = make(row)
    state = method.write(episodes[0].history)
    keeps = {c for c, arms in method.capabilities.arms.items() if "donor" in arms and c not in STREAMED}
    assert isinstance(state, MemoryState) or not keeps  # only what is kept of a history can be another's
    if state is None:
        return

    def stored(name):
        state.save(tmp_path / name)
        return {p.name: p.read_bytes() for p in sorted((tmp_path / name).iterdir())}

    before = stored("before")
    for condition in method.capabilities.arms:
        asked(method, episodes[0], condition, state)
    assert stored("after") == before


@pytest.mark.parametrize("row", ROWS)
def test_two_histories_do_not_leak_into_each_other(row, make, episodes):
    a, b = episodes[:2]
    apart = make(row)
    expected = [asked(apart, e, c, apart.write(e.history)) for e in (a, b) for c in apart.capabilities.arms]
    mixed = make(row)
    states = [mixed.write(e.history) for e in (b, a, b)]
    for e, state in zip((b, a), states, strict=False):
        for c in mixed.capabilities.arms:
            asked(mixed, e, c, state, n=1)
    found = [asked(mixed, e, c, s) for e, s in ((a, states[1]), (b, states[2])) for c in mixed.capabilities.arms]
    assert found == expected


@pytest.mark.parametrize("row", ROWS)
def test_of_an_empty_history_there_is_nothing_to_remember(row, make, episodes):
    method = make(row)
    bare = {c: asked(make("question_only"), episodes[0], "removed") for c in ("removed", "own_text")}
    bare["windowed"] = asked(make("window"), episodes[0], "windowed")
    state = method.write(History(()))
    for condition, arms in method.capabilities.arms.items():
        if "donor" in arms and condition not in STREAMED:
            assert asked(method, episodes[0], condition, state) == bare[condition]


@pytest.mark.parametrize("row", ROWS)
def test_what_it_does_is_accounted_for(row, make, episodes):
    method = make(row)
    before = [0] * 4
    state = method.write(episodes[0].history)
    for condition in method.capabilities.arms:
        query = Query("", episodes[0].questions[0].text, evidence=episodes[0].questions[0].evidence)
        streams = condition in STREAMED
        steering = method.steer(None if streams else state, query, writes=streams)
        answer, _ = steered(method, episodes[0], condition, query, steering)
        shown = len(generation.prompt(method.backbone, in_sight(episodes[0], condition, steering), query).ids)
        prefix = steering.past_key_values().get_seq_length() if steering.past_key_values else 0
        woven = steering.weave()(torch.tensor([[65, 66]])).shape[1] if steering.weave else 0
        assert answer.prompt_tokens == shown + prefix + woven
        after = [*vars(method.effort).values()]
        assert all(a <= b for a, b in zip(before, after, strict=True))
        before = after
    assert method.extra_parameters() >= 0
    if method.effort.gradient_steps or method.effort.tokens_read or method.effort.tokens_generated:
        assert method.effort.lm_calls > 0


@pytest.mark.parametrize("row", ROWS)
def test_the_same_history_gives_the_same_state(row, make, episodes, tmp_path):
    method = make(row)
    states = [method.write(episodes[0].history) for _ in range(2)]
    assert len({s is None for s in states}) == 1
    if states[0] is not None:
        files = []
        for n, state in enumerate(states):
            state.save(tmp_path / str(n))
            files.append({p.name: p.read_bytes() for p in sorted((tmp_path / str(n)).iterdir())})
        assert files[0] == files[1]


@pytest.mark.parametrize("row", FITTED)
def test_a_method_that_learns_counts_and_moves_its_parameters(row, make, episodes, tmp_path):
    method = make(row, shaken=False)
    before = [p.clone() for p in method.learned]
    assert method.trainable_parameters() == sum(p.numel() for p in method.learned) > 0
    report = method.fit(
        episodes, Budget(steps=1, batch_size=2, accumulation=2, warmup_ratio=0), tmp_path, Progress(None)
    )
    assert report.steps == 1
    assert not all(torch.equal(a, b) for a, b in zip(before, method.learned, strict=True))


@pytest.mark.parametrize("row", [row for row in ROWS if row not in FITTED])
def test_a_method_that_learns_nothing_says_so(row, make, episodes, tmp_path):
    method = make(row)
    assert method.trainable_parameters() == 0
    with pytest.raises(HarnessError, match="learns nothing"):
        method.fit(episodes, Budget(), tmp_path, Progress(None))


@pytest.mark.parametrize("row", ROWS)
def test_every_setting_and_arm_is_told(row):
    cls, _ = resolve(row)
    assert cls.summary
    assert cls.capabilities.arms
    assert all("own" in arms for arms in cls.capabilities.arms.values())
    assert all(field.description for field in cls.Config.model_fields.values())


@pytest.mark.parametrize("row", ROWS)
def test_a_donor_under_replayed_replaces_every_read(row, make, episodes):
    method = make(row)
    if "donor" not in method.capabilities.arms.get("replayed", ()):
        with pytest.raises(HarnessError, match="no donor arm"):
            method.trace(episodes[0].history, Query("", "?"))
        return
    query = Query("", episodes[0].questions[0].text)
    own, first, second = (
        steered(method, episodes[0], "replayed", query, method.steer(method.trace(e.history, query), query))[1]
        for e in episodes[:3]
    )
    assert first != second
    # its own trace is what it reads when it streams over its prompt itself
    assert own[0] == pytest.approx(asked(method, episodes[0], "replayed")[1][0], abs=1e-4)


def test_importing_methods_imports_no_torch():
    modules = sorted({resolve(row)[0].__module__ for row in ROWS})
    code = f"import sys\nimport {', '.join(modules)}\nassert not {{'torch', 'peft', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert all(importlib.import_module(m) for m in modules)


# --- what some rows must equal ---


@pytest.mark.parametrize(("condition", "reference"), [("removed", "question_only"), ("windowed", "window")])
def test_a_zero_state_is_the_frozen_backbone(condition, reference, make, episodes):
    frozen = asked(make(reference), episodes[0], condition)
    for row in ("delta_mem_tsw", "delta_mem_ssw", "delta_mem_msw"):
        method = make(row)
        assert asked(method, episodes[0], condition) == frozen
        assert asked(method, episodes[0], condition, method.write(episodes[0].history)) != frozen


def test_an_unlearned_lora_is_the_frozen_backbone(make, episodes):
    expected = asked(make("frozen"), episodes[0], "replayed")
    assert asked(make("lora", shaken=False), episodes[0], "replayed") == expected
    assert asked(make("lora"), episodes[0], "replayed") != expected


def test_retrieving_every_message_is_the_frozen_prompt(tiny, make, episodes):
    cls, config = resolve("bm25_rag", {"top_k": 50})
    method = cls(config, tiny(), 0)
    state = method.write(episodes[0].history)
    assert method.steer(state, Query("", "?")).messages == episodes[0].history.messages
    assert asked(method, episodes[0], "own_text", state) == asked(make("frozen"), episodes[0], "replayed")


def test_asking_with_and_without_the_history_differ_by_its_tokens(make, episodes):
    frozen, floor = make("frozen"), make("question_only")
    with_history = asked(frozen, episodes[0], "replayed")[0]
    without = asked(floor, episodes[0], "removed")[0]
    ids, _ = frozen.backbone.encode(episodes[0].history.messages)
    assert with_history.prompt_tokens - without.prompt_tokens == len(ids)


def test_a_history_may_be_continued_online(make, episodes):
    e = episodes[0]
    halves = [type(e.history)(e.history.messages[:1], e.history.system), type(e.history)((Message("More."),))]
    for row in ("delta_mem_tsw", "delta_mem_ssw", "bm25_rag"):
        method = make(row)
        states = [method.write(halves[0])]
        states.append(method.write(halves[1], states[0]))
        assert all(a.describe() != b.describe() for a, b in pairwise(states))


WHOLE = ("bm25_rag", "dense_rag", "oracle", "window")
"""Rows for which a history that is written on is the history written whole."""


@pytest.mark.parametrize("row", ROWS)
def test_a_history_is_written_on_from_its_state_or_the_refusal_says_why(row, make, episodes):
    method, e = make(row), episodes[0]
    first, second = (replace(e.history, messages=m) for m in (e.history.messages[:1], e.history.messages[1:]))
    before = method.write(first)
    kept = before.describe() if before is not None else None
    refusal = None
    try:
        state = method.write(second, before)
    except UnsupportedError as error:
        refusal = str(error)
    if refusal is not None:
        assert "whole" in refusal
        return
    assert (before.describe() if before is not None else None) == kept  # a state is a value
    assert (state is None) == (before is None)
    whole = method.write(e.history)
    for condition in method.capabilities.arms:
        answer = asked(method, e, condition, state, n=1)
        if row in WHOLE or condition == "replayed" or state is None:
            assert answer == asked(method, e, condition, whole, n=1)


def test_no_row_is_held_to_more_than_there_is():
    assert {*WHOLE} <= {*ROWS}

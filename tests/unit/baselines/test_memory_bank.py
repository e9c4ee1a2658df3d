"""MemoryBank: dates, digests, what is recalled, and a curve of forgetting that the specification has as a table."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from baselines.memory_bank import Bank, _digests, retention
from harness import chunks
from harness.embedding import embedder
from harness.episodes import History, Message, Query
from harness.errors import HarnessError
from harness.registry import resolve

DATES = ("1:56 pm on 8 May, 2023", "2023-05-09", "2023/05/20 (Sat) 02:21")
TOLD = (
    (0, "Ann: I bought a red car today, and I am so happy with it!"),
    (0, "Bob: The weather was awful, I stayed in and read."),
    (0, "Ann: My sister will visit us in June."),
    (1, "Bob: My new kite is blue. I love flying it on the beach."),
    (1, "Ann: I hate the beach, there is sand in everything."),
    (2, "Bob: I have sold the kite. A man paid 40 coins for it."),
    (2, "Ann: Then you can buy a better one."),
)
HISTORY = History(tuple(Message(t, time=DATES[d], id=str(n)) for n, (d, t) in enumerate(TOLD)))
FIRST = History(HISTORY.messages[:5])
LATER = History(HISTORY.messages[5:])


@pytest.fixture(scope="module", autouse=True)
def encoder():
    pytest.importorskip("sentence_transformers")
    return embedder()


@pytest.fixture
def make(tiny):
    def build(row="memory_bank", seed=0, **settings):
        cls, config = resolve(row, settings)
        return cls(config, tiny(), seed)

    return build


def ids(steering):
    return [m.id for m in steering.messages if m.id is not None]


# --- dates ---


@pytest.mark.parametrize(
    ("told", "day"),
    [
        ("1:56 pm on 8 May, 2023", date(2023, 5, 8)),
        ("12:09 am on 13 September, 2023", date(2023, 9, 13)),
        ("2023/05/20 (Sat) 02:21", date(2023, 5, 20)),
        ("2023/05/20", date(2023, 5, 20)),
        ("2023-05-20", date(2023, 5, 20)),
        ("2023-05-20T02:21:00Z", date(2023, 5, 20)),
        (" 2023-05-20 02:21 ", date(2023, 5, 20)),
    ],
)
def test_the_dates_of_the_data_sets_are_read(told, day):
    assert _digests.parsed(told) == day


@pytest.mark.parametrize("told", ["yesterday", "", "2023-13-01", "8 May"])
def test_a_date_that_does_not_parse_is_told_in_a_sentence(told, make):
    with pytest.raises(HarnessError, match=f"cannot read the date '{told}'; write it as 2023-05-08"):
        make().write(History((Message("A kite.", time=told),)))


def test_a_turn_without_a_date_is_of_the_day_before_it():
    told = [None, "2023-05-08", None, "2023-05-09", None]
    days = _digests.days_of([Message("x", time=t) for t in told])
    assert [d - days[0] for d in days] == [0, 0, 0, 1, 1]


def test_a_history_without_dates_is_one_day_and_says_so(make):
    method = make()
    state = method.write(History(tuple(replace(m, time=None) for m in HISTORY.messages)))
    assert state.sessions == (1,)
    assert len(state.digests.events) == 1
    assert method.steer(state, Query("", "kite")).notes["dates"] == "none: one day"
    assert method.steer(method.write(HISTORY), Query("", "kite")).notes["dates"] == "3 days"
    with pytest.raises(HarnessError, match="cannot continue an undated history with a dated one"):
        method.write(HISTORY, state)


# --- what is kept ---


def test_every_day_has_a_digest_and_a_vector(make, encoder):
    state = make(summary_sentences=2).write(HISTORY)
    first, second, third = (_digests.parsed(d).toordinal() for d in DATES)
    assert [*state.digests.events] == [first, second, third] == list(state.sessions)
    assert state.days.tolist() == [first] * 3 + [second] * 2 + [third] * 2
    for day, text in state.digests.events.items():
        said = " ".join(m.content for m, d in zip(HISTORY.messages, state.days, strict=True) if d == day)
        parts = _digests.sentences([text])
        assert len(parts) == 2
        assert [said.find(p) for p in parts] == sorted(said.find(p) for p in parts)
        assert all(p in said for p in parts)
    assert len(_digests.sentences([state.digests.overview])) == 2
    assert len(_digests.sentences([state.digests.portrait])) == 2
    texts = [f"{_digests.day_name(int(d))}: {m.content}" for m, d in zip(HISTORY.messages, state.days, strict=True)]
    texts += [f"{_digests.day_name(d)}: {t}" for d, t in state.digests.events.items()]
    assert np.abs(state.vectors - encoder.encode(texts)).max() < 1e-5


def test_a_state_is_as_large_as_its_texts_and_vectors(make):
    state = make().write(HISTORY)
    d = state.digests
    texts = [t for _, t in TOLD] + [*d.events.values(), *d.traits.values(), d.overview, d.portrait]
    assert state.nbytes() == sum(len(t.encode()) for t in texts) + 4 * 384 * (7 + 3) + 12 * 7 + 4 * 3
    assert make().extra_parameters() == 22_713_216


def test_relevance_and_difference_choose_the_sentences():
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    assert _digests.diverse(vectors, np.array([3.0, 2, 1, 0]), 3) == [0, 2, 1]
    assert sorted(_digests.diverse(vectors, vectors.mean(0), 4)) == [0, 1, 2, 3]


def test_the_backbone_is_asked_twice_a_day_and_twice_for_all(make):
    method = make("memory_bank_lm", summary_tokens=6)
    state = method.write(HISTORY)
    assert method.effort.lm_calls == 2 * 3 + 2
    assert method.effort.tokens_read > sum(method.backbone.count(t) for _, t in TOLD) * 2
    assert 0 < method.effort.tokens_generated <= 8 * 6
    assert state.describe()["summarizer"] == "lm"
    alone = make("memory_bank_lm", summary_tokens=6, include_portrait=False)
    assert alone.write(HISTORY).digests.portrait == ""
    assert alone.effort.lm_calls == 3 + 1
    extractive = make()
    extractive.write(HISTORY)
    assert not any(vars(extractive.effort).values())


def test_of_a_day_beyond_the_window_the_end_is_summarised(make):
    method = make("memory_bank_lm", summary_tokens=5)
    long = History(tuple(Message(f"Word number {n}." * 10, id=str(n)) for n in range(60)))
    method.write(long)
    assert method.effort.lm_calls == 4
    prompt = _digests._prompt(method.backbone, "Say it.", "\n".join(m.content for m in long.messages), 200)
    text = method.backbone.tokenizer.decode(prompt.ids)
    assert len(prompt.ids) in (199, 200)
    assert "Say it." in text
    assert "Word number 59.<|im_end|>" in text
    with pytest.raises(HarnessError, match=r"leave no room to read .* lower summary_tokens"):
        make("memory_bank_lm", summary_tokens=3000)


# --- reading ---


def test_the_nearest_turns_stand_by_date_behind_portrait_and_summary(make):
    method = make(top_k=3)
    state = method.write(HISTORY)
    steering = method.steer(state, Query("", "What happened to Bob's kite?"))
    assert steering.messages[0].content.startswith("What is known of the speakers: ")
    assert steering.messages[1].content.startswith("Summary of all that was said: ")
    assert {"3", "5"} & set(ids(steering))
    dated = [_digests.parsed(m.time) for m in steering.messages[2:]]
    assert dated == sorted(dated)
    assert len(dated) == 3
    bare = make(include_global_summary=False, include_portrait=False)
    assert all(m.time for m in bare.steer(bare.write(HISTORY), Query("", "kite")).messages)
    assert method.steer(None, Query("", "kite")).messages == ()


def test_what_is_nearest_is_so_by_distance(make, encoder):
    method = make(top_k=4)
    state = method.write(HISTORY)
    asked = encoder.encode(["Who has a car?"])[0]
    distances = ((state.vectors - asked) ** 2).sum(1)
    assert method._nearest(state, Query("", "Who has a car?")) == np.argsort(distances)[:4].tolist()


def test_hits_are_widened_within_their_day_up_to_a_width(make):
    state = make().write(HISTORY)
    assert make(widen_characters=0)._neighbours(state, [1]) == []
    assert make(widen_characters=len(TOLD[1][1]) + len(TOLD[2][1]))._neighbours(state, [1]) == [2]
    assert make(widen_characters=1000)._neighbours(state, [1]) == [2, 0]
    assert make(widen_characters=1000)._neighbours(state, [3]) == [4]
    assert make(widen_characters=1000)._neighbours(state, [0]) == [1, 2]


@pytest.mark.parametrize("budget", [1, 60, 150, 400])
def test_a_budget_takes_hits_first(budget, make):
    method = make(budget_tokens=budget)
    steering = method.steer(method.write(HISTORY), Query("", "Who bought the red car?"))
    assert chunks.told_tokens(steering.messages, method.backbone) <= budget
    if budget == 150:
        assert "0" in ids(steering)
    if budget == 1:
        assert steering.messages == ()


# --- forgetting ---

CURVES = [
    ("paper", 1, (0.368, 0.0009, 0)),
    ("paper", 3, (0.717, 0.097, 0.00005)),
    ("official_code", 1, (0.819, 0.247, 0.0025)),
    ("official_code", 3, (0.549, 0.015, 0)),
    ("scaled", 3, (0.936, 0.627, 0.135)),
    ("off", 1, (1, 1, 1)),
]


@pytest.mark.parametrize(("curve", "strength", "kept"), CURVES)
def test_retention_after_a_day_a_week_and_a_month_is_the_tables(curve, strength, kept):
    for t, expected in zip((1, 7, 30), kept, strict=True):
        assert retention(curve, t, strength) == pytest.approx(expected, abs=max(6e-4 * (expected > 0.001), 5e-5))


@pytest.fixture
def blind(monkeypatch):
    """Vectors that cost nothing and say nothing."""
    monkeypatch.setattr("harness.embedding.Embedder.encode", lambda self, texts: np.ones((len(texts), 384), np.float32))


def many(n=400):
    dates = "2023-05-08", "2023-05-01"
    return History(tuple(Message(f"Fact {i}.", time=dates[i % 2], id=str(i)) for i in range(n)))


def test_turns_are_forgotten_at_the_rate_of_the_curve(make, blind):
    state = make(forgetting="scaled").write(many())
    ages = np.array([9 - day for day in (int(m.time[-2:]) for m in state.messages)])
    for age, expected in ((1, math.exp(-1 / 5)), (8, math.exp(-8 / 5))):
        share = (ages == age).sum() / 200
        assert share == pytest.approx(expected, abs=3.5 * math.sqrt(expected * (1 - expected) / 200))


@pytest.mark.parametrize(("curve", "alike"), [("scaled", True), ("official_code", False)])
def test_what_is_left_does_not_depend_on_how_often_it_was_written_to(curve, alike, make, blind):
    told = [Message(f"Fact {n}.", time="2023-05-01", id=str(n)) for n in range(100)]
    later = [Message(f"Day {day}.", time=f"2023-05-0{day}", id=f"day {day}") for day in range(2, 9)]
    method = make(forgetting=curve)
    whole = {m.id for m in method.write(History((*told, *later))).messages}
    state = method.write(History(tuple(told)))
    for message in later:
        state = method.write(History((message,)), state)
    assert ({m.id for m in state.messages} == whole) == alike


def test_draws_are_of_a_turn_and_a_seed(make, blind):
    left = [{m.id for m in make(seed=s, forgetting="scaled").write(many(60)).messages} for s in (0, 0, 1)]
    assert left[0] == left[1] != left[2]
    fewer = History(many(60).messages[:30])
    alone = {m.id for m in make(forgetting="scaled", now="2023-05-09").write(fewer).messages}
    assert alone == {i for i in left[0] if int(i) < 30}


def test_an_emptied_day_loses_its_summary_and_the_whole_keeps_its_own(make):
    told = (*HISTORY.messages[:5], replace(HISTORY.messages[5], time="2033-05-20"))
    state = make(forgetting="paper").write(History(told))
    assert len(state.sessions) == 3
    assert {m.id for m in state.messages} <= {"5"}
    assert set(state.digests.events) <= {state.sessions[-1]}
    assert "car" in state.digests.overview or "kite" in state.digests.overview
    assert state.vectors.shape == (len(state.messages) + len(state.digests.events), 384)
    assert set(make(forgetting="off").write(History(told)).digests.events) == set(state.sessions)


def test_time_is_counted_in_days_or_in_sessions_up_to_an_injected_now(make, blind, monkeypatch):
    def times(**settings):
        seen = []
        monkeypatch.setattr("baselines.memory_bank.retention", lambda curve, t, strength: seen.append(t) or 1.0)
        make(forgetting="paper", **settings).write(HISTORY)
        return seen

    assert times() == [13] * 3 + [12] * 2 + [1] * 2
    assert times(now="2023-06-20") == [43] * 3 + [42] * 2 + [31] * 2
    assert times(time_unit="session") == [3] * 3 + [2] * 2 + [1] * 2
    assert times(time_unit="session", now="2023-06-20") == [3] * 3 + [2] * 2 + [1] * 2


def test_now_cannot_be_before_the_last_turn(make):
    with pytest.raises(HarnessError, match="asked on 2023-05-19, before the last turn of 2023-05-20; set now"):
        make(now="2023-05-19").write(HISTORY)


# --- online ---


def test_recall_strengthens_what_the_next_write_continues_from_and_nothing_else(make, monkeypatch):
    method = make(online=True, forgetting="scaled", now="2023-05-20", time_unit="session")
    monkeypatch.setattr("baselines.memory_bank.retention", lambda curve, t, strength: 1.0)
    state = method.write(FIRST)
    query = Query("", "What colour is the car that Ann bought?")
    before = method.steer(state, query)
    assert before.notes["retrieved"] == ["summary of 2023-05-08", "0"]  # a summary never gains strength
    assert method.steer(state, query) == before
    assert state.strength.tolist() == [1] * 5
    later = method.write(LATER, state)
    assert later.strength.tolist() == [3, 1, 1, 1, 1, 1, 1]  # asked twice
    assert later.recalled.tolist()[0] == method.now(state)
    assert later.recalled.tolist()[1:] == later.days.tolist()[1:]
    assert method.write(LATER, state).strength.tolist() == later.strength.tolist()  # a state is a value
    method.steer(later, query)
    assert method.write(History(()), later).strength.tolist()[0] == 4


def test_online_without_forgetting_would_do_nothing_and_is_refused(make):
    with pytest.raises(HarnessError, match="act on forgetting alone"):
        make(online=True)


def test_an_undated_turn_goes_on_with_the_day_that_it_continues(make):
    one, two = Message("A kite.", time="2023-05-01"), (Message("A boat."), Message("A hat.", time="2023-05-09"))
    method = make()
    whole = method.write(History((one, *two)))
    assert method.write(History(two), method.write(History((one,)))).days.tolist() == whole.days.tolist()
    assert method.write(History(two[:1]), method.write(History((one,)))).days.tolist() == whole.days.tolist()[:2]
    with pytest.raises(HarnessError, match="cannot continue an undated history with a dated one"):
        method.write(History(two), method.write(History((two[0],))))


def test_an_extract_that_says_nothing_more_is_not_put_back(make):
    short = History((Message("Ann's kite is blue.", id="a"), Message("Bob's hat is red.", id="b")))
    method = make(top_k=3)
    steering = method.steer(method.write(short), Query("", "What colour is Ann's kite?"))
    assert len(steering.notes["retrieved"]) == 3
    assert steering.notes["put_back"] == ["a", "summary of the one day"]  # overview, portrait and b are in the summary


def test_without_online_recall_leaves_no_trace(make):
    method = make(top_k=1)
    state = method.write(FIRST)
    method.steer(state, Query("", "What colour is the car that Ann bought?"))
    assert method.write(LATER, state).strength.tolist() == [1] * 7
    assert method.write(History(()), state) is state
    assert method.write(History(())) is None


@pytest.mark.parametrize("row", ["memory_bank", "memory_bank_lm"])
def test_written_in_two_parts_the_bank_is_that_of_the_whole(row, make, tmp_path):
    settings = {"summary_tokens": 4} if row == "memory_bank_lm" else {}
    method = make(row, **settings)
    whole, first = method.write(HISTORY), method.write(FIRST)
    first.save(tmp_path)
    parts = method.write(LATER, Bank.load(tmp_path))
    assert parts.messages == whole.messages
    assert parts.sessions == whole.sessions
    assert parts.describe() == whole.describe()
    assert np.abs(parts.vectors[:7] - whole.vectors[:7]).max() < 1e-5
    if row == "memory_bank":  # a batch of other prompts may round otherwise
        assert parts.digests == whole.digests


@pytest.mark.parametrize(
    "settings",
    [{"top_k": 0}, {"budget_tokens": 0}, {"summary_sentences": 0}, {"forgetting": "slow"}, {"now": "soon"}],
)
def test_what_cannot_be_is_refused(settings):
    with pytest.raises(HarnessError, match=f"wrong setting '{next(iter(settings))}'"):
        resolve("memory_bank", settings)

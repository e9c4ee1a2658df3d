"""HotpotQA's two schemas."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from harness.data import hotpotqa
from harness.data.files import Raw, TaskData
from harness.data.files import read as read_file
from harness.errors import HarnessError
from harness.experiment import DataSpec

HUB = {
    "id": "x1",
    "question": "q?",
    "answer": "a",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": {"title": ["T", "U", "T"], "sent_id": [0, 1, 1]},
    "context": {"title": ["T", "E", "U"], "sentences": [["One.", " Two."], [""], ["Three."]]},
}
DOWNLOAD = {
    **{key: HUB[key] for key in ("question", "answer", "type", "level")},
    "_id": "x1",
    "supporting_facts": [["T", 0], ["U", 1], ["T", 1]],
    "context": [["T", ["One.", " Two."]], ["E", [""]], ["U", ["Three."]]],
}


def read(*rows: Any) -> TaskData:
    return hotpotqa.read(Raw(list(rows), "official", "hotpot.json", "h"))


def test_both_schemas_make_one_episode():
    assert read(HUB).episodes == read(DOWNLOAD).episodes


def test_two_paragraphs_suffice_empty_ones_are_skipped_and_sentences_keep_their_own_space():
    (episode,) = read(HUB).episodes
    assert [(m.id, m.content) for m in episode.history.messages] == [("T", "T: One. Two."), ("U", "U: Three.")]
    assert episode.questions[0].evidence == ("T", "U")
    assert (episode.root, episode.questions[0].category) == ("x1", "bridge")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"answer": None}, "'answer' is NoneType, not str or int"),
        ({"id": 5}, "'id' is int"),
        ({"context": {"title": ["T"], "sentences": []}}, "differ in length"),
        ({"context": {"title": ["T"]}}, "context: the field 'sentences' is missing"),
        ({"context": {"title": ["T"], "sentences": ["text"]}}, "'sentences' is str, not list"),
        ({"context": []}, "the context has no paragraph"),
        ({"supporting_facts": [["T"]]}, r"no list of pairs \(title, sent_id\)"),
    ],
)
def test_a_wrong_row_is_named_with_its_field(changed, said):
    with pytest.raises(HarnessError, match=said) as error:
        read(HUB, {**HUB, **changed})
    assert "hotpot.json, row 1" in str(error.value)


def test_a_row_without_any_id_is_named():
    with pytest.raises(HarnessError, match="row 0: the field '_id' is missing"):
        read({"question": "q"})


def test_the_real_sample_has_the_counted_types_and_its_two_schemas_agree(real):
    data = hotpotqa.load(DataSpec())
    assert data.source == "official"
    if not data.file.endswith("sample256.jsonl.gz"):
        pytest.skip("the folder holds another file than the sample")
    assert Counter(e.questions[0].category for e in data.episodes) == {"bridge": 217, "comparison": 39}
    assert Counter(len(e.history.messages) for e in data.episodes) == {10: 254, 2: 2}
    assert all({*e.questions[0].evidence} <= {m.id for m in e.history.messages} for e in data.episodes)
    first = read_file(real / "hotpotqa/hotpot_dev_distractor_v1.first100.json")
    assert read(*first).episodes == data.episodes[:100]


def test_the_real_sample_holds_the_traps_that_the_reader_survives(real):
    data = hotpotqa.load(DataSpec())
    if not data.file.endswith("sample256.jsonl.gz"):
        pytest.skip("the folder holds another file than the sample")
    assert "yes/no thinned out" in data.note  # which every table says
    rows = read_file(real / data.file)
    closed = [row["answer"] in ("yes", "no") for row in rows]
    assert sum(closed[:100]) > 0
    assert sum(closed[100:]) == 0
    assert {row["level"] for row in rows} == {"hard"}
    sentences = [s for row in rows for paragraph in row["context"]["sentences"] for s in paragraph[1:] if s.strip()]
    assert sum(s.startswith(" ") for s in sentences) / len(sentences) > 0.9
    for row, episode in zip(rows, data.episodes, strict=True):
        told = dict(zip(row["context"]["title"], row["context"]["sentences"], strict=True))
        for m in episode.history.messages:
            assert m.content == f"{m.id}: {''.join(told[m.id]).strip()}"


def test_the_hub_is_asked_for_a_pinned_revision():
    assert (hotpotqa.HUB.id, hotpotqa.HUB.config, hotpotqa.HUB.split) == (
        "hotpotqa/hotpot_qa",
        "distractor",
        "validation",
    )
    assert len(hotpotqa.HUB.revision) == 40

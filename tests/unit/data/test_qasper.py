"""QASPER's two schemas, the rebuilt file, and the choice of the shortest."""

from __future__ import annotations

import random
from typing import Any

import pytest

from harness.data import qasper
from harness.data.files import Raw, TaskData
from harness.data.files import read as read_file
from harness.errors import HarnessError
from harness.experiment import DataSpec


def given(**changed: Any) -> dict[str, Any]:
    blank = {"unanswerable": False, "extractive_spans": [], "yes_no": None, "free_form_answer": "", "evidence": []}
    return {**blank, **changed}


ANSWERS = [
    [given(extractive_spans=["one", "two"], evidence=["Second."]), given(free_form_answer="both")],
    [given(yes_no=False, evidence=["FLOAT SELECTED: Table 1"])],
    [given(unanswerable=True)],
]
DOWNLOAD = {
    "p1": {
        "title": "Title",
        "abstract": "Abstract",
        "full_text": [
            {"section_name": "Intro", "paragraphs": ["First.", ""]},
            {"section_name": None, "paragraphs": ["Second."]},
        ],
        "qas": [
            {
                "question": f"q{n}?",
                "question_id": f"id{n}",
                "answers": [{"answer": a, "timestamp": "t"} for a in answers],
            }
            for n, answers in enumerate(ANSWERS)
        ],
    }
}
HUB = {
    "id": "p1",
    "title": "Title",
    "abstract": "Abstract",
    "full_text": {"section_name": ["Intro", None], "paragraphs": [["First.", ""], ["Second."]]},
    "qas": {
        "question": ["q0?", "q1?", "q2?"],
        "question_id": ["id0", "id1", "id2"],
        "answers": [{"answer": answers, "annotation_id": ["x"] * len(answers)} for answers in ANSWERS],
    },
    "figures_and_tables": {"caption": [], "file": []},
}


def read(rows: Any, count: int | None = None) -> TaskData:
    return qasper.read(Raw(rows, "official", "qasper.json", "h"), count)


def test_both_schemas_make_the_same_episodes_with_optional_keys_absent():
    assert read(DOWNLOAD).episodes == read([HUB]).episodes


def test_an_episode_is_a_question_and_its_root_the_paper():
    episodes = {e.id: e for e in read(DOWNLOAD).episodes}
    assert {e.root for e in episodes.values()} == {"p1"}
    assert [m.content for m in episodes["id0"].history.messages] == ["Title\nAbstract", "Intro\nFirst.", "Second."]
    answers = {name: e.questions[0].answers for name, e in episodes.items()}
    assert answers == {"id0": ("one, two", "both"), "id1": ("no",), "id2": ("unanswerable",)}
    assert {name: e.questions[0].evidence for name, e in episodes.items()} == {"id0": ("p2",), "id1": (), "id2": ()}
    assert [episodes[f"id{n}"].questions[0].category for n in range(3)] == ["open", "closed", "closed"]


REBUILT = [
    {
        "paper_index": 7,
        "title": "Title",
        "qas": [
            {"question": "long?", "answer": [["one", "two"], True, "free"], "evidence": ["A long paragraph.", "More."]},
            {"question": "short?", "answer": [False], "evidence": ["Short."]},
        ],
    }
]


def test_the_rebuilt_file_has_its_evidence_as_history_and_the_shortest_go_first():
    episodes = read(REBUILT).episodes
    assert [e.id for e in episodes] == ["paper7-q1", "paper7-q0"]
    assert [e.questions[0].answers for e in episodes] == [("no",), ("one, two", "yes", "free")]
    assert [m.content for m in episodes[1].history.messages] == ["A long paragraph.", "More."]
    assert read(REBUILT, 1).episodes == episodes[:1]


def test_fewer_than_asked_for_is_said():
    assert read(REBUILT, 2).note == ""
    assert read(REBUILT, 2219).note == "2 of the 2,219 episodes asked for, all there are"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{**HUB, "full_text": {"section_name": ["a"], "paragraphs": []}}],
            "row 0 .p1., full_text: the columns differ",
        ),
        ([{**HUB, "full_text": [], "title": "", "abstract": ""}], "the paper has no text"),
        ([{**HUB, "abstract": None}], "'abstract' is NoneType, not str"),
        ([{**HUB, "full_text": {"section_name": ["a"], "paragraphs": [[None]]}}], "'paragraphs' holds NoneType at 0"),
        (
            [{**HUB, "qas": [{"question": "q", "question_id": "i", "answers": []}]}],
            "qa 0 .i.: .* no answer",
        ),
        ({"p1": "text"}, "p1 is no object"),
        ([{"paper_index": 1, "qas": [{"question": "q", "answer": ["a"], "evidence": [" "]}]}], "qa 0: .* no evidence"),
        ([{"paper_index": 1, "qas": [{"question": "q", "answer": [], "evidence": ["e"]}]}], "qa 0: .* no answer"),
        (
            [{**HUB, "qas": [{"question": "q", "question_id": "i", "answers": [{"answer": given()}]}]}],
            "qa 0 .i.: .* no answer",
        ),
        ({}, "is no object of rows, or an empty one"),
    ],
)
def test_a_wrong_row_is_named_with_its_field(rows, said):
    with pytest.raises(HarnessError, match=said) as error:
        read(rows)
    assert "qasper.json" in str(error.value)


def test_the_shortest_2219_are_chosen_of_a_file_of_the_official_size():
    """888 papers with 2,593 questions between them, in an order of its own."""
    rng = random.Random(0)
    lengths = rng.sample(range(10, 100_000), 888)
    rows = [
        {
            **HUB,
            "id": f"p{n}",
            "full_text": {"section_name": ["S"], "paragraphs": [["x" * length]]},
            "qas": {
                "question": ["q" * k for k in range(1, count + 1)],
                "question_id": [f"p{n}-{k}" for k in range(count)],
                "answers": [{"answer": [given(free_form_answer="a")]}] * count,
            },
        }
        for n, (length, count) in enumerate(zip(lengths, [3] * 817 + [2] * 71, strict=True))
    ]
    everything, chosen = read(rows), read(rows, 2219)
    assert (len(everything.episodes), len(chosen.episodes), chosen.note) == (2593, 2219, "")
    assert chosen.episodes == everything.episodes[:2219]

    def size(e):
        return lengths[int(e.root[1:])] + len(e.questions[0].text)

    assert [size(e) for e in everything.episodes] == sorted(size(e) for e in everything.episodes)
    assert max(map(size, chosen.episodes)) <= min(map(size, everything.episodes[2219:]))
    assert len({e.root for e in chosen.episodes}) < 888  # the longest papers go whole: a sample is a question
    assert read(rows[::-1], 2219).episodes == chosen.episodes  # whatever the order of the file


def test_an_annotator_who_left_all_fields_empty_gave_no_answer():
    qas = [{"question": "q", "question_id": "i", "answers": [{"answer": given()}, {"answer": given(yes_no=True)}]}]
    assert read([{**HUB, "qas": qas}]).episodes[0].questions[0].answers == ("yes",)


def test_the_hub_is_asked_for_the_branch_that_is_no_loading_script():
    assert (qasper.HUB.id, qasper.HUB.config, qasper.HUB.split) == ("allenai/qasper", "qasper", "train")
    assert qasper.HUB.revision == "refs/convert/parquet"


def test_the_real_rebuilt_file_has_the_published_counts(real):
    name = "qasper/derived/train_answerable_evidence.json.gz"
    data = qasper.read(Raw(read_file(real / name), "rebuilt", name, ""))
    assert (len(data.episodes), len({e.root for e in data.episodes})) == (2058, 813)
    assert {e.source for e in data.episodes} == {"rebuilt"}
    shortest = qasper.load(DataSpec(), 50)
    assert len(shortest.episodes) == 50


def test_the_real_papers_agree_between_the_schemas(real):
    hub = read(read_file(real / "qasper/qasper_hf_train.first10.jsonl"))
    assert (len(hub.episodes), len({e.root for e in hub.episodes})) == (51, 10)
    assert hub.episodes == read(read_file(real / "qasper/qasper-train-v0.3.first10.json")).episodes
    rows = read_file(real / "qasper/qasper_hf_train.first10.jsonl")
    assert sum(len(a["answer"]) for row in rows for a in row["qas"]["answers"]) == 68
    small = read_file(real / "qasper/qasper_sample_small.json")  # time stamps, and no figures_and_tables
    assert "figures_and_tables" not in next(iter(small.values()))
    assert len(read(small).episodes) == 4

"""MemoryAgentBench's rows: what is recognised, held, cut, counted and refused."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from harness.data import memory_agent_bench as bench
from harness.data.files import Raw
from harness.data.memory_agent_bench import Sizes
from harness.data.memory_agent_bench.inventory import CATEGORIES, SOURCES, chosen, source_of
from harness.data.memory_agent_bench.units import chunks, head_and_tail, parts
from harness.errors import HarnessError
from harness.experiment import DataSpec

UNUSED = "demo haystack_sessions keypoints previous_events qa_pair_ids question_dates question_ids question_types"


def row(source: str = "factconsolidation_sh_6k", **changes: Any) -> dict[str, Any]:
    """A small invented row; unused metadata is null, as it is officially."""
    return {
        "context": "Here is a list of facts:\n0. A lies in B.\n1. A lies in C.\n",
        "questions": ["Where does A lie?"],
        "answers": [["C", "the C"]],
        "metadata": {**dict.fromkeys(UNUSED.split()), "source": source},
        **changes,
    }


def read(*rows: Any, **sizes: Any):
    return bench.read_rows([Raw(list(rows), "official", "split.parquet", "h")], Sizes(**sizes))


def text_of(episode) -> str:
    return "".join(m.content for m in episode.history.messages)


# --- the inventory ---


def test_the_inventory_is_the_published_one():
    splits = {split: [s for s in SOURCES.values() if s.split == split] for split in CATEGORIES}
    assert {split: sum(s.rows for s in found) for split, found in splits.items()} == {
        "Accurate_Retrieval": 22,
        "Test_Time_Learning": 6,
        "Long_Range_Understanding": 110,
        "Conflict_Resolution": 8,
    }
    totals = {CATEGORIES[split]: sum(s.questions for s in found) for split, found in splits.items()}
    assert totals == {"AR": 2000, "TTL": 700, "LRU": 171, "SF": 800}
    headline = Counter(s.category.split("/")[0] for s in chosen((), ablations=False) for _ in range(s.questions))
    assert headline == {"AR": 1000, "TTL": 700, "LRU": 171, "SF": 200}
    assert sum(s.questions for s in chosen(())) == 3671
    caps = {s.short.split("_")[0]: s.max_new_tokens for s in SOURCES.values()}
    assert (caps["ruler"], caps["eventqa"], caps["longmemeval"], caps["redial"]) == (50, 40, 50, 300)
    assert (caps["banking77"], caps["infbench"], caps["detective"], caps["factconsolidation"]) == (20, 1200, 2000, 10)


def test_sub_data_sets_are_chosen_by_category_or_by_either_name():
    assert [s.short for s in chosen(["LRU"])] == ["infbench_sum", "detective_qa"]
    assert [s.short for s in chosen(["SF"], ablations=False)] == [f"factconsolidation_{h}_262k" for h in ("mh", "sh")]
    assert chosen(["factconsolidation_sh_6k"], ablations=False) == chosen(["factconsolidation_sh_6k"])
    assert source_of("AR/longmemeval_s") == source_of("longmemeval_s*")
    with pytest.raises(HarnessError, match="no sub-data set 'ruler_qa3'; did you mean 'ruler_qa"):
        chosen(["ruler_qa3"])


# --- rows ---


def test_a_row_is_one_episode_with_category_cap_and_every_gold():
    (episode,) = read(row()).episodes
    (question,) = episode.questions
    assert (question.category, question.max_new_tokens) == ("SF/factconsolidation_sh_6k", 10)
    assert (question.text, question.answers) == ("Where does A lie?", ("C", "the C"))
    assert [m.content for m in episode.history.messages][1] == "1. A lies in C.\n"
    assert text_of(episode) == row()["context"]


def test_a_context_is_held_once_however_many_questions_it_has():
    context = "".join(f"{n}. Thing {n} lies in place {n}.\n" for n in range(100_000))
    found = {}
    for count in (1, 100):
        one = row(context=context, questions=[f"Where is {n}?" for n in range(count)], answers=[["x"]] * count)
        tracemalloc.start()
        (episode,) = read(one, unit="chunk").episodes
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(episode.questions) == count
        assert len(context) < held < 1.1 * len(context)
        found[count] = peak
    assert found[100] < 1.1 * found[1]  # while it is read, too


def test_rows_of_one_sub_data_set_share_their_pair_ids_but_not_ours():
    ids = {"qa_pair_ids": ["longmemeval_s*_no0"]}
    rows = [row("longmemeval_s*", metadata={**row("longmemeval_s*")["metadata"], **ids}) for _ in range(2)]
    questions = [q.id for e in read(*rows).episodes for q in e.questions]
    assert questions == ["longmemeval_s-0-q0", "longmemeval_s-1-q0"]


def test_one_source_document_is_one_root():
    book = ["So far:\n\n1. Ann woke.\n\nNext?"]
    other = ["So far:\n\n1. Bob slept.\n\nNext?"]
    rows = [
        row("eventqa_full", questions=book),
        row("eventqa_full", questions=other),
        row("eventqa_65536", questions=other),
        row("factconsolidation_sh_6k"),
        row("factconsolidation_mh_6k"),
        row("factconsolidation_mh_32k"),
    ]
    first, second, shorter, single, chained, larger = (e.root for e in read(*rows).episodes)
    assert first != second == shorter
    assert single == chained == "factconsolidation_6k" != larger


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"context": None}, "'context' is NoneType, not str"),
        ({"context": " \n"}, "'context' is empty"),
        ({"questions": None}, "'questions' is NoneType"),
        ({"questions": [], "answers": []}, "0 questions have 0 lists"),
        ({"answers": []}, "1 questions have 0 lists of answers"),
        ({"answers": ["C"]}, "question 0: the field 'answers' is str, not list"),
        ({"answers": [[]]}, "question 0: 'answers' has no gold answer"),
        ({"answers": [[3]]}, "question 0: 'answers' holds int at 0"),
        ({"metadata": None}, "'metadata' is NoneType"),
        ({"metadata": {"source": None}}, "metadata: the field 'source' is NoneType"),
        ({"metadata": {}}, "metadata: the field 'source' is missing"),
        ({"metadata": {"source": "ruler_niah_mq"}}, "'ruler_niah_mq', which is no sub-data set.*older dump has others"),
    ],
)
def test_a_wrong_row_is_named_with_its_field(changed, said):
    with pytest.raises(HarnessError, match=said) as error:
        read(row(), row(**changed))
    assert "split.parquet, row 1" in str(error.value)


def test_what_is_not_as_published_is_told():
    note = read(row(), sources=["SF"]).note
    assert "factconsolidation_sh_6k has 1 questions, not the published 100" in note
    assert "not there: factconsolidation_mh_6k, factconsolidation_mh_32k" in note
    assert note.endswith("questions: SF 1 of 800") or "SF 1 of 800" in note
    assert read(row(questions=["?"] * 100, answers=[["x"]] * 100), sources=["factconsolidation_sh_6k"]).note == ""


def test_a_whole_with_a_rebuilt_part_is_rebuilt_and_says_which():
    official = Raw([row()], "official", "one.parquet", "h")
    rebuilt = Raw([row("factconsolidation_mh_6k")], "rebuilt", "two.parquet", "g")
    data = bench.read_rows([official, rebuilt], Sizes(sources=("SF",)))
    assert [e.source for e in data.episodes] == ["official", "rebuilt"]
    assert (data.source, data.file) == ("rebuilt", "one.parquet and two.parquet")
    assert "rebuilt: factconsolidation_mh_6k;" in data.note
    assert bench.read_rows([official], Sizes()).source == "official"
    only = bench.read_rows([official, rebuilt], Sizes(sources=("factconsolidation_sh_6k",)))
    assert only.source == "official"  # the part that is asked


def test_nothing_that_is_chosen_is_an_error():
    with pytest.raises(HarnessError, match=r"split\.parquet has no row of LRU"):
        read(row(), sources=["LRU"])


def test_few_questions_come_from_many_rows_in_the_order_of_the_data():
    rows = [row("longmemeval_s*", questions=[f"{n}{k}?" for k in range(6)], answers=[["x"]] * 6) for n in range(3)] + [
        row()
    ]
    data = read(*rows, questions=4)
    counts = [len(e.questions) for e in data.episodes]
    assert sorted(counts[:3]) == [1, 1, 2]
    assert counts[3] == 1
    assert "at most 4 questions of each sub-data set" in data.note
    assert read(*rows, questions=4).episodes == data.episodes
    assert all([q.id for q in e.questions] == sorted(q.id for q in e.questions) for e in data.episodes)


# --- messages ---

TEXTS = {
    "document": ("Document 1:\nOne.\n\nTwo.\n\nDocument 2:\nThree.", ["Document 1:\nOne.\n\nTwo.\n\n", None]),
    "session": ("Session Date: x\nuser: hi\n\nSession Date: y\nuser: bye\n", ["Session Date: x\nuser: hi\n\n", None]),
    "exemplar": ("is it?\n\nreally\nlabel: 3\n\nno\nlabel: 4", ["is it?\n\nreally\nlabel: 3\n\n", None]),
    "fact": ("Facts:\n0. A.\n1. B.\n", ["Facts:\n0. A.\n", None]),
    "dialogue": ("Dialogue 1:\nUser: a\n\nDialogue 2:\nUser: b", ["Dialogue 1:\nUser: a\n\n", None]),
}


@pytest.mark.parametrize("unit", TEXTS)
def test_a_context_falls_into_its_own_parts_and_stays_what_it_was(unit):
    context, (first, _) = TEXTS[unit]
    found = parts(context, unit, 4096)
    assert (found[0], len(found)) == (first, 2)
    assert "".join(found) == context


def test_a_text_without_parts_falls_into_chunks_of_whole_sentences():
    context = "One two three. Four five six! Seven eight nine?\nTen eleven twelve.\n\n  " * 20
    for found in (chunks(context, 10), parts(context, "text", 10), parts(context, "document", 10)):
        assert "".join(found) == context
        assert len(found) > 10
        assert all(len(piece) <= 40 for piece in found[:-1])
        assert found[0].rstrip()[-1] in ".!?"
    long = "word " * 100
    assert "".join(chunks(long, 4)) == long
    assert max(map(len, chunks(long, 4))) <= 16
    assert "".join(chunks("x" * 100, 4)) == "x" * 100


def test_a_context_may_be_one_message_and_may_lose_its_middle():
    one = row(context="0. A.\n" * 100)
    assert len(read(one, unit="whole").episodes[0].history.messages) == 1
    (episode,) = read(one, unit="whole", max_characters=100).episodes
    kept = text_of(episode)
    assert "[... context truncated ...]" in kept
    assert len(kept) <= 100
    cut = head_and_tail("abc" * 100, 90, "|")
    assert (cut.index("|"), len(cut)) == (29, 90)  # a third before the marker, two behind it
    assert head_and_tail("short", 90, "|") == "short"


# --- files ---


def parquet(path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTA_MEM_DATA", str(tmp_path))
    return tmp_path


def test_some_of_the_splits_suffice(data_folder):
    with pytest.raises(HarnessError, match=r"holds no memory_agent_bench/data/Accurate_Retrieval-00000"):
        bench.load(DataSpec(), Sizes())
    parquet(data_folder / bench.FILES[3].name, [row()])
    data = bench.load(DataSpec(), Sizes())
    assert (data.source, data.file) == ("official", bench.FILES[3].name)
    assert "AR 0 of 2,000, TTL 0 of 700, LRU 0 of 171, SF 1 of 800" in data.note
    parquet(data_folder / bench.FILES[0].name, [row("ruler_qa1_197K", context="Document 1:\nx\n\nDocument 2:\ny")])
    both = bench.load(DataSpec(), Sizes())
    assert [e.id for e in both.episodes] == ["ruler_qa1-0", "factconsolidation_sh_6k-0"]
    assert both.hash != data.hash


def test_a_file_that_is_known_to_be_rebuilt_is_graded_so(data_folder, monkeypatch):
    parquet(data_folder / bench.FILES[3].name, [row()])
    known = bench.load(DataSpec(), Sizes()).hash
    monkeypatch.setattr(bench, "REBUILT", (known,))
    assert bench.load(DataSpec(), Sizes()).source == "rebuilt"


def test_all_splits_come_from_the_hub_and_an_unpinned_revision_is_told(monkeypatch):
    import datasets

    asked = []

    def load_dataset(*args, split, revision):
        asked.append((*args, split, revision))
        names = {"Conflict_Resolution": "factconsolidation_sh_6k", "Accurate_Retrieval": "ruler_qa1_197K"}
        return datasets.Dataset.from_list([row(names.get(split, "detective_qa"))])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = bench.load(DataSpec(source="official"), Sizes())
    assert [split for _, _, split, _ in asked] == list(CATEGORIES)
    assert data.source == "official"
    assert "not pinned" in data.note


def test_movies_need_the_file_that_names_them(data_folder):
    movies = row("recsys_redial_full", answers=[["7"]])
    with pytest.raises(HarnessError, match=r"redial/entity2id\.json.*without redial"):
        read(movies)
    (data_folder / "redial").mkdir()
    (data_folder / bench.ENTITIES[0]).write_text('{"<http://x/Two_Suns_(1999_film)>": 7}')
    assert read(movies).episodes[0].questions[0].answers == ("Two Suns",)
    with pytest.raises(HarnessError, match="question 0: the gold answer '8' is no movie's number"):
        read(row("recsys_redial_full", answers=[["8"]]))


# --- the real files ---


def test_the_real_files_have_the_counted_rows(real):
    data = bench.load(DataSpec(), Sizes())
    found = {(e.id, e.source, len(e.history.messages), len(text_of(e)), len(e.questions)) for e in data.episodes}
    if not any(e.source == "rebuilt" for e in data.episodes):
        pytest.skip("the folder holds other files than the samples")
    assert found == {
        ("banking77-0", "rebuilt", 5900, 404_639, 100),
        ("clinic150-0", "rebuilt", 7050, 369_042, 100),
        ("trec_coarse-0", "rebuilt", 6600, 392_974, 100),
        ("trec_fine-0", "rebuilt", 6400, 395_452, 100),
        ("factconsolidation_mh_6k-0", "official", 455, 26_157, 100),
        ("factconsolidation_sh_6k-0", "official", 455, 26_157, 100),
    }
    assert data.source == "rebuilt"
    assert "rebuilt: banking77, clinic150, trec_coarse, trec_fine" in data.note
    facts = bench.load(DataSpec(), Sizes(sources=("SF",)))
    assert facts.source == "official"


def test_in_the_real_facts_the_newest_is_the_gold_one(real):
    (episode,) = bench.load(DataSpec(), Sizes(sources=("factconsolidation_sh_6k",))).episodes
    context = text_of(episode)
    assert all(any(gold in context for gold in q.answers) for q in episode.questions)

"""Rows put together from the parts that MemoryAgentBench was made of, by its published recipe, at any size.

Questions and gold answers are the official ones where a file has them; contexts are not the official ones, so that the
rows are for tests and small runs, and count as ``rebuilt``. The parts are files of the data folder (``docs/data.md``).
"""

from __future__ import annotations

import csv
import io
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.data.files import Raw, field, read
from harness.data.memory_agent_bench import rebuilt_texts as texts
from harness.data.memory_agent_bench.inventory import LABELLED, SOURCES, Source
from harness.episodes import digest
from harness.errors import HarnessError

NAME = "memory_agent_bench, rebuilt"
QUESTIONS = "memory_agent_bench/questions_answers.no_context.jsonl.gz"
LABELS = "memory_agent_bench/icl_label_maps.json"

FILES: dict[str, tuple[str, ...]] = {
    "ruler_qa1": ("squad_v2/dev-v2.0.json", "squad_v2/dev-v2.0.16articles.json.gz"),
    "ruler_qa2": ("hotpotqa/hotpot_dev_distractor_v1.json", "hotpotqa/hotpot_dev_distractor_v1.first100.json"),
    "longmemeval_s": (
        "longmemeval/longmemeval_oracle.json",
        "longmemeval/longmemeval_oracle.evidence_turns_only.json.gz",
    ),
    "redial": ("redial/test.jsonl.gz", "redial/test.jsonl"),
    "facts": ("mquake/MQuAKE-CF-3k-v2.json", "mquake/MQuAKE-CF-3k.json", "mquake/MQuAKE-hard.json.gz"),
    "banking77": ("banking77/train.csv",),
    "clinic150": ("clinc150/data_oos_plus.json.gz", "clinc150/data_oos_plus.json"),
    "nlu": ("nlu/NLU-Data-Home-Domain-Annotated.cv11036.csv.gz",),
    **dict.fromkeys(("trec_coarse", "trec_fine"), ("trec/train_5500.label",)),
}
"""The part of each sub-data set that is not MemoryAgentBench's: the first of these files that is there is read."""


class Parts(BaseModel):
    """Which sub-data sets are put together again, and how large."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rebuild: tuple[str, ...] = Field(
        (), description="Categories or sub-data sets made from their parts instead of read."
    )
    shots: int = Field(200, ge=1, description="Rebuilt classification: exemplars; the benchmark has 5,900 to 8,296.")
    documents: int = Field(40, ge=1, description="Rebuilt document questions: documents; those that answer come first.")
    pool: int = Field(40, ge=1, description="Rebuilt LongMemEval and ReDial: sessions or dialogues of a context.")
    told: int = Field(200, ge=2, description="Rebuilt FactConsolidation: facts, about; questions follow from them.")


Row = dict[str, Any]


def rows(sources: Sequence[Source], parts: Parts, root: Path, seed: int) -> Raw:
    """A row, or five of LongMemEval, for each source.

    Raises:
        HarnessError: a source cannot be rebuilt, or one of its parts is missing or wrong.
    """
    makers = _makers()
    if lost := [s.short for s in sources if s.short not in makers]:
        raise HarnessError(
            f"no parts of {', '.join(lost)} are known, so that they cannot be rebuilt; leave them out of `rebuild` "
            f"(there are: {', '.join(makers)})"
        )
    made = [row for source in sources for row in _made(makers[source.short], source, parts, root, seed)]
    return Raw(made, "rebuilt", NAME, digest(made), "")


Maker = Callable[[Source, Parts, Path, int], Iterable[Row]]


def _made(maker: Maker, source: Source, parts: Parts, root: Path, seed: int) -> list[Row]:
    """The rows of a source; files that are read, but are not of their schema, are named."""
    try:
        return list(maker(source, parts, root, seed))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, csv.Error) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise HarnessError(
            f"{source.short} cannot be rebuilt from {' and '.join(_files(source, root))}, of which one is not of its "
            f"schema ({reason}); fetch the files again or compare docs/data.md"
        ) from error


def _files(source: Source, root: Path) -> list[str]:
    """Names of the files that a source is made of, as far as they are there."""
    named = FILES["facts" if source.unit == "fact" else source.short]
    found = [name for name in named if (root / name).is_file()][:1]
    if source.short in LABELLED:
        found += [QUESTIONS, LABELS]
    elif source.short in ("longmemeval_s", "redial"):
        found += [QUESTIONS]
    return found


def _makers() -> dict[str, Maker]:
    facts = [source.short for source in SOURCES.values() if source.unit == "fact"]
    return {
        "ruler_qa1": _squad,
        "ruler_qa2": _hotpotqa,
        "longmemeval_s": _longmemeval,
        "redial": _redial,
        **dict.fromkeys(LABELLED, _labelled),
        **dict.fromkeys(facts, _facts),
    }


def row_of(source: Source, context: str, asked: Sequence[tuple[str, list[str]]], **metadata: Any) -> Row:
    """A row of the official schema; fields of ``metadata`` that are not given are null."""
    unused = ("demo", "haystack_sessions", "keypoints", "previous_events", "question_dates", "question_ids")
    return {
        "context": context,
        "questions": [question for question, _ in asked],
        "answers": [answers for _, answers in asked],
        "metadata": {**dict.fromkeys((*unused, "question_types", "qa_pair_ids")), **metadata, "source": source.name},
    }


def part(root: Path, *names: str) -> tuple[Any, str]:
    """The content of the first of these files that is there, and its name.

    Raises:
        HarnessError: none is.
    """
    for name in names:
        if (root / name).is_file():
            return read(root / name), name
    raise HarnessError(f"{root} holds no {names[0]}, which `rebuild` needs; put it there or leave its rows out")


def official(root: Path, source: Source) -> list[Row]:
    """The official rows of a source without their contexts, in order."""
    every, name = part(root, QUESTIONS)
    found = [
        row
        for n, row in enumerate(every)
        if field(row, "metadata", dict, f"{name}, row {n}").get("source") == source.name
    ]
    if not found:
        raise HarnessError(f"{name} has no row of {source.name}, which `rebuild` needs; leave {source.short} out")
    return sorted(found, key=lambda row: row["row_index"])


# --- classification ---


def _labelled(source: Source, parts: Parts, root: Path, seed: int) -> Iterator[Row]:
    """As HELMET builds it: rounds of one exemplar a label, and labels as numbers, seeded by the first question."""
    row = official(root, source)[0]
    labels, name = part(root, LABELS)
    numbers = field(labels, source.short, dict, name)
    asked = set(row["questions"])
    train = [(text, label) for text, label in _TRAIN[source.short](root) if source.short != "nlu" or text not in asked]
    if lost := {label for _, label in train} - numbers.keys():
        raise HarnessError(f"{name}: the label '{min(lost)}' of {source.short} has no number; fetch the file again")
    shown = balanced(train, parts.shots, label_seed(row["questions"][0]))
    context = "\n\n".join(f"{text}\nlabel: {numbers[label]}" for text, label in shown)
    yield row_of(source, context, list(zip(row["questions"], row["answers"], strict=True)))


def label_seed(question: str) -> int:
    """The seed that a row's first question gives: 42 and its sha256, modulo 2 to the 31st."""
    return (int(sha256(question.encode()).hexdigest(), 16) + 42) % 2**31


def label_numbers(labels: Sequence[str], seed: int) -> dict[str, int]:
    """The number that stands for each label, of labels in the order of their data set."""
    numbers = list(range(len(labels)))
    random.Random(seed).shuffle(numbers)
    return dict(zip(labels, numbers, strict=True))


def balanced(train: Sequence[tuple[str, str]], shots: int, seed: int) -> list[tuple[str, str]]:
    """``shots`` exemplars in rounds that have each label once, in random order.

    A label with fewer exemplars than there are rounds gives each of its own once before any of them again.
    """
    rng = random.Random(seed)
    groups: dict[str, list[tuple[str, str]]] = {}
    for text, label in train:
        groups.setdefault(label, []).append((text, label))
    count = math.ceil(shots / len(groups))
    rounds: list[list[tuple[str, str]]] = [[] for _ in range(count)]
    for group in groups.values():
        places = rng.sample(range(len(group)), count % len(group))
        while len(places) < count:
            places += rng.sample(range(len(group)), min(count - len(places), len(group)))
        for turn, place in zip(rounds, places, strict=True):
            turn.append(group[place])
    for turn in rounds:
        rng.shuffle(turn)
    return [exemplar for turn in rounds for exemplar in turn][:shots]


def _banking77(root: Path) -> list[tuple[str, str]]:
    lines = csv.DictReader(io.StringIO(texts.plain(root, FILES["banking77"][0])))
    return [(line["text"], line["category"]) for line in lines]


def _clinc150(root: Path) -> list[tuple[str, str]]:
    data, name = part(root, *FILES["clinic150"])
    pairs = [*field(data, "train", list, name), *field(data, "oos_train", list, name)]
    return [(text, label) for text, label in pairs]


def _trec(root: Path, fine: bool) -> list[tuple[str, str]]:
    # One byte of the file is no UTF-8; the data set has a space there.
    lines = texts.plain(root, FILES["trec_fine"][0], "latin-1").replace("\xf0", " ").splitlines()
    found = []
    for line in lines:
        label, _, text = line.partition(" ")
        found.append((text.strip(), label if fine else label.partition(":")[0]))
    return found


def _nlu(root: Path) -> list[tuple[str, str]]:
    lines = csv.DictReader(io.StringIO(texts.plain(root, FILES["nlu"][0])), delimiter=";")
    return [(texts.unmarked(line["answer_annotation"]), f"{line['scenario']}_{line['intent']}") for line in lines]


_TRAIN: dict[str, Callable[[Path], list[tuple[str, str]]]] = {
    "banking77": _banking77,
    "clinic150": _clinc150,
    "nlu": _nlu,
    "trec_coarse": lambda root: _trec(root, fine=False),
    "trec_fine": lambda root: _trec(root, fine=True),
}


# --- documents ---


def _squad(source: Source, parts: Parts, root: Path, seed: int) -> Iterator[Row]:
    """RULER's qa_1: the first hundred answerable questions of SQuAD 2.0 dev, and its paragraphs as documents."""
    data, name = part(root, *FILES["ruler_qa1"])
    paragraphs = [p for article in field(data, "data", list, name) for p in article["paragraphs"]]
    asked = [
        (qa["question"].strip(), list(dict.fromkeys(a["text"] for a in qa["answers"])), [p["context"]])
        for p in paragraphs
        for qa in p["qas"]
        if not qa["is_impossible"]
    ]
    yield _document_row(source, asked[: source.questions], [p["context"] for p in paragraphs], parts.documents, seed)


def _hotpotqa(source: Source, parts: Parts, root: Path, seed: int) -> Iterator[Row]:
    """RULER's qa_2: the first hundred questions of HotpotQA dev, and all paragraphs as documents."""
    data, name = part(root, *FILES["ruler_qa2"])
    every: list[str] = []
    asked: list[tuple[str, list[str], list[str]]] = []
    for n, row in enumerate(data):
        where = f"{name}, row {n}"
        told = {title: f"{title}\n{''.join(sentences)}" for title, sentences in field(row, "context", list, where)}
        every += told.values()
        gold = [told[title] for title in dict.fromkeys(t for t, _ in row["supporting_facts"])]
        asked.append((field(row, "question", str, where), [str(row["answer"])], gold))
    yield _document_row(source, asked[: source.questions], every, parts.documents, seed)


def _document_row(
    source: Source, asked: Sequence[tuple[str, list[str], list[str]]], every: Sequence[str], count: int, seed: int
) -> Row:
    """Documents that answer the first questions, as many as may be, filled up with others; in random order.

    Args:
        asked: Question, answers and the documents that are needed.
    """
    rng = random.Random(f"rebuilt/{source.short}/{seed}")
    kept: dict[str, None] = {}
    questions = []
    for question, answers, gold in asked:
        if len(kept.keys() | set(gold)) <= count:
            kept.update(dict.fromkeys(gold))
            questions.append((question, answers))
    if not questions:
        raise HarnessError(f"{count} documents answer no question of {source.short}; give `documents` a larger number")
    others = [document for document in dict.fromkeys(every) if document not in kept]
    documents = [*kept, *rng.sample(others, min(count - len(kept), len(others)))]
    rng.shuffle(documents)
    return row_of(source, "\n\n".join(f"Document {n}:\n{d}" for n, d in enumerate(documents, 1)), questions)


# --- conversations and facts ---


def _longmemeval(source: Source, parts: Parts, root: Path, seed: int) -> Iterator[Row]:
    data, name = part(root, *FILES["longmemeval_s"])
    known = {field(record, "question_id", str, f"{name}, row {n}"): record for n, record in enumerate(data)}
    for number, row in enumerate(official(root, source)):
        rng = random.Random(f"rebuilt/{source.short}/{number}/{seed}")
        yield texts.sessions(row, known, parts.pool, rng, lambda *args, **more: row_of(source, *args, **more))


def _redial(source: Source, parts: Parts, root: Path, seed: int) -> Iterator[Row]:
    turns, name = part(root, *FILES["redial"])
    row = official(root, source)[0]
    rng = random.Random(f"rebuilt/{source.short}/{seed}")
    context, asked = texts.dialogues(row["questions"], turns, name, parts.pool, rng)
    yield row_of(source, context, asked)


def _facts(source: Source, parts: Parts, root: Path, seed: int) -> Iterator[Row]:
    """Edits of MQuAKE; single- and multi-hop rows of one size have one context."""
    data, name = part(root, *FILES["facts"])
    size = source.short.rpartition("_")[2]
    context, single, chained = texts.facts(data, name, parts.told, random.Random(f"rebuilt/facts/{size}/{seed}"))
    asked = chained if "_mh_" in source.short else single
    yield row_of(source, context, asked[: source.questions])

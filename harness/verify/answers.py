"""Records against their own configuration, and against the answers beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness import efficiency_records, seals, statistics
from harness.efficiency_records import Side
from harness.episodes import digest
from harness.errors import HarnessError
from harness.records import Provenance, Record
from harness.verify.run import Check, Run, cell_of

if TYPE_CHECKING:
    import pandas as pd

CLOSE = 1e-9
"""Of a mean that is computed again: sums may be taken in another order."""


def records(run: Run) -> Check:
    """Each record is whole, lies where it says, is of the schema, and is what its configuration asks for.

    A job's mark is as it was written.
    """
    check = Check("records", wrong=list(run.torn))
    for path, record in run.records.items():
        found = list(_of_configuration(record.provenance, record.backbone, record.row))
        where = run.results / cell_of(record).path
        if path.parent != where:
            found.append(f"it says that it is cell {cell_of(record).id}, which lies in {where}")
        if record.seed != record.provenance.seed:
            found.append(f"its seed is {record.seed} and that of its provenance {record.provenance.seed}")
        if record.git_hash != record.provenance.commit:
            found.append("it names two commits")
        if record.task not in {t.get("as") or t["task"] for t in record.provenance.config.get("tasks", ())}:
            found.append(f"its configuration names no task '{record.task}'")
        if record.certificate and not set(record.certificate.passed) <= {g.name for g in record.gates}:
            found.append("its certificate names gates that it does not tell of")
        if record.status == "ok" and record.primary_metric not in record.scores:
            found.append(f"it has no score by its primary metric, {record.primary_metric}")
        check.need([f"{path}: {problem}" for problem in found])
    for path in sorted(run.folder.rglob("evaluated.json")):
        try:
            seals.read(path)
        except HarnessError as error:
            check.wrong.append(str(error))
    return check


def _of_configuration(made: Provenance, backbone: str, row: str) -> Iterator[str]:
    """What does not hold between a provenance and the configuration in it."""
    config = made.config
    if made.config_hash != digest(config):
        yield "the hash of its configuration is not that of the configuration"
        return
    if backbone not in config.get("backbones", {}):
        yield f"its configuration names no backbone '{backbone}'"
    if row not in {r["row"] for r in config.get("rows", ())}:
        yield f"its configuration names no row '{row}'"
    if made.dtype != config.get("run", {}).get("dtype"):
        yield f"it ran in {made.dtype}, its configuration asks for {config.get('run', {}).get('dtype')}"


def samples(run: Run) -> Check:
    """Each score of a record is what the samples beside it give: value, questions and clusters; so is their digest.

    Intervals are not compared: tables compute them anew from the samples.
    """
    check = Check("samples")
    for path, record in run.answered.items():
        frame = run.samples(path)
        if isinstance(frame, str):
            check.need([frame])
            continue
        found = list(_scores(record, frame))
        if not found and record.samples_sha256 not in ("", seals.sha256(path.with_name("samples.parquet"))):
            found.append("its samples are not those that it was written with")
        check.need([f"{path}: {problem}" for problem in found])
    return check


def _scores(record: Record, frame: pd.DataFrame) -> Iterator[str]:
    try:
        categories = ["", *statistics.categories(frame)]
        metrics = [name.removeprefix("score.") for name in frame.columns if name.startswith("score.")]
        found = {
            f"{metric}/{category}" if category else metric: statistics.score(frame, metric, category)
            for metric in metrics
            for category in categories
        }
    except (HarnessError, KeyError, TypeError, ValueError) as error:
        yield f"its samples give no scores ({error})"
        return
    for name in sorted({*found, *record.scores}):
        ours, told = found.get(name), record.scores.get(name)
        if ours is None or told is None:
            yield f"{name} is {'in the record and not in' if ours is None else 'given by'} its samples"
        elif abs(ours.value - told.value) > CLOSE:
            yield f"its {name} is {told.value:.6f}, its samples give {ours.value:.6f}"
        elif (ours.n, ours.clusters) != (told.n, told.clusters):
            there = f"{told.n} questions in {told.clusters} clusters, its samples over {ours.n} in {ours.clusters}"
            yield f"its {name} is over {there}"


def counts(run: Run) -> Check:
    """As many questions were answered as were asked, and the counts of a record are those of its samples."""
    check = Check("counts")
    for path, record in run.records.items():
        if record.status != "ok":
            draws = _draws(record)
            asked, lost = record.provenance.data.get("questions"), len(record.failures)
            right = not record.questions and asked is not None and lost == draws * asked
            check.need([] if right else [f"{path}: {lost} failures are told of {asked} questions, {draws} draws each"])
            continue
        frame = run.samples(path)
        if not isinstance(frame, str):  # what cannot be read is told with the samples
            check.need([f"{path}: {problem}" for problem in _counts(record, frame)])
    return check


def _draws(record: Record) -> int:
    return int(record.provenance.config.get("donors", 1)) if record.arm == "donor" else 1


def _counts(record: Record, frame: pd.DataFrame) -> Iterator[str]:
    asked = record.provenance.data.get("questions", 0) * _draws(record)
    if len(frame) + len(record.failures) != asked:
        yield f"{asked} answers were asked for, {len(frame)} samples and {len(record.failures)} failures are there"
    told = {
        "questions": (record.questions, frame["question_id"].nunique()),
        "tokens in": (record.costs.tokens_in, int(frame["prompt_tokens"].sum())),
        "tokens out": (record.costs.tokens_out, int(frame["new_tokens"].sum())),
        "samples": (record.n_samples.get(record.task, {}).get("effective"), len(frame)),
    }
    for name, (said, found) in told.items():
        if said != found:
            yield f"it tells of {said} {name}, its samples of {found}"


def answers(run: Run) -> Check:
    """The digest of each answer whose text is there."""
    check = Check("answers")
    for path in run.answered:
        frame = run.samples(path)
        if isinstance(frame, str):
            continue
        if "answer" not in frame or "answer_sha256" not in frame:
            check.unchecked["their text is not kept with records of official data"] += len(frame)
            continue
        right = [digest(text) == told for text, told in zip(frame["answer"], frame["answer_sha256"], strict=True)]
        check.held += sum(right)
        if not all(right):
            first = frame["question_id"].iloc[right.index(False)]
            check.wrong.append(
                f"{path}: {len(right) - sum(right)} answers do not have their digest (first: question {first})"
            )
    return check


def measurements(run: Run) -> Check:
    """The figures and ratios of each measurement follow from its repetitions."""
    check = Check("measurements")
    for path, record in run.measurements.items():
        found = list(_of_configuration(record.provenance, record.backbone, record.row))
        if path != efficiency_records.path_of(run.results, record.experiment, record.backbone, record.row):
            found.append(f"it says that it is of {record.experiment}/{record.backbone}/{record.row}")
        for point in record.points:
            where = f"{point.condition}, {point.prompt_length} + {point.decode_length} tokens"
            for name, side in (("row", point.row), ("bare backbone", point.frozen)):
                if side is not None and not _follow(side):
                    found.append(f"the figures of its {name} at {where} are not those of its repetitions")
            if point.row and point.frozen and efficiency_records.ratios(point.row, point.frozen) != point.ratios:
                found.append(f"its ratios at {where} are not those of its figures")
        check.need([f"{path}: {problem}" for problem in found])
    return check


def _follow(side: Side) -> bool:
    return efficiency_records.figures(side.runs, side.memory, side.new_tokens) == side.figures

"""Records are found by cell, and what is torn, doubled, foreign or at odds with its samples is refused."""

import shutil

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from harness import records
from harness.cli import app
from harness.errors import HarnessError
from harness.reporting import summary
from harness.reporting.summary import Place, Summary
from harness.seals import opened
from harness.statistics import paired, score

TSW = Place("smollm2", "delta_mem_tsw", "write_clear_read", "removed")


@pytest.fixture
def few(tmp_path, invented):
    """One task, two rows, and where their records lie."""
    chosen = invented.experiment(
        rows=["question_only", "delta_mem_tsw"],
        tasks=[{"task": "write_clear_read", "conditions": {"removed": ["own", "donor"]}}],
    )
    invented.fill(chosen, tmp_path)
    return chosen, tmp_path


def test_records_come_in_the_order_of_the_experiment(embedded, invented):
    chosen, results = embedded
    found = summary.collect(chosen, results)
    assert list(found) == list(invented.cells(chosen))
    assert all(found[cell].row == cell.job.row for cell in found)


def test_cells_that_the_experiment_no_longer_names_are_left_alone(embedded, invented):
    _, results = embedded
    chosen = invented.experiment(rows=["frozen"], tasks=[{"task": "locomo"}])
    assert [(c.job.row, c.task, c.condition) for c in summary.collect(chosen, results)] == [
        ("frozen", "locomo", "replayed")
    ]


def test_donor_draws_are_averaged_by_question(few, invented):
    chosen, results = few
    estimate = Summary(chosen, results).estimate(TSW._replace(arm="donor"))
    last = list(invented.cells(chosen))[-1]
    draws = pd.read_parquet(results / last.path / "samples.parquet")
    assert len(draws) == 180
    assert (estimate.n, estimate.clusters) == (60, 60)
    assert estimate.value == pytest.approx(draws["score.acc"].mean())


def test_contrast_pairs_by_question_whatever_the_order_of_the_samples(few, invented):
    chosen, results = few
    own, donor = list(invented.cells(chosen))[1:]
    before = Summary(chosen, results).contrast(TSW, TSW._replace(arm="donor"))
    shuffled = invented.samples(own).sample(frac=1, random_state=0)
    records.save(invented.record(own, shuffled), shuffled, results / own.path)
    assert Summary(chosen, results).contrast(TSW, TSW._replace(arm="donor")) == before
    left = invented.samples(own)["score.acc"].to_numpy()
    right = invented.samples(donor)["score.acc"].to_numpy().reshape(3, 60).mean(axis=0)
    by_hand = paired(left, right, range(60))
    assert (before.value, before.low, before.p) == pytest.approx((by_hand.value, by_hand.low, by_hand.p))


def test_seeds_are_averaged_by_question_and_told_apart(tmp_path, invented):
    chosen = invented.experiment(
        seeds=[1, 2, 3], rows=["delta_mem_tsw"], tasks=[{"task": "locomo", "conditions": {"removed": ["own"]}}]
    )
    invented.fill(chosen, tmp_path)
    found = Summary(chosen, tmp_path)
    place = Place("smollm2", "delta_mem_tsw", "locomo", "removed")
    assert len(found.records_of(place)) == len(set(found.seed_values(place))) == 3
    estimate = found.estimate(place)
    assert (estimate.n, estimate.clusters) == (60, 10)
    assert estimate.value == pytest.approx(np.mean(found.seed_values(place)))


def test_nothing_ran(tmp_path, invented):
    with pytest.raises(HarnessError, match="run the pipeline first"):
        Summary(invented.experiment(), tmp_path)


def test_two_records_for_one_cell(few, invented):
    chosen, results = few
    cell = next(invented.cells(chosen))
    shutil.copytree(results / cell.path, results / chosen.name / "copy")
    with pytest.raises(HarnessError, match="delete one"):
        summary.collect(chosen, results)


def test_a_record_in_a_foreign_place(few, invented):
    chosen, results = few
    cell = next(invented.cells(chosen))
    shutil.move(results / cell.path, results / chosen.name / "elsewhere")
    with pytest.raises(HarnessError, match="move it to"):
        summary.collect(chosen, results)


@pytest.mark.parametrize("change", ["torn", "schema", "field"])
def test_a_record_that_is_not_whole_or_not_ours(few, invented, change):
    chosen, results = few
    path = results / next(invented.cells(chosen)).path / "record.json"
    text = path.read_text()
    broken = {
        "torn": text[: len(text) // 2],
        "schema": text.replace('"schema_version": 1', '"schema_version": 99'),
        "field": text.replace('"questions":', '"question_count":'),
    }
    path.write_text(broken[change])
    with pytest.raises(HarnessError, match="run again"):
        summary.collect(chosen, results)


@pytest.mark.parametrize("change", ["missing", "torn", "edited"])
def test_samples_that_do_not_belong_to_their_record(few, invented, change):
    chosen, results = few
    cell = next(invented.cells(chosen))
    path = results / cell.path / "samples.parquet"
    if change == "missing":
        path.unlink()
    elif change == "torn":
        path.write_bytes(path.read_bytes()[:100])
    else:
        invented.samples(cell).assign(**{"score.acc": 1.0}).to_parquet(path)
    with pytest.raises(HarnessError, match="delete"):
        Summary(chosen, results).estimate(TSW._replace(row="question_only"))


def test_layers_of_chance_are_told_apart(tmp_path, invented):
    chosen = invented.experiment(
        seeds=[1, 2, 3], rows=["delta_mem_tsw"], tasks=[{"task": "locomo", "conditions": {"removed": ["own", "donor"]}}]
    )
    invented.fill(chosen, tmp_path)
    found, place = Summary(chosen, tmp_path), Place("smollm2", "delta_mem_tsw", "locomo", "removed")
    own, donor = found.components(place), found.components(place._replace(arm="donor"))
    assert own.seed_sd == pytest.approx(np.std(found.seed_values(place), ddof=1), rel=1e-12)
    assert own.value == pytest.approx(found.estimate(place).value, rel=1e-12)
    assert (own.seeds, own.draws, own.draw_sd) == (3, 1, None)
    donors = [cell for cell in invented.cells(chosen) if cell.arm == "donor"]
    draws = [pd.read_parquet(tmp_path / cell.path / "samples.parquet") for cell in donors]
    apart = [frame.groupby(["history_id", "question_id"])["score.f1"].var().sum() / 60**2 for frame in draws]
    assert donor.draws == 3
    assert donor.draw_sd == pytest.approx(np.mean(apart) ** 0.5, rel=1e-9)
    assert found.components(place, "", "temporal").n == 15
    assert found.components(place._replace(row="frozen")) is None


def test_a_ratio_of_two_places(few):
    chosen, results = few
    found, donor = Summary(chosen, results), TSW._replace(arm="donor")
    ratio = found.ratio(TSW, donor)
    assert ratio.value == pytest.approx(found.estimate(TSW).value / found.estimate(donor).value)
    assert ratio.low < ratio.value < ratio.high
    assert found.ratio(TSW, TSW._replace(row="frozen")) is None


def test_a_family_is_every_row_of_a_column(embedded):
    chosen, results = embedded
    found = Summary(chosen, results).family("write_clear_read", "removed")
    assert [place.row for place in found] == ["delta_mem_tsw", "delta_mem_ssw"]
    ps = [contrast.p for contrast, _ in found.values()]
    assert [adjusted for _, adjusted in found.values()] == pytest.approx([min(1, 2 * min(ps)), max(*ps, 2 * min(ps))])


def test_places_asked_different_questions_share_those_of_both(few, invented):
    chosen, results = few
    own, donor = list(invented.cells(chosen))[1:]
    fewer = invented.samples(own).iloc[10:]
    records.save(invented.record(own, fewer), fewer, results / own.path)
    contrast = Summary(chosen, results).contrast(TSW, TSW._replace(arm="donor"))
    left = fewer["score.acc"].to_numpy()
    right = invented.samples(donor)["score.acc"].to_numpy().reshape(3, 60).mean(axis=0)[10:]
    by_hand = paired(left, right, range(50))
    assert (contrast.n, contrast.value, contrast.p) == pytest.approx((50, by_hand.value, by_hand.p))


def test_scores_are_those_of_a_groupby(embedded):
    """A second derivation, by pandas."""
    chosen, results = embedded
    found = Summary(chosen, results)
    for cell in list(found.records)[::5]:
        frame = records.samples(found.records[cell], results / cell.path)
        for metric, category in ((m, c) for m in found.metrics(cell.task) for c in ("", *found.categories(cell.task))):
            mine, theirs = found.estimate(summary.place_of(cell), metric, category), score(frame, metric, category)
            assert (mine.n, mine.clusters) == (theirs.n, theirs.clusters)
            ours, by_pandas = ([e.value, e.low or 0, e.high or 0] for e in (mine, theirs))
            assert ours == pytest.approx(by_pandas, rel=1e-12)


DAMAGE = {
    "torn record": ("record.json", lambda text: text[: len(text) // 2], "is not a whole record"),
    "no text": ("record.json", lambda text: b"\xff\xfe" + text, "is not a whole record"),
    "newer": ("record.json", lambda text: opened(text).replace(b'"schema_version": 1', b'"schema_version": 2'),
              "has schema 2, this version reads 1; update the harness"),
    "newer, with a new field": (
        "record.json",
        lambda text: opened(text).replace(b'"schema_version": 1', b'"schema_version": 2, "new": 0'),
        "has schema 2, this version reads 1; update the harness",
    ),
    "older": ("record.json", lambda text: opened(text).replace(b'"schema_version": 1', b'"schema_version": 0'),
              "has schema 0, this version reads 1; delete it and run again"),
    "flipped bit": ("record.json", lambda text: text.replace(b'"value": 0.', b'"value": 0,'), "its seal does not hold"),
    "flipped bit of a sample": (
        "samples.parquet", lambda text: text[:99] + bytes([text[99] ^ 1]) + text[100:], "it is not as it was written",
    ),
    "torn samples": ("samples.parquet", lambda text: text[: len(text) // 2], "samples.parquet cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("damage", [*DAMAGE, "doubled record", "moved", "answered twice", "a column short", "edited"])
def test_damage_is_one_sentence_exit_code_2_and_nothing_written(few, invented, tmp_path_factory, damage):
    chosen, results = few
    cell = next(invented.cells(chosen))
    folder, answers = results / cell.path, invented.samples(cell)
    said = {
        "doubled record": "are both the record of cell",
        "moved": "move it to",
        "answered twice": "answers question 'q0' of history 'h0' twice",
        "a column short": "has no column 'root'",
        "edited": "do not give the acc of its record",
    }
    if damage in DAMAGE:
        name, change, sentence = DAMAGE[damage]
        (folder / name).write_bytes(change((folder / name).read_bytes()))
    else:
        sentence, record = said[damage], records.load(folder / "record.json")
        if damage == "doubled record":
            shutil.copytree(folder, results / chosen.name / "copy")
        elif damage == "moved":
            shutil.move(folder, results / chosen.name / "elsewhere")
        elif damage == "answered twice":
            records.save(record, pd.concat([answers, answers.iloc[:1]]), folder)
        elif damage == "a column short":
            records.save(record, answers.drop(columns="root"), folder)
        else:  # the mean stays as it was
            records.save(record, answers.iloc[:-1], folder)
    file, out = tmp_path_factory.mktemp("file") / "embedded.yaml", tmp_path_factory.mktemp("out") / "tables"
    file.write_text(chosen.model_dump_json(by_alias=True))
    done = CliRunner().invoke(app, ["tables", str(file), "--results", str(results), "--out", str(out)])
    assert done.exit_code == 2, done.output
    assert sentence in done.output
    assert done.output.count("\n") == 1
    assert not out.exists()

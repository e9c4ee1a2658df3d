"""All figures: known from the experiment, whole, alike for alike answers, bounded, and true to the summary."""

import json

import pytest

from harness import records
from harness.efficiency_records import EfficiencyRecord, Peaks, Point, Run, Side, save
from harness.efficiency_records import figures as medians
from harness.experiment import Experiment
from harness.records import Costs, Provenance
from harness.reporting import figures
from harness.reporting.figures import _pages, _style
from harness.reporting.figures._labels import spread
from harness.reporting.summary import Place

HOSTILE = ["a_b_c_d", "_".join(["very"] * 12), "x.y@z", "A" * 64, "row-2"]


def artists(figure):
    return [artist for axes in figure.axes for artist in axes.get_children()]


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes}


def drawn(name, chosen, results, page=0):
    sources = _pages.Sources(chosen, results)
    module = figures.ROOM[name]
    with _style.settled(name):
        return module.draw(sources, module.pages(chosen)[page]), sources


@pytest.fixture(scope="module")
def told(invented, tmp_path_factory):
    """The invented experiment with facts by layer and losses, under its results folder."""
    chosen, results = invented.experiment(), tmp_path_factory.mktemp("told")
    for cell in invented.cells(chosen):
        answers = invented.samples(cell)
        record = invented.record(cell, answers)
        if cell.job.row.startswith("delta_mem") and cell.condition == "removed":
            record.layers = {"norm": [1.0, 2.0, 4.0], "write_gate": [0.1, 0.2, 0.3]}
        if record.provenance.fit:
            record.provenance.fit = {**record.provenance.fit, "address": cell.job.row * 8, "losses": [3.0, 2.0, 1.0]}
        records.save(record, answers, results / cell.path)
    return chosen, results


@pytest.fixture(scope="module")
def written(told, tmp_path_factory):
    chosen, results = told
    return figures.write(chosen, results, tmp_path_factory.mktemp("figures"))


def test_files_are_those_that_the_experiment_names(told, written):
    names = figures.names(told[0])
    assert names == ["memory", "gains", "recovery", "pareto", "parameters", "training", "layers"]
    assert [p.name for p in written] == [f"{name}.{kind}" for name in names for kind in ("pdf", "png")]
    for path in written:
        assert path.read_bytes().startswith({".pdf": b"%PDF", ".png": b"\x89PNG"}[path.suffix])
        assert b"CreationDate" not in path.read_bytes()


def test_equal_answers_give_equal_pictures(told, written, invented, tmp_path):
    chosen, results = told
    again = figures.write(chosen, results, tmp_path)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in written]
    assert figures.svg(chosen, results) == figures.svg(chosen, results)


def test_every_figure_has_a_caption_and_an_alternative_text(told):
    chosen, _ = told
    assert figures.CAPTIONS.keys() == figures.ROOM.keys()
    for name in figures.names(chosen):
        assert figures.alt(name, chosen).endswith(f"{chosen.title}.")
    assert figures.alt("gains-2", chosen).endswith(", page 2.")


def test_svg_texts_are_whole_and_their_ids_their_own(told):
    found = figures.svg(*told)
    assert list(found) == figures.names(told[0])
    for text in found.values():
        assert text.startswith("<?xml")
        assert text.rstrip().endswith("</svg>")
        assert "<dc:date>" not in text


def test_points_of_memory_are_the_summary_s(told):
    figure, sources = drawn("memory", *told)
    place = Place("smollm2", "delta_mem_tsw", "locomo", "removed")
    position = list(figures.memory.pages(told[0])[0].rows).index("delta_mem_tsw")
    xs = {
        round(float(line.get_xdata()[0]), 9)
        for line in panels(figure)["locomo"].lines
        if line.get_marker() in ("o", "s") and abs(line.get_ydata()[0] - position) < 0.4
    }
    expected = {round(100 * sources.summary.estimate(place._replace(arm=arm)).value, 9) for arm in ("own", "donor")}
    assert xs == expected


def test_gains_are_the_summary_s_contrasts(told):
    figure, sources = drawn("gains", *told)
    place = Place("smollm2", "lora", "hotpotqa", "replayed")
    expected = sources.summary.contrast(place, place._replace(row="frozen"))
    lines = panels(figure)["hotpotqa"].lines
    assert any(line.get_marker() == "o" and line.get_xdata()[0] == 100 * expected.value for line in lines)
    assert any(list(line.get_xdata()) == [100 * expected.low, 100 * expected.high] for line in lines)


def test_a_row_without_a_baseline_is_left_out_with_a_note(told, invented):
    chosen = invented.experiment(rows=["frozen", "delta_mem_tsw", "bm25_rag"])
    assert figures.gains.pages(chosen)[0].rows == ("delta_mem_tsw",)
    figure, _ = drawn("gains", chosen, told[1])
    said = figure.legends[0].get_title().get_text().replace("\n", " ")
    assert said == "Left out for want of a baseline: own_text and removed of 2 rows."
    assert "gains" not in figures.names(invented.experiment(rows=["bm25_rag", "lora"]))


def test_bars_of_recovery_are_the_summary_s_by_category(told):
    figure, sources = drawn("recovery", *told)
    place = Place("smollm2", "delta_mem_tsw", "locomo", "removed")
    axes = panels(figure)["locomo"]  # the first row's
    heights = [bar.get_height() for bar in axes.patches]
    for category in ("", "multi_hop", "temporal"):
        for arm in ("own", "donor"):
            assert 100 * sources.summary.estimate(place._replace(arm=arm), "", category).value in heights
    marks = [line.get_ydata()[0] for line in axes.lines if line.get_label() == "printed"]
    assert 9.62 in marks  # the state alone, as the paper prints it
    assert [t.get_text() for t in axes.figure.legends[0].get_texts()][-1].startswith("†")
    assert axes.get_ylim()[1] >= max(heights)


def test_the_paper_is_marked_without_a_dagger_beside_its_own_backbone(told, invented, tmp_path):
    chosen = invented.experiment(backbones={"q": {"random": "tiny", "reported_as": "Qwen3-4B-Instruct"}})
    invented.fill(chosen, tmp_path)
    figure, _ = drawn("recovery", chosen, tmp_path)
    assert "the paper's Figure 2" in [t.get_text() for t in figure.legends[0].get_texts()]


def test_the_front_holds_what_no_other_beats():
    points = [
        figures.pareto.Point(n, str(n), "removed", cost, score)
        for n, (cost, score) in enumerate([(0, 1), (5, 9), (5, 7), (9, 9), (20, 10), (1, 0)])
    ]
    assert [p.number for p in figures.pareto.front(points)] == [0, 1, 4]


def test_points_of_pareto_have_the_costs_of_the_records(told):
    figure, sources = drawn("pareto", *told)
    left, right = figure.axes[:2]
    tsw = 100 * sources.summary.estimate(Place("smollm2", "delta_mem_tsw", "write_clear_read", "removed")).value
    assert any(line.get_xdata()[0] == 7_680 and line.get_ydata()[0] == tsw for line in left.lines)
    assert any(line.get_xdata()[0] == 50 and line.get_ydata()[0] == tsw for line in right.lines)  # 3,000 of 60
    frozen = 100 * sources.summary.estimate(Place("smollm2", "frozen", "write_clear_read", "replayed")).value
    assert not any(line.get_ydata()[0] == frozen and line.get_marker() == "o" for line in left.lines)
    assert any(line.get_ydata()[0] == frozen and line.get_marker() == "o" for line in right.lines)


@pytest.mark.parametrize("points", [[(1.0, 1.0)] * 12, [(x / 3, (x * 7 % 5) / 4) for x in range(1, 25)]])
def test_labels_lie_on_no_other(points):
    with _style.settled():
        figure, grid = _style.canvas(1, 1, (4, 3))
        axes = grid[0, 0]
        axes.plot(*zip(*points, strict=True), linestyle="none", marker="o")
        axes.margins(0.3)
        _style.settle(figure)
        spread(axes, points, [str(n) for n in range(len(points))])
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axes.texts]
        boxes = [box for box in boxes if box.width]
    assert len(axes.texts) == len(points)
    heart = [type(b).from_bounds(b.x0 + 1, b.y0 + 2, b.width - 2, b.height - 4) for b in boxes]
    texts = [b for b, t in zip(heart, axes.texts, strict=False) if t.arrow_patch is None]
    assert not any(a.overlaps(b) for n, a in enumerate(texts) for b in texts[n + 1 :])


def test_parameters_and_their_share_are_the_records_and_the_paper_s(invented, tmp_path):
    chosen = invented.experiment(rows=["frozen", "delta_mem_tsw"])
    for cell in invented.cells(chosen):
        answers = invented.samples(cell)
        record = invented.record(cell, answers)
        record.provenance.backbone["parameters"] = 140_000_000
        records.save(record, answers, tmp_path / cell.path)
    figure, _ = drawn("parameters", chosen, tmp_path)
    left, right = figure.axes
    assert sorted(float(line.get_xdata()[0]) for line in left.lines) == pytest.approx([1.4e6, 4.87e6])
    assert sorted(float(line.get_xdata()[0]) for line in right.lines) == pytest.approx([0.12, 1.0])
    assert [text.get_text() for text in left.texts + right.texts] == ["1.4M", "1%"]


def test_curves_are_the_losses_of_the_fits(told):
    chosen, results = told
    figure, sources = drawn("training", chosen, results)
    lines = {line.get_label(): line for line in figure.axes[0].lines if not line.get_label().startswith("_")}
    assert list(lines) == ["lora", "delta_mem_tsw", "delta_mem_ssw"]
    assert list(lines["lora"].get_ydata()) == [3.0, 2.0, 1.0]
    stored = results / "fits" / ("lora" * 8)[:16]
    stored.mkdir(parents=True)
    (stored / "fit.json").write_text(json.dumps({"losses": [9.0, 8.0]}))
    [first, *_], without = figures.training.curves(sources, "smollm2", ["lora"])
    assert (first.losses, without) == ([9.0, 8.0], [])
    (stored / "fit.json").unlink()


def test_a_fit_that_is_not_stored_is_said(embedded):
    figure, _ = drawn("training", *embedded)
    assert "No losses of a fit on smollm2" in " ".join(t.get_text() for t in figure.axes[0].texts).replace("\n", " ")


def test_layers_are_the_records_and_older_records_say_so(told, embedded):
    figure, _ = drawn("layers", *told)
    norm, gate = figure.axes[:2]
    assert list(norm.lines[0].get_ydata()) == [1.0, 2.0, 4.0]
    assert list(gate.lines[0].get_ydata()) == [0.1, 0.2, 0.3]
    old, _ = drawn("layers", *embedded)
    assert "not recorded" in old.axes[0].texts[0].get_text().replace("\n", " ")


def test_what_did_not_run_is_said_and_never_missing(invented, tmp_path):
    chosen = invented.experiment()
    cell = next(c for c in invented.cells(chosen) if c.job.row == "frozen")
    answers = invented.samples(cell)
    records.save(invented.record(cell, answers), answers, tmp_path / cell.path)
    names = figures.names(chosen)
    paths = figures.write(chosen, tmp_path, tmp_path / "out")
    assert [p.name for p in paths] == [f"{name}.{kind}" for name in names for kind in ("pdf", "png")]
    for name in names:
        figure, _ = drawn(name, chosen, tmp_path)
        texts = [t.get_text().replace("\n", " ") for axes in figure.axes for t in axes.texts]
        assert any(word in " ".join(texts) for word in ("did not run", "not recorded", "No row", "No losses")), name


@pytest.fixture(scope="module")
def many(invented, tmp_path_factory):
    """Forty rows, of which some have hostile names."""
    names = [*HOSTILE, *(f"row_{n}" for n in range(35))]
    rows = ["frozen", "question_only", *({"row": name, "method": "delta_mem_tsw"} for name in names)]
    tasks = [{"task": "locomo", "conditions": {"replayed": ["own"], "removed": ["own", "donor"]}}]
    chosen, results = invented.experiment(rows=rows, tasks=tasks, primary="locomo"), tmp_path_factory.mktemp("many")
    model = next(
        c for c in invented.cells(invented.experiment()) if c.job.row == "delta_mem_tsw" and c.task == "locomo"
    )
    frame = invented.samples(model)
    plain = invented.record(model, frame)
    for cell in invented.cells(chosen):
        job = {"row": cell.job.row, "task": "locomo", "condition": cell.condition, "arm": cell.arm}
        costs = Costs(state_bytes=len(cell.job.row) * 100, tokens_in=3000, trainable_parameters=1000)
        records.save(plain.model_copy(update={**job, "costs": costs}), frame, results / cell.path)
    return chosen, results


def test_forty_rows_are_on_pages_of_bounded_size(many):
    names = figures.names(many[0])
    assert {"memory", "memory-2", "gains-2", "training-5", "layers-5", "pareto"} <= set(names)
    assert len(names) == len(set(names))
    for name, figure in figures._drawn(*many):
        width, height = figure.get_size_inches()
        assert width <= 16, name
        assert height <= 13, name
        _style.settle(figure)
        for axes in figure.axes:
            box = axes.get_position()
            assert box.width > 0.05, name
            assert box.height > 0.05, name


def test_rows_of_all_pages_are_all_rows(many):
    for module in (figures.memory, figures.gains, figures.parameters, figures.training):
        shown = [row for page in module.pages(many[0]) for row in page.rows]
        assert shown == [r.row for r in many[0].rows if r.method == "delta_mem_tsw"]


def test_a_name_is_drawn_as_it_is_and_shortened_in_the_middle():
    assert _style.short("a$b\\c_d\n e") == "a$b\\c_d e"
    assert _style.short("A" * 30 + "end", 11) == "AAAAA…AAend"
    with _style.settled():
        figure, grid = _style.canvas(1, 1, (3, 2))
        grid[0, 0].set_title("$x_1$ \\frac{ % & # ~ ^")
        _style.legend(figure, [_style.handle("_hidden $a$", marker="o")])
        _style.settle(figure)
        assert figure.legends[0].get_texts()[0].get_text() == "_hidden $a$"


def test_an_experiment_without_memory_has_figures_of_what_it_has(invented, tmp_path):
    chosen = invented.experiment(
        rows=["frozen"],
        backbones={"a": {"random": "tiny"}, "b": {"random": "tiny"}},
        tasks=[{"task": "locomo"}, {"task": "hotpotqa"}],
    )
    invented.fill(chosen, tmp_path)
    assert figures.names(chosen) == []
    assert figures.write(chosen, tmp_path, tmp_path / "out") == []
    two = invented.experiment(rows=["frozen", "lora"], backbones={"a": {"random": "tiny"}, "b": {"random": "tiny"}})
    invented.fill(two, tmp_path / "two")
    assert figures.names(two) == ["memory", "gains", "pareto", "pareto-2", "parameters", "training"]
    assert len(figures.write(two, tmp_path / "two", tmp_path / "out")) == 12


def test_what_is_only_measured_has_figures_of_speed_and_parameters():
    chosen = Experiment.model_validate(
        {"name": "speed", "backbones": {"b": {"random": "tiny"}}, "rows": ["frozen", "lora"], "efficiency": {}}
    )
    assert figures.names(chosen) == ["parameters", "efficiency"]
    alone = chosen.model_copy(update={"rows": chosen.rows[:1]})
    assert figures.names(alone) == ["efficiency"]


def measured(row, speeds):
    """A record of invented speeds, in tokens a second by prompt length, under ``replayed`` and ``removed``."""
    points = []
    for condition, factor in (("replayed", 1), ("removed", 2)):
        for length, speed in speeds.items():
            runs = [Run(read_seconds=0.0, prefill_seconds=1.0, decode_seconds=7 / (factor * speed))]
            memory = Peaks(start_bytes=0, prefill_bytes=length * 1000, decode_bytes=length)
            facts = {"prompt_tokens": length, "new_tokens": 8, "kv_bytes": 1, "state_bytes": 0, "answer_sha256": "a"}
            side = Side(**facts, runs=runs, memory=memory, figures=medians(runs, memory, 8))
            points.append(Point(condition=condition, prompt_length=length, decode_length=8, row=side, frozen=side))
    provenance = Provenance(
        config={}, config_hash="", commit="c" * 40, dirty=False, versions={}, backbone={}, data={}, prompt_hash="",
        dtype="float32", attention="sdpa", batch_size=1, seed=0, device="Some CPU", threads=1,
    )  # fmt: skip
    return EfficiencyRecord(
        experiment="speed", backbone="b", row=row, method=row, backbone_weights="random", method_weights="initial",
        trainable_parameters=5, extra_parameters=0, memory="resident set of the process", warm_up=1, repeats=1,
        points=points, provenance=provenance,
    )  # fmt: skip


def test_lines_of_efficiency_are_the_measurements(tmp_path):
    chosen = Experiment.model_validate(
        {"name": "speed", "backbones": {"b": {"random": "tiny"}}, "rows": ["frozen", "lora"], "efficiency": {}}
    )
    for row, speeds in (("frozen", {256: 10.0, 1024: 5.0}), ("lora", {256: 8.0, 1024: 4.0})):
        save(measured(row, speeds), tmp_path)
    assert [p.name for p in figures.write(chosen, tmp_path, tmp_path / "out")] == [
        f"{name}.{kind}" for name in ("parameters", "efficiency") for kind in ("pdf", "png")
    ]
    figure, _ = drawn("efficiency", chosen, tmp_path)
    shown = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(shown["lora"].get_xdata()) == [256, 1024]
    assert list(shown["lora"].get_ydata()) == pytest.approx([8.0, 4.0])
    out_of_sight = {line.get_label(): line for line in figure.axes[1].lines}
    assert list(out_of_sight["lora"].get_ydata()) == pytest.approx([16.0, 8.0])
    memory = {line.get_label(): line for line in figure.axes[2].lines}
    assert list(memory["lora"].get_ydata()) == [256_000, 1_024_000]


def test_a_row_that_was_not_measured_is_said(tmp_path):
    chosen = Experiment.model_validate(
        {"name": "speed", "backbones": {"b": {"random": "tiny"}}, "rows": ["frozen", "lora"], "efficiency": {}}
    )
    nothing = [Point(condition="removed", prompt_length=256, decode_length=8, status="skipped", reason="no file")]
    for row in ("frozen", "lora"):
        save(measured(row, {}).model_copy(update={"points": nothing}), tmp_path)
    figure, _ = drawn("efficiency", chosen, tmp_path)
    assert figure.axes[0].texts[0].get_text().replace("\n", " ") == "None of lora was measured on b."

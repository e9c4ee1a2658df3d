"""The figure of capacity: drawn where recall was asked by number of pairs, of rows that differ in rank."""

import pytest

from harness.reporting import figures
from harness.reporting.figures import _pages, _style, capacity
from harness.reporting.summary import Summary

ROWS = [
    "frozen",
    {"row": "r2", "method": "delta_mem_tsw", "with": {"rank": 2}},
    {"row": "r8", "method": "delta_mem_tsw"},
    {"row": "alone", "method": "delta_mem_ssw"},
]


@pytest.fixture(scope="module")
def asked(invented, tmp_path_factory):
    """An experiment with invented answers, and its results folder."""
    chosen = invented.experiment(
        rows=ROWS,
        primary="recall",
        tasks=[{
            "task": "recall",
            "settings": {"mixed": [1, 2, 16]},
            "conditions": {"replayed": ["own"], "removed": ["own", "donor", "mean"]},
        }],
    )  # fmt: skip
    results = tmp_path_factory.mktemp("results")
    invented.fill(chosen, results)
    return chosen, results


def test_a_line_a_rank_and_a_panel_a_variant(asked):
    chosen, results = asked
    summary = Summary(chosen, results)
    with _style.settled():
        figure = capacity.draw(_pages.Sources(chosen, results), capacity.pages(chosen)[0])
    [panel] = figure.axes  # a single rank makes no panel
    lines = {line.get_label(): line for line in panel.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["r = 2", "r = 8", "best donor", "best mean", "pairs in the prompt"]
    place = next(p for p in summary.places if (p.row, p.arm, p.condition) == ("r8", "own", "removed"))
    expected = [100 * summary.estimate(place, "", count).value for count in ("01", "02", "16")]
    assert list(lines["r = 8"].get_xdata()) == [1, 2, 16]
    assert list(lines["r = 8"].get_ydata()) == expected


def test_it_is_written_beside_the_other_figure_and_only_where_it_applies(asked, invented, tmp_path):
    chosen, results = asked
    written = figures.write(chosen, results, tmp_path / "out")
    assert [p.name for p in written][-2:] == ["capacity.pdf", "capacity.png"]
    assert "memory.pdf" in [p.name for p in written]
    assert not capacity.pages(invented.experiment())

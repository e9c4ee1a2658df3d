"""The figure: written whole, free of time stamps, and alike for alike answers."""

import pytest

from harness.reporting import figures


@pytest.fixture(scope="module")
def drawn(embedded, tmp_path_factory):
    chosen, results = embedded
    return figures.write(chosen, results, tmp_path_factory.mktemp("figure"))


def test_both_files_are_what_their_names_say(drawn):
    pdf, png = (path.read_bytes() for path in drawn)
    assert pdf.startswith(b"%PDF")
    assert png.startswith(b"\x89PNG")
    assert b"CreationDate" not in pdf


def test_equal_answers_give_equal_pictures(embedded, drawn, tmp_path):
    again = figures.write(*embedded, tmp_path)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in drawn]


def test_an_experiment_without_memory_alone_still_draws(invented, tmp_path):
    chosen = invented.experiment(
        rows=["frozen"],
        backbones={"a": {"random": "tiny"}, "b": {"random": "tiny"}},
        tasks=[{"task": "locomo"}, {"task": "hotpotqa"}],
    )
    invented.fill(chosen, tmp_path)
    assert all(path.stat().st_size > 1000 for path in figures.write(chosen, tmp_path, tmp_path / "out"))

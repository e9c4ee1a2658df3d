"""What retrieval costs is measured on sizes that mean nothing, and held against the plain way."""

import json

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app


def test_retrieval_compares_with_the_plain_way():
    result = CliRunner().invoke(app, ["retrieval", "--units", "20", "--words", "5", "--questions", "2", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    for way in ("write", "query"):
        ours, plain = found[f"bm25_rag.{way}"], found[f"rank_bm25.{way}"]
        assert ours["value"] > 0
        assert ours["goal"] is None  # which is for 100,000 units
        assert found[f"{way}.ratio"]["value"] == pytest.approx(plain["value"] / ours["value"], rel=0.5, abs=0.5)
    assert found["dense_rag.ratio"]["value"] > 0

"""The speed of scoring is measured on a number of answers that means nothing."""

import json

from typer.testing import CliRunner

from benchmarks.__main__ import app


def test_scoring_is_timed_for_every_rule_with_its_start():
    result = CliRunner().invoke(app, ["scoring", "--answers", "50", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {name.split(".")[0] for name in found} == {"locomo", "hotpotqa", "qasper"}
    for task in ("locomo", "hotpotqa", "qasper"):
        assert found[f"{task}.seconds"]["value"] > 0
        assert found[f"{task}.seconds"]["goal"] is None  # which is for 100,000 answers

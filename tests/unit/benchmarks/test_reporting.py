"""The speed of tables is measured on numbers of records that mean nothing."""

import json

from typer.testing import CliRunner

from benchmarks.__main__ import app


def test_tables_of_invented_records_are_timed_in_a_process_of_their_own():
    result = CliRunner().invoke(app, ["reporting", "--rows", "1", "--seeds", "1", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["records"]["value"] == 25
    assert found["tables.seconds"]["value"] > 0
    assert 50 < found["tables.peak"]["value"] < 500
    assert found["tables.peak"]["goal"] is None  # which is for 10,000 records


def test_the_bootstrap_is_within_its_goals():
    result = CliRunner().invoke(app, ["bootstrap", "--json"])
    found = json.loads(result.stdout)
    assert found["bootstrap.cpu_seconds"]["value"] <= found["bootstrap.seconds"]["goal"]
    assert found["bootstrap.peak_over_start"]["value"] < 500


def test_every_setting_has_its_rates():
    found = json.loads(CliRunner().invoke(app, ["chance", "--draws", "3", "--json"]).stdout)
    assert {"G10.size20.icc0.1.rate0.5.mean_covers", "G6.size20.icc0.3.rate0.1.false_positives"} <= set(found)

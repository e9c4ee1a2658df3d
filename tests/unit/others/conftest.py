"""Tiny invented files in every format, and the command that reads them."""

from __future__ import annotations

import json
import random

import pytest
from typer.testing import CliRunner

from harness.cli import app


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    """No test reads real data unless it says so."""
    monkeypatch.delenv("DELTA_MEM_DATA", raising=False)


@pytest.fixture
def written(tmp_path):
    """Write a file: a list of objects as JSON lines, anything else as JSON."""

    def write(name, content):
        path = tmp_path / name
        lines = name.endswith(".jsonl")
        text = "".join(json.dumps(row) + "\n" for row in content) if lines else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def run():
    """The command with JSON on standard output, taken apart."""

    def call(path, *options):
        result = CliRunner().invoke(app, ["rescore", str(path), "--json", *options])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return call


@pytest.fixture
def refused():
    """The one sentence with which a file is refused."""

    def call(path, *options):
        result = CliRunner().invoke(app, ["rescore", str(path), *options])
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        (sentence,) = result.stderr.splitlines()
        assert str(path) in sentence
        return sentence

    return call


@pytest.fixture
def shuffled(tmp_path):
    """A file of JSON lines in another order."""

    def shuffle(path, seed):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        random.Random(seed).shuffle(lines)
        (tmp_path / str(seed)).mkdir(exist_ok=True)
        other = tmp_path / str(seed) / path.name
        other.write_text("".join(lines), encoding="utf-8")
        return other

    return shuffle

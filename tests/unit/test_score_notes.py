"""What ``harness score`` says of how this machine gives its scores."""

import json

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.tasks import ifeval
from harness.tasks._lm_eval import STAND_IN

ROW = {"key": 1, "prompt": "Write.", "prediction": "One. Two.",
       "kwargs": [{"num_sentences": 3, "relation": "less than"}],
       "instruction_id_list": ["length_constraints:number_sentences"]}  # fmt: skip


@pytest.mark.parametrize("installed", [True, False])
def test_the_stand_in_of_ifeval_is_named_apart_from_the_scores(installed, monkeypatch):
    monkeypatch.setattr(ifeval, "has_punkt", lambda: installed)
    said = CliRunner().invoke(app, ["score", "ifeval"], input=json.dumps(ROW))
    (line,) = said.stdout.splitlines()
    assert json.loads(line)["prompt_level_strict_acc"] == 1.0
    assert (f"note: {STAND_IN}" in said.stderr) is not installed

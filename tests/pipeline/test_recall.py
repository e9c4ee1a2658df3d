"""On associative recall δ-mem's gain is its memory's: far ahead of another history's state, and nothing without one."""

from pathlib import Path

import pandas as pd
import pytest

from harness import config, jobs
from harness.experiment import Experiment, Job

pytestmark = pytest.mark.pipeline

ROWS = ("tsw_r8", "ssw_r8", "msw_r8")
REFERENCE = Path("results/reference").resolve()


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The answers of a row in an arm, from the fits and weights that come with the repository, at two pairs."""
    results = tmp_path_factory.mktemp("results")
    (results / "reference").symlink_to(REFERENCE)
    whole = config.load("recall", ["run.executor=inline", "run.device=cpu"]).model_dump(mode="json", by_alias=True)
    [task] = whole["tasks"]
    task |= {"episodes": 64, "settings": {"pairs": 2}, "conditions": {"removed": ["own", "donor", "zero"]}}
    experiment = Experiment.model_validate(whole)
    for row in ("question_only", *ROWS):
        request = {
            "experiment": experiment.model_dump(mode="json", by_alias=True),
            "backbone": "tiny",
            "row": row,
            "seed": 42,
            "results": str(results),
        }
        for kind in ("fit", "evaluate") if row in ROWS else ("evaluate",):
            facts = jobs.run({**request, "kind": kind})
            assert kind != "fit" or facts["restored"], "the fit has another address now; learn it again and publish it"

    def read(row, arm):
        job = Job("recall", "tiny", row, 42)
        return pd.read_parquet(results / job.path / "recall" / "removed" / arm / "samples.parquet")

    return read


@pytest.mark.parametrize("row", ROWS)
def test_own_is_at_least_30_points_ahead_of_the_donor_at_two_pairs(row, answers):
    own, donor = (answers(row, arm)["score.acc"].mean() for arm in ("own", "donor"))
    assert own - donor >= 0.30, f"own {own:.0%}, donor {donor:.0%}"


@pytest.mark.parametrize("row", ROWS)
def test_without_a_state_every_answer_is_the_frozen_backbones(row, answers):
    frozen, zero = answers("question_only", "own"), answers(row, "zero")
    assert list(zero["question_id"]) == list(frozen["question_id"])
    assert list(zero["answer"]) == list(frozen["answer"])
    assert list(zero["prompt_sha256"]) == list(frozen["prompt_sha256"])

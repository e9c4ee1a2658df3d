"""On associative recall δ-mem's gain is its memory's: far ahead of another history's state, and nothing without one."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from harness import config, jobs
from harness.experiment import Experiment, Job

pytestmark = pytest.mark.pipeline

ROWS = ("tsw_r8", "ssw_r8", "msw_r8")
REFERENCE = Path("results/reference").resolve()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The packaged experiment at two pairs and with fewer episodes, and a results folder with the published fits."""
    results = tmp_path_factory.mktemp("results")
    (results / "reference").symlink_to(REFERENCE)
    whole = config.load("recall", ["run.executor=inline", "run.device=cpu"]).model_dump(mode="json", by_alias=True)
    [task] = whole["tasks"]
    task |= {"episodes": 32, "settings": {"pairs": 2}, "conditions": {"removed": ["own", "donor", "zero"]}}
    experiment = Experiment.model_validate(whole).model_dump(mode="json", by_alias=True)
    return {"experiment": experiment, "backbone": "tiny", "seed": 42, "results": str(results)}


@pytest.fixture(scope="module")
def answers(work):
    """Reads the answers of a row in an arm."""
    results = Path(work["results"])
    for row in ("question_only", *ROWS):
        job = Job("recall", "tiny", row, 42)
        (results / job.path).mkdir(parents=True)
        if row in ROWS:
            shutil.copyfile(REFERENCE / job.path / "fit.json", results / job.path / "fit.json")
        jobs.run({**work, "kind": "evaluate", "row": row})

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
    columns = ["question_id", "prompt_sha256", "answer"]
    assert zero[columns].equals(frozen[columns])


def test_the_published_fit_is_the_one_that_would_be_learnt_now(work):
    facts = jobs.run({**work, "kind": "fit", "row": ROWS[0]})
    assert facts["restored"], "the fit has another address now; learn it again and publish it"

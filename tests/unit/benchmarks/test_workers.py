"""What is measured of two workers: pages of one file among all, equal jobs, and ways that there are."""

from __future__ import annotations

import pytest

from benchmarks import workers
from harness.errors import HarnessError
from harness.experiment import Experiment, jobs

SMAPS = """\
7f0000000000-7f0000001000 rw-p 00000000 fe:00 1      /cache/model.safetensors
Size:               2048 kB
Pss:                1024 kB
Private_Clean:       512 kB
Private_Dirty:       256 kB
VmFlags: rd wr mr mw me ac
7f0000002000-7f0000003000 rw-p 00000000 00:00 0
Private_Clean:      1024 kB
Private_Dirty:      4096 kB
"""


def test_private_pages_are_summed_over_all_mappings_or_those_of_a_file(tmp_path):
    file = tmp_path / "smaps"
    file.write_text(SMAPS)
    megabytes = 1024 / 1e6
    assert workers._private(workers._pages(file)) == pytest.approx((512 + 256 + 1024 + 4096) * megabytes)
    assert workers._private(workers._pages(file, ".safetensors")) == pytest.approx((512 + 256) * megabytes)
    assert workers._pages(file, ".safetensors")["Pss"] == pytest.approx(1024 * megabytes)
    assert workers._pages(file, ".gguf") == {}


def test_the_evaluations_jobs_are_equal_but_for_their_names():
    made = Experiment.model_validate(workers._experiment({"random": "tiny-llama"}, 8, 2))
    assert len(jobs(made)) == workers.ROWS
    assert len({(row.method, str(row.with_)) for row in made.rows}) == 1
    assert (made.run.workers, made.run.cpus_per_worker, made.tasks[0].limit) == (2, 1, 8)


def test_an_unknown_way_is_refused():
    with pytest.raises(HarnessError, match="did you mean 'memory'"):
        workers.measure("random:tiny-llama", 2, 1, ["memroy"])

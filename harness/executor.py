"""Where a job runs, behind one call: on the run's warm Ray workers, or inline in this process.

A request is JSON and so is its result; a client on the way to Ray imports neither Ray nor torch.
"""

from __future__ import annotations

import json
import os
import socket
import traceback
from pathlib import Path
from typing import Any

from harness import cluster
from harness.errors import HarnessError, redact
from harness.experiment import RunSpec


class JobError(Exception):
    """A job ended by a fault that is no mistake of the user's; the text is the worker's traceback."""

    def __init__(self, traceback: str) -> None:
        super().__init__(redact(traceback))


def submit(request: dict[str, Any]) -> dict[str, Any]:
    """Run one job and wait for its result.

    A run's cluster is the one whose socket ``DELTA_MEM_CLUSTER`` names; without one, it is started for this job.

    Args:
        request: What :func:`harness.jobs.run` takes.

    Raises:
        HarnessError: the job refused its input, or the cluster could not serve it.
        JobError: the job broke.
    """
    run = RunSpec.model_validate(request["experiment"]["run"])
    if run.executor == "inline":
        return _inline(request)
    if address := os.environ.get(cluster.ADDRESS):
        return _ask(Path(address), request)
    with cluster.running(run) as path:
        return _ask(path, request)


def _inline(request: dict[str, Any]) -> dict[str, Any]:
    from harness import jobs

    try:
        return jobs.run(request)
    except HarnessError:
        raise
    except Exception as error:
        raise JobError(traceback.format_exc()) from error


def _ask(address: Path, request: dict[str, Any]) -> dict[str, Any]:
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(address))
            link.sendall(json.dumps(request).encode() + b"\n")
            answer = link.makefile("rb").readline()
    except OSError as error:
        raise HarnessError(
            f"the run's cluster at {address} is gone ({error.strerror}); run the same command again"
        ) from error
    if not answer.endswith(b"\n"):
        raise HarnessError(
            "the run's cluster ended before the job did, as it does where Ray's raylet is lost (see logs/cluster.log); "
            "run the same command again, which resumes"
        )
    reply = json.loads(answer)
    if "error" in reply:
        raise HarnessError(reply["error"])
    if "failure" in reply:
        raise JobError(reply["failure"])
    return reply["result"]

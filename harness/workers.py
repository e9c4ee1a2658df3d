"""The workers of a run, on however many nodes: replaced where they are lost, more of them as nodes join.

Nodes share one folder, the one that the run was started in, at the same path and with the results in it. A node that
does not see it, or has other code, is told from the others and gets no request.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import itertools
import math
import os
import socket
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import shortage
from harness.errors import HarnessError
from harness.experiment import RunSpec
from harness.shelf import Elsewhere

ATTEMPTS = 3
"""Workers that one request may lose, and that one place may lose in a row before any had a request. Of those lost for
want of memory, a request may lose as many more as its batch can be halved."""
STARTING = 300.0
"""Seconds in which a worker's process comes up where there is room for it. Ray waits for ever for one that does not."""
PATIENCE = 30.0
"""Seconds that a worker is free before it helps another one, for the process of the next job takes some to come."""
PACKAGES = ("harness", "methods", "baselines")
"""Folders whose files the answers of a worker follow from."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
HANDED = ("DELTA_MEM_DATA", "DELTA_MEM_CACHE")
"""Environment variables that a worker has from the run where its node sets none."""


@dataclass(frozen=True)
class Surroundings:
    """What a worker is given, and what it has to find on its node."""

    directory: str
    threads: int
    code: str
    """As :func:`code`."""
    environment: Mapping[str, str]
    shelf: Any = None
    """The actor that hands out backbones, where workers may be on other machines."""


@dataclass(order=True)
class Waiting:
    """A request that no worker has yet, or none any more."""

    number: int
    """In the order of arrival, so that one whose worker was lost goes first; a helper's is that of whom it helps."""
    request: dict[str, Any] = field(compare=False)
    reply: asyncio.Future[dict[str, Any]] = field(compare=False)
    until: asyncio.Future[dict[str, Any]] | None = field(default=None, compare=False)
    """Whoever takes it gives its place to a rank, until this is done."""
    losses: int = field(default=0, compare=False)
    killed: int = field(default=0, compare=False)
    """Workers lost for want of memory, which are not among the losses."""
    helps: Waiting | None = field(default=None, compare=False)
    helpers: set[asyncio.Future[dict[str, Any]]] = field(default_factory=set, compare=False)
    """Replies of those that are at it, too."""


class Worker:
    """Runs one job after another in one process, so that its backbone stays loaded."""

    shelf: Elsewhere | None = None

    def settle(self, needed: Surroundings) -> str:
        """Take up what the run gives; the reply says why this node cannot serve it, or nothing."""
        try:
            os.chdir(needed.directory)
        except OSError as error:
            return f"{_node()} does not see {needed.directory} ({error.strerror}), which all nodes have to share"
        if code() != needed.code:
            return f"{_node()} has other code of {', '.join(PACKAGES)} than the run, or it was changed meanwhile"
        # In time, because torch is first imported by the first job; a runtime environment would cost seconds.
        os.environ.update(dict.fromkeys(THREADS, str(needed.threads)), OMP_WAIT_POLICY="passive")
        for name, value in needed.environment.items():
            os.environ.setdefault(name, value)
        self.shelf = needed.shelf and Elsewhere(needed.shelf)
        return ""

    def misses(self, request: dict[str, Any]) -> str:
        """Why a request cannot be served here, or nothing; its log, which whoever asks has begun, has to be there."""
        log = Path(request.get("progress") or os.curdir)
        if log.exists() or log.with_name(f"{log.name}.1").exists():  # put aside a moment ago
            return ""
        return f"{_node()} does not see {log}, for its folder of results is another one; all nodes have to share it"

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """As :func:`harness.jobs.run`, with the user's mistakes as replies."""
        from harness import jobs

        try:
            return {"result": jobs.run(request, self.shelf)}
        except HarnessError as error:
            return {"error": str(error)}


class Workers:
    """Hands each request to a free worker; a lost worker is replaced, and its request done again.

    There are ``run.workers`` places. Each has one worker at a time, which may have to wait until a node has room for
    it; whichever is free takes the next request. Where none waits, it helps with one that is being answered: a job of
    many cells would else keep a whole cluster waiting.
    """

    worker: type = Worker

    def __init__(self, run: RunSpec, own: bool = False) -> None:
        """
        Args:
            own: On a cluster of the run's own, which has room for all of them; others may have to grow.
        """
        self.run = run
        self.starting = STARTING if own else None
        self.shelf: Any = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting: asyncio.PriorityQueue[Waiting] = asyncio.PriorityQueue()
        self.helping: asyncio.PriorityQueue[Waiting] = asyncio.PriorityQueue()
        self.places: set[asyncio.Task[None]] = set()
        self.refusal: dict[str, Any] = {}
        """What every request is told once all places are given up."""
        self._numbers = itertools.count()
        self._gathering = asyncio.Lock()

    def open(self) -> None:
        """Fill the places; requests that came before wait no longer."""
        for _ in range(self.run.workers):
            place = asyncio.create_task(self._fill())
            self.places.add(place)
            place.add_done_callback(self._close)
        self.ready.set_result(None)

    async def do(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request: ``result``, ``error`` (the user's mistake) or ``failure`` (ours)."""
        try:
            await asyncio.shield(self.ready)
        except HarnessError as error:
            return {"error": str(error)}
        if not self.places:
            return self.refusal
        if request["kind"] == "fit" and self.run.fit_workers > 1:
            return await self._fit(request)
        job = Waiting(next(self._numbers), request, _future())
        self.waiting.put_nowait(job)
        if request["kind"] == "evaluate":
            for _ in request["experiment"].get("tasks", ())[1:]:  # each may have a worker of its own
                self.helping.put_nowait(Waiting(job.number, {**request, "helps": True}, _future(), helps=job))
        reply = await job.reply
        if job.helpers:  # nobody is at a job that is done: what is measured next runs alone
            await asyncio.wait(job.helpers)
        return reply

    async def _fit(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a fit that ranks make, in the places of as many workers, who are there again afterwards."""
        from harness import ranks

        made = _future()
        try:
            async with self._gathering:  # else two such fits could each hold what the other waits for
                number = next(self._numbers)
                seats = [Waiting(number, request, _future(), until=made) for _ in range(self.run.fit_workers)]
                for seat in seats:
                    self.waiting.put_nowait(seat)
                refused = [reply for reply in await asyncio.gather(*(seat.reply for seat in seats)) if reply]
            return refused[0] if refused else await asyncio.to_thread(ranks.fit, request, self.run, self.surroundings)
        finally:
            made.set_result({})

    # --- Ray's side ---

    def spawn(self) -> Any:
        """A new worker process, which Ray starts as soon as a node has room for it."""
        import ray

        sizes = {"num_cpus": self.run.cpus_per_worker, "num_gpus": self.run.gpus_per_worker}
        return ray.remote(self.worker).options(**sizes).remote()

    def end(self, worker: Any) -> None:
        """Make sure that a worker that was lost from sight does not go on."""
        import ray

        with contextlib.suppress(Exception):  # as a rule it is gone
            ray.kill(worker)

    # --- the places ---

    async def _fill(self) -> None:
        """Keep one place filled, until its workers are lost before any of them has had a request."""
        unused = 0
        while unused < ATTEMPTS:
            worker = self.spawn()
            reason, used = await self._serve(worker)
            self.end(worker)
            unused = 0 if used else unused + 1
            if reason:
                print(f"a worker was lost: {reason}", file=sys.stderr, flush=True)
        self.refusal = {"error": f"Ray cannot serve this run ({reason}); mend that and run the same command again"}

    def _close(self, place: asyncio.Task[None]) -> None:
        """A place is given up; without the last one, there is nobody to answer."""
        self.places.discard(place)
        if place.cancelled():
            return
        if error := place.exception():
            self.refusal = {"failure": "".join(traceback.format_exception(error))}
        while not (self.places or self.waiting.empty()):
            self.waiting.get_nowait().reply.set_result(self.refusal)

    async def _serve(self, worker: Any) -> tuple[str, bool]:
        """Let a worker answer one request after another until it is lost: why it was, and whether it had any.

        One that gives its place to a rank is not lost; there is no reason then.
        """
        from ray.exceptions import RayActorError

        used = False
        try:
            if reason := await asyncio.wait_for(worker.settle.remote(self.surroundings), self.starting):
                return reason, False
        except TimeoutError:
            return f"no process of it came up in {self.starting:.0f} s, as where the machine is too busy", False
        except RayActorError as error:
            return _brief(error), False
        while True:
            job = await self._next()
            if job.until:
                self.end(worker)
                job.reply.set_result({})
                await job.until
                return "", True
            try:  # an idle worker may have been lost long ago, which is no fault of the request's
                reason = await worker.misses.remote(job.request)
            except RayActorError as error:
                reason = _brief(error)
            if reason:
                self._again(job)
                return reason, used
            used = True
            if reason := await self._ask(worker, job):
                return reason, used

    async def _next(self) -> Waiting:
        """The next request, or one to help with where none has come for a while."""
        patience = PATIENCE
        while True:
            try:
                return await asyncio.wait_for(self.waiting.get(), patience)
            except TimeoutError:
                if helper := self._helper():
                    return helper
                patience *= 2

    def _helper(self) -> Waiting | None:
        """A request that helps with one that is being answered still; the oldest."""
        while not self.helping.empty():
            job = self.helping.get_nowait()
            assert job.helps
            if not job.helps.reply.done():
                job.helps.helpers.add(job.reply)
                return job
        return None

    async def _ask(self, worker: Any, job: Waiting) -> str:
        """Let a worker answer; gives why it was lost, or nothing."""
        from ray.exceptions import OutOfMemoryError, RayActorError, RayError

        before = shortage.kills()
        try:
            job.reply.set_result(await worker.run.remote({**job.request, "killed": job.killed}))
        except (RayActorError, OutOfMemoryError) as error:
            short = isinstance(error, OutOfMemoryError) or shortage.kills() > before
            self._lose(job, reason := _brief(error), short)
            return reason
        except RayError as error:
            job.reply.set_result({"failure": str(error)})
        return ""

    def _lose(self, job: Waiting, reason: str, short: bool) -> None:
        """A worker was lost with a request, for want of memory or otherwise."""
        job.losses, job.killed = job.losses + (not short), job.killed + short
        kind = job.request["kind"]
        halvings = self.run.batch_size.bit_length() if kind == "evaluate" else 0
        if job.losses < ATTEMPTS and job.killed < ATTEMPTS + halvings:
            self._again(job)
            return
        what = f"{kind} of {job.request['backbone']}/{job.request['row']}"
        lost = f"{job.losses + job.killed} workers in a row"
        lost += f", {job.killed} of them for want of memory" if job.killed else ""
        job.reply.set_result({"error": f"the {what} lost {lost} ({reason}); {shortage.mend(kind)}, and run again"})

    def _again(self, job: Waiting) -> None:
        """Put a request back; whoever only helped with it is not missed."""
        if job.helps:
            job.reply.set_result({})
        else:
            self.waiting.put_nowait(job)

    @functools.cached_property
    def surroundings(self) -> Surroundings:
        """What every worker has to find."""
        handed = {name: os.environ[name] for name in HANDED if name in os.environ}
        return Surroundings(os.getcwd(), math.ceil(self.run.cpus_per_worker), code(), handed, self.shelf)


def room(nodes: Iterable[Mapping[str, float]], run: RunSpec) -> int:
    """Workers that fit on nodes of these resources. One worker is on one node, and a share of a GPU on one GPU."""
    count = 0
    for node in nodes:
        fits = [int(node.get("CPU", 0) / run.cpus_per_worker + 1e-6)]  # 0.3 / 0.1 is a little below 3
        if share := run.gpus_per_worker:
            gpus = node.get("GPU", 0)
            fits.append(int(gpus / share) if share >= 1 else int(gpus) * int(1 / share + 1e-6))
        count += min(fits)
    return count


def code() -> str:
    """Digest of the files that a worker's answers follow from."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(file for name in PACKAGES for file in (root / name).rglob("*.*")):
        if file.suffix in (".py", ".yaml", ".json"):
            digest.update(f"{file.relative_to(root)} {file.stat().st_size}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _future() -> asyncio.Future[dict[str, Any]]:
    return asyncio.get_running_loop().create_future()


def _node() -> str:
    return f"the node {socket.gethostname()}"


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:400]

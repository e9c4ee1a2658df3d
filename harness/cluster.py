"""One Ray cluster a run, and the workers that stay warm on it.

A supervisor process owns all of it: the head (unless ``RAY_ADDRESS`` names a cluster), the workers and a Unix
socket through which thin clients hand in jobs. It watches the process that started it and ends everything when
that process is gone, however it went. Ray's processes form one process group, which is ended as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from harness import leftovers
from harness.errors import HarnessError
from harness.experiment import RunSpec

ADDRESS = "DELTA_MEM_CLUSTER"
"""Environment variable with the path of the supervisor's socket."""

ATTEMPTS = 3
"""Workers that one request may lose."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the one switch that keeps every port on loopback
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ROTATION_MAX_BYTES": str(leftovers.LARGEST_LOG),
    "RAY_ROTATION_BACKUP_COUNT": "1",
    "RAY_raylet_start_wait_time_s": "180",  # 30 s are too few where both cores are busy
    "RAY_worker_niceness": "0",  # Ray's 15 would let anything else on the machine starve the workers
}
MAX_REQUEST = 2**26
"""Bytes of one request: an experiment as JSON."""

LOCAL_STORE = 100_000_000
"""Bytes of shared memory: requests and results are small JSON."""


@contextlib.contextmanager
def running(run: RunSpec) -> Iterator[Path]:
    """A cluster for the length of a block; gives the socket's path."""
    address = start(run)
    try:
        yield address
    finally:
        stop(address)


def start(run: RunSpec, log: Path | None = None) -> Path:
    """Start the supervisor for this process and return its socket, while Ray itself still boots.

    Args:
        run: Number and size of the workers.
        log: File for what the supervisor and Ray's client print; None drops it.

    Raises:
        HarnessError: the supervisor did not come up.
    """
    # Not TMPDIR: a socket's path may have 107 characters, and Ray's own add 75 to this folder's.
    leftovers.sweep_clusters(Path("/tmp"))
    folder = Path(tempfile.mkdtemp(prefix=leftovers.CLUSTER, dir="/tmp"))
    address = folder / "socket"
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
        leftovers.rotate(log)
    with open(log or os.devnull, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.cluster", str(os.getpid()), str(folder), run.model_dump_json()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the pipeline, which then ends its cluster in order
        )
    (folder / "pid").write_text(str(process.pid))
    while not address.exists():
        if process.poll() is not None:
            raise HarnessError(f"the run's cluster did not start (exit {process.returncode}); see {log or 'its log'}")
        time.sleep(0.02)
    return address


def stop(address: Path) -> None:
    """End the supervisor of a socket and all that it owns; nothing where it is gone already."""
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
        process = psutil.Process(int((address.parent / "pid").read_text()))
        if "harness.cluster" in process.cmdline():
            process.terminate()
            process.wait(timeout=20)


# --- the supervisor --------------------------------------------------------------------------------------------


class Head:
    """A local Ray head in a process group of its own, on loopback, with free ports and its own folder."""

    def __init__(self, run: RunSpec, folder: Path) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0"]
        command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
        command += [f"--temp-dir={folder}", f"--num-cpus={math.ceil(run.workers * run.cpus_per_worker)}"]
        command += [f"--object-store-memory={LOCAL_STORE}"] + ([] if run.gpus_per_worker else ["--num-gpus=0"])
        self.folder = folder
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_end_with_parent
        )

    def address(self) -> str:
        """``host:port``, once the head has written it down.

        Raises:
            HarnessError: the head ended instead.
        """
        written = self.folder / "ray_current_cluster"
        while not written.exists() or not written.read_text():
            if self.process.poll() is not None:
                raise HarnessError(f"Ray's head did not start (exit {self.process.returncode}); see the cluster's log")
            time.sleep(0.05)
        return written.read_text().strip()

    def kill(self) -> None:
        """End the group at once, and the workers, which Ray puts into groups of their own."""
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            children = psutil.Process(self.process.pid).children(recursive=True)
            os.killpg(self.process.pid, signal.SIGKILL)
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


def _end_with_parent() -> None:
    """Linux ends this process when the supervisor is killed and can no longer do it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Workers:
    """Hands each request to a free worker; a lost worker is replaced and its request done again."""

    def __init__(self, run: RunSpec) -> None:
        self.run = run
        self.free: asyncio.Queue[Any] = asyncio.Queue()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def spawn(self) -> Any:
        """A new worker process on the cluster."""
        import ray

        sizes = {"num_cpus": self.run.cpus_per_worker, "num_gpus": self.run.gpus_per_worker}
        return ray.remote(Worker).options(**sizes).remote(os.getcwd(), math.ceil(self.run.cpus_per_worker))

    async def do(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request: ``result``, ``error`` (the user's mistake) or ``failure`` (ours)."""
        import ray.exceptions

        try:
            await asyncio.shield(self.ready)
        except HarnessError as error:
            return {"error": str(error)}
        cause = ""
        for _ in range(ATTEMPTS):
            worker = await self.free.get()
            try:
                return await worker.run.remote(request)
            except ray.exceptions.RayActorError as error:
                cause = " ".join(str(error).split())[:400]
                worker = self.spawn()
            except ray.exceptions.RayError as error:
                return {"failure": str(error)}
            finally:
                self.free.put_nowait(worker)
        what = f"{request['kind']} of {request['backbone']}/{request['row']}"
        return {"error": f"the {what} lost {ATTEMPTS} workers in a row ({cause}); give it more memory and run again"}


class Worker:
    """Runs one job after another in one process, so that its backbone stays loaded."""

    def __init__(self, directory: str, threads: int) -> None:
        os.chdir(directory)
        # In time, because torch is first imported by the first job; a runtime environment would cost seconds.
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
            os.environ[name] = str(threads)
        os.environ["OMP_WAIT_POLICY"] = "passive"

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        from harness import jobs

        try:
            return {"result": jobs.run(request)}
        except HarnessError as error:
            return {"error": str(error)}


async def supervise(owner: int, folder: Path, run: RunSpec) -> None:
    """Serve requests until the owner is gone, the head dies or a signal asks to end."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    workers = Workers(run)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reply = await workers.do(json.loads(await reader.readline()))
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    head = None if os.environ.get("RAY_ADDRESS") else Head(run, folder / "ray")
    tasks = [asyncio.create_task(_watch(owner, head, ended)), asyncio.create_task(_boot(workers, head))]
    try:
        async with await asyncio.start_unix_server(serve, folder / "socket", limit=MAX_REQUEST):
            await ended.wait()
    finally:
        for task in tasks:
            task.cancel()
        if head:
            head.kill()


async def _boot(workers: Workers, head: Head | None) -> None:
    try:
        address = await asyncio.to_thread(head.address) if head else os.environ["RAY_ADDRESS"]
        await asyncio.to_thread(_connect, address, workers.run)
    except (HarnessError, ConnectionError) as error:
        workers.ready.set_exception(HarnessError(f"Ray cannot serve this run ({error})"))
        return
    for _ in range(workers.run.workers):
        workers.free.put_nowait(workers.spawn())
    workers.ready.set_result(None)


def _connect(address: str, run: RunSpec) -> None:
    import ray

    ray.init(address=address, namespace="delta-mem", log_to_driver=False, logging_level=logging.WARNING)
    for resource, each in (("CPU", run.cpus_per_worker), ("GPU", run.gpus_per_worker)):
        there = ray.cluster_resources().get(resource, 0)
        if run.workers * each > there:
            raise HarnessError(
                f"{run.workers} workers want {each:g} {resource} each and the cluster has {there:g}; lower run.workers"
            )


async def _watch(owner: int, head: Head | None, ended: asyncio.Event) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(owner)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if head and head.process.poll() is not None:
                break
            await asyncio.sleep(0.3)
    ended.set()


def main() -> None:
    """``python -m harness.cluster OWNER_PID FOLDER RUN_JSON``: the supervisor."""
    owner, folder, run = int(sys.argv[1]), Path(sys.argv[2]), RunSpec.model_validate_json(sys.argv[3])
    os.environ.update(ENVIRONMENT)
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    try:
        asyncio.run(supervise(owner, folder, run))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)  # Ray's own exit hooks would wait for the head that was just ended


if __name__ == "__main__":
    main()

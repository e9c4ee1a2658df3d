"""One Ray cluster a run, and the workers that stay warm on it.

A supervisor process owns all of it: the head (unless ``RAY_ADDRESS`` names a cluster), the workers and a Unix
socket through which thin clients hand in jobs. It watches the process that started it and ends everything when
that process is gone, however it went. As Ray's driver it may be ended by Ray itself, in the middle of anything, so it
is the child of a guard that knows nothing of Ray, adopts what becomes orphaned and ends what is left.
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
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from harness import leftovers
from harness.errors import HarnessError
from harness.experiment import RunSpec
from harness.shelf import put_up
from harness.workers import STARTING, Workers, room

ADDRESS = "DELTA_MEM_CLUSTER"
"""Environment variable with the path of the supervisor's socket."""

OWNER = "DELTA_MEM_OWNER"
"""Environment variable with the id of the pipeline's process, which its jobs end with."""

EVERY = 0.3
"""Seconds between two looks at another process."""

NOWHERE = "http://127.0.0.1:9"
"""The discard port of this machine, at which nobody listens."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Even then Ray's head tells its makers that it runs without, and asks first in which cloud it is; requests takes
    # the proxy of one host from such a variable, so that this reaches nobody either (unless no_proxy names that host).
    "RAY_USAGE_STATS_REPORT_URL": NOWHERE,
    "http://169.254.169.254_proxy": NOWHERE,
    "http://metadata.google.internal_proxy": NOWHERE,
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ROTATION_MAX_BYTES": str(leftovers.LARGEST_LOG),
    "RAY_ROTATION_BACKUP_COUNT": "1",
    "RAY_raylet_start_wait_time_s": "180",  # 30 s are too few where both cores are busy
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_worker_register_timeout_seconds": str(int(STARTING)),  # after 60 s Ray would give it up and tell nobody
    "RAY_worker_niceness": "0",  # Ray's 15 would let anything else on the machine starve the workers
}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""The one switch that keeps every port of an own cluster on loopback; other nodes would not reach this one then."""
AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
"""Files in Ray's session folder in which its agent says where it listens."""

LONGEST_STOP = 20
"""Seconds that a run, whose work is done, waits for the end of its cluster."""

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
            raise HarnessError(
                f"the run's cluster did not start, it {_ending(process.returncode)}; see {log or 'its log'}, and run "
                "the same command again"
            )
        time.sleep(0.02)
    return address


def ask(address: Path) -> psutil.Process | None:
    """Tell the supervisor of a socket to end, and all that it owns; None where it is gone already."""
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
        process = psutil.Process(int((address.parent / "pid").read_text()))
        if "harness.cluster" in process.cmdline():
            process.terminate()
            return process
    return None


def stop(address: Path) -> None:
    """End the supervisor of a socket and all that it owns, and wait until it has; where that takes long, it goes on."""
    if process := ask(address):
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(timeout=LONGEST_STOP)


# --- the supervisor --------------------------------------------------------------------------------------------


class Head:
    """A local Ray head in a process group of its own, on loopback, with free ports and its own folder."""

    def __init__(self, run: RunSpec, folder: Path) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0"]
        command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
        command += ["--no-monitor", "--include-log-monitor=false"]  # nothing scales, and no driver shows workers' logs
        command += [f"--temp-dir={folder}", f"--num-cpus={math.ceil(run.workers * run.cpus_per_worker)}"]
        command += [f"--object-store-memory={LOCAL_STORE}"] + ([] if run.gpus_per_worker else ["--num-gpus=0"])
        command += [f"--runtime-env-agent-port={free_port()}"]  # named beforehand, for the reason given below
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
                how = _ending(self.process.returncode)
                raise HarnessError(f"Ray's head {how} while it started; see the cluster's log, and run again")
            self._speak_for_agent()
            if _ended(self.process.pid, "raylet"):  # Ray itself would wait for it to the end
                raise HarnessError(
                    "Ray's raylet ended while it started, as it does where the machine is too busy; see the "
                    "cluster's log, and run again when it is less so"
                )
            time.sleep(0.2)
        return written.read_text().strip()

    def _speak_for_agent(self) -> None:
        """Write at once that the agent serves no ports, as it will itself, for there is no dashboard: the raylet waits
        15 s for that and then gives up, and on a busy machine the agent needs longer.
        """
        for known in self.folder.glob("session_2*/gcs_server_port_*"):
            for port in AGENT_PORTS:
                file = known.with_name(f"{port}_{known.name.rpartition('_')[2]}")
                if not file.exists():
                    file.write_text("-1")

    def end(self) -> str:
        """How it ended, in words."""
        how = _ending(self.process.poll())
        return f"Ray's head {how}, as it does where a part of Ray is lost; see logs/cluster.log"


def _ending(code: int | None) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit {code}"


def free_port() -> int:
    """A port of the loopback at which nobody listens now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def _ended(parent: int, name: str) -> bool:
    """Whether a child of another process has ended, and its parent has not looked."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(parent).children()
        return any(child.status() == psutil.STATUS_ZOMBIE and child.name() == name for child in children)
    return False


def _end_family() -> None:
    """End at once all that descends from this process."""
    while family := psutil.Process().children(recursive=True):
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=1)


def _end_with_parent() -> None:
    """Linux ends this process when its parent is killed and can no longer do it."""
    _prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _adopt() -> None:
    """Make orphans among this process's descendants its children: a killed head leaves its processes behind."""
    _prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


async def supervise(owner: int, folder: Path, run: RunSpec) -> None:
    """Serve requests until the owner is gone, the head dies or a signal asks to end."""
    loop = asyncio.get_running_loop()
    head = None if os.environ.get("RAY_ADDRESS") else Head(run, folder / "ray")
    workers = Workers(run, own=head is not None)
    serving: set[asyncio.Task[Any]] = set()
    end = asyncio.create_task(_watch(owner, head))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.cancel)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this is not None
        serving.add(this)
        job = asyncio.create_task(workers.do(json.loads(await reader.readline())))
        await asyncio.wait({job, end}, return_when=asyncio.FIRST_COMPLETED)
        reply = {"error": _broken_off(end)} if end.done() else job.result()
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()
        serving.discard(this)

    boot = asyncio.create_task(_boot(workers, head))
    try:
        async with await asyncio.start_unix_server(serve, folder / "socket", limit=MAX_REQUEST):
            await asyncio.wait({end})
            if serving:
                await asyncio.wait(serving, timeout=1)
    finally:
        boot.cancel()
        _end_family()


def _broken_off(end: asyncio.Task[str]) -> str:
    """What a job is told that was running, or waiting, when the cluster ended."""
    why = "it was asked to end" if end.cancelled() else end.result()
    return f"the run's cluster ended before the job did ({why}); run the same command again, which resumes"


async def _boot(workers: Workers, head: Head | None) -> None:
    try:
        address = await asyncio.to_thread(head.address) if head else os.environ["RAY_ADDRESS"]
        await asyncio.to_thread(connect, address, workers.run, head is not None)
        workers.shelf = None if head else await asyncio.to_thread(put_up)
    except (HarnessError, ConnectionError) as error:
        why = f"{error}" if isinstance(error, HarnessError) else f"{error}; see the cluster's log, and run again"
        workers.ready.set_exception(HarnessError(f"Ray cannot serve this run ({why})"))
        return
    workers.open()


def connect(address: str, run: RunSpec, own: bool) -> None:
    """Connect to a cluster, which has room for all workers if it is our own; others may grow.

    Raises:
        HarnessError: it has no room.
    """
    import ray

    ray.init(address=address, namespace="delta-mem", log_to_driver=False, logging_level=logging.WARNING)
    there = room((node["Resources"] for node in ray.nodes() if node["Alive"]), run)
    if there < (run.workers if own else 1):
        raise HarnessError(
            f"{run.workers} workers want {run.cpus_per_worker:g} CPU and {run.gpus_per_worker:g} GPU each and the "
            f"cluster has room for {there}; lower run.workers, or what each of them wants"
        )
    if there < run.workers:
        print(f"room for {there} of {run.workers} workers; the others start as nodes join", file=sys.stderr, flush=True)


async def _watch(owner: int, head: Head | None) -> str:
    """Returns when the owner is gone or the head has ended: which of them, in words."""
    while _runs(owner):
        if head and head.process.poll() is not None:
            return head.end()
        await asyncio.sleep(EVERY)
    return "the pipeline that it served is gone"


def _runs(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_with(owner: int) -> None:
    """End this process soon after another one, wherever it is: a job must not go on beside those of the next run."""

    def watch() -> None:
        while _runs(owner):
            time.sleep(EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """``python -m harness.cluster OWNER_PID FOLDER RUN_JSON``: the guard, and its child, the supervisor."""
    owner, folder, run = int(sys.argv[1]), Path(sys.argv[2]), RunSpec.model_validate_json(sys.argv[3])
    os.environ.update(ENVIRONMENT if os.environ.get("RAY_ADDRESS") else {**ENVIRONMENT, **LOOPBACK})
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    _adopt()
    supervisor = os.fork()
    if not supervisor:
        _end_with_parent()
        try:
            asyncio.new_event_loop().run_until_complete(supervise(owner, folder, run))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)  # Ray's own exit hooks, and a thread that connects, would wait for the head that was just ended
    asked = []

    def pass_on(number: int, frame: Any) -> None:
        asked.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor, number)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, pass_on)
    code = os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1])
    if code and not asked:
        print(f"the cluster's supervisor ended with exit {code}, as it does where the raylet is lost", file=sys.stderr)
    _end_family()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

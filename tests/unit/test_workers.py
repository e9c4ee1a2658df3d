"""Places and requests: what is lost is done again, by whoever is free, and not for ever."""

import asyncio
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray.exceptions

from harness import ranks, shortage
from harness import workers as pool
from harness.errors import HarnessError
from harness.experiment import RunSpec
from harness.workers import ATTEMPTS, Surroundings, Worker, Workers, room

LOST = "its node was lost"


def request(row="lora"):
    return {"kind": "fit", "experiment": {"run": {}}, "backbone": "tiny", "row": row, "seed": 1}


class Fake:
    """A worker that replies what its functions reply; `remote` is Ray's way of calling."""

    def __init__(self, run, settle=lambda needed: "", misses=lambda request: ""):
        self.settle, self.misses, self.run = (self._called(function) for function in (settle, misses, run))

    def _called(self, function):
        async def remote(argument):
            reply = function(argument)
            return await reply if asyncio.iscoroutine(reply) else reply

        return SimpleNamespace(remote=remote)


def lost(_):
    raise ray.exceptions.RayActorError(error_msg=LOST)


def echo(request):
    return {"result": request["row"]}


def pooled(monkeypatch, spawned, count=1, own=False, **run):
    """Workers whose processes come from a list of fakes, the last one again and again; and those that were ended."""
    made, ended = Workers(RunSpec(workers=count, **run), own), []
    monkeypatch.setattr(made, "spawn", lambda: spawned.pop(0) if len(spawned) > 1 else spawned[0])
    monkeypatch.setattr(made, "end", ended.append)
    monkeypatch.setattr(pool, "code", lambda: "")
    return made, ended


@pytest.mark.parametrize(("losses", "key"), [(0, "result"), (2, "result"), (3, "error")])
def test_a_lost_worker_is_replaced_three_times_at_most(monkeypatch, losses, key):
    async def ask():
        workers, ended = pooled(monkeypatch, [*(Fake(lost) for _ in range(losses)), Fake(echo)])
        workers.open()
        return await workers.do(request()), await workers.do(request("next")), len(ended)

    reply, after, ended = asyncio.run(ask())
    assert key in reply
    assert after == {"result": "next"}
    assert ended == losses
    if key == "error":
        assert "fit of tiny/lora lost 3 workers" in reply["error"]
        assert LOST in reply["error"]


@pytest.mark.parametrize("by_ray", [True, False], ids=["by Ray", "by the kernel"])
@pytest.mark.parametrize(
    ("kind", "bears", "asked", "reply"),
    [
        ("evaluate", 2, [0, 1, 2], {"result": "done"}),
        ("evaluate", 0, [0, 1, 2, 3, 4], {"result": "done"}),  # what one question alone kills is given up
        ("evaluate", -1, [0, 1, 2, 3, 4, 5, 6], "lost 7 workers in a row, 7 of them for want of memory"),
        ("fit", -1, [0, 1, 2], "lost 3 workers in a row, 3 of them for want of memory"),
    ],
)
def test_a_worker_that_is_killed_for_want_of_memory_is_replaced_by_one_with_half_of_the_batch(
    kind, bears, asked, reply, by_ray, monkeypatch, tmp_path
):
    """Each is killed whenever it has more than ``bears`` of 8 questions together."""
    monkeypatch.setattr(shortage, "COUNTER", tmp_path / "vmstat")
    tried = []

    def runs(request):
        tried.append(request["killed"])
        if 8 >> request["killed"] <= bears:
            return {"result": "done"}
        if by_ray:
            raise ray.exceptions.OutOfMemoryError("the node ran low")
        shortage.COUNTER.write_text(f"oom_kill {shortage.kills() + 1}\n")
        raise ray.exceptions.RayActorError(error_msg="its process was killed")

    async def ask():
        workers, _ = pooled(monkeypatch, [Fake(runs)], batch_size=8)
        workers.open()
        return await workers.do({**request(), "kind": kind})

    got = asyncio.run(ask())
    assert tried == asked
    assert got == reply if isinstance(reply, dict) else reply in got["error"]
    assert isinstance(reply, dict) or shortage.mend(kind) in got["error"]


@pytest.mark.parametrize("ends", [{"result": 1}, RuntimeError("Ray is gone")])
def test_ranks_take_the_places_of_workers_who_come_back(monkeypatch, ends):
    """Three places and three fits of two ranks: two fits that each took one place would wait for ever."""
    there, most = [], []

    def fit(request, run, surroundings):
        most.append(len(ended))
        time.sleep(0.1)
        if isinstance(ends, Exception):
            raise ends
        return ends

    monkeypatch.setattr(ranks, "fit", fit)
    workers, ended = None, None

    async def ask():
        nonlocal workers, ended
        workers, ended = pooled(monkeypatch, [Fake(echo)], 3, fit_workers=2)
        workers.open()
        asked = [asyncio.create_task(workers.do(request())) for _ in range(3)]
        there.extend(await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 30))
        return await workers.do({**request("after"), "kind": "evaluate"})

    assert asyncio.run(ask()) == {"result": "after"}
    assert there == [ends] * 3
    assert most[0] >= 2
    assert len(most) == 3


def test_what_lost_its_worker_goes_first_and_to_whoever_is_free(monkeypatch):
    """The place of the lost worker stays empty, as it does where no node has room; the other one goes on."""
    order = []

    async def ask():
        gate = asyncio.Event()

        async def falls(request):
            await gate.wait()
            lost(request)

        def notes(request):
            order.append(request["row"])
            return echo(request)

        never = Fake(echo, settle=lambda _: asyncio.Event().wait())
        workers, _ = pooled(monkeypatch, [Fake(falls), Fake(lambda r: asyncio.sleep(0.05, notes(r))), never], 2)
        workers.open()
        asked = [asyncio.create_task(workers.do(request(name))) for name in ("falls", "first", "second", "third")]
        await asyncio.sleep(0.01)
        gate.set()
        return await asyncio.gather(*asked)

    assert [reply["result"] for reply in asyncio.run(ask())] == ["falls", "first", "second", "third"]
    assert order == ["first", "falls", "second", "third"]


@pytest.mark.parametrize("own", [True, False])
def test_a_worker_that_does_not_come_up_is_begun_anew_where_there_is_room_for_it(monkeypatch, own):
    monkeypatch.setattr(pool, "STARTING", 0.05)
    never = Fake(echo, settle=lambda _: asyncio.Event().wait())

    async def ask():
        workers, ended = pooled(monkeypatch, [never, never, Fake(echo)], own=own)
        workers.open()
        reply = asyncio.create_task(workers.do(request()))
        await asyncio.wait({reply}, timeout=60 if own else 0.5)
        return reply.done() and reply.result(), len(ended)

    assert asyncio.run(ask()) == (({"result": "lora"}, 2) if own else (False, 0))


def test_workers_lost_while_idle_cost_no_request_an_attempt(monkeypatch):
    """Four of them fall together, as on one node, and the request that meets them all is not to blame."""

    async def ask():
        gone = [Fake(echo, misses=lost) for _ in range(ATTEMPTS + 1)]
        workers, _ = pooled(monkeypatch, [*gone, Fake(echo)], ATTEMPTS + 1)
        workers.open()
        return await workers.do(request())

    assert asyncio.run(ask()) == {"result": "lora"}


@pytest.mark.parametrize(
    "told", [{"settle": lambda _: "the node a misses it"}, {"misses": lambda _: "the node a misses it"}]
)
def test_a_node_that_cannot_serve_ends_no_run_while_another_can(monkeypatch, told):
    async def ask(spawned, count):
        workers, ended = pooled(monkeypatch, spawned, count)
        workers.open()
        replies = [await workers.do(request()) for _ in range(2)]
        return replies, len(ended)

    replies, ended = asyncio.run(ask([Fake(echo, **told)], 2))
    assert ended == 2 * ATTEMPTS
    assert all("(the node a misses it)" in reply["error"] for reply in replies)
    good = [Fake(echo), *(Fake(echo, **told) for _ in range(ATTEMPTS)), Fake(echo)]
    assert asyncio.run(ask(good, 2))[0] == [{"result": "lora"}] * 2


def test_a_worker_that_comes_later_takes_requests(monkeypatch):
    async def ask():
        joined = asyncio.Event()

        async def joins(needed):
            await joined.wait()
            return ""

        stays = Fake(lambda _: asyncio.Event().wait())
        workers, _ = pooled(monkeypatch, [stays, Fake(echo, settle=joins)], 2)
        workers.open()
        kept, waits = (asyncio.create_task(workers.do(request())) for _ in range(2))
        await asyncio.sleep(0.01)
        assert not waits.done()
        joined.set()
        reply = await asyncio.wait_for(waits, 1)
        kept.cancel()
        return reply

    assert asyncio.run(ask()) == {"result": "lora"}


def evaluation(row="frozen", tasks=3):
    return {**request(row), "kind": "evaluate", "experiment": {"run": {}, "tasks": [{}] * tasks}}


def shared(monkeypatch, helper, tasks=3, patience=0.02, within=60):
    """One evaluation; it lasts until helpers have begun, they until it has ended: reply, order, a later reply."""
    asked = []

    async def ask():
        enough, ended = asyncio.Event(), asyncio.Event()

        async def answers(request):
            if not request.get("helps"):
                await enough.wait()
                asked.append("main")
                ended.set()
                return {"result": "main"}
            asked.append("begun")
            if asked.count("begun") == tasks - 1:
                enough.set()
            await ended.wait()
            asked.append("ended")
            return helper(request)

        workers, _ = pooled(monkeypatch, [Fake(answers)], 4)
        monkeypatch.setattr(pool, "PATIENCE", patience)
        workers.open()
        try:
            reply = await asyncio.wait_for(workers.do(evaluation(tasks=tasks)), within)
        except TimeoutError:
            return None, asked
        return reply, list(asked), await workers.do(request("next"))

    return asyncio.run(ask())


def test_free_workers_help_one_for_each_further_task_and_are_waited_for(monkeypatch):
    reply, asked, _ = shared(monkeypatch, echo)
    assert reply == {"result": "main"}
    assert asked == ["begun"] * 2 + ["main"] + ["ended"] * 2


@pytest.mark.parametrize("helper", [lost, lambda request: {"error": "a gate failed"}])
def test_a_helper_that_fails_fails_nothing(monkeypatch, helper):
    reply, _, after = shared(monkeypatch, helper)
    assert reply == {"result": "main"}
    assert "error" not in after


@pytest.mark.parametrize("changes", [{"tasks": 1}, {"patience": 60}])
def test_nobody_helps_with_one_task_or_at_once(monkeypatch, changes):
    assert shared(monkeypatch, echo, within=0.5, **changes) == (None, [])


def test_whoever_is_done_needs_no_help(monkeypatch):
    helped = []

    async def ask():
        workers, _ = pooled(monkeypatch, [Fake(lambda r: helped.append(r.get("helps")) or echo(r))], 2)
        monkeypatch.setattr(pool, "PATIENCE", 0.02)
        workers.open()
        replies = [await workers.do(evaluation()) for _ in range(2)]
        await asyncio.sleep(0.1)
        return replies

    assert asyncio.run(ask()) == [{"result": "frozen"}] * 2
    assert helped == [None, None]


def test_a_fault_of_ours_comes_back_and_the_worker_stays(monkeypatch):
    def breaks(request):
        raise ray.exceptions.RayError("Traceback ...")

    async def ask():
        workers, ended = pooled(monkeypatch, [Fake(breaks)])
        workers.open()
        return await workers.do(request()), ended

    reply, ended = asyncio.run(ask())
    assert reply == {"failure": "Traceback ..."}
    assert ended == []


def test_a_cluster_that_cannot_start_refuses_each_request():
    async def ask():
        workers = Workers(RunSpec())
        workers.ready.set_exception(HarnessError("Ray cannot serve this run (no head)"))
        return [await workers.do(request()) for _ in range(2)]

    assert asyncio.run(ask()) == [{"error": "Ray cannot serve this run (no head)"}] * 2


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "fits"),
    [
        ([{"CPU": 2}], 1, 0, 2),
        ([{"CPU": 3}, {"CPU": 3}], 2, 0, 2),  # six CPUs, and yet not three workers
        ([{"CPU": 64, "GPU": 8}, {"CPU": 64, "GPU": 4}, {"CPU": 64}], 1, 1, 12),
        ([{"CPU": 64, "GPU": 2}], 1, 0.5, 4),
        ([{"CPU": 64, "GPU": 2}], 1, 0.6, 2),  # a share lies on one GPU
        ([{"CPU": 64, "GPU": 3}], 1, 2, 1),
        ([{"CPU": 2, "GPU": 8}], 1, 0.1, 2),
        ([{"CPU": 0.3}], 0.1, 0, 3),
        ([{}], 1, 0, 0),
    ],
)
def test_a_worker_lies_on_one_node(nodes, cpus, gpus, fits):
    assert room(nodes, RunSpec(cpus_per_worker=cpus, gpus_per_worker=gpus)) == fits


@pytest.fixture
def surroundings(monkeypatch, tmp_path):
    for name in (*pool.THREADS, "OMP_WAIT_POLICY", *pool.HANDED):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.chdir(Path.cwd())
    return lambda **given: Surroundings(
        **{"directory": str(tmp_path), "threads": 3, "code": pool.code(), "environment": {}, **given}
    )


def test_a_worker_is_at_home_in_the_run_s_folder_with_its_threads(surroundings, monkeypatch, tmp_path):
    monkeypatch.setenv("DELTA_MEM_CACHE", "/local/cache")
    given = {"DELTA_MEM_DATA": "/shared/data", "DELTA_MEM_CACHE": "/home/cache"}
    assert Worker().settle(surroundings(environment=given)) == ""
    assert Path.cwd() == tmp_path
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["DELTA_MEM_DATA"] == "/shared/data"
    assert os.environ["DELTA_MEM_CACHE"] == "/local/cache"  # what a node says of itself holds


def test_a_node_without_the_folder_or_with_other_code_says_so(surroundings, tmp_path):
    assert "does not see" in Worker().settle(surroundings(directory=str(tmp_path / "none")))
    assert "has other code" in Worker().settle(surroundings(code="0"))


def test_code_changes_with_any_file_of_it(monkeypatch, tmp_path):
    (tmp_path / "harness").mkdir()
    monkeypatch.setattr(pool, "__file__", str(tmp_path / "harness" / "workers.py"))
    digests = set()
    for name, text in (("a.py", "1"), ("a.py", "2"), ("b.yaml", "2"), ("c.pyc", "2")):
        (tmp_path / "harness" / name).write_text(text)
        digests.add(pool.code())
    assert len(digests) == 3


def test_a_node_with_other_results_is_told_by_the_request_s_log(tmp_path):
    log = tmp_path / "logs" / "fit.jsonl"
    assert "all nodes have to share it" in Worker().misses({"progress": str(log)})
    log.parent.mkdir()
    log.write_text("")
    assert Worker().misses({"progress": str(log)}) == ""
    log.rename(f"{log}.1")
    assert Worker().misses({"progress": str(log)}) == ""
    assert Worker().misses({}) == ""

"""A fit that two ranks share is the fit of one worker: every loss, every parameter, cut off or not."""

from __future__ import annotations

import pytest
import torch

from harness import ranks
from harness.errors import HarnessError
from harness.experiment import RunSpec
from harness.ranks import RankLostError
from harness.workers import Surroundings
from tests.unit import ranked

LOSS = 1e-5
"""Nats a token by which a step's loss may differ."""
PARAMETER = 1e-5
"""By which a parameter may, after six steps of at most 3e-3."""

HERE = Surroundings(".", 1, "", {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two ranks have made every fit of ``ranked``."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("ranks")
    ranked.cut("delta_mem_tsw", path / "narrow")  # by one worker, for the ranks to go on with
    torch.multiprocessing.start_processes(ranked.main, (path,), ranked.RANKS, start_method="spawn")
    return path


@pytest.fixture(scope="module")
def found(folder):
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(ranked.RANKS)]


def assert_same(one, other):
    """Two fits took the same steps: (report, parameters, how far they moved)."""
    (report, parameters, moved), (other_report, other_parameters, _) = one, other
    assert moved > 100 * PARAMETER
    assert report["losses"] == pytest.approx(other_report["losses"], abs=LOSS, rel=0)
    assert [report[k] for k in ("steps", "tokens", "episodes")] == [
        other_report[k] for k in ("steps", "tokens", "episodes")
    ]
    for name, parameter in parameters.items():
        torch.testing.assert_close(other_parameters[name], parameter, atol=PARAMETER, rtol=0, msg=name)


@pytest.mark.parametrize("row", ranked.SETTINGS)
def test_two_ranks_learn_what_one_worker_learns(row, found, tmp_path):
    one = ranked.by_method(row, tmp_path)
    assert one[0]["steps"] == (6 if row in ranked.TWICE else 3)
    for rank in found:
        assert_same(one, rank[row])
        assert (rank[row][0]["ranks"], rank[row][0]["collectives"]) == (2, "gloo")
    assert (one[0]["ranks"], one[0]["collectives"]) == (1, "")


def test_the_comparison_sees_gradients_that_are_not_summed(found, tmp_path):
    with pytest.raises(AssertionError):
        assert_same(ranked.by_method("delta_mem_tsw", tmp_path), found[0]["unsynchronised"])


def test_random_numbers_and_rare_parameters_change_nothing(found, tmp_path):
    one = ranked.odd(tmp_path)
    for rank in found:
        assert_same(one, rank["odd"])
        assert torch.equal(rank["odd"][1]["never"], torch.ones(3))  # weight decay spares what has no gradient


def test_the_ranks_hold_the_same_parameters(found):
    for row in ranked.SETTINGS:
        first, second = (rank[row][1] for rank in found)
        assert all(torch.equal(first[name], second[name]) for name in first), row


def test_a_fit_that_was_cut_off_goes_on_with_any_number_of_ranks(found, folder, tmp_path):
    one = ranked.by_method("delta_mem_tsw", tmp_path)
    assert_same(one, found[0]["resumed"])  # two ranks after two
    assert_same(one, found[0]["widened"])  # two after one
    assert_same(one, ranked.by_method("delta_mem_tsw", folder / "wide"))  # one after two


def test_one_rank_writes(found, folder):
    assert [rank["saved"] for rank in found] == [[2], []]
    first, second = (rank["stored"] for rank in found)
    assert first == second
    assert first["first"] == first["again"]
    assert first["first"]["ranks"] == 2
    assert len(list((folder / "results" / "fits").iterdir())) == 1


def test_a_loop_of_its_own_is_refused(found):
    for rank in found:
        assert rank["own loop"] == (
            "method 'lora' learns in a loop of its own, which ranks cannot share; set run.fit_workers=1"
        )


def test_what_a_process_trains_for_itself_waits_for_no_other(found):
    assert [rank["alone"] for rank in found] == [1, 1]


def test_a_process_that_is_no_rank_is_a_group_of_one():
    parameter = torch.nn.Parameter(torch.ones(1))
    assert (ranks.count(), ranks.index(), ranks.leads(), ranks.collectives()) == (1, 0, True, "")
    assert ranks.told(parameter) is parameter


class Trainer:
    """Ray's, whose attempts end as they are told; `fit` is Ray's name for it."""

    def __init__(self, ends):
        self.ends = ends

    def fit(self):
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return type("Result", (), {"return_value": end})


def reply(monkeypatch, folder, *ends):
    """The reply to a fit whose attempts end so, and how many of them were not made."""
    left = list(ends)
    monkeypatch.setattr(ranks, "_trainer", lambda *_: Trainer(left))
    request = {"kind": "fit", "backbone": "tiny", "row": "lora", "results": str(folder)}
    return ranks.fit(request, RunSpec(workers=2, fit_workers=2), HERE), len(left)


def lost():
    """What Ray tells where one of two ranks was killed: its death, and what the other one saw of it."""
    from ray.exceptions import RayActorError
    from ray.train import WorkerGroupError

    killed = RayActorError(error_msg="its process was killed")
    return WorkerGroupError("one died", {0: RankLostError("rank 0 lost another one"), 1: killed})


def test_a_lost_rank_is_replaced_and_the_third_ends_the_fit(monkeypatch, tmp_path):
    assert reply(monkeypatch, tmp_path, lost(), lost(), {"steps": 6}) == ({"result": {"steps": 6}}, 0)
    told, left = reply(monkeypatch, tmp_path, lost(), lost(), lost(), {"steps": 6})
    assert left == 1
    assert told["error"].startswith("the fit of tiny/lora lost a rank 3 times (")
    assert "its process was killed" in told["error"]
    assert told["error"].endswith("; give it more memory and run again")


def test_a_mistake_and_a_fault_are_not_tried_again(monkeypatch, tmp_path):
    from ray.train import WorkerGroupError

    mistake = WorkerGroupError("", {0: RankLostError("a rank"), 1: HarnessError("the training loss is nan; lower it")})
    assert reply(monkeypatch, tmp_path, mistake, {}) == ({"error": "the training loss is nan; lower it"}, 1)
    fault, left = reply(monkeypatch, tmp_path, WorkerGroupError("KeyError: 'x' in loss", {1: KeyError("x")}), {})
    assert "KeyError: 'x' in loss" in fault["failure"]
    assert left == 1


def test_ranks_that_find_no_place_are_told(monkeypatch, tmp_path):
    from ray.exceptions import RayActorError
    from ray.train import ControllerError

    ends = [RayActorError(error_msg="the controller died"), *[ControllerError(RuntimeError("no place for them"))] * 2]
    told, _ = reply(monkeypatch, tmp_path, *ends)
    assert "no place for them" in told["error"]


@pytest.mark.parametrize(("share", "backend"), [(0, "gloo"), (0.5, "gloo"), (1, "cpu:gloo,cuda:nccl")])
def test_ranks_have_the_size_of_workers(share, backend, tmp_path):
    run = RunSpec(workers=4, fit_workers=3, cpus_per_worker=2, gpus_per_worker=share)
    trainer = ranks._trainer({}, run, HERE, tmp_path / "ranks" / "meeting")
    assert trainer.backend_config.backend == backend
    assert not trainer.backend_config.backend_cls.share_cuda_visible_devices
    assert trainer.run_config.worker_runtime_env["env_vars"]["OMP_NUM_THREADS"] == "2"
    assert trainer.scaling_config.num_workers == 3
    assert trainer.scaling_config.num_cpus_per_worker == 2
    assert trainer.scaling_config.num_gpus_per_worker == share


@pytest.mark.parametrize(("address", "named"), [("", True), ("10.0.0.1:6379", False)])
def test_ranks_of_a_local_cluster_meet_on_loopback(address, named, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert ("GLOO_SOCKET_IFNAME" in ranks._environment(RunSpec())) is named

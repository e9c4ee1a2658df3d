"""What ``make faults`` does to a cluster, in small: real nodes of Ray on this machine, and simulated ones."""

import pytest

from benchmarks import cluster
from tests.faults import campaign_scale


def test_nodes_are_shared_lost_and_joined_and_every_job_is_done():
    results = list(campaign_scale.on_nodes())
    assert len(results) == 3
    for result in results:
        assert result.met, (result.fault, result.figure)


def test_a_simulated_cluster_is_busy_and_a_lost_node_costs_little():
    """As many jobs a GPU as on the large one."""
    whole, lost, unordered = (
        cluster.run(cluster.LOADS["uneven"], 16, 8, 250, 0, **changes)
        for changes in ({}, {"losing": True}, {"ordered": False})
    )
    assert whole.busy >= cluster.BUSY_GOAL
    assert whole.again == 0
    assert 0 < lost.again <= cluster.AGAIN_GOAL
    assert unordered.busy < whole.busy - 0.03  # so that the order is seen to count


def test_free_workers_help_with_long_jobs(monkeypatch):
    helped = cluster.run(cluster.LOADS["paper"], 16, 8, 250, 0)
    monkeypatch.setattr("harness.workers.PATIENCE", float("inf"))
    alone = cluster.run(cluster.LOADS["paper"], 16, 8, 250, 0)
    assert helped.busy > alone.busy + 0.1
    assert helped.helped < 0.01


def test_simulated_time_that_nobody_ends_is_told():
    import asyncio

    from benchmarks._simulated import simulate

    async def waits():
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="waits for something that nobody does"):
        simulate(waits())

"""One result through many deaths: what ``make faults`` does at many moments, here one after another in one folder."""

import random
import time
from signal import SIGINT

import pytest

from tests.faults.campaign_ray import is_raylet, is_worker
from tests.faults.pipeline import ONE, SEED, SHORT, Checkout, unbroken

pytestmark = pytest.mark.pipeline

INLINE = (*ONE, "run.executor=inline")
"""The same answers without Ray, sooner."""


@pytest.fixture(scope="module")
def expected():
    return unbroken(INLINE, SHORT).tables


def reached(run, targets):
    """A member of a run, once there is one, and a seeded moment later."""
    until = time.monotonic() + 300
    while not (found := run.members(targets)):
        assert not run.ends_by(0.3), run.said()
        assert time.monotonic() < until, run.said()
    assert not run.ends_by(random.Random(f"{SEED} {targets.__name__}").uniform(0, 3)), run.said()
    return found[0]


def test_tables_are_the_same_after_every_kind_of_death(expected):
    checkout = Checkout(ONE, SHORT)

    run = checkout.start()
    reached(run, is_worker)
    run.kill()
    assert run.left() == []

    run = checkout.start()
    reached(run, is_worker)
    second = checkout.start()
    assert second.wait() != 0
    (said,) = second.sentences()
    assert "another pipeline works in" in said
    run.process.send_signal(SIGINT)
    begun = time.monotonic()
    assert run.wait(60) != 0
    assert time.monotonic() - begun < 30  # 10 s where nothing else runs
    assert run.left() == []

    run = checkout.start()
    reached(run, is_worker)
    reached(run, is_raylet).kill()
    assert run.wait() != 0
    assert any("ended before the job did" in said for said in run.sentences()), run.said()
    assert run.left() == []

    run = checkout.start()
    reached(run, is_worker).kill()  # is replaced
    assert run.wait() == 0, run.said()
    assert checkout.tables() == expected
    assert checkout.twice() <= 4
    checkout.remove()

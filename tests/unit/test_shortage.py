"""What counts as a shortage of memory, and what an evaluation keeps of one."""

from __future__ import annotations

import errno
import gc
import os
import weakref

import numpy as np
import pytest
import torch

from harness import shortage
from harness.errors import HarnessError, SkippedError
from harness.shortage import Batches, Trail

TOO_MUCH = 2**50
"""Bytes that no machine has."""
ALLOCATIONS = {
    "torch": lambda: torch.empty(TOO_MUCH, dtype=torch.uint8),
    "numpy": lambda: np.empty(TOO_MUCH, dtype=np.uint8),
    "python": lambda: bytearray(TOO_MUCH),
}


def raised(act):
    try:
        act()
    except Exception as error:
        return error


@pytest.mark.parametrize("by", ALLOCATIONS)
def test_what_an_allocator_says_counts(by):
    error = raised(ALLOCATIONS[by])
    assert shortage.of_memory(error)
    told = shortage.told(error)
    assert type(told) is SkippedError
    assert "memory ran short (" in str(told)
    assert "; give its worker more memory, or lower run.workers, or set max_history_tokens" in str(told)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:80] DefaultCPUAllocator: not enough memory: you tried to allocate"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
)
def test_what_libraries_and_the_kernel_say_counts(error):
    assert shortage.of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        ValueError("out of memory"),
        HarnessError("a note on being out of memory"),
    ],
)
def test_what_is_something_else_stays_what_it_is(error):
    assert not shortage.of_memory(error)
    assert shortage.told(error) is error


def test_nothing_of_what_failed_stays_in_memory():
    class Large:
        pass

    def work():
        large = Large()
        kept.append(weakref.ref(large))
        torch.empty(TOO_MUCH, dtype=torch.uint8)

    kept = []
    with shortage.noticed() as short:
        work()
    gc.collect()
    assert len(short) == 1
    assert kept[0]() is None


def test_other_errors_are_not_noticed():
    with pytest.raises(ValueError, match="else"), shortage.noticed():
        raise ValueError("else")


@pytest.mark.parametrize(
    ("kind", "mend"),
    [
        ("fit", "lower budget.batch_size and raise budget.accumulation"),
        ("prepare", "give its worker more memory, or lower"),
    ],
)
def test_a_job_that_runs_short_ends_in_one_sentence_with_the_mend_for_its_kind(kind, mend):
    with pytest.raises(HarnessError, match=rf"memory ran short in the work \(.*\); {mend}"):  # noqa: SIM117
        with shortage.named("the work", kind):
            ALLOCATIONS["torch"]()


@pytest.mark.parametrize(("begin", "size"), [(None, 12), (6, 6), (16, 12)])
def test_where_a_worker_was_lost_over_more_fewer_are_begun_with(begin, size):
    batches = Batches(12, begin)
    assert (batches.most, batches.size, batches.least) == (12, size, size)


def test_a_batch_that_is_too_large_is_halved():
    batches = Batches(16)
    batches.halve(5)  # there were no more questions
    assert (batches.size, batches.least) == (2, 2)
    batches.size = 16
    batches.halve(16)
    assert (batches.size, batches.least) == (8, 2)


def test_what_killed_a_worker_is_tried_with_half_of_its_questions_and_given_up_at_one(tmp_path):
    path = tmp_path / "trail"
    assert Trail(path).begin is None
    Trail(path).step("cell", "h1", 5, 16)
    first = Trail(path, 1)
    assert (first.begin, first.given_up) == (2, [])
    assert first.step("cell", "h1", 1, 2) is None  # it has one question
    second = Trail(path, 2)
    assert second.begin == 2  # which says nothing of histories that have more
    why = second.step("cell", "h1", 1, 2)
    assert isinstance(why, SkippedError)
    assert "killed for want of memory at one question alone; give" in str(why)
    assert second.step("other", "h1", 1, 2) is None
    third = Trail(path, 3)
    assert third.step("cell", "h1", 1, 2)
    assert third.step("other", "h1", 1, 2)
    assert third.step("other", "h2", 1, 2) is None
    called_again = Trail(path)
    assert called_again.begin is None
    assert called_again.step("cell", "h1", 1, 16) is None


def test_a_worker_that_was_killed_before_its_first_history_leaves_nothing(tmp_path):
    trail = Trail(tmp_path / "trail", 1)
    assert (trail.begin, trail.given_up) == (None, [])


def test_a_trail_without_a_place_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trail = Trail()
    trail.step("cell", "h", 1, 1)
    trail.remove()
    assert not list(tmp_path.iterdir())


def test_the_kernels_count_is_read_where_there_is_one(tmp_path, monkeypatch):
    assert shortage.kills() >= 0
    counter = tmp_path / "vmstat"
    counter.write_text("pgfault 12\noom_kill 7\noom_kill_other 9\n")
    monkeypatch.setattr(shortage, "COUNTER", counter)
    assert shortage.kills() == 7
    counter.unlink()
    assert shortage.kills() == 0

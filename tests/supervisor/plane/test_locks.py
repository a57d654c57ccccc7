import os
import random
import signal
import time

import pytest

from supervisor.plane import locks
from supervisor.plane.locks import LockResult, leasepool_lock, lock, pool_lock
from supervisor.plane.memory import Plane
from supervisor.plane.region import PlaneError
from tests.supervisor.plane.children import child_that, run_child, wait_child


def test_a_free_lock_is_taken_at_once_and_again(plane: Plane) -> None:
    one = lock(plane, 0)
    for _ in range(3):
        assert one.acquire() is LockResult.OK
        one.release()


def test_locks_are_apart(plane: Plane) -> None:
    held = [lock(plane, 1), leasepool_lock(plane, 1), pool_lock(plane, 1)]
    assert [one.acquire() for one in held] == [LockResult.OK] * 3
    for one in held:
        one.release()


def test_the_dead_leave_a_lock_to_recover(plane: Plane) -> None:
    one = lock(plane, 0)
    wait_child(run_child(lambda: one.acquire() is not LockResult.OK))
    assert one.acquire() is LockResult.RECOVERED
    one.release()
    assert one.acquire() is LockResult.OK
    one.release()


def test_dying_in_the_repair_leaves_it_to_the_next(plane: Plane) -> None:
    one = lock(plane, 0)
    for _ in range(3):
        wait_child(run_child(lambda: one.acquire() is None))
    assert one.acquire() is LockResult.RECOVERED
    one.release()


def test_a_waiter_gets_the_lock_of_one_that_is_killed_meanwhile(plane: Plane) -> None:
    one = lock(plane, 0)
    with child_that(one.acquire) as holder:
        waiter = run_child(lambda: {LockResult.RECOVERED: 7, LockResult.OK: 1, LockResult.TIMED_OUT: 2}[one.acquire()])
        os.kill(holder, signal.SIGKILL)
        assert wait_child(waiter) == 7


def test_a_stopped_owner_costs_at_most_the_wait_and_then_nothing(plane: Plane) -> None:
    one = lock(plane, 0)
    with child_that(one.acquire):
        started = time.monotonic_ns()
        assert one.acquire() is LockResult.TIMED_OUT
        waited = time.monotonic_ns() - started
        assert locks.MAX_WAIT <= waited < 20 * locks.MAX_WAIT
        started = time.monotonic_ns()
        assert one.acquire() is LockResult.TIMED_OUT
        assert time.monotonic_ns() - started < locks.MAX_WAIT
    assert one.acquire() is LockResult.RECOVERED
    one.release()


def test_killing_holders_at_random_moments_never_wedges_it(plane: Plane) -> None:
    one = lock(plane, 5)
    choose = random.Random(7)

    def work() -> int:
        while True:
            if one.acquire() is not LockResult.TIMED_OUT:
                plane.cells[100] += 1
                one.release()

    for _ in range(40):
        workers = [run_child(work), run_child(work)]
        seen = plane.cells[100]
        while plane.cells[100] < seen + choose.randrange(50, 500):
            pass
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
            wait_child(pid)
        assert one.acquire() in (LockResult.OK, LockResult.RECOVERED)
        one.release()


def test_a_broken_mutex_is_an_error_not_a_hang(plane: Plane) -> None:
    one = lock(plane, 0)
    with pytest.raises(PlaneError, match="EINVAL"):
        one.settle(22)

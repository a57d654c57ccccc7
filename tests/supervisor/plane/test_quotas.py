import os
import signal
import time
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from supervisor.plane import layout, locks
from supervisor.plane.layout import Kind, Limit
from supervisor.plane.memory import Plane
from supervisor.plane.quotas import Quotas
from tests.supervisor.plane.children import child_that, run_child, stop, wait_child

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
NOW = 1_000 * SECOND


def test_exactly_burst_at_once_then_one_per_interval(plane: Plane) -> None:
    quotas = Quotas(plane)
    digest = quotas.digests("per_user")(b"alice")
    answers = [quotas.admit(digest, SECOND, 3, NOW) for _ in range(5)]
    assert answers == [
        (True, 2, 1 * SECOND),
        (True, 1, 2 * SECOND),
        (True, 0, 3 * SECOND),
        (False, 0, 1 * SECOND),
        (False, 0, 1 * SECOND),
    ]
    assert quotas.admit(digest, SECOND, 3, NOW + SECOND - 1) == (False, 0, 1)
    assert quotas.admit(digest, SECOND, 3, NOW + SECOND)[0]
    assert not quotas.admit(digest, SECOND, 3, NOW + SECOND)[0]


def test_keys_and_limits_do_not_touch_each_other(plane: Plane) -> None:
    quotas = Quotas(plane)
    per_user, per_ip = quotas.digests("per_user"), quotas.digests("per_ip")
    digests = [per_user(b"alice"), per_user(b"bob"), per_ip(b"alice")]
    assert len(set(digests)) == 3
    assert all(quotas.admit(digest, MINUTE, 1, NOW)[0] for digest in digests)
    assert not any(quotas.admit(digest, MINUTE, 1, NOW)[0] for digest in digests)


def test_workers_agree_on_digests_and_other_planes_do_not(plane: Plane) -> None:
    assert Quotas(plane).digests("a")(b"k") == Quotas(plane).digests("a")(b"k")
    other = Plane.create()
    assert Quotas(other).digests("a")(b"k") != Quotas(plane).digests("a")(b"k")
    other.close()


def test_outcomes_are_counted_in_the_row_given(plane: Plane) -> None:
    quotas = Quotas(plane)
    base = plane.counters(Kind.LIMIT, plane.allocate(Kind.LIMIT, "per_user"), 2)
    for _ in range(5):
        quotas.admit(b"k" * 16, MINUTE, 2, NOW, base)
    assert plane.cells[base + Limit.ADMITTED] == 2
    assert plane.cells[base + Limit.REFUSED] == 3


def in_one_bucket(count: int) -> list[bytes]:
    return [index.to_bytes(8, "little") + bytes(8) for index in range(2, 2 * count + 2, 2)]


def test_a_full_bucket_admits_and_counts_and_forgets_nobody(plane: Plane) -> None:
    quotas = Quotas(plane)
    base = plane.counters(Kind.LIMIT, plane.allocate(Kind.LIMIT, "per_user"), 2)
    digests = in_one_bucket(layout.BUCKET_ROWS + 1)
    for digest in digests:
        assert quotas.admit(digest, MINUTE, 1, NOW, base)[0]
    assert plane.cells[base + Limit.ADMITTED_FULL] == 1
    assert plane.cells[base + Limit.ADMITTED] == len(digests)
    assert not any(quotas.admit(digest, MINUTE, 1, NOW)[0] for digest in digests[:-1])
    assert quotas.admit(digests[-1], MINUTE, 1, NOW)[0]


def test_only_rows_whose_time_is_past_are_reused(plane: Plane) -> None:
    quotas = Quotas(plane)
    digests = in_one_bucket(layout.BUCKET_ROWS + 2)
    for index, digest in enumerate(digests[:-2]):
        quotas.admit(digest, SECOND if index == 5 else MINUTE, 1, NOW)
    later = NOW + 2 * SECOND
    assert quotas.admit(digests[-2], MINUTE, 1, later)[0]
    assert not quotas.admit(digests[-2], MINUTE, 1, later)[0]
    assert quotas.admit(digests[-1], MINUTE, 1, later)[0]
    assert quotas.admit(digests[-1], MINUTE, 1, later)[0]
    assert not any(quotas.admit(digest, MINUTE, 1, later)[0] for digest in digests[:5])


def test_four_processes_at_one_row_admit_exactly_burst(plane: Plane) -> None:
    quotas = Quotas(plane)
    digest = quotas.digests("checkout")(b"alice")
    row = plane.allocate(Kind.LIMIT, "checkout")

    def work(column: int) -> int:
        base = plane.counters(Kind.LIMIT, row, column)
        for _ in range(500):
            quotas.admit(digest, 60 * MINUTE, 137, time.monotonic_ns(), base)
        return 0

    pids = [run_child(partial(work, column)) for column in range(2, 6)]
    assert [wait_child(pid) for pid in pids] == [0] * 4
    assert plane.total(Kind.LIMIT, row, Limit.ADMITTED) == 137
    assert plane.total(Kind.LIMIT, row, Limit.REFUSED) == 4 * 500 - 137


def test_workers_killed_at_random_never_wedge_a_limit(plane: Plane) -> None:
    quotas = Quotas(plane)
    digest = quotas.digests("checkout")(b"alice")
    row = plane.allocate(Kind.LIMIT, "checkout")
    base = plane.counters(Kind.LIMIT, row, 2)

    def work() -> int:
        while True:
            quotas.admit(digest, 60 * MINUTE, 50, time.monotonic_ns(), base)

    for _ in range(25):
        pid = run_child(work)
        seen = plane.total(Kind.LIMIT, row, Limit.REFUSED)
        while plane.total(Kind.LIMIT, row, Limit.REFUSED) < seen + 100:
            pass
        os.kill(pid, signal.SIGKILL)
        wait_child(pid)
        assert not quotas.admit(digest, 60 * MINUTE, 50, time.monotonic_ns())[0]
    # A death between the store of the TAT and the count loses a count, never admits one more.
    assert 49 <= plane.total(Kind.LIMIT, row, Limit.ADMITTED) <= 50


def test_a_stopped_owner_makes_limits_admit_and_count(plane: Plane) -> None:
    quotas = Quotas(plane)
    digest = b"k" * 16
    base = plane.counters(Kind.LIMIT, plane.allocate(Kind.LIMIT, "per_user"), 2)
    quotas.admit(digest, MINUTE, 1, NOW, base)
    stripe = int.from_bytes(digest[8:], "little") % layout.BUCKETS % layout.QUOTA_LOCKS
    with child_that(locks.lock(plane, stripe).acquire) as holder:
        stop(holder)
        started = time.monotonic_ns()
        assert quotas.admit(digest, MINUTE, 1, NOW, base)[0]
        assert time.monotonic_ns() - started >= locks.MAX_WAIT
        assert plane.cells[base + Limit.LOCK_TIMEOUTS] == 1
        assert plane.cells[base + Limit.ADMITTED] == 2
    assert not quotas.admit(digest, MINUTE, 1, NOW, base)[0]


STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5 * SECOND), st.integers(1, 2 * SECOND), st.integers(1, 5)), max_size=60
)


@given(STEPS)
def test_property_the_table_agrees_with_a_dictionary(steps: list[tuple[int, int, int, int]]) -> None:
    """The model is GCRA on a dict; every key has its own interval and burst, time never runs back."""
    plane = Plane.create()
    try:
        quotas = Quotas(plane)
        digests = in_one_bucket(4)
        tats: dict[int, int] = {}
        limits: dict[int, tuple[int, int]] = {}
        now = NOW
        for key, pause, interval, burst in steps:
            now += pause
            interval, burst = limits.setdefault(key, (interval, burst))
            tat = max(tats.get(key, 0), now) + interval
            allowed = tat - now <= burst * interval
            if allowed:
                tats[key] = tat
            admitted, remaining, ns = quotas.admit(digests[key], interval, burst, now)
            assert admitted is allowed
            if allowed:
                assert remaining == (burst * interval - (tat - now)) // interval
                assert ns == tat - now
            else:
                assert (remaining, ns) == (0, tat - burst * interval - now)
    finally:
        plane.close()


@given(st.integers(1, 2 * SECOND), st.integers(1, 20), st.lists(st.integers(0, SECOND), min_size=1, max_size=50))
def test_property_no_window_admits_more_than_burst_and_its_refill(interval: int, burst: int, pauses: list[int]) -> None:
    plane = Plane.create()
    try:
        quotas = Quotas(plane)
        now, admitted = NOW, []
        for pause in pauses:
            now += pause
            if quotas.admit(b"k" * 16, interval, burst, now)[0]:
                admitted.append(now)
        for first in range(len(admitted)):
            for last in range(first, len(admitted)):
                span = admitted[last] - admitted[first]
                assert last - first + 1 <= burst + span // interval
    finally:
        plane.close()

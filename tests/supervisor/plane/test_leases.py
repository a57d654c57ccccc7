import os
import random
import signal
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from supervisor.plane import layout
from supervisor.plane.layout import Kind, LeasePool, LeaseState
from supervisor.plane.leases import Held, Leases
from supervisor.plane.locks import leasepool_lock
from supervisor.plane.memory import Plane
from supervisor.plane.region import PlaneError, PlaneFullError
from tests.supervisor.plane.children import child_that, run_child, stop, wait_child


def make_pool(plane: Plane, limit: int, name: str = "app/app") -> int:
    pool = plane.allocate(Kind.LEASEPOOL, name)
    Leases(plane).set_limit(pool, limit)
    return pool


def take(leases: Leases, pool: int, column: int, server: int = 7) -> int:
    lease = leases.take(pool, column, server)
    assert lease is not None
    return lease


def orphans_of(leases: Leases, pool: int) -> list[Held]:
    return [held for held in leases.held(pool) if held.state == LeaseState.ORPHANED]


def test_a_pool_gives_as_many_leases_as_its_limit(plane: Plane) -> None:
    pool, leases = make_pool(plane, 2), Leases(plane)
    column = plane.claim_column("pooler", 1)
    first = take(leases, pool, column)
    take(leases, pool, column)
    assert leases.take(pool, column, 7) is None
    assert leases.free(first)
    assert leases.open(pool) == 1
    take(leases, pool, column)


def test_a_freed_lease_is_freed_once(plane: Plane) -> None:
    pool, leases = make_pool(plane, 3), Leases(plane)
    lease = take(leases, pool, 2)
    take(leases, pool, 2)
    assert leases.free(lease)
    assert leases.free(lease)
    assert leases.open(pool) == 1


def test_the_id_of_a_freed_lease_reaches_nobody_elses(plane: Plane) -> None:
    pool, leases = make_pool(plane, 3), Leases(plane)
    column = plane.claim_column("pooler", 1)
    old = take(leases, pool, column)
    leases.free(old)
    new = take(leases, pool, column)
    assert new != old
    assert leases.free(old)
    assert not leases.move(old, column)
    assert not leases.adopt(old, column)
    leases.bind(old, 1, b"x")
    (held,) = leases.held(pool)
    assert (held.lease, held.pid, held.state) == (new, 0, LeaseState.TAKEN)


def test_who_holds_a_lease_can_be_asked(plane: Plane) -> None:
    pool, leases = make_pool(plane, 3), Leases(plane)
    giver, taker = plane.claim_column("pooler", 1), plane.claim_column("pooler", 2)
    lease = take(leases, pool, giver)
    assert not leases.holds(lease, giver), "there is no connection yet"
    leases.bind(lease, 1, b"x")
    assert leases.holds(lease, giver)
    leases.move(lease, taker)
    assert leases.holds(lease, taker)
    assert not leases.holds(lease, giver)
    plane.reap(taker)
    assert not leases.holds(lease, taker)


def test_who_has_no_connection_for_a_lease_makes_it_an_orphan(plane: Plane) -> None:
    pool, leases = make_pool(plane, 3), Leases(plane)
    mine, other = plane.claim_column("pooler", 1), plane.claim_column("pooler", 2)
    lease = take(leases, pool, mine)
    assert not leases.disown(lease, mine), "a login is under way"
    leases.bind(lease, 4711, b"x")
    assert not leases.disown(lease, other)
    assert leases.disown(lease, mine)
    assert not leases.disown(lease, mine)
    assert not leases.holds(lease, mine)
    assert [held.pid for held in orphans_of(leases, pool)] == [4711]
    assert leases.open(pool) == 1
    leases.free(lease)
    assert not leases.disown(lease, mine)


def test_a_lowered_limit_takes_nothing_back(plane: Plane) -> None:
    pool, leases = make_pool(plane, 3), Leases(plane)
    held = [take(leases, pool, 2) for _ in range(3)]
    leases.set_limit(pool, 1)
    assert leases.open(pool) == 3
    leases.free(held[0])
    leases.free(held[1])
    assert leases.take(pool, 2, 7) is None
    leases.free(held[2])
    take(leases, pool, 2)


@pytest.mark.parametrize("secret", [b"\1\2\3\4", b"", b"x" * 256])
def test_the_cancel_key_stands_in_the_lease(plane: Plane, secret: bytes) -> None:
    pool, leases = make_pool(plane, 1), Leases(plane)
    lease = take(leases, pool, 2, server=19)
    leases.bind(lease, 4711, secret)
    (held,) = leases.held(pool)
    assert (held.pid, held.secret, held.server_row, held.column) == (4711, secret, 19, 2)
    assert held.state == LeaseState.BOUND
    assert secret.hex() not in repr(held) or not secret


def test_a_cancel_key_no_protocol_allows_is_refused(plane: Plane) -> None:
    pool, leases = make_pool(plane, 1), Leases(plane)
    with pytest.raises(PlaneError, match="257 bytes"):
        leases.bind(take(leases, pool, 2), 1, b"x" * 257)


def test_a_moved_lease_dies_with_its_new_holder(plane: Plane) -> None:
    pool, leases = make_pool(plane, 1), Leases(plane)
    giver, taker = plane.claim_column("pooler", 1), plane.claim_column("pooler", 2)
    lease = take(leases, pool, giver)
    leases.bind(lease, 4711, b"secret")
    assert leases.move(lease, taker, plane.incarnation(taker))
    plane.reap(giver)
    assert orphans_of(leases, pool) == []
    plane.reap(taker)
    assert [held.pid for held in orphans_of(leases, pool)] == [4711]


def test_nothing_moves_to_the_dead_or_to_a_successor_unasked(plane: Plane) -> None:
    pool, leases = make_pool(plane, 1), Leases(plane)
    giver, taker = plane.claim_column("pooler", 1), plane.claim_column("pooler", 2)
    lease = take(leases, pool, giver)
    meant = plane.incarnation(taker)
    plane.reap(taker)
    assert not leases.move(lease, taker, meant)
    assert plane.claim_column("pooler", 2) == taker
    assert not leases.move(lease, taker, meant)
    assert [held.column for held in leases.held(pool)] == [giver]


def test_an_orphan_counts_until_one_successor_has_adopted_and_freed_it(plane: Plane) -> None:
    pool, leases = make_pool(plane, 1), Leases(plane)
    dead = plane.claim_column("pooler", 1)
    heir, rival = plane.claim_column("pooler", 2), plane.claim_column("pooler", 3)
    lease = take(leases, pool, dead)
    plane.reap(dead)
    assert leases.take(pool, heir, 7) is None
    assert not leases.move(lease, heir)
    assert leases.adopt(lease, heir)
    assert not leases.adopt(lease, rival)
    plane.reap(heir)
    assert leases.adopt(lease, rival)
    assert leases.free(lease)
    assert leases.open(pool) == 0


def test_who_waits_longest_is_next_over_all_workers(plane: Plane) -> None:
    pool, leases = make_pool(plane, 1), Leases(plane)
    assert leases.oldest_waiter(pool, [2, 3, 4]) == -1
    for column, ticket in ((2, 500), (3, 400), (4, 0)):
        plane.cells[plane.counters(Kind.LEASEPOOL, pool, column) + LeasePool.OLDEST_TICKET] = ticket
    assert leases.oldest_waiter(pool, [2, 3, 4]) == 3
    assert leases.oldest_waiter(pool, [2, 4]) == 2


def test_a_process_has_room_for_a_bounded_number_of_connections(plane: Plane) -> None:
    pool, leases = make_pool(plane, 2 * layout.LEASES_PER_COLUMN), Leases(plane)
    for _ in range(layout.LEASES_PER_COLUMN):
        take(leases, pool, 2)
    with pytest.raises(PlaneFullError):
        leases.take(pool, 2, 7)
    take(leases, pool, 3)


def test_a_stopped_holder_of_the_lock_delays_but_loses_nothing(plane: Plane) -> None:
    pool, leases = make_pool(plane, 2), Leases(plane)
    column = plane.claim_column("pooler", 1)
    lease = take(leases, pool, column)
    with child_that(leasepool_lock(plane, pool).acquire) as holder:
        stop(holder)
        assert leases.take(pool, column, 7) is None
        assert not leases.free(lease)
        counted = plane.total(Kind.LEASEPOOL, pool, LeasePool.LOCK_TIMEOUTS)
        assert counted == 2
        assert not leases.move(lease, column)
        assert not leases.adopt(lease, column)
        plane.reap(column)
        assert [held.lease for held in orphans_of(leases, pool)] == [lease]
    leases.settle()
    assert leases.open(pool) == 0


def test_a_death_within_the_lock_is_counted_anew(plane: Plane) -> None:
    pool, leases = make_pool(plane, 5), Leases(plane)
    take(leases, pool, 2)

    def die_inside() -> int:
        leasepool_lock(plane, pool).acquire()
        plane.cells[plane.state(Kind.LEASEPOOL, pool)] += 3
        return 0

    wait_child(run_child(die_inside))
    take(leases, pool, 2)
    assert leases.open(pool) == 2


def work_with(plane: Plane, pool: int, column: int, limit: int) -> Callable[[], int]:
    """Takes, checks that the limit holds, frees; for ever."""

    def work() -> int:
        leases, choose, held = Leases(plane), random.Random(column), []
        while True:
            lease = leases.take(pool, column, 7)
            if lease is not None:
                held.append(lease)
                leases.bind(lease, column, b"k")
            if leases.open(pool) > limit:  # one cell; a look at all rows is no snapshot while others take and free
                return 3
            if held and choose.random() < 0.6:
                leases.free(held.pop(choose.randrange(len(held))))
            plane.cells[500 + column] += 1

    return work


def test_killing_holders_at_random_never_wedges_or_overfills_a_pool(plane: Plane) -> None:
    limit = 4
    pool, leases = make_pool(plane, limit), Leases(plane)
    choose = random.Random(3)
    for _ in range(15):
        workers = {}
        for number in (1, 2, 3):
            column = plane.claim_column("pooler", number)
            workers[column] = run_child(work_with(plane, pool, column, limit))
        for column, pid in workers.items():
            until = plane.cells[500 + column] + choose.randrange(3, 20)
            while plane.cells[500 + column] < until:
                assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the child saw more leases than the limit"
            os.kill(pid, signal.SIGKILL)
            assert wait_child(pid) == -signal.SIGKILL
            plane.reap(column)
        heir = plane.claim_column("pooler", 9)
        orphans = orphans_of(leases, pool)
        assert len(orphans) <= limit
        for orphan in orphans:
            assert leases.adopt(orphan.lease, heir)
            assert leases.free(orphan.lease)
        # One more lock round trip repairs what the last death left.
        lease = take(leases, pool, heir)
        leases.free(lease)
        assert leases.open(pool) == 0
        plane.reap(heir)


def test_four_processes_together_never_hold_more_than_the_limit(plane: Plane) -> None:
    limit = 5
    pool = make_pool(plane, limit)

    def work(column: int) -> int:
        leases = Leases(plane)
        taken = 0
        while taken < 60:
            lease = leases.take(pool, column, 7)
            if lease is None:
                continue
            taken += 1
            if leases.open(pool) > limit:
                return 3
            leases.free(lease)
        return 0

    pids = [run_child(partial(work, column)) for column in range(2, 6)]
    assert [wait_child(pid) for pid in pids] == [0] * 4
    assert Leases(plane).open(pool) == 0


class LeasesAgreeWithAModel(RuleBasedStateMachine):
    """The model: for each lease its pool and holder; None for an orphan."""

    def __init__(self) -> None:
        super().__init__()
        self.plane = Plane.create()
        self.leases = Leases(self.plane)
        self.pools = {make_pool(self.plane, limit, name): limit for limit, name in ((2, "a/a"), (3, "b/b"))}
        self.columns = [self.plane.claim_column("pooler", number) for number in (1, 2, 3)]
        self.model: dict[int, tuple[int, int | None]] = {}

    def teardown(self) -> None:
        self.plane.close()

    @rule(which=st.integers(0, 1), worker=st.integers(0, 2))
    def take(self, which: int, worker: int) -> None:
        pool = list(self.pools)[which]
        lease = self.leases.take(pool, self.columns[worker], 7)
        full = sum(1 for owner, _ in self.model.values() if owner == pool) >= self.pools[pool]
        assert (lease is None) is full
        if lease is not None:
            assert lease not in self.model
            self.model[lease] = (pool, self.columns[worker])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(sorted(self.model)))
        assert self.leases.free(lease)
        del self.model[lease]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), worker=st.integers(0, 2))
    def move(self, data: st.DataObject, worker: int) -> None:
        lease = data.draw(st.sampled_from(sorted(self.model)))
        pool, holder = self.model[lease]
        assert self.leases.move(lease, self.columns[worker]) is (holder is not None)
        if holder is not None:
            self.model[lease] = (pool, self.columns[worker])

    @precondition(lambda self: self.model)
    @rule(data=st.data(), worker=st.integers(0, 2))
    def adopt(self, data: st.DataObject, worker: int) -> None:
        lease = data.draw(st.sampled_from(sorted(self.model)))
        pool, holder = self.model[lease]
        assert self.leases.adopt(lease, self.columns[worker]) is (holder is None)
        if holder is None:
            self.model[lease] = (pool, self.columns[worker])

    @rule(worker=st.integers(0, 2))
    def die(self, worker: int) -> None:
        column = self.columns[worker]
        self.plane.reap(column)
        self.model = {
            lease: (pool, None if holder == column else holder) for lease, (pool, holder) in self.model.items()
        }
        self.columns[worker] = self.plane.claim_column("pooler", worker)

    @invariant()
    def the_plane_holds_what_the_model_holds(self) -> None:
        for pool in self.pools:
            expected = {lease: holder for lease, (owner, holder) in self.model.items() if owner == pool}
            held = {
                one.lease: None if one.state == LeaseState.ORPHANED else one.column for one in self.leases.held(pool)
            }
            assert held == expected
            assert self.leases.open(pool) == len(expected)


TestLeasesAgreeWithAModel = LeasesAgreeWithAModel.TestCase
TestLeasesAgreeWithAModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)

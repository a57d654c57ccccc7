import os
import signal

import pytest

from supervisor.plane import layout
from supervisor.plane.layout import Header, Kind, LeaseState, Limit, ListenerState, ProcessState, Server
from supervisor.plane.leases import Leases
from supervisor.plane.memory import Plane
from supervisor.plane.region import ForeignPlaneError, PlaneError


def test_a_forked_child_sees_and_writes_the_same_cells(plane: Plane) -> None:
    row = plane.allocate(Kind.SERVER, "user/127.0.0.1:8101")
    base = plane.counters(Kind.SERVER, row, 2)
    child = os.fork()
    if child == 0:
        plane.cells[base + Server.REQUESTS] += 7
        os._exit(0)
    os.waitpid(child, 0)
    assert plane.cells[base + Server.REQUESTS] == 7


def test_an_attached_plane_is_the_same_plane(plane: Plane) -> None:
    row = plane.allocate(Kind.POOL, "user")
    plane.generation = 3
    again = Plane.attach(os.dup(plane.fd))
    assert again.row(Kind.POOL, "user") == row
    assert again.generation == 3
    again.close()


def test_a_plane_of_another_layout_is_refused(plane: Plane) -> None:
    plane.cells[Header.FINGERPRINT] += 1
    with pytest.raises(ForeignPlaneError, match="this code has"):
        Plane.attach(plane.fd)


def test_a_descriptor_without_a_plane_is_refused() -> None:
    fd = os.memfd_create("empty")
    with pytest.raises(ForeignPlaneError, match="no plane"):
        Plane.attach(fd)
    os.close(fd)


def test_the_memory_can_not_be_cut_under_those_who_map_it(plane: Plane) -> None:
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(plane.fd, 4096)


def test_another_number_of_columns_is_refused() -> None:
    with pytest.raises(PlaneError, match="64 columns"):
        Plane.create(columns=8)


def test_an_untouched_plane_costs_little_memory(plane: Plane) -> None:
    assert os.fstat(plane.fd).st_blocks * 512 < 1 << 20


def test_reaping_folds_counters_and_zeroes_gauges(plane: Plane) -> None:
    row = plane.allocate(Kind.SERVER, "user/127.0.0.1:8101")
    for requests in (5, 6):
        column = plane.claim_column("gateway", 1)
        base = plane.counters(Kind.SERVER, row, column)
        plane.cells[base + Server.REQUESTS] = requests
        plane.cells[base + Server.IN_FLIGHT] = 2
        plane.reap(column)
        assert plane.cells[base + Server.REQUESTS] == 0
    assert plane.total(Kind.SERVER, row, Server.REQUESTS) == 11
    assert plane.total(Kind.SERVER, row, Server.IN_FLIGHT) == 0
    assert plane.row_totals(Kind.SERVER, row)[Server.REQUESTS] == 11


def test_reaping_frees_the_column_and_its_slots(plane: Plane) -> None:
    row = plane.allocate(Kind.LISTENER, "edge/game")
    column = plane.claim_column("edge", 1)
    owners = plane.state(Kind.LISTENER, row) + ListenerState.OWNER
    plane.cells[owners + 3] = column
    plane.reap(column)
    assert plane.cells[owners + 3] == 0
    assert plane.process(column) is None
    assert plane.claim_column("edge", 1) == column


def test_reaping_orphans_the_leases_of_that_process_only(plane: Plane) -> None:
    pool = plane.allocate(Kind.LEASEPOOL, "app/app")
    leases = Leases(plane)
    leases.set_limit(pool, 4)
    dying, living = plane.claim_column("pooler", 1), plane.claim_column("pooler", 2)
    lease = leases.take(pool, dying, 9)
    other = leases.take(pool, living, 9)
    assert lease is not None
    assert other is not None
    leases.bind(lease, 4711, b"secret")
    plane.reap(dying)
    (held,) = [held for held in leases.held(pool) if held.state == LeaseState.ORPHANED]
    assert (held.lease, held.pid, held.secret, held.server_row) == (lease, 4711, b"secret", 9)
    assert leases.open(pool) == 2


def test_reaping_twice_ends_the_same(plane: Plane) -> None:
    row = plane.allocate(Kind.LIMIT, "per_user")
    column = plane.claim_column("gateway", 1)
    plane.cells[plane.counters(Kind.LIMIT, row, column) + Limit.ADMITTED] = 3
    plane.reap(column)
    plane.reap(column)
    assert plane.total(Kind.LIMIT, row, Limit.ADMITTED) == 3


def test_a_worker_killed_while_counting_loses_no_count_that_it_made(plane: Plane) -> None:
    row = plane.allocate(Kind.SERVER, "user/127.0.0.1:8101")
    column = plane.claim_column("gateway", 1)
    base = plane.counters(Kind.SERVER, row, column)
    child = os.fork()
    if child == 0:
        while True:
            plane.cells[base + Server.REQUESTS] += 1
    plane.started(column, child)
    while plane.cells[base + Server.REQUESTS] < 1000:
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    counted = plane.cells[base + Server.REQUESTS]
    plane.reap(column)
    assert plane.total(Kind.SERVER, row, Server.REQUESTS) == counted


def test_live_columns_and_their_epoch_follow_the_processes(plane: Plane) -> None:
    epochs = [plane.live_epoch]
    column = plane.claim_column("edge", 1)
    epochs.append(plane.live_epoch)
    assert plane.live("edge") == [column]
    assert plane.live("gateway") == []
    plane.set_state(column, ProcessState.READY)
    epochs.append(plane.live_epoch)
    plane.reap(column)
    epochs.append(plane.live_epoch)
    assert plane.live("edge") == []
    assert len(set(epochs)) == 4


def test_status_sees_what_a_process_says_of_itself(plane: Plane) -> None:
    plane.processes.enter_supervisor(os.getpid())
    column = plane.claim_column("edge", 2)
    plane.started(column, 4711)
    plane.beat(column, 99)
    plane.acknowledge(column, 5)
    info = plane.process(column)
    assert info is not None
    assert (info.tier, info.number, info.pid, info.heartbeat, info.acknowledged) == ("edge", 2, 4711, 99, 5)
    assert info.incarnation == plane.incarnation(column)
    supervisor = plane.process(layout.SUPERVISOR)
    assert supervisor is not None
    assert supervisor.tier == "supervisor"


def test_each_incarnation_has_its_own_number(plane: Plane) -> None:
    first = plane.claim_column("edge", 1)
    before = plane.incarnation(first)
    plane.reap(first)
    assert plane.incarnation(plane.claim_column("edge", 1)) > before


def test_columns_run_out_with_a_clear_error(plane: Plane) -> None:
    for number in range(layout.COLUMNS - layout.FIRST_PROCESS):
        plane.claim_column("edge", number)
    with pytest.raises(PlaneError, match="no column left"):
        plane.claim_column("edge", 99)

"""The plane's rows over reloads: all or none, carried over by name, released only when unused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from supervisor.arbiter.crew import ABORT_PATIENCE, HUNG_AFTER, LOOK
from supervisor.arbiter.rows import GRACE, Rows, newcomers
from supervisor.ground.worker import HEARTBEAT
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from supervisor.plane.region import PlaneError

SERVER = (Kind.SERVER, "user/127.0.0.1:1")
OTHER = (Kind.SERVER, "user/127.0.0.1:2")


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane.create()
    yield plane
    plane.close()


def names(plane: Plane) -> set[str]:
    return set(plane.names(Kind.SERVER))


def test_a_failed_allocation_leaves_nothing_new(plane: Plane) -> None:
    rows = Rows(plane)
    rows.allocate([SERVER])
    with pytest.raises(PlaneError):
        rows.allocate([SERVER, OTHER, (Kind.ROUTE, "x" * 1000)])
    assert names(plane) == {SERVER[1]}


def test_a_row_that_is_no_longer_named_goes_after_a_while(plane: Plane) -> None:
    rows = Rows(plane)
    assert rows.allocate([SERVER, OTHER]) == [SERVER, OTHER]
    rows.changed([SERVER, OTHER], [SERVER], 100.0)
    assert rows.sweep(100.0 + GRACE / 2) == []
    assert rows.sweep(100.0 + GRACE) == [OTHER]
    assert names(plane) == {SERVER[1]}


def test_a_row_in_use_stays_until_it_is_not(plane: Plane) -> None:
    rows = Rows(plane)
    rows.allocate([SERVER])
    cell = plane.counters(Kind.SERVER, plane.row(*SERVER), 5) + layout.Server.IN_FLIGHT
    plane.cells[cell] = 1
    rows.changed([SERVER], [], 0.0)
    assert rows.sweep(10 * GRACE) == []
    plane.cells[cell] = 0
    assert rows.sweep(10 * GRACE + 1) == [], "the while begins when the use ends"
    assert rows.sweep(11 * GRACE) == [SERVER]


def test_a_row_that_comes_back_keeps_its_state(plane: Plane) -> None:
    rows = Rows(plane)
    rows.allocate([SERVER])
    state = plane.state(Kind.SERVER, plane.row(*SERVER)) + layout.ServerState.ADMIN
    plane.cells[state] = layout.Admin.DRAINING
    rows.changed([SERVER], [], 0.0)
    rows.allocate([SERVER])
    rows.changed([], [SERVER], 1.0)
    assert rows.sweep(100 * GRACE) == []
    assert plane.cells[state] == layout.Admin.DRAINING


def test_a_lease_pool_stays_until_its_last_lease_is_free(plane: Plane) -> None:
    rows, pool = Rows(plane), (Kind.LEASEPOOL, "app/me")
    rows.allocate([pool])
    held = plane.state(Kind.LEASEPOOL, plane.row(*pool)) + layout.LeasePoolState.OPEN
    plane.cells[held] = 1  # of a worker that died: it has no gauge any more
    rows.changed([pool], [], 0.0)
    assert rows.sweep(GRACE) == []
    plane.cells[held] = 0
    assert rows.sweep(2 * GRACE) == [pool]


def test_the_while_is_longer_than_a_process_may_be_silent() -> None:
    assert GRACE > HUNG_AFTER + ABORT_PATIENCE + LOOK + HEARTBEAT


def test_rows_reloaded_back_and_forth_do_not_run_out(plane: Plane) -> None:
    rows, now = Rows(plane), 0.0
    old = [(Kind.POOL, "pool 0")]
    rows.allocate(old)
    for number in range(1, 2 * layout.TABLES[Kind.POOL].rows):
        new = [(Kind.POOL, f"pool {number}")]
        rows.allocate(new)
        rows.changed(old, new, now)
        now += GRACE
        rows.sweep(now)
        old = new
    assert len(plane.names(Kind.POOL)) <= 2


def test_a_pool_that_no_file_names_gets_a_row_on_demand(plane: Plane) -> None:
    rows = Rows(plane)
    assert rows.add("leasepool", "app/found") == ()
    assert rows.add("leasepool", "app/found") == ()
    assert list(plane.names(Kind.LEASEPOOL)) == ["app/found"]
    assert "no row of kind server" in rows.add("server", "x")[0]
    assert rows.add("leasepool", "x" * 1000) != ()


def test_a_server_that_joins_a_pool_is_told_from_those_of_a_new_pool() -> None:
    new = [(Kind.POOL, "feed"), (Kind.SERVER, "feed/127.0.0.1:1"), SERVER, (Kind.LISTENER, "edge/user")]
    assert [*newcomers(new)] == [SERVER[1]]

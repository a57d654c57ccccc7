"""How many server connections there may be."""

from __future__ import annotations

from collections.abc import Callable

from pooler.messages import query
from pooler.orders import Spare
from supervisor.plane.layout import Kind, LeasePool, ProcessState
from tests.pooler.stage import Stage

Make = Callable[..., Stage]


def test_the_reserve_is_for_who_has_waited_and_goes_when_it_is_idle(stage: Make) -> None:
    playing = stage(pooler='reserve_pool_timeout = "2s"', database="pool_size = 1\nreserve_pool_size = 1")
    holder, waiter, third = playing.client(), playing.client(), playing.client()
    holder.ask("BEGIN")
    waiter.send(query("BEGIN"))
    playing.lane.advance(1.5)
    assert len(playing.postgres.alive) == 1
    playing.lane.advance(1)
    assert waiter.kinds() == "CT"
    third.send(query("SELECT 1"))
    playing.lane.advance(3)
    assert len(playing.postgres.alive) == 2
    waiter.send(query("COMMIT"))
    assert third.kinds() == "DCI"
    playing.lane.advance(0.5)
    assert len(playing.postgres.alive) == 1
    assert holder.ask("COMMIT") == "CI"


def test_a_pool_that_was_made_smaller_shrinks(stage: Make) -> None:
    playing = stage(database="pool_size = 3")
    clients = [playing.client() for _ in range(3)]
    for client in clients:
        client.ask("BEGIN")
    playing.runtime.commit(playing.runtime.prepare(playing.configure(database="pool_size = 1")))
    for client in clients:
        client.ask("COMMIT")
    playing.lane.advance(1)
    assert len(playing.postgres.alive) == 1


def test_some_are_always_there(stage: Make) -> None:
    playing = stage(pooler='server_idle_timeout = "5s"', database='pool_size = 3\nmin_pool_size = 2\nuser = "app"')
    playing.lane.advance(1)
    assert len(playing.postgres.alive) == 2
    playing.lane.advance(10)
    assert len(playing.postgres.alive) == 2
    clients = [playing.client() for _ in range(3)]
    for client in clients:
        client.ask("BEGIN")
    for client in clients:
        client.ask("COMMIT")
    assert len(playing.postgres.alive) == 3
    playing.lane.advance(10)
    assert len(playing.postgres.alive) == 2


def test_a_database_has_no_more_than_its_limit_and_idle_ones_make_room(stage: Make) -> None:
    playing = stage(database="pool_size = 5\nmax_db_connections = 2")
    mine, other = playing.client(), playing.client(user="other")
    mine.ask("BEGIN")
    other.ask("SELECT 1")
    assert len(playing.postgres.alive) == 2
    more = playing.client()
    more.send(query("BEGIN"))
    playing.lane.advance(1)
    assert more.kinds() == "CT"
    assert len(playing.postgres.alive) == 2
    other.send(query("SELECT 2"))
    playing.lane.advance(1)
    assert other.kinds() == ""
    mine.ask("COMMIT")
    playing.lane.advance(1)
    assert other.kinds() == "DCI"
    assert len(playing.postgres.alive) == 2


def test_a_user_has_no_more_than_its_limit(stage: Make) -> None:
    playing = stage(
        pooler="max_user_connections = 5",
        database='pool_size = 5\n[pooler.databases.second]\nprimary = "pg"\n'
        '[pooler.users.app]\nmax_user_connections = 2\n[pooler.users.other]\npool_mode = "session"\npool_size = 2',
    )
    here, there = playing.client(), playing.client(database="second")
    also = playing.client()
    here.ask("BEGIN")
    also.send(query("BEGIN"))
    playing.lane.advance(1)
    assert also.kinds() == "CT"
    there.send(query("SELECT 1"))
    playing.lane.advance(1)
    assert there.kinds() == ""
    here.ask("COMMIT")
    playing.lane.advance(1)
    assert there.kinds() == "DCI"
    playing.client(user="other").ask("SELECT 1")
    assert playing.runtime.pools["app/other"].settings.mode == "session"
    assert playing.runtime.pools["app/other"].settings.size == 2


def test_another_worker_is_asked_to_make_room(stage: Make) -> None:
    playing = stage(database="pool_size = 5\nmax_db_connections = 1")
    client = playing.client()
    column = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(column, ProcessState.READY)
    row = playing.plane.row(Kind.LEASEPOOL, "app/other")
    playing.runtime.leases.set_limit(row, 1)
    lease = playing.runtime.leases.take(row, column, 0)
    assert lease is not None
    playing.plane.cells[playing.plane.counters(Kind.LEASEPOOL, row, column) + LeasePool.IDLE] = 1
    for server in list(playing.pool.idle):
        server.expires = 0.0
    playing.lane.advance(1)
    client.send(query("SELECT 1"))
    playing.lane.advance(0.2)
    assert (column, Spare("app/other")) in [(to, order) for to, order, _ in playing.mailbox.sent]
    playing.runtime.leases.free(lease)
    playing.lane.advance(1)
    assert client.kinds() == "DCI"
    playing.runtime.receive(Spare("app/app"), ())
    playing.lane.advance(0.5)
    assert playing.postgres.alive == []
    playing.plane.cells[playing.plane.counters(Kind.LEASEPOOL, row, column) + LeasePool.IDLE] = 0
    playing.plane.processes.free(column)

"""Who gets a server connection, and what those who wait are told."""

from __future__ import annotations

from collections.abc import Callable

from pooler.messages import message, query
from supervisor.plane.layout import Kind, LeasePool
from tests.pooler.stage import Stage

Make = Callable[..., Stage]


def counter(playing: Stage, field: int) -> int:
    return playing.plane.total(Kind.LEASEPOOL, playing.pool.row, field)


def test_first_come_first_served(stage: Make) -> None:
    playing = stage()
    holder, *clients = [playing.client() for _ in range(6)]
    holder.ask("BEGIN")
    for number, client in enumerate(clients):
        client.send(query(f"SELECT {number}"))
    holder.ask("COMMIT")
    assert [client.kinds() for client in clients] == ["DCI"] * 5
    assert playing.postgres.backends[0].queries[2:] == [f"SELECT {number}" for number in range(5)]


def test_connections_are_opened_up_to_the_size_and_no_further(stage: Make) -> None:
    playing = stage(database="pool_size = 3")
    clients = [playing.client() for _ in range(6)]
    for client in clients:
        client.send(query("BEGIN"))
    assert len(playing.postgres.alive) == 3
    playing.lane.advance(0.2)
    assert [counter(playing, field) for field in (LeasePool.BUSY, LeasePool.WAITING, LeasePool.IDLE)] == [3, 3, 0]
    for client in clients:
        client.send(query("COMMIT"))
    assert [client.kinds() for client in clients] == ["CTCI"] * 6
    assert len(playing.postgres.backends) == 3


def test_the_last_used_connection_is_used_next(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    one, two = playing.client(), playing.client()
    for client in (one, two):
        client.ask("BEGIN")
    for client in (one, two):
        client.ask("COMMIT")
    for _ in range(3):
        one.ask("SELECT 1")
    assert sorted(len(backend.queries) for backend in playing.postgres.backends) == [2, 5]


def test_a_waiting_client_is_told_and_then_refused(stage: Make) -> None:
    playing = stage(pooler='query_wait_timeout = "12s"')
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    waiter.send(query("SELECT 1"))
    playing.lane.advance(4)
    assert waiter.kinds() == ""
    playing.lane.advance(2)
    assert waiter.kinds() == "N"
    playing.lane.advance(5)
    assert waiter.kinds() == ""
    playing.lane.advance(2)
    assert "query_wait_timeout" in waiter.error()["M"]
    assert waiter.ended
    assert counter(playing, LeasePool.WAIT_TIMEOUTS) == 1
    assert holder.ask("COMMIT") == "CI"


def test_a_short_timeout_is_short(stage: Make) -> None:
    playing = stage(pooler='query_wait_timeout = "300ms"')
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    waiter.send(query("SELECT 1"))
    playing.lane.advance(0.5)
    assert "within" not in waiter.error()["M"]


def test_without_a_timeout_a_client_waits_for_ever(stage: Make) -> None:
    playing = stage(pooler='query_wait_timeout = "0"')
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    waiter.send(query("SELECT 1"))
    playing.lane.advance(300)
    assert waiter.kinds() == "N"
    holder.ask("COMMIT")
    assert waiter.kinds() == "DCI"


def test_who_leaves_the_queue_takes_no_connection_with_it(stage: Make) -> None:
    playing = stage()
    holder, leaver, waiter = (playing.client() for _ in range(3))
    holder.ask("BEGIN")
    leaver.send(query("SELECT 1"))
    waiter.send(query("SELECT 2"))
    leaver.conn.close()
    playing.lane.run()
    assert len(playing.pool.waiters) == 1
    holder.ask("COMMIT")
    assert waiter.kinds() == "DCI"
    assert "SELECT 1" not in playing.postgres.backends[0].queries


def test_what_a_client_sends_while_it_waits_is_not_lost(stage: Make) -> None:
    playing = stage()
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    waiter.send(query("SELECT 1"))
    waiter.send(query("SELECT 2")[:5])
    waiter.send(query("SELECT 2")[5:] + query("SELECT " + "x" * 100_000)[:60_000])
    holder.ask("COMMIT")
    assert waiter.kinds() == "DCIDCI"


def test_a_waiting_client_may_send_a_bounded_amount(stage: Make) -> None:
    playing = stage()
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    data = query("SELECT 1") + query("SELECT " + "x" * 500_000)
    sent = 0
    for _ in range(100):
        waiter.conn.writable = True
        sent += waiter.conn.send_nowait(data[sent:])
        playing.lane.run()
    assert sent < 300_000
    holder.ask("COMMIT")
    waiter.send(data[sent:])
    assert waiter.kinds() == "DCIDCI"


def test_an_old_connection_is_replaced_between_transactions(stage: Make) -> None:
    playing = stage(pooler='server_lifetime = "10s"')
    client = playing.client()
    client.ask("BEGIN")
    playing.lane.advance(11)
    assert client.ask("SELECT 1") == "DCT"
    assert client.ask("COMMIT") == "CI"
    assert client.ask("SELECT 2") == "DCI"
    assert [backend.closed for backend in playing.postgres.backends] == [True, False]
    playing.lane.advance(11)  # and when it is idle
    assert not playing.postgres.alive


def test_an_idle_connection_is_closed_after_its_time(stage: Make) -> None:
    playing = stage(pooler='server_idle_timeout = "10s"')
    client = playing.client()
    client.ask("SELECT 1")
    playing.lane.advance(9)
    assert len(playing.postgres.alive) == 1
    playing.lane.advance(2)
    assert not playing.postgres.alive
    assert playing.runtime.leases.open(playing.pool.row) == 0
    assert client.ask("SELECT 2") == "DCI"


def test_a_connection_that_died_while_idle_is_noticed(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    playing.postgres.backends[0].conn.send_nowait(message(b"E", b"SFATAL\0C57P01\0Mbye\0\0"))
    playing.postgres.backends[0].conn.close()
    assert client.ask("SELECT 1") == "DCI"
    assert len(playing.postgres.backends) == 2


def test_what_an_idle_connection_says_is_kept_or_ends_it(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    backend = playing.postgres.backends[0]
    backend.conn.send_nowait(message(b"S", b"TimeZone\0CET\0") + message(b"N", b"hello\0"))
    playing.lane.run()
    assert playing.pool.idle[0].settings["TimeZone"] == "CET"
    assert client.ask("SELECT 1") == "DCI"  # set back for the client
    assert backend.parameters["TimeZone"] == "UTC"
    backend.conn.send_nowait(b"nonsense")
    playing.lane.run()
    assert client.ask("SELECT 2") == "DCI"
    assert len(playing.postgres.backends) == 2

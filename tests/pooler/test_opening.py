"""Logging in to servers: how many at once, and what those who wait hear when a server refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pooler.errors import PeerError
from pooler.messages import query
from supervisor.plane.layout import Kind, LeasePool
from tests.pooler.stage import ADDRESS, Player, Stage

Make = Callable[..., Stage]


def counter(playing: Stage, field: int) -> int:
    return playing.plane.total(Kind.LEASEPOOL, playing.pool.row, field)


def start(client: Player) -> None:
    client.send(b"\0\0\0\x12\0\x03\0\0user\0app\0\0")


def test_a_server_that_is_away_is_told_at_once_and_asked_again_later(stage: Make) -> None:
    playing = stage()
    accept = playing.lane.servers.pop(ADDRESS)
    for _ in range(3):
        client = playing.client(log_in=False)
        start(client)
        assert "could not connect to pg/127.0.0.1:5432" in client.error()["M"]
    assert counter(playing, LeasePool.ERRORS) == 1
    playing.lane.servers[ADDRESS] = accept
    playing.lane.advance(1.2)
    assert playing.client().ask("SELECT 1") == "DCI"
    assert playing.runtime.leases.open(playing.pool.row) == 1


def test_the_servers_own_reason_reaches_the_client(stage: Make) -> None:
    playing = stage()
    playing.postgres.refusal = PeerError("28P01", "password authentication failed")
    client = playing.client(log_in=False)
    start(client)
    said = client.error()
    assert (said["C"], said["M"]) == ("28P01", "server login failed: password authentication failed")
    assert "users file" in said["H"]


def test_a_server_that_never_answers_is_given_up(stage: Make) -> None:
    playing = stage(pooler='server_connect_timeout = "3s"')
    for accepted in (None, playing.postgres.accept):
        playing.lane.servers[ADDRESS] = accepted
        playing.postgres.silent = True
        client = playing.client(log_in=False)
        start(client)
        playing.lane.advance(4)
        assert client.error()["C"] == "08001"
        assert playing.runtime.leases.open(playing.pool.row) == 0
        playing.lane.advance(2)


def test_who_waits_goes_on_waiting_while_there_are_other_connections(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    playing.postgres.refusal = PeerError("53300", "too many connections")
    waiter.send(query("SELECT 1"))
    playing.lane.advance(3)
    assert waiter.kinds() == ""
    holder.ask("COMMIT")
    assert waiter.kinds() == "DCI"


@pytest.mark.parametrize("bad", ["dead", "http"])
def test_what_is_no_postgres(stage: Make, bad: str) -> None:
    playing = stage()
    playing.postgres.dead = bad == "dead"
    if bad == "http":
        playing.postgres.refusal = PeerError("x", "y")
        playing.lane.servers[ADDRESS] = lambda conn: conn.send(b"HTTP/1.1 400 Bad Request\r\n")
    client = playing.client(log_in=False)
    start(client)
    assert "server login failed" in client.error()["M"]
    assert playing.runtime.leases.open(playing.pool.row) == 0


def test_a_few_logins_at_a_time(stage: Make) -> None:
    playing = stage(database="pool_size = 20")
    client = playing.client()
    clients = [client, *(playing.client() for _ in range(9))]
    playing.postgres.silent = True
    for one in clients:
        one.send(query("BEGIN"))
    assert len(playing.postgres.alive) == 5  # the first, and four logins
    playing.postgres.silent = False
    playing.postgres.wake()
    assert [one.kinds() for one in clients] == ["CT"] * 10
    assert len(playing.postgres.alive) == 10

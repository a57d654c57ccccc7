"""Logging in to servers: how many at once, and what those who wait hear when a server refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pooler.errors import PeerError
from pooler.messages import query
from pooler.runtime import SWEEP_SECONDS
from supervisor.plane.layout import Kind, LeasePool, Role, ServerState
from tests.pooler.fake_postgres import FakePostgres
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


PAIR = """
server_login_retry = "300ms"
[pools.pair]
servers = ["127.0.0.1:5432", "127.0.0.1:5433"]
health = { type = "postgres" }
"""


def say(playing: Stage, port: int, role: int, timeline: int) -> None:
    """What the prober has found out."""
    plane = playing.plane
    at = plane.state(Kind.SERVER, plane.row(Kind.SERVER, f"pair/127.0.0.1:{port}"))
    plane.cells[at + ServerState.TIMELINE] = timeline
    plane.cells[at + ServerState.ROLE] = role


def test_a_new_primary_is_used_within_a_login_retry_of_being_known(stage: Make) -> None:
    playing = stage(pooler=PAIR, database='pool_size = 2\ntarget_session_attrs = "primary"', primary="pair")
    heir = FakePostgres(playing.lane, reported={"in_hot_standby": "on"})
    playing.lane.servers[("127.0.0.1", 5433)] = heir.accept
    say(playing, 5432, Role.PRIMARY, 1)
    say(playing, 5433, Role.REPLICA, 1)
    writer, held = playing.client(), playing.client()
    assert writer.ask("SELECT 1") == "DCI"
    held.ask("BEGIN")
    del playing.lane.servers[ADDRESS]  # it is gone, and its connections with it
    for backend in playing.postgres.backends:
        backend.conn.close()
    playing.lane.advance(0.2)
    assert held.error()["C"] == "08006"
    writer.send(query("SELECT 2"))
    playing.lane.advance(3)
    assert writer.kinds() == ""  # it waits, for another may take over
    heir.reported["in_hot_standby"] = "off"
    say(playing, 5433, Role.PRIMARY, 2)
    playing.lane.advance(0.3 + 2 * SWEEP_SECONDS + 0.1)  # the lane looks at its timers each 0.1 s
    assert writer.kinds() == "DCI"
    assert heir.backends[-1].queries == ["SELECT 2"]

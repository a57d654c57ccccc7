"""Connections to servers: opened in turn, kept in a stack, and given up when they are of no use."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from gateway.errors import PeerError
from gateway.transport import Transport
from gateway.upstreams import IDLE_SECONDS, MAX_IDLE, Upstreams
from supervisor.ground.config import PoolTable
from supervisor.ground.pools import Pool
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from tests.gateway.house import PLAIN, House

THREE = PLAIN.replace('["127.0.0.1:8001"]', '["127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003", "127.0.0.1:8004"]')

WAY = Transport(PoolTable(servers=()), None, None)


@pytest.fixture
def house() -> Iterator[House]:
    house = House(THREE)
    yield house
    house.gateway.close()
    house.lane.finish()
    for name in house.plane.names(Kind.SERVER):
        assert house.rows(Kind.SERVER, name, layout.Server.IN_FLIGHT) == 0
    house.plane.close()


def parts(house: House) -> tuple[Upstreams, Pool]:
    return house.gateway._shared.upstreams, house.worker.pools["web"]


def outcome(house: House, coro: Coroutine[Any, Any, Any], seconds: float = 0.0) -> Any:
    """What a session ended with."""
    found: list[Any] = []

    async def session() -> None:
        try:
            found.append(await coro)
        except PeerError as error:
            found.append(error.code)

    house.lane.spawn(session())
    house.lane.advance(seconds)
    return found[0] if found else None


def test_a_connection_with_something_unread_is_not_kept(house: House) -> None:
    house.listen(8001)
    upstreams, pool = parts(house)
    server, conn, _ = outcome(house, upstreams.open(pool, WAY, "k", pool.servers[0]))
    server.ended()
    conn.readable = True
    upstreams.keep(server, conn)
    assert not upstreams.idle[server]
    assert house.server(0).at_end


def test_three_servers_are_tried_and_no_fourth(house: House) -> None:
    upstreams, pool = parts(house)
    assert outcome(house, upstreams.open(pool, WAY, "k")) == "connect_failed"
    failures = [house.rows(Kind.SERVER, server.name, layout.Server.FAILURES) for server in pool.servers]
    assert sorted(failures) == [0, 1, 1, 1]


def test_the_first_that_accepts_is_taken_and_counted(house: House) -> None:
    house.listen(8003)
    upstreams, pool = parts(house)
    server, conn, _ = outcome(house, upstreams.open(pool, WAY, "k", pool.servers[0]))
    assert server.name == "web/127.0.0.1:8003"
    assert house.rows(Kind.SERVER, server.name, layout.Server.IN_FLIGHT) == 1
    assert house.rows(Kind.SERVER, server.name, layout.Server.CONNECTIONS) == 1
    server.ended()
    upstreams.close(conn)


def test_connecting_takes_five_seconds_at_most_and_no_longer_than_what_is_left(house: House) -> None:
    for port in (8001, 8002, 8003, 8004):
        house.silence(port)
    upstreams, pool = parts(house)
    assert outcome(house, upstreams.open(pool, WAY, "k"), 14.5) is None
    assert outcome(house, upstreams.open(pool, WAY, "k", None, 0.5), 2.0) == "connect_timeout"
    house.lane.advance(2)


def test_the_last_kept_is_the_first_taken_and_the_oldest_goes_first(house: House) -> None:
    house.listen(8001)
    upstreams, pool = parts(house)
    pool.servers = pool.servers[:1]
    (server, first, _), (_, second, _) = (
        outcome(house, upstreams.open(pool, WAY, "k", pool.servers[0])) for _ in range(2)
    )
    server.ended()
    server.ended()
    first.readable = second.readable = False  # as after an answer was read
    upstreams.keep(server, first)
    house.lane.advance(30)
    upstreams.keep(server, second)
    assert [conn for conn, _ in upstreams.idle[server]] == [first, second]
    house.lane.advance(IDLE_SECONDS - 20)
    assert [conn for conn, _ in upstreams.idle[server]] == [second]
    assert house.server(0).at_end
    house.lane.advance(40)
    assert upstreams.idle[server] == []


def test_no_more_are_kept_than_anybody_needs(house: House) -> None:
    house.listen(8001)
    upstreams, pool = parts(house)
    server = pool.servers[0]
    for _ in range(MAX_IDLE + 3):
        _, conn, _ = outcome(house, upstreams.open(pool, WAY, "k", server))
        server.ended()
        conn.readable = False
        upstreams.keep(server, conn)
    assert len(upstreams.idle[server]) == MAX_IDLE
    assert sum(end.at_end for end in house.servers[8001]) == 3


def test_what_is_given_back_to_a_server_that_is_gone_is_closed_by_the_next_sweep(house: House) -> None:
    house.listen(8001)
    upstreams, pool = parts(house)
    server = pool.servers[0]
    _, kept, _ = outcome(house, upstreams.open(pool, WAY, "k", server))
    _, used, _ = outcome(house, upstreams.open(pool, WAY, "k", server))
    server.ended()
    server.ended()
    kept.readable = False
    upstreams.keep(server, kept)
    stack = upstreams.idle[server]
    upstreams.keep_only(())
    assert stack == []
    stack.append((used, house.lane.now))
    house.lane.advance(6)
    assert all(end.at_end for end in house.servers[8001])

"""Silent connections end over the second half of a drain, those at work don't."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from gateway.connection import Connection
from gateway.drain import Drain
from gateway.forwarded import Client
from gateway.tunnel import Farewell
from supervisor.ground import health
from supervisor.ground.lane import PARK, Session
from supervisor.ground.net.memory import Rehearsal
from supervisor.plane.layout import Admin, Kind
from tests.gateway.house import OK, PLAIN, Build, House, answer, warm
from tests.gateway.http2.browser import Browser
from tests.gateway.http2.far import FarServer
from tests.gateway.test_exchange import SWITCH, UPGRADE

TIMED = PLAIN + '[supervisor]\ndrain_timeout = "10s"\n'


def test_silent_connections_end_one_after_the_other_and_busy_ones_stay() -> None:
    lane = Rehearsal()
    nobody: Any = None
    live: dict[Session, Connection] = {}

    async def session() -> None:
        while True:
            await PARK

    for number in range(12):
        one = lane.spawn(session())
        live[one] = Connection(nobody, nobody, Client("192.0.2.1", "http", False), lane.now)
        live[one].busy = number >= 10
        one.when_done(live.pop)
    lane.advance(1)
    Drain(lane, 10.0, lambda: live)
    left = []
    for _ in range(10):
        lane.advance(1)
        left.append(len(live))
    assert left[:4] == [12] * 4
    assert left[-1] == 2
    assert all(0 <= before - after <= 3 for before, after in pairwise(left))
    lane.finish()


def test_who_had_something_to_do_since_the_drain_began_is_not_silent() -> None:
    connection = Connection(None, None, Client("192.0.2.1", "http", False), 5.0)  # type: ignore[arg-type]
    assert connection.silent(5.0)
    connection.seen = 6.0
    assert not connection.silent(5.0)


def test_websockets_are_told_one_after_the_other_in_the_first_half() -> None:
    lane = Rehearsal()
    nobody: Any = None
    live: dict[Session, Connection] = {}

    async def session() -> None:
        while True:
            await PARK

    for _ in range(10):
        connection = live[lane.spawn(session())] = Connection(nobody, nobody, Client("192.0.2.1", "http", False), 0.0)
        connection.busy, connection.farewell = True, Farewell()
    lane.advance(1)
    Drain(lane, 10.0, lambda: live)
    told = []
    for _ in range(6):
        lane.advance(1)
        told.append(sum(one.farewell is not None and one.farewell.asked for one in live.values()))
    assert told[4] == 10
    assert all(1 <= after - before <= 3 for before, after in pairwise([0, *told[:5]]))
    for one in list(live):
        one.cancel()
    lane.finish()


# -- a server that is taken out by hand


def take_out(house: House, value: int = Admin.DRAINING) -> None:
    """The one at port 8001, as the operator does."""
    plane = house.plane
    row = plane.row(Kind.SERVER, "web/127.0.0.1:8001")
    health.set_admin(plane, plane.row(Kind.POOL, "web"), row, value, 0)
    house.lane.advance(0.2)


def test_kept_connections_to_a_server_that_drains_are_closed_at_once(build: Build) -> None:
    house = build(TIMED)
    warm(house, 3)
    assert not any(end.at_end for end in house.servers[8001])
    take_out(house)
    assert all(end.at_end for end in house.servers[8001])


def test_an_answer_that_comes_in_time_is_given_and_its_connection_not_kept(build: Build) -> None:
    house = build(TIMED)
    warm(house)
    client = house.connect()
    client.get()
    house.received()
    take_out(house)
    house.lane.advance(9)
    house.answer(OK)
    assert answer(client.take()).status == 200
    house.lane.advance(0.2)
    assert house.server().at_end


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_an_answer_that_is_late_is_a_503(build: Build, kept: bool, version: int) -> None:
    house = build(TIMED.replace('80"', '80"\nhttp2 = true'))
    if kept:
        warm(house)
    browser, client = (Browser(house), None) if version == 2 else (None, house.connect())
    if client is not None:
        client.get()
    if browser is not None:
        stream = browser.ask()
    house.received()
    take_out(house, Admin.MAINTENANCE)
    house.lane.advance(10)
    assert (house.log.lines[-1]["status"], house.log.lines[-1]["reason"]) == (503, "server_drained")
    if browser is not None:
        assert browser.status(stream) == 503
    if client is not None:
        reply = answer(client.take())
        assert (reply.status, reply.code, reply.field("retry-after")) == (503, "server_drained", "1")
    assert house.server().at_end


def test_an_answer_that_has_begun_is_cut(build: Build) -> None:
    house = build(TIMED)
    client = house.connect()
    client.get()
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123")
    take_out(house)
    house.lane.advance(10)
    assert client.take().endswith(b"123")
    assert client.closed
    assert house.log.lines[-1]["reason"] == "server_drained"


def test_streams_of_http2_to_the_server_end_with_its_time(build: Build) -> None:
    house = build(TIMED.replace("[pools.web]", '[pools.web]\nprotocol = "h2c"'))
    clients = [house.connect() for _ in range(2)]
    for client in clients:
        client.get()
    far = FarServer(house)
    assert len(far.requests()) == 2
    take_out(house)
    far.answer(1, b"in time")
    assert answer(clients[0].take()).body == b"in time"
    house.lane.advance(10)
    assert answer(clients[1].take()).code == "server_drained"
    assert far.end.at_end


def test_a_websocket_is_told_in_the_first_half_and_cut_in_the_end(build: Build) -> None:
    house = build(TIMED)
    told, stuck = house.connect(), house.connect()
    for number, client in enumerate((told, stuck)):
        client.send(UPGRADE)
        house.received(number)
        house.answer(SWITCH, number)
        client.take()
    house.answer(b"\x82\x7e\x10\x00begun", 1)  # a frame of 4096 bytes that does not go on
    assert stuck.take().endswith(b"begun")
    take_out(house)
    house.lane.advance(6)
    assert told.take() == b"\x88\x02\x03\xe9"
    told.send(b"\x88\x82\0\0\0\0\x03\xe9")
    told.end.shutdown_write()
    house.received(0)
    house.server(0).close()
    assert told.closed
    assert not stuck.closed
    house.lane.advance(5)
    assert stuck.closed
    assert [(line["status"], line["reason"]) for line in house.log.lines] == [(101, ""), (101, "server_drained")]
    assert not house.gateway._shared.tunnels

"""What the kinds of UDP listeners share; sessions and their headers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from edge.oneway import OneWaySlot
from edge.sessions import SessionsSlot
from edge.udp import TELL_EVERY
from supervisor.ground import health
from supervisor.plane import layout
from supervisor.plane.layout import Admin, Kind, Listener
from tests.edge.datagrams import House, arrived

Open = Callable[..., House]
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.fixture
def house() -> Iterator[Open]:
    made: list[House] = []

    def make(keys: str = "", servers: int = 2, pool: str = "") -> House:
        made.append(House(keys, servers, pool))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_client_keeps_its_server_and_its_port(house: Open) -> None:
    one = house()
    client = one.client()
    for _ in range(3):
        client.send(b"x")
    one.lane.turn()
    got = [some for some in arrived(one.servers) if some]
    assert len(got) == 1
    assert len(got[0]) == 3
    assert len({source for _, source in got[0]}) == 1


def test_the_sessions_of_a_server_that_leaves_end_and_the_next_datagram_goes_elsewhere(house: Open) -> None:
    one = house()
    client = one.client()
    client.send(b"one")
    one.lane.turn()
    home = next(at for at, some in enumerate(arrived(one.servers)) if some)
    one.listener.leave(one.pool.servers[1 - home])
    assert one.count(Listener.SESSIONS) == 1
    row = one.pool.servers[home].row
    health.set_admin(one.plane, one.plane.row(Kind.POOL, "p"), row, Admin.DRAINING, layout.SUPERVISOR)
    one.listener.leave(one.pool.servers[home])
    assert one.count(Listener.SESSIONS) == 0
    client.send(b"two")
    one.lane.turn()
    assert [data for data, _ in arrived(one.servers)[1 - home]] == [b"two"]


@pytest.mark.parametrize(("every", "headers"), [("true", 3), ("false", 1)])
def test_the_header_stands_in_front_of_the_first_datagram_or_of_all(house: Open, every: str, headers: int) -> None:
    one = house(f'send_proxy_protocol = "v2"\nsend_proxy_protocol_every = {every}\n', servers=1)
    client = one.client()
    for _ in range(3):
        client.send(b"x")
    one.lane.turn()
    assert [data.startswith(SIGNATURE) for data, _ in arrived(one.servers)[0]] == [n < headers for n in range(3)]


def test_a_server_that_is_gone_costs_its_session_and_the_next_datagram_goes_elsewhere(house: Open) -> None:
    one = house()
    client = one.client()
    client.send(b"one")
    one.lane.turn()
    home = next(at for at, some in enumerate(arrived(one.servers)) if some)
    one.servers[home].close()
    client.send(b"lost")
    one.lane.turn()
    one.lane.turn(0.2)
    client.send(b"again")
    one.lane.turn()
    assert [data for data, _ in arrived([one.servers[1 - home]])[0]] == [b"again"]


def test_a_server_that_answers_is_forgiven_what_failed_before(house: Open) -> None:
    one = house(servers=1)
    server = one.pool.servers[0]
    one.listener.sweep()
    server.failed(1)
    one.client().send(b"x")
    one.lane.turn()
    one.listener.sweep()
    assert one.plane.cells[server.base + layout.Server.STREAK] == 1  # it has not answered yet
    [[(_, source)]] = arrived(one.servers)
    one.servers[0].sendto(b"y", source)
    one.lane.turn()
    one.listener.sweep()
    assert one.plane.cells[server.base + layout.Server.STREAK] == 0


def test_who_is_refused_is_counted_and_told_with_the_limit_now_and_then(house: Open) -> None:
    one = house("max_sessions = 1\n")
    for _ in range(3):
        one.client().send(b"x")
    one.lane.turn()
    assert (one.count(Listener.SESSIONS), one.count(Listener.REFUSED)) == (1, 2)
    one.listener.sweep()
    one.client().send(b"x")
    one.lane.turn()
    one.later(1)
    assert one.full == [(2, "max_sessions")]
    one.later(TELL_EVERY)
    assert one.full == [(2, "max_sessions"), (1, "max_sessions")]


def test_servers_that_are_full_refuse_and_say_so(house: Open) -> None:
    one = house(servers=1)
    one.pool.servers[0].max_connections = 1
    for _ in range(2):
        one.client().send(b"x")
    one.lane.turn()
    one.listener.sweep()
    assert one.full == [(1, "max_connections of the pool's servers")]


def test_another_kind_begins_anew(house: Open) -> None:
    one = house()
    one.client().send(b"x")
    one.lane.turn()
    assert isinstance(one.slot, SessionsSlot)
    one.listener.take(one.table('kind = "one_way"\n'), one.pool)
    assert isinstance(one.slot, OneWaySlot)
    assert one.count(Listener.SESSIONS) == 0
    one.client().send(b"y")
    one.lane.turn()
    assert sum(len(some) for some in arrived(one.servers)) == 2

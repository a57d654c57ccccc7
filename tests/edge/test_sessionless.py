"""What both kinds of slots without sessions do with what comes: some of it at a time, all of it counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge.outbound import DATAGRAMS_A_WAKE
from supervisor.ground import health
from supervisor.plane import layout
from supervisor.plane.layout import Admin, Kind, Listener
from tests.edge.datagrams import House, arrived, udp_socket

Open = Callable[..., House]


@pytest.fixture(params=["stateless", "one_way"])
def house(request: pytest.FixtureRequest) -> Iterator[Open]:
    made: list[House] = []

    def make(**more: Any) -> House:
        made.append(House(f'kind = "{request.param}"\n', **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_others_have_their_turn_before_a_flood_is_over(house: Open) -> None:
    one = house()
    client = one.client()
    for number in range(DATAGRAMS_A_WAKE + 10):
        client.send(b"%d" % number)
    [watched] = one.lane.watched
    watched.ready()
    assert one.count(Listener.DATAGRAMS_IN) == DATAGRAMS_A_WAKE
    one.lane.turn()
    assert one.count(Listener.DATAGRAMS_IN) == DATAGRAMS_A_WAKE + 10
    assert sum(map(len, arrived(one.servers))) == DATAGRAMS_A_WAKE + 10


@pytest.mark.parametrize("size", [0, 1, 1400, 60_000])
def test_a_datagram_arrives_as_it_was_sent(house: Open, size: int) -> None:
    one = house(servers=1)
    one.client().send(b"x" * 60_000)  # what comes after it is not longer for it
    one.client().send(b"y" * size)
    one.lane.turn()
    assert [data for data, _ in arrived(one.servers)[0]] == [b"x" * 60_000, b"y" * size]
    assert one.count(Listener.BYTES_IN) == 60_000 + size


def test_what_no_server_takes_is_dropped_and_counted(house: Open) -> None:
    one = house(servers=1)
    [server] = one.pool.servers
    health.set_admin(one.plane, one.plane.row(Kind.POOL, "p"), server.row, Admin.MAINTENANCE, layout.SUPERVISOR)
    client = one.client()
    for _ in range(3):
        client.send(b"hello")
    one.lane.turn()
    assert (one.count(Listener.DATAGRAMS_IN), one.count(Listener.DROPPED)) == (3, 3)
    assert arrived(one.servers) == [[]]


def test_sessions_of_another_kind_of_slot_end_with_it(house: Open) -> None:
    one = house()
    theirs = udp_socket()
    one.listener.detach(0)
    one.listener.attach(0, one.sock, [(None, theirs)])  # type: ignore[list-item]  # what flow it was is of no interest
    assert theirs.fileno() == -1
    one.client().send(b"hello")
    one.lane.turn()
    assert sum(map(len, arrived(one.servers))) == 1

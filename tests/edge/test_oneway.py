from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from supervisor.plane import layout
from supervisor.plane.layout import Listener
from tests.edge.datagrams import House, arrived

Open = Callable[..., House]


@pytest.fixture
def house() -> Iterator[Open]:
    made: list[House] = []

    def make(keys: str = "", **more: Any) -> House:
        made.append(House(f'kind = "one_way"\n{keys}', **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def send(one: House, count: int) -> None:
    client = one.client()
    for number in range(count):
        client.send(b"%d" % number)
    one.lane.turn()


def test_all_clients_share_a_socket_for_each_server(house: Open) -> None:
    one = house()
    for _ in range(3):
        send(one, 4)
    got = arrived(one.servers)
    assert [len(some) for some in got] == [6, 6]
    assert [len({source for _, source in some}) for some in got] == [1, 1]
    assert one.count(Listener.SESSIONS) == 0
    assert sum(one.plane.cells[server.base + layout.Server.REQUESTS] for server in one.pool.servers) == 12


def test_what_a_server_says_reaches_nobody(house: Open) -> None:
    one = house(servers=1)
    send(one, 1)
    [[(_, source)]] = arrived(one.servers)
    one.servers[0].sendto(b"why", source)
    one.lane.turn()
    assert arrived(one.clients) == [[]]
    assert one.count(Listener.DATAGRAMS_OUT) == 0


def test_a_complaint_is_a_failure_and_a_second_without_one_forgives_it(house: Open) -> None:
    one = house(servers=1)
    one.servers[0].close()
    streak = one.pool.servers[0].base + layout.Server.STREAK
    for _ in range(3):
        send(one, 1)
        one.lane.turn(0.2)
    assert one.plane.cells[streak] >= 2
    one.listener.sweep()  # the second of the complaint
    assert one.plane.cells[streak] >= 2
    one.listener.sweep()
    assert one.plane.cells[streak] == 0


def test_ways_to_servers_that_a_reload_removes_are_closed(house: Open) -> None:
    one = house()
    send(one, 2)
    assert len(one.lane.watched) == 3
    one.pool.servers = one.pool.servers[:1]
    one.listener.sweep()
    assert len(one.lane.watched) == 2

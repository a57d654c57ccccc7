from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from supervisor.plane.layout import Listener
from tests.edge.datagrams import House, arrived

Open = Callable[..., House]
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.fixture
def house() -> Iterator[Open]:
    made: list[House] = []

    def make(keys: str = "", **more: Any) -> House:
        made.append(House(f'kind = "stateless"\n{keys}', **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_each_datagram_goes_to_the_next_server_from_a_port_of_its_own(house: Open) -> None:
    one = house()
    client = one.client()
    for number in range(4):
        client.send(b"%d" % number)
    one.lane.turn()
    got = arrived(one.servers)
    assert [len(some) for some in got] == [2, 2]
    assert len({source for some in got for _, source in some}) == 4
    assert one.count(Listener.SESSIONS) == 4


def test_an_answer_ends_it_and_reaches_its_own_client(house: Open) -> None:
    one = house(servers=1)
    clients = [one.client() for _ in range(3)]
    for number, client in enumerate(clients):
        client.send(b"%d" % number)
    one.lane.turn()
    for data, source in reversed(arrived(one.servers)[0]):
        one.servers[0].sendto(b"answer to " + data, source)
    one.lane.turn()
    assert [[data for data, _ in some] for some in arrived(clients)] == [[b"answer to %d" % n] for n in range(3)]
    assert one.count(Listener.SESSIONS) == 0
    assert one.count(Listener.DATAGRAMS_OUT) == 3


def test_without_an_answer_it_ends_in_its_time(house: Open) -> None:
    one = house('answer_timeout = "2s"\n', servers=1)
    one.client().send(b"x")
    one.lane.turn()
    one.later(1.9)
    assert one.count(Listener.SESSIONS) == 1
    one.later(0.2)
    assert one.count(Listener.SESSIONS) == 0
    assert one.pool.servers[0].in_flight() == 0


def test_a_closed_port_is_a_failure_of_its_server(house: Open) -> None:
    one = house(servers=1)
    one.servers[0].close()
    one.client().send(b"x")
    one.lane.turn()
    one.lane.turn(0.2)
    assert one.count(Listener.SESSIONS) == 0
    assert one.count(Listener.DROPPED) == 1
    assert one.plane.cells[one.pool.servers[0].base + 2] == 1  # its streak


def test_every_datagram_names_its_client_where_that_is_wanted(house: Open) -> None:
    one = house('send_proxy_protocol = "v2"\n', servers=1)
    client = one.client()
    client.send(b"x")
    client.send(b"y")
    one.lane.turn()
    port = client.getsockname()[1].to_bytes(2, "big")
    for data, _ in arrived(one.servers)[0]:
        assert data.startswith(SIGNATURE)
        assert data[24:26] == port
        assert data[-1:] in (b"x", b"y")


def test_no_more_wait_than_may(house: Open) -> None:
    one = house("max_sessions = 2\n")
    client = one.client()
    for _ in range(5):
        client.send(b"x")
    one.lane.turn()
    assert one.count(Listener.SESSIONS) == 2
    assert one.count(Listener.REFUSED) == one.count(Listener.DROPPED) == 3
    one.listener.sweep()
    assert one.full == [(3, "max_sessions")]


def test_a_slot_that_is_given_up_waits_for_the_answers_that_are_to_come(house: Open) -> None:
    one = house(servers=1)
    client = one.client()
    client.send(b"x")
    one.lane.turn()
    one.listener.detach(0)
    assert one.listener.waiting() == 1
    [[(_, source)]] = arrived(one.servers)
    one.servers[0].sendto(b"late", source)
    one.lane.turn()
    assert arrived([client])[0][0][0] == b"late"
    assert one.listener.waiting() == 0

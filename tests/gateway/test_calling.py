"""Which server a request goes to when servers are full: it waits for a place, where that is configured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from supervisor.plane.layout import Kind, Server
from tests.gateway.house import PLAIN, Client, House, answer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
FULL = PLAIN.replace(
    '["127.0.0.1:8001"]',
    '[{ address = "127.0.0.1:8001", max_connections = 1 }]\nmax_queued = 2\nqueue_timeout = "3s"',
)


@pytest.fixture
def house() -> Iterator[House]:
    house = House(FULL)
    house.listen()
    yield house
    house.gateway.close()
    house.lane.finish()
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.IN_FLIGHT) == 0
    house.plane.close()


def ask(house: House, number: int) -> list[Client]:
    clients = [house.connect() for _ in range(number)]
    for client in clients:
        client.get()
    house.lane.run()
    return clients


def test_who_finds_no_place_waits_for_one(house: House) -> None:
    first, second, third = ask(house, 3)
    assert len(house.servers[8001]) == 1
    for client in (first, second, third):
        house.received()
        house.answer(OK)
        house.lane.run()
        assert answer(client.take()).status == 200
    assert len(house.servers[8001]) == 1


def test_more_than_may_wait_are_refused_at_once(house: House) -> None:
    *_, fourth = ask(house, 4)
    reply = answer(fourth.take())
    assert (reply.status, reply.code, reply.field("retry-after")) == (503, "no_server", "1")


def test_who_waits_too_long_is_refused(house: House) -> None:
    first, second = ask(house, 2)
    house.lane.advance(4)
    assert answer(second.take()).status == 503
    house.received()
    house.answer(OK)
    assert answer(first.take()).status == 200


def test_a_server_that_breaks_gives_its_place_to_the_next(house: House) -> None:
    first, second = ask(house, 2)
    house.server().close()
    house.lane.advance(0.3)
    for _ in range(2):
        house.received()
        house.answer(OK)
    assert {answer(first.take()).status, answer(second.take()).status} == {200}

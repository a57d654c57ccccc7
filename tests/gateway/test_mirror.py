"""Copies for a second pool: as whole as the request, bounded, and never in its way."""

from __future__ import annotations

from gateway import mirror
from supervisor.plane.layout import Kind, Server
from tests.gateway.house import OK, Build, House, answer, request
from tests.gateway.test_treatments import routed


def mirrored(build: Build, keys: str = "") -> House:
    return routed(build, f'pool = "web"\nmirror = {{ pool = "other"{keys} }}\ntimeout = "3s"')


def test_a_copy_arrives_and_its_answer_does_not_matter(build: Build) -> None:
    house = mirrored(build)
    client = house.connect()
    client.get("/a?b", "X-A: 1")
    original, copy = request(house.received()), request(house.received(port=8002))
    assert copy.head.target == original.head.target  # type: ignore[union-attr]
    assert copy.field("x-request-id") == original.field("x-request-id")
    assert (copy.field("x-a"), copy.field("connection")) == ("1", "close")
    house.answer(OK)
    assert answer(client.take()).status == 200
    house.answer(b"HTTP/1.1 500 Oh\r\n\r\nno", port=8002)
    house.server(port=8002).close()
    house.lane.run()
    assert len(house.log.lines) == 1


def test_bodies_are_not_copied(build: Build) -> None:
    house = mirrored(build)
    client = house.connect()
    client.get(method="POST", body=b"hello")
    house.received()
    assert not house.servers[8002]
    client.get(method="POST")
    house.answer(OK)
    house.received()
    assert not house.servers[8002]


def test_a_share_of_nothing_copies_nothing(build: Build) -> None:
    house = mirrored(build, ', percent = "0%"')
    client = house.connect()
    client.get()
    house.received()
    assert not house.servers[8002]


def test_a_dead_mirror_costs_the_request_nothing(build: Build) -> None:
    house = mirrored(build)
    house.silence(8002)
    client = house.connect()
    client.get()
    house.received()
    house.answer(OK)
    assert answer(client.take()).status == 200
    house.lane.advance(4.0)
    assert house.rows(Kind.SERVER, "other/127.0.0.1:8002", Server.IN_FLIGHT) == 0


def test_a_slow_mirror_gets_only_so_many_copies(build: Build) -> None:
    house = mirrored(build)
    client = house.connect()
    for _ in range(mirror.MAX_COPIES + 10):
        client.get()
        house.received(0)
        house.answer(OK, 0)
    assert len(house.servers[8002]) == mirror.MAX_COPIES
    house.lane.advance(4.0)
    client.get()
    house.received(0)
    assert len(house.servers[8002]) == mirror.MAX_COPIES + 1

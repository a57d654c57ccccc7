"""Copies for a second pool: as whole as the request, bounded, and never in its way."""

from __future__ import annotations

import pytest

from gateway import mirror
from supervisor.plane.layout import Kind, Server
from tests.gateway.house import OK, Build, House, answer, request
from tests.gateway.http2.browser import Browser
from tests.gateway.http2.far import FarServer
from tests.gateway.test_treatments import POOLS, routed


def mirrored(build: Build, keys: str = "") -> House:
    return routed(build, f'pool = "web"\nmirror = {{ pool = "other"{keys} }}\ntimeout = "3s"')


def test_a_copy_arrives_and_its_answer_does_not_matter(build: Build) -> None:
    house = mirrored(build)
    client = house.connect()
    client.get("/a?b", "X-A: 1")
    original, copy = request(house.received()), request(house.received(port=8002))
    assert copy.head.target == original.head.target  # type: ignore[union-attr]
    assert copy.field("x-request-id") == original.field("x-request-id")
    assert copy.fields == original.fields
    house.answer(OK)
    assert answer(client.take()).status == 200
    house.answer(b"HTTP/1.1 500 Oh\r\n\r\nno", port=8002)
    house.server(port=8002).close()
    house.lane.run()
    assert len(house.log.lines) == 1


BODIES = {
    "a length, whole": (b"Content-Length: 5\r\n\r\nhello", []),
    "a length, in pieces": (b"Content-Length: 10\r\n\r\nhel", [b"lo", b"12345"]),
    "no content yet": (b"Content-Length: 5\r\n\r\n", [b"hello"]),
    "chunks": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n", [b"3\r\nllo\r\n", b"0\r\nX-Sum: 1\r\n\r\n"]),
    "chunks, whole": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\nX-Sum: 1\r\n\r\n", []),
    "none": (b"Content-Length: 0\r\n\r\n", []),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_are_copied_as_they_come(build: Build, name: str) -> None:
    house = mirrored(build)
    client = house.connect()
    first, later = BODIES[name]
    client.send(b"POST /a HTTP/1.1\r\nHost: a\r\n" + first)
    original, copy = house.received(), house.received(port=8002)
    for piece in later:
        client.send(piece)
        original, copy = original + house.received(), copy + house.received(port=8002)
    got, copied = request(original), request(copy)
    assert (copied.body, copied.trailers, copied.fields) == (got.body, got.trailers, got.fields)
    house.answer(OK)
    assert answer(client.take()).status == 200
    house.answer(OK, port=8002)
    client.get()
    assert request(house.received(port=8002)).whole
    assert len(house.servers[8002]) == 1, "its connection is used again"


def test_bodies_by_http_2_are_copied(build: Build) -> None:
    text = POOLS.replace('pool = "web"', 'pool = "web"\nmirror = { pool = "other" }')
    house = build(text.replace('80"', '80"\nhttp2 = true', 1))
    house.listen(8002)
    browser = Browser(house)
    stream = browser.ask("/", b"hel", end=False)
    original, copy = house.received(), house.received(port=8002)
    browser.h2.send_data(stream, b"lo", end_stream=True)
    browser.go()
    assert request(original + house.received()).body == b"hello"
    assert request(copy + house.received(port=8002)).body == b"hello"


def test_a_mirror_of_http_2_gets_its_copies_so(build: Build) -> None:
    house = build(POOLS.replace("[pools.other]", '[pools.other]\nprotocol = "h2c"')
                  .replace('pool = "web"', 'pool = "web"\nmirror = { pool = "other" }'))  # fmt: skip
    house.listen(8002)
    client = house.connect()
    client.get(method="POST", body=b"hello")
    far = FarServer(house, port=8002)
    assert far.requests()[0][":method"] == "POST"
    assert (far.body(1), far.ended(1)) == (b"hello", True)
    far.answer(1)


def test_a_client_that_breaks_off_takes_the_copy_along(build: Build) -> None:
    house = mirrored(build)
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
    house.received(port=8002)
    client.end.close()
    house.lane.run()
    assert house.server(port=8002).at_end


def test_a_mirror_that_does_not_take_a_body_loses_it_and_the_request_goes_on(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "MAX_HELD", 100_000)
    house = mirrored(build)
    house.silence(8002)
    client = house.connect()
    size = 300_000
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    got = house.received()
    while size:
        piece = min(size, 10_000)
        client.send(b"x" * piece)
        got += house.received()
        size -= piece
    assert len(request(got).body) == 300_000
    house.answer(OK)
    assert answer(client.take()).status == 200
    assert house.rows(Kind.SERVER, "other/127.0.0.1:8002", Server.IN_FLIGHT) == 0
    route = house.gateway._listeners["web"].plan.routes["web"]
    assert route.mirror is not None
    assert (route.mirror.copies, route.mirror.held) == (0, 0)


def test_a_kept_connection_that_has_ended_is_not_held_against_its_server(build: Build) -> None:
    house = mirrored(build)
    client = house.connect()
    for _ in range(2):
        client.get()
        house.received(port=8002)
        house.answer(OK)
        assert answer(client.take()).status == 200
        house.answer(OK, port=8002)
        house.lane.run()
    client.get()
    assert request(house.received(port=8002)).whole
    house.server(port=8002).close()
    house.lane.run()
    assert house.rows(Kind.SERVER, "other/127.0.0.1:8002", Server.STREAK) == 0


def test_a_mirror_that_answers_early_and_closes_is_no_matter(build: Build) -> None:
    house = mirrored(build)
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
    house.received()
    house.received(port=8002)
    house.answer(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n", port=8002)
    house.server(port=8002).close()
    client.send(b"world")
    assert house.received() == b"world"
    house.answer(OK)
    assert answer(client.take()).status == 200


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

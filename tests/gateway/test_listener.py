"""Who is at the other end: PROXY headers from those who must send them, and from nobody else."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from supervisor.ground.net.proxy import encode_v1, encode_v2
from supervisor.plane.layout import Kind, Listener
from tests.gateway.house import PLAIN, House, answer, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SOURCE, HERE = ("192.0.2.77", 4711), ("192.0.2.1", 443)


@pytest.fixture
def house() -> Iterator[House]:
    house = House(PLAIN.replace('80"', '80"\naccept_proxy_protocol = ["127.0.0.0/8"]'))
    house.listen()
    yield house
    house.gateway.close()
    house.lane.finish()
    assert house.rows(Kind.LISTENER, "gateway/web", Listener.ACTIVE) == 0
    house.plane.close()


def count(house: House, field: int) -> int:
    return house.rows(Kind.LISTENER, "gateway/web", field)


@pytest.mark.parametrize("piece", [1, 5, 1000])
@pytest.mark.parametrize("header", [encode_v1(SOURCE, HERE), encode_v2(SOURCE, HERE)], ids=["v1", "v2"])
def test_the_address_is_the_one_in_the_header(house: House, header: bytes, piece: int) -> None:
    client = house.connect("127.0.0.1")
    client.send(header + GET, piece)
    assert request(house.received()).field("x-forwarded-for") == "192.0.2.77"
    house.answer(OK)
    assert answer(client.take()).status == 200
    assert house.log.lines[0]["client"] == "192.0.2.77"


def test_a_local_header_leaves_the_address_as_it_is(house: House) -> None:
    client = house.connect("127.0.0.1")
    client.send(encode_v2(None, None) + GET)
    assert request(house.received()).field("x-forwarded-for") == "127.0.0.1"


def test_who_must_send_a_header_and_does_not_is_closed(house: House) -> None:
    client = house.connect("127.0.0.1")
    client.send(GET)
    assert client.take() == b""
    assert client.closed
    assert count(house, Listener.PROTOCOL_ERRORS) == 1
    assert house.servers[8001] == []


def test_a_header_from_anybody_else_is_no_request(house: House) -> None:
    client = house.connect("192.0.2.1")
    client.send(encode_v1(SOURCE, HERE) + GET)
    assert answer(client.take()).code == "bad_request_line"
    ordinary = house.connect("192.0.2.1")
    ordinary.send(GET)
    assert request(house.received()).field("x-forwarded-for") == "192.0.2.1"


def test_a_header_that_does_not_come_ends_with_the_time_of_a_head(house: House) -> None:
    client = house.connect("127.0.0.1")
    client.send(b"PROXY ")
    house.lane.advance(11)
    assert client.closed
    assert count(house, Listener.TIMEOUTS) == 1


def test_a_drain_waits_for_who_still_introduces_itself(house: House) -> None:
    client = house.connect("127.0.0.1")
    header = encode_v1(SOURCE, HERE)
    client.send(header[:10])
    house.gateway.drain()
    assert house.gateway.holding() == ["http web opening"]
    client.send(header[10:] + GET)
    assert house.gateway.holding() == ["http web 192.0.2.77 at work"]
    house.answer(OK)
    assert answer(client.take()).field("connection") == "close"
    assert client.closed
    assert house.gateway.holding() == []


def test_a_header_that_is_cut_costs_its_own_connection(house: House) -> None:
    client = house.connect("127.0.0.1")
    client.send(b"PROXY TCP4 ")
    client.end.close()
    house.lane.run()
    assert count(house, Listener.RESETS) == 1


def test_a_reset_client_is_only_counted(house: House) -> None:
    client = house.connect("192.0.2.1")
    client.end.abort()
    house.lane.run()
    assert count(house, Listener.RESETS) == 1
    assert house.log.lines == []


def test_one_mapped_into_ipv6_is_in_its_network(house: House) -> None:
    here = house.gateway._listeners["web"].here
    assert here.must_introduce("::ffff:127.0.0.1")
    assert not here.must_introduce("::1")


def test_sockets_of_slots_come_and_go(house: House) -> None:
    polled: list[object] = []

    class Listening:
        def close(self) -> None:
            polled.remove(self)

    def listen(sock: socket.socket, accepted: object) -> Listening:
        listening = Listening()
        polled.append(listening)
        return listening

    house.lane.listen = listen  # type: ignore[attr-defined]
    with socket.socket() as sock:
        house.gateway.attach("web", 3, sock)
        assert len(polled) == 1
        house.gateway.detach("web", 3)
        house.gateway.detach("web", 3)
        assert polled == []

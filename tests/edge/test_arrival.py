"""A listener's routes: each connection reaches its pool with every byte it sent, once and in order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.plane.layout import Listener
from tests.edge.house import House
from tests.edge.peek.hellos import message, openssl, records, server_name

ROUTES = """
routes = [
  { sni = "db.example.com", pool = "b" },
  { detect = "ssh", pool = "b" },
  { detect = "mysql", pool = "c" },
  { pool = "a" },
]
detect_timeout = "2s"
"""
SSH = b"SSH-2.0-test\r\n"
HELLO = records(message(server_name(b"db.example.com")))


@pytest.fixture
def house() -> Iterator[House]:
    house = House(ROUTES)
    yield house
    house.close()


@pytest.mark.parametrize("piece", [1, 5, 1 << 16])
@pytest.mark.parametrize(
    ("first", "port"), [(HELLO, 8002), (openssl("other"), 8001), (SSH, 8002), (b"GET / HTTP/1.1\r\n", 8001)]
)
def test_the_first_bytes_choose_and_arrive_once(house: House, first: bytes, port: int, piece: int) -> None:
    client = house.connect()
    house.send(client, first, piece)
    house.send(client, b" and more")
    assert house.connections() == {port: 1}
    assert house.received(port) == first + b" and more"
    house.answer(b"answer", port)
    assert client.take() == b"answer"
    assert house.count(Listener.BYTES_IN) == len(first) + 9


def test_a_silent_client_gets_the_server_that_speaks_first(house: House) -> None:
    client = house.connect()
    house.lane.advance(1.5)
    assert house.connections() == {}
    house.lane.advance(1)
    house.answer(b"5.5.5-MariaDB", 8003)
    assert client.take() == b"5.5.5-MariaDB"
    house.send(client, b"login")
    assert house.received(8003) == b"login"


def test_what_stops_halfway_goes_where_nothing_is_asked(house: House) -> None:
    client = house.connect()
    house.send(client, HELLO[:40])
    house.lane.advance(2.5)
    assert house.received(8001) == HELLO[:40]
    house.send(client, HELLO[40:])
    assert house.received(8001) == HELLO[40:]


def test_an_end_is_passed_on_with_what_came_before(house: House) -> None:
    client = house.connect()
    house.send(client, b"S")
    client.shutdown_write()
    assert house.received(8001) == b"S"
    assert house.servers[8001][0].at_end
    house.answer(b"late answer")
    assert client.take() == b"late answer"


def test_a_broken_hello_costs_its_connection(house: House) -> None:
    client = house.connect()
    house.send(client, b"\x16\x03\x01\x00\x06\x01\x00\x00\x02ab")
    assert client.fd >= 0
    with pytest.raises(ConnectionResetError):
        client.recv_nowait()
    assert (house.count(Listener.PROTOCOL_ERRORS), house.connections()) == (1, {})


def test_what_no_route_takes_is_reset() -> None:
    house = House('routes = [{ detect = "http", pool = "a" }]')
    client = house.connect()
    house.send(client, SSH)
    with pytest.raises(ConnectionResetError):
        client.recv_nowait()
    assert house.count(Listener.REFUSED) == 1
    house.close()


def test_a_reload_changes_routes_for_new_connections(house: House) -> None:
    old = house.connect()
    house.reload('routes = [{ detect = "ssh", pool = "a" }, { pool = "b" }]')
    new = house.connect()
    house.send(old, SSH)
    house.send(new, SSH)
    assert house.connections() == {8002: 1, 8001: 1}
    house.reload('pool = "c"')
    house.connect()
    assert house.connections() == {8002: 1, 8001: 1, 8003: 1}


STARTS = st.sampled_from(
    [b"", SSH, HELLO, HELLO[:60], b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x00\x05\x01", b"\x03", b"*1\r\n"]
)


@given(STARTS, st.binary(max_size=60), st.integers(1, 80), st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_property_every_byte_reaches_one_server_once_or_the_client_is_reset(
    house: House, start: bytes, more: bytes, piece: int, ends: bool
) -> None:
    before = {port: len(ends_of) for port, ends_of in house.servers.items()}
    errors = house.count(Listener.PROTOCOL_ERRORS)
    client = house.connect()
    sent = start + more
    try:
        house.send(client, sent, piece)
        if ends:
            client.shutdown_write()
        house.lane.advance(2.5)
    except OSError:  # reset before all was sent
        pass
    got = [port for port, ends_of in house.servers.items() if len(ends_of) > before[port]]
    if got:
        (port,) = got
        assert house.received(port) == sent
    else:
        assert house.count(Listener.PROTOCOL_ERRORS) == errors + 1
    client.abort()
    house.lane.run()
    assert house.count(Listener.ACTIVE) == 0

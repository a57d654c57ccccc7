"""The access log tells of each connection at its end, with the reason, and of a long one while it lives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from proxyprotocol.v2 import ProxyProtocolV2

from tests.edge.house import House
from tests.edge.peek.hellos import message, records, server_name


@pytest.fixture
def house() -> Iterator[House]:
    house = House('pool = "a"\nidle_timeout = "100s"\nlog_interval = "10s"')
    yield house
    house.close()


def line(house: House) -> Any:
    """The one line that there is."""
    (only,) = house.log.lines
    house.log.lines.clear()
    return only


def test_its_end_has_its_figures(house: House) -> None:
    client = house.connect("192.0.2.7", 4711)
    house.send(client, b"question")
    house.lane.advance(2)
    house.answer(b"answer")
    client.close()
    house.servers[8001][0].close()
    house.lane.run()
    told = line(house)
    assert (told["listener"], told["protocol"], told["client"], told["port"]) == ("l", "tcp", "192.0.2.7", 4711)
    assert (told["server"], told["state"], told["reason"]) == ("a/127.0.0.1:8001", "closed", "")
    assert (told["bytes_in"], told["bytes_out"], told["us"], told["sni"]) == (8, 6, 2_000_000, None)


def test_one_that_lives_is_told_of_at_intervals(house: House) -> None:
    client = house.connect()
    house.lane.advance(9)
    assert house.log.lines == []
    house.send(client, b"x" * 100)
    house.lane.advance(3)
    first = line(house)
    assert (first["state"], first["bytes_in"]) == ("open", 100)
    house.lane.advance(7)
    assert house.log.lines == []
    house.send(client, b"x" * 11)
    house.lane.advance(4)
    second = line(house)
    assert (second["state"], second["bytes_in"]) == ("open", 111)
    assert second["connection"] == first["connection"] != ""


def test_silence_is_a_reason(house: House) -> None:
    house.connect()
    house.lane.advance(102)
    assert house.log.lines[-1]["reason"] == "timeout"


def test_a_reset_is_a_reason(house: House) -> None:
    house.connect()
    house.servers[8001][0].abort()
    house.lane.run()
    assert line(house)["reason"] == "reset"


def test_nobody_to_serve_it_is_a_reason(house: House) -> None:
    house.refuse(8001)
    house.connect()
    told = line(house)
    assert (told["reason"], told["server"]) == ("no_server", None)


def test_what_is_told_of_the_first_bytes() -> None:
    house = House('routes = [{ sni = "a.example", pool = "a" }]\nsend_proxy_protocol = "v2"')
    client = house.connect()
    hello = records(message(server_name(b"a.example")))
    house.send(client, hello)
    header = house.received()[: -len(hello)]
    client.abort()
    house.lane.run()
    told = line(house)
    assert (told["sni"], told["bytes_in"], told["reason"]) == ("a.example", len(hello), "reset")
    assert ProxyProtocolV2().unpack(header).tlv.unique_id == told["connection"].encode()
    stranger = house.connect()
    house.send(stranger, b"SSH-2.0-x\r\n")
    assert line(house)["reason"] == "no_route"
    broken = house.connect()
    house.send(broken, b"\x16\x03\x01\x00\x06\x01\x00\x00\x02ab")
    assert line(house)["reason"] == "malformed"
    house.close()


def test_what_a_limit_refuses_is_counted_alone() -> None:
    house = House('pool = "a"\nmax_connections_per_client = 1')
    house.connect()
    house.connect()
    assert house.log.lines == []
    house.close()
    assert line(house)["reason"] == "drained"

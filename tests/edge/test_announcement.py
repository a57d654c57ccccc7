"""What a server is told by a PROXY header, as another decoder reads it."""

from __future__ import annotations

from typing import Any

import pytest
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2

from supervisor.ground.net.proxy import TLV_AUTHORITY, TLV_UNIQUE_ID, encode_v1, encode_v2
from supervisor.plane.layout import Listener
from tests.edge.house import HERE, House
from tests.edge.peek.hellos import alpn, message, records, server_name

CLIENT = ("192.0.2.1", 1234)
OUTER, VIP = ("203.0.113.9", 999), ("203.0.113.1", 443)
FROM_NEAR = 'accept_proxy_protocol = ["192.0.2.0/24"]'


def header(data: bytes) -> tuple[Any, bytes]:
    """The header that `data` begins with, and the rest."""
    size = 16 + int.from_bytes(data[14:16], "big")
    return ProxyProtocolV2().unpack(data[:size]), data[size:]


def addresses(result: Any) -> tuple[tuple[str, int], tuple[str, int]]:
    return (str(result.source[0]), result.source[1]), (str(result.dest[0]), result.dest[1])


def test_version_1_names_both_ends() -> None:
    house = House('pool = "a"\nsend_proxy_protocol = "v1"')
    client = house.connect(*CLIENT)
    house.send(client, b"hello")
    line, _, rest = house.received().partition(b"\r\n")
    assert addresses(ProxyProtocolV1().unpack(line + b"\r\n")) == (CLIENT, HERE)
    assert rest == b"hello"
    assert house.count(Listener.BYTES_IN) == 5
    house.close()


def test_version_2_gives_each_connection_an_id() -> None:
    house = House('pool = "a"\nsend_proxy_protocol = "v2"')
    ids = set()
    for _ in range(3):
        house.connect(*CLIENT)
        told, rest = header(house.received())
        assert (addresses(told), rest) == ((CLIENT, HERE), b"")
        assert (told.tlv.authority, told.tlv.alpn, told.tlv.ssl.has_ssl) == (None, None, False)
        ids.add(told.tlv.unique_id)
    assert len(ids) == 3
    house.close()


@pytest.mark.parametrize(("offered", "told_alpn"), [([b"h2"], b"h2"), ([b"h2", b"http/1.1"], None), ([], None)])
def test_version_2_tells_what_the_hello_asked_for(offered: list[bytes], told_alpn: bytes | None) -> None:
    house = House('routes = [{ sni = "a.example", pool = "b" }]\nsend_proxy_protocol = "v2"')
    client = house.connect(*CLIENT)
    hello = records(message(server_name(b"a.example"), *([alpn(*offered)] if offered else [])))
    house.send(client, hello, 100)
    told, rest = header(house.received(8002))
    assert (told.tlv.authority, told.tlv.alpn) == ("a.example", told_alpn)
    assert rest == hello
    house.close()


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_the_client_is_the_one_that_an_outer_proxy_named(piece: int) -> None:
    house = House(f'pool = "a"\nsend_proxy_protocol = "v2"\n{FROM_NEAR}')
    client = house.connect(*CLIENT)
    outer = encode_v2(OUTER, VIP, tlvs=((TLV_AUTHORITY, b"a.example"), (TLV_UNIQUE_ID, b"theirs"), (0xE0, b"own")))
    house.send(client, outer + b"hello", piece)
    told, rest = header(house.received())
    assert (addresses(told), rest) == ((OUTER, VIP), b"hello")
    assert (told.tlv.authority, told.tlv.unique_id, told.tlv.get(0xE0)) == ("a.example", b"theirs", None)
    house.answer(b"answer")
    assert client.take() == b"answer"
    house.close()


def test_routes_look_behind_the_header() -> None:
    house = House(f'routes = [{{ detect = "ssh", pool = "b" }}, {{ pool = "a" }}]\n{FROM_NEAR}')
    client = house.connect(*CLIENT)
    house.send(client, encode_v1(OUTER, VIP) + b"SSH-2.0-x\r\n", 3)
    assert house.received(8002) == b"SSH-2.0-x\r\n"
    house.close()


def test_each_route_says_whether_its_servers_get_one() -> None:
    routes = '{ detect = "ssh", pool = "b", send_proxy_protocol = "off" }, { pool = "a" }'
    house = House(f'routes = [{routes}]\nsend_proxy_protocol = "v1"')
    for first in (b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\n"):
        house.send(house.connect(*CLIENT), first)
    assert house.received(8002) == b"SSH-2.0-x\r\n"
    assert house.received(8001).startswith(b"PROXY TCP4 192.0.2.1 ")
    house.close()


def test_the_same_client_keeps_its_server_behind_a_proxy() -> None:
    pool = '[pools.a]\nbalance = "source_hash"\nservers = ["127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003"]'
    house = House(f'pool = "a"\n{FROM_NEAR}', pool)
    house.connect(OUTER[0])
    direct = house.connections()
    client = house.connect(*CLIENT)
    house.send(client, encode_v2(OUTER, VIP))
    assert house.connections() == dict.fromkeys(direct, 2)
    house.close()


def test_a_local_header_is_the_proxys_own_connection() -> None:
    house = House(f'pool = "a"\nsend_proxy_protocol = "v2"\n{FROM_NEAR}')
    client = house.connect(*CLIENT)
    house.send(client, encode_v2(None, None) + b"check")
    told, rest = header(house.received())
    assert (addresses(told), rest) == ((CLIENT, HERE), b"check")
    house.close()


def test_who_must_send_a_header_and_does_not_is_reset() -> None:
    house = House(f'pool = "a"\n{FROM_NEAR}')
    client = house.connect(*CLIENT)
    house.send(client, b"GET / HTTP/1.1\r\n")
    with pytest.raises(ConnectionResetError):
        client.recv_nowait()
    assert (house.count(Listener.PROTOCOL_ERRORS), house.connections()) == (1, {})
    silent = house.connect(*CLIENT)
    house.lane.advance(6)
    assert silent.at_end
    assert house.count(Listener.TIMEOUTS) == 1
    house.close()


def test_nobody_else_is_believed() -> None:
    house = House(f'pool = "a"\n{FROM_NEAR}')
    client = house.connect("198.51.100.1")
    house.send(client, encode_v1(OUTER, VIP))
    assert house.received() == encode_v1(OUTER, VIP)
    house.close()

"""WebSockets to servers of HTTP/2 (RFC 8441), for clients of either version: the handshake, bytes, ends, refusals."""

from __future__ import annotations

import h2.events
import pytest

from gateway.http2.asking import socket_block
from gateway.http2.blocks import BlockDecoder
from gateway.websocket import accept_of
from tests.gateway.house import Build, Client, House, answer
from tests.gateway.http2.far import FarServer
from tests.gateway.http2.test_pipe import connect
from tests.gateway.http2.test_session import Browser
from tests.gateway.http2.test_trunk import H2C

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ASKED = (
    b"GET /chat?a=b HTTP/1.1\r\nHost: h:80\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://a\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)


@pytest.fixture
def house(build: Build) -> House:
    return build(H2C)


def asked(house: House) -> Client:
    client = house.connect()
    client.send(ASKED)
    return client


def accepted(house: House) -> tuple[Client, FarServer]:
    client = asked(house)
    far = FarServer(house, enable_connect_protocol=1)
    far.requests()
    far.answer(1, b"", fields=[("sec-websocket-protocol", "chat")], end=False)
    assert client.take().startswith(b"HTTP/1.1 101 ")
    return client, far


def test_a_block_says_what_rfc_8441_asks_for() -> None:
    head = b"GET /chat HTTP/1.1\r\nhost:  h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSEC-WebSocket-KEY:x\r\nA: b"
    lines = [entry[0] for entry in BlockDecoder().decode(socket_block(head, b"https"))]
    assert lines == [b":method: CONNECT", b":protocol: websocket", b":path: /chat", b":scheme: https",
                     b":authority: h", b"a: b"]  # fmt: skip


def test_the_handshake_is_an_extended_connect(house: House) -> None:
    client = asked(house)
    far = FarServer(house, enable_connect_protocol=1)
    [got] = far.requests()
    assert (got[":method"], got[":protocol"], got[":path"]) == ("CONNECT", "websocket", "/chat?a=b")
    assert (got[":scheme"], got[":authority"]) == ("http", "h:80")
    assert (got["sec-websocket-version"], got["sec-websocket-protocol"]) == ("13", "chat")
    assert not {"sec-websocket-key", "connection", "upgrade", "host"} & set(got)
    assert not far.ended(1)
    far.answer(1, b"", fields=[("sec-websocket-protocol", "chat"), ("content-length", "0")], end=False)
    lines = client.take().lower().split(b"\r\n")
    assert lines[0] == b"http/1.1 101 switching protocols"
    assert {b"connection: upgrade", b"upgrade: websocket", b"sec-websocket-protocol: chat"} <= set(lines)
    assert b"sec-websocket-accept: " + accept_of(KEY).lower() in lines
    assert not [line for line in lines if line.startswith(b"content-length")]
    far.send(1, b"hello", end=False)
    assert client.take() == b"hello"


def test_bytes_pass_both_ways_as_fast_as_they_are_taken(house: House) -> None:
    client, far = accepted(house)
    total, sent = 1_000_000, 0
    while True:  # a server that reads nothing
        client.end.writable = True
        before = sent
        sent += client.end.send_nowait(b"x" * (total - sent))
        far.go()
        if sent == before:
            break
    assert sent < 400_000
    assert len(far.body(1, give_back=False)) == 65_535  # the window, and nothing beyond
    while sent < total:
        far.body(1)
        client.end.writable = True
        sent += client.end.send_nowait(b"x" * (total - sent))
    while len(far.body(1)) < total:
        pass
    sent = taken = 0
    while taken < total:
        size = min(far.h2.local_flow_control_window(1), total - sent)
        far.send(1, b"y" * size, end=False)
        sent += size
        more = len(client.take())
        assert size or more
        taken += more
    assert taken == total


def test_ends_are_passed_on_each_for_itself(house: House) -> None:
    client, far = accepted(house)
    client.end.shutdown_write()
    assert far.ended(1)
    far.send(1, b"last words", end=True)
    assert client.take() == b"last words"
    assert client.closed
    assert far.reset(1) is None
    assert house.log.lines[-1]["status"] == 101


def test_a_client_that_breaks_off_resets_the_stream_alone(house: House) -> None:
    client, far = accepted(house)
    client.end.abort()
    assert far.reset(1) is not None
    other = house.connect()
    other.get()
    far.answer(3)
    assert answer(other.take()).status == 200


def test_a_server_that_resets_the_stream_ends_its_client(house: House) -> None:
    client, far = accepted(house)
    far.h2.reset_stream(1)
    far.go()
    assert client.closed


def test_http_2_at_both_ends(house: House) -> None:
    browser = Browser(house)
    stream = connect(browser)
    far = FarServer(house, enable_connect_protocol=1)
    [got] = far.requests()
    assert (got[":method"], got[":protocol"], got["origin"]) == ("CONNECT", "websocket", "http://a")
    assert "sec-websocket-key" not in got
    far.answer(1, b"", fields=[("sec-websocket-protocol", "chat")], end=False)
    assert browser.status(stream) == 200
    assert "sec-websocket-accept" not in browser.fields(stream)
    browser.h2.send_data(stream, b"to", end_stream=True)
    browser.go()
    assert (far.body(1), far.ended(1)) == (b"to", True)
    far.send(1, b"fro", end=True)
    assert (browser.body(stream), browser.ended(stream)) == (b"fro", True)


def test_a_refusal_of_the_server_passes(house: House) -> None:
    client = asked(house)
    far = FarServer(house, enable_connect_protocol=1)
    far.requests()
    far.answer(1, b"no", 403, [("content-length", "2")])
    reply = answer(client.take())
    assert (reply.status, reply.body) == (403, b"no")


def test_a_server_that_takes_none_is_not_asked(house: House) -> None:
    client = asked(house)
    far = FarServer(house)
    assert far.requests() == []
    reply = answer(client.take())
    assert (reply.status, reply.code) == (501, "upgrade_unknown")
    client.get()
    far.answer(1)
    assert answer(client.take()).status == 200
    client.send(ASKED)
    assert answer(client.take()).code == "upgrade_unknown"
    assert len(far.of(h2.events.RequestReceived)) == 1


def test_a_server_that_does_not_say_what_it_takes_is_waited_for_and_given_up(house: House) -> None:
    client = asked(house)
    house.lane.run()
    house.lane.advance(16)
    assert answer(client.take()).code == "connect_timeout"


def test_a_server_that_leaves_before_it_says_so_has_failed(house: House) -> None:
    client = asked(house)
    house.received()
    house.server().close()
    assert answer(client.take()).code == "connect_failed"

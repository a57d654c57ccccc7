"""WebSockets over HTTP/2 (RFC 8441): the handshake translated, bytes both ways, ends and resets of either side."""

from __future__ import annotations

import pytest

from gateway.frames import GOING_AWAY
from gateway.http2 import frames
from gateway.http2.answering import DRAIN_PING
from gateway.http2.frames import ACK, DATA, END_STREAM, PING
from gateway.websocket import accept_of, key_of
from tests.gateway.house import Build, House, request
from tests.gateway.http2.test_session import HTTP2, OK, Browser
from tests.gateway.http2.wire import read_frames


@pytest.fixture
def house(build: Build) -> House:
    return build(HTTP2)


def connect(browser: Browser, protocol: str = "websocket", path: str = "/chat") -> int:
    stream, browser.next_id = browser.next_id, browser.next_id + 2
    head = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"), (":path", path), (":authority", "a"),
            ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"), ("origin", "http://a")]  # fmt: skip
    browser.h2.send_headers(stream, head)
    browser.go()
    return stream


def accepted(house: House, browser: Browser) -> int:
    stream = connect(browser)
    key = key_of(house.received())
    assert key is not None
    house.answer(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: chat\r\n"
                 b"Sec-WebSocket-Accept: " + accept_of(key) + b"\r\n\r\n")  # fmt: skip
    assert browser.status(stream) == 200
    return stream


def test_the_handshake_is_http_1s_for_the_server(house: House) -> None:
    browser = Browser(house)
    assert browser.h2.remote_settings.enable_connect_protocol == 1
    connect(browser)
    got = request(house.received())
    assert (got.head.method, got.head.target) == (b"GET", b"/chat")
    assert (got.field("connection"), got.field("upgrade")) == ("Upgrade", "websocket")
    assert (got.field("sec-websocket-version"), got.field("sec-websocket-protocol")) == ("13", "chat")
    assert (got.field("host"), got.field("origin"), got.field("x-forwarded-for")) == ("a", "http://a", "192.0.2.1")
    assert got.field("transfer-encoding") is None


def test_bytes_pass_both_ways_and_ends_too(house: House) -> None:
    browser = Browser(house)
    stream = accepted(house, browser)
    fields = browser.fields(stream)
    assert fields["sec-websocket-protocol"] == "chat"
    assert not {"sec-websocket-accept", "upgrade", "connection"} & set(fields)
    browser.h2.send_data(stream, b"up")
    browser.go()
    assert house.received() == b"up"
    house.answer(b"\x82\x04down")
    assert browser.body(stream) == b"\x82\x04down"
    browser.h2.end_stream(stream)
    browser.go()
    house.lane.run()
    assert house.server().at_end
    house.server().close()
    assert browser.ended(stream)
    assert house.log.lines[-1]["status"] == 200
    other = browser.ask("/plain")
    house.received()
    house.answer(OK)
    assert browser.status(other) == 200


def test_a_server_may_end_first(house: House) -> None:
    browser = Browser(house)
    stream = accepted(house, browser)
    house.server().shutdown_write()
    assert browser.ended(stream)
    browser.h2.send_data(stream, b"last words", end_stream=True)
    browser.go()
    assert house.received() == b"last words"
    assert house.server().at_end
    assert house.gateway._listeners["web"].live
    assert house.log.lines[-1]["status"] == 200


def test_a_declined_handshake_is_an_ordinary_answer(house: House) -> None:
    browser = Browser(house)
    stream = connect(browser)
    house.received()
    house.answer(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    assert (browser.status(stream), browser.body(stream)) == (403, b"no")


def test_a_101_without_the_answer_to_our_key_is_a_502(house: House) -> None:
    browser = Browser(house)
    stream = connect(browser)
    house.received()
    house.answer(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    assert browser.status(stream) == 502


def test_other_protocols_are_not_known(house: House) -> None:
    browser = Browser(house)
    assert browser.status(connect(browser, "connect-udp")) == 501
    assert house.servers[8001] == []


def test_a_reset_ends_the_servers_connection(house: House) -> None:
    browser = Browser(house)
    stream = accepted(house, browser)
    browser.h2.reset_stream(stream, 8)
    browser.go()
    house.lane.run()
    assert house.server().at_end


def test_a_server_that_breaks_resets_the_stream_alone(house: House) -> None:
    browser = Browser(house)
    stream = accepted(house, browser)
    house.server().abort()
    assert browser.reset(stream) is not None
    other = browser.ask("/plain")
    house.received()
    house.answer(OK)
    assert browser.status(other) == 200


def test_nobody_sends_faster_than_the_other_takes(house: House) -> None:
    browser = Browser(house)
    stream = accepted(house, browser)
    sent = 0
    while window := min(browser.h2.local_flow_control_window(stream), 16_384):
        browser.h2.send_data(stream, b"x" * window)
        browser.go()
        sent += window
    assert sent < 300_000
    got = 0
    while got < sent:
        got += len(house.received())
    browser.go()
    assert browser.h2.local_flow_control_window(stream) > 0


def test_a_drain_says_farewell(house: House) -> None:
    browser = Browser(house)
    stream = accepted(house, browser)
    house.gateway.drain()
    found = read_frames(browser.wire.take())  # h2 knows of nothing after a GOAWAY
    assert (DATA, 0, stream, GOING_AWAY) in found
    browser.wire.send(frames.frame(PING, ACK, 0, DRAIN_PING) + frames.frame(DATA, END_STREAM, stream))
    house.lane.run()
    assert house.server().at_end
    house.server().close()
    browser.wire.take()
    assert browser.wire.closed

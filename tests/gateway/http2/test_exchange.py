"""Requests on streams that the express lane does not take: their bodies and trailers, gRPC's time and its own way to
fail, WebSockets, and how each of them is cut."""

from __future__ import annotations

import h2.events
import pytest

from gateway.http2.errors import CANCEL, INTERNAL_ERROR
from gateway.http2.frames import DATA, END_STREAM, frame
from gateway.patience import BODY_GRACE
from gateway.websocket import accept_of
from supervisor.plane.layout import Kind, Server
from tests.gateway.house import OK, Build, House, request
from tests.gateway.http2.browser import HTTP2, Browser
from tests.gateway.http2.far import FarServer
from tests.gateway.http2.wire import HELLO, head, read_frames

WEB = "web/127.0.0.1:8001"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
H2C = HTTP2.replace("[pools.web]", '[pools.web]\nprotocol = "h2c"')
CALL = {"content_type": "application/grpc", "te": "trailers"}
IDLE_TIMEOUT = 60.0  # s: a route's, where nobody says otherwise
DRAIN_TIMEOUT = 60.0  # s: the supervisor's
MESSAGE = b"\0\0\0\0\2hi"


@pytest.fixture
def house(build: Build) -> House:
    return build(HTTP2)


@pytest.fixture
def browser(house: House) -> Browser:
    return Browser(house)


def ended(browser: Browser, stream: int) -> dict[str, str]:
    """The trailers of an answer that has ended."""
    assert browser.ended(stream)
    [found] = browser.of(h2.events.TrailersReceived, stream)
    return dict(found.headers)


# -- bodies


def test_a_body_arrives_with_those_of_its_trailers_that_may(house: House, browser: Browser) -> None:
    stream = browser.ask("/up", b"hello", end=False)
    assert house.received().endswith(b"\r\n\r\n5\r\nhello\r\n")
    browser.h2.send_data(stream, b" world")
    browser.h2.send_headers(stream, [("x-sum", "1"), ("x-user-id", "admin"), ("content-md5", "x")], end_stream=True)
    browser.go()
    assert house.received() == b"6\r\n world\r\n0\r\nx-sum: 1\r\ncontent-md5: x\r\n\r\n"
    house.answer(OK)
    assert browser.body(stream) == b"ok"


def test_a_reset_within_a_body_leaves_the_server_without_an_end(house: House, browser: Browser) -> None:
    stream = browser.ask("/up", b"hello", end=False)
    house.received()
    browser.h2.reset_stream(stream, CANCEL)
    browser.go()
    assert house.received() == b""
    assert house.server().at_end
    assert house.rows(Kind.SERVER, WEB, Server.FAILURES) == 0
    assert (house.log.lines[-1]["status"], house.log.lines[-1]["reason"]) == (499, "client_gone")


def test_a_whole_body_before_its_server_is_there_is_sent_at_once(house: House, browser: Browser) -> None:
    browser.ask("/up", b"hello", content_length="5")
    got = request(house.received())
    assert (got.body, got.field("content-length"), got.field("transfer-encoding")) == (b"hello", "5", None)
    house.answer(OK)


def test_trailers_of_answers_are_trailers(house: House, browser: Browser) -> None:
    stream = browser.ask()
    house.received()
    house.answer(CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\nConnection: x\r\n\r\n")
    assert browser.body(stream) == b"ok"
    assert ended(browser, stream) == {"x-sum": "1"}


def test_an_answer_that_is_cut_resets_its_stream_and_no_other(house: House, browser: Browser) -> None:
    stream, other = browser.ask("/cut"), browser.ask("/whole")
    for number in (0, 1):
        house.received(number)
        house.answer(CHUNKED + b"2\r\nok\r\n", number)
    house.server(0).close()
    house.answer(b"0\r\n\r\n", 1)
    assert (browser.body(stream), browser.ended(stream), browser.reset(stream)) == (b"ok", False, INTERNAL_ERROR)
    assert (browser.body(other), browser.ended(other), browser.reset(other)) == (b"ok", True, None)
    assert house.rows(Kind.SERVER, WEB, Server.FAILURES) == 1


# -- gRPC


@pytest.fixture
def grpc(build: Build) -> House:
    return build(H2C)


def call(house: House, message: bytes = MESSAGE, end: bool = True, **fields: str) -> tuple[Browser, int, FarServer]:
    """A call that has reached its server."""
    browser = Browser(house)
    stream = browser.ask("/a.B/C", message, end, **CALL, **fields)
    return browser, stream, FarServer(house)


def test_a_call_passes_with_its_messages_and_its_status(grpc: House) -> None:
    browser, stream, far = call(grpc)
    [got] = far.requests()
    assert (got["te"], got["content-type"], far.body(1)) == ("trailers", "application/grpc", MESSAGE)
    far.answer(1, MESSAGE, fields=[("content-type", "application/grpc")], trailers=[("grpc-status", "5")])
    assert browser.body(stream) == MESSAGE
    assert ended(browser, stream) == {"grpc-status": "5"}


def test_a_server_is_told_what_is_left_of_a_calls_time(grpc: House) -> None:
    _, _, far = call(grpc, grpc_timeout="2S")
    told = far.requests()[0]["grpc-timeout"]
    assert told.endswith("m")
    assert 0 < int(told[:-1]) <= 2000


def test_a_call_whose_time_is_up_before_any_answer_ends_in_grpcs_own_words(grpc: House) -> None:
    browser, stream, far = call(grpc, grpc_timeout="2S")
    grpc.lane.advance(1)
    assert not browser.of(h2.events.ResponseReceived, stream)
    grpc.lane.advance(2)
    fields = browser.fields(stream)
    assert (fields[":status"], fields["grpc-status"], fields["content-type"]) == ("200", "4", "application/grpc")
    assert browser.ended(stream)
    assert far.reset(1) == CANCEL
    assert grpc.log.lines[-1]["reason"] == "deadline_passed"


def test_a_call_that_is_cut_within_its_answer_ends_with_a_status(grpc: House) -> None:
    """A client of gRPC that only sees RST_STREAM has to guess."""
    browser, stream, far = call(grpc)
    far.answer(1, MESSAGE, fields=[("content-type", "application/grpc")], end=False)
    assert browser.body(stream) == MESSAGE
    far.h2.reset_stream(1, INTERNAL_ERROR)
    far.go()
    trailers = ended(browser, stream)
    assert trailers["grpc-status"] == "14"
    assert trailers["grpc-message"].startswith("answer_cut")
    assert browser.reset(stream) is None


def test_the_messages_of_a_call_come_when_they_like_but_not_never(grpc: House) -> None:
    """It is a conversation: no rate is asked of it, as of other bodies; when nobody says anything, it ends."""
    browser, stream, far = call(grpc, end=False)
    far.answer(1, MESSAGE, fields=[("content-type", "application/grpc")], end=False)
    for number in range(3):
        grpc.lane.advance(BODY_GRACE * 2)
        browser.h2.send_data(stream, MESSAGE)
        browser.go()
        assert far.body(1) == MESSAGE * (number + 2)
    grpc.lane.advance(IDLE_TIMEOUT + 1)
    far.go()
    assert ended(browser, stream)["grpc-status"] == "4"
    assert grpc.log.lines[-1]["reason"] == "body_timeout"
    assert far.reset(1) == CANCEL


# -- WebSockets (RFC 8441)


CHAT = [
    (b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":authority", b"a"),
    (b":path", b"/chat"), (b"sec-websocket-version", b"13"),
]  # fmt: skip


def websocket(house: House, browser: Browser) -> int:
    """One that its server has accepted."""
    stream, browser.next_id = browser.next_id, browser.next_id + 2
    browser.h2.send_headers(stream, CHAT)
    browser.go()
    accept(house)
    assert browser.status(stream) == 200
    assert not {"upgrade", "connection", "sec-websocket-accept"} & browser.fields(stream).keys()
    return stream


def accept(house: House) -> None:
    """The server's part: it is asked by HTTP/1.1."""
    got = request(house.received())
    assert (got.head.method, got.field("upgrade")) == (b"GET", "websocket")  # type: ignore[union-attr]
    key = (got.field("sec-websocket-key") or "").encode()
    house.answer(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_of(key) + b"\r\n\r\n"
    )


def test_a_websocket_is_a_stream_of_bytes_both_ways(house: House, browser: Browser) -> None:
    stream = websocket(house, browser)
    browser.h2.send_data(stream, b"\x81\x82\0\0\0\0hi")
    browser.go()
    assert house.received() == b"\x81\x82\0\0\0\0hi"
    house.answer(b"\x81\x02ho")
    assert browser.body(stream) == b"\x81\x02ho"
    browser.h2.send_data(stream, b"", end_stream=True)
    browser.go()
    house.received()
    house.server().close()
    assert browser.ended(stream)


def test_a_websocket_is_told_that_the_gateway_goes(house: House) -> None:
    client = house.connect()
    client.send(HELLO + head(1, CHAT, end=False))
    accept(house)
    client.take()
    house.gateway.drain()
    house.lane.advance(DRAIN_TIMEOUT / 2)
    data = {stream: payload for kind, _, stream, payload in read_frames(client.take()) if kind == DATA}
    assert data == {1: b"\x88\x02\x03\xe9"}  # a close frame, 1001: going away
    client.send(frame(DATA, END_STREAM, 1, b"\x88\x82\0\0\0\0\x03\xe9"))
    client.take()
    house.received()
    assert house.server().at_end


def test_a_reset_of_a_websocket_ends_it_at_the_server(house: House, browser: Browser) -> None:
    stream = websocket(house, browser)
    browser.h2.reset_stream(stream, CANCEL)
    browser.go()
    house.received()
    assert house.server().at_end

"""HTTP/2 through the gateway in memory: the same decisions as for HTTP/1.1, streams beside each other, bodies bounded
both ways, and every way a connection can end."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from gateway.http2 import frames
from gateway.http2.errors import CANCEL, ENHANCE_YOUR_CALM, INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR
from gateway.http2.frames import DATA, GOAWAY, PREFACE, RST_STREAM
from gateway.patience import CLIENT_SECONDS
from gateway.session import HEAD_SECONDS, NEXT_SECONDS
from supervisor.plane.layout import Kind, Listener, Server
from tests.gateway.house import OK, PLAIN, Build, Client, House, answer, request
from tests.gateway.http2.browser import HTTP2, Browser
from tests.gateway.http2.wire import GET, HELLO, POST, head, read_frames


@pytest.fixture
def house(build: Build) -> House:
    return build(HTTP2)


@pytest.fixture
def browser(house: House) -> Browser:
    """With one idle connection to the server, so that the next request takes the express lane."""
    browser = Browser(house)
    stream = browser.ask("/first")
    house.received()
    house.answer(OK)
    assert browser.status(stream) == 200
    return browser


def test_a_request_is_the_servers_http_1(house: House, browser: Browser) -> None:
    stream = browser.ask("/a?b=c", accept="*/*", cookie="a=1")
    got = request(house.received())
    assert got.head.method == b"GET"
    assert got.head.target == b"/a?b=c"
    assert got.field("host") == "a"
    assert got.field("cookie") == "a=1"
    assert got.field("x-forwarded-for") == "192.0.2.1"
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Server: one\r\nConnection: keep-alive\r\n\r\nok")
    assert browser.status(stream) == 200
    assert browser.body(stream) == b"ok"
    assert browser.ended(stream)
    fields = browser.fields(stream)
    assert fields["x-server"] == "one"
    assert fields["x-request-id"] == got.field("x-request-id")
    assert fields["date"]
    assert "connection" not in fields
    line = house.log.lines[-1]
    assert line["path"] == "/a"
    assert line["status"] == 200
    assert line["server"] == "web/127.0.0.1:8001"
    assert len(house.servers[8001]) == 1


def test_answers_come_in_whatever_order_the_servers_give_them(house: House, browser: Browser) -> None:
    streams = [browser.ask(f"/{number}") for number in range(5)]
    house.lane.run()
    for number in (3, 0, 4, 1, 2):
        got = request(house.received(number))
        house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + got.head.target, number)
    assert {browser.body(stream) for stream in streams} == {b"/0", b"/1", b"/2", b"/3", b"/4"}
    assert all(browser.body(stream) == b"/%d" % number for number, stream in enumerate(streams))


class Counted:
    """A connection that counts what is written to it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.writes = 0

    def send_nowait(self, data: bytes) -> int:
        self.writes += 1
        taken: int = self.stream.send_nowait(data)
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def test_answers_of_a_round_leave_in_one_write(house: House, browser: Browser) -> None:
    streams = [browser.ask(f"/{number}") for number in range(3)]
    for number in range(3):
        house.received(number)
    [connection] = house.gateway._live().values()
    connection.stream = counted = Counted(connection.stream)
    for number in range(3):
        house.server(number).send_nowait(OK)
    house.lane.run()
    assert counted.writes <= 2  # one for those on the express lane, one for those in sessions of their own
    assert all(browser.status(stream) == 200 for stream in streams)
    connection.stream = counted.stream


def test_a_small_body_goes_with_its_head(house: House, browser: Browser) -> None:
    for fields in ({}, {"content_length": "4"}):
        stream = browser.ask("/up", b"body", **fields)
        got = request(house.received())
        assert got.body == b"body"
        assert got.field("content-length") == "4"
        house.answer(OK)
        assert browser.status(stream) == 200
    browser.ask("/none", b"")
    assert request(house.received()).field("content-length") == "0"


def test_a_body_that_comes_later_is_streamed(house: House, browser: Browser) -> None:
    stream = browser.ask("/up", b"first", end=False)
    start = house.received()
    assert start.endswith(b"5\r\nfirst\r\n")
    browser.h2.send_data(stream, b"second")
    browser.go()
    assert house.received() == b"6\r\nsecond\r\n"
    browser.h2.send_headers(stream, [("x-sum", "1"), ("content-length", "3")], end_stream=True)
    browser.go()
    assert house.received() == b"0\r\nx-sum: 1\r\n\r\n"
    house.answer(OK)
    assert browser.body(stream) == b"ok"
    assert house.log.lines[-1]["status"] == 200


def test_a_body_of_a_known_length_keeps_it(house: House, browser: Browser) -> None:
    stream = browser.ask("/up", b"first", end=False, content_length="8")
    browser.h2.send_data(stream, b"abc", end_stream=True)
    browser.go()
    got = request(house.received())
    assert got.body == b"firstabc"
    assert got.field("transfer-encoding") is None
    house.answer(OK)
    assert browser.ended(stream)


def test_the_client_is_read_only_as_fast_as_the_server_takes_it(house: House, browser: Browser) -> None:
    browser.ask("/busy")  # so that the upload gets a connection of its own
    stream = browser.ask("/up", b"", end=False)
    house.lane.run()
    server = house.server()
    server.capacity = 10_000
    total = 0
    while (size := min(browser.h2.local_flow_control_window(stream), 16_384)) > 0:
        browser.h2.send_data(stream, b"x" * size)
        total += size
        browser.go()
    assert total < 300_000  # two windows and what the buffers hold
    taken = len(server.take())
    for _ in range(100):
        browser.go()
        taken += len(server.take())
    assert taken > total
    assert browser.h2.local_flow_control_window(stream) > 0


def test_the_server_is_read_only_as_fast_as_the_client_takes_it(house: House, browser: Browser) -> None:
    stream = browser.ask("/down")
    house.received()
    server = house.server()
    server.send_nowait(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
    sent = 0
    for _ in range(100):
        house.lane.run()
        server.writable = True
        sent += server.send_nowait(b"x" * 65_536)
    assert sent < 500_000
    received = len(browser.body(stream))
    assert received == 65_535 - 2  # the first answer had two
    while not browser.ended(stream):
        browser.h2.increment_flow_control_window(1 << 16)
        browser.h2.increment_flow_control_window(1 << 16, stream)
        browser.go()
        server.writable = True
        sent += server.send_nowait(b"x" * min(65_536, 10_000_000 - sent))
    assert len(browser.body(stream)) == 10_000_000
    assert browser.ended(stream)


def test_answers_in_chunks_and_without_length_are_frames(house: House, browser: Browser) -> None:
    stream = browser.ask("/")
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    assert browser.body(stream) == b"ab"  # before it is complete
    house.answer(b"2\r\ncd\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert browser.body(stream) == b"abcd"
    assert dict(browser.of(h2.events.TrailersReceived, stream)[0].headers) == {"x-sum": "1"}
    assert "transfer-encoding" not in browser.fields(stream)
    stream = browser.ask("/")
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\n\r\nabc")
    house.server().close()
    assert browser.body(stream) == b"abc"
    assert browser.ended(stream)


def test_who_takes_trailers_has_the_server_hear_of_it(house: House, browser: Browser) -> None:
    browser.ask("/", te="trailers")
    told = request(house.received())
    assert (told.all("te"), told.all("connection")) == (["trailers"], ["TE"])


def test_answers_without_a_body_end_with_their_head(house: House, browser: Browser) -> None:
    for status in (b"204 No Content", b"304 Not Modified"):
        stream = browser.ask("/")
        house.received()
        house.answer(b"HTTP/1.1 " + status + b"\r\n\r\n")
        assert browser.ended(stream)
        assert browser.of(h2.events.DataReceived, stream) == []


def test_interim_answers_go_before_the_answer(house: House, browser: Browser) -> None:
    stream = browser.ask("/")
    house.received()
    house.answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    [hint] = browser.of(h2.events.InformationalResponseReceived, stream)
    assert dict(hint.headers) == {":status": "103", "link": "</a>"}
    house.answer(OK)
    assert browser.body(stream) == b"ok"


def test_a_client_that_waits_for_100_gets_it(house: House, browser: Browser) -> None:
    stream = browser.ask("/", b"", end=False, expect="100-continue")
    assert b"Expect: 100-continue" in house.received()
    house.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert browser.of(h2.events.InformationalResponseReceived, stream)
    browser.h2.send_data(stream, b"body", end_stream=True)
    browser.go()
    assert house.received() == b"4\r\nbody\r\n0\r\n\r\n"
    house.answer(OK)
    assert browser.ended(stream)


# -- what goes wrong with a stream


def test_a_stale_connection_is_tried_again(house: House, browser: Browser) -> None:
    stream = browser.ask("/again")
    house.received()
    house.server().close()
    house.lane.run()
    assert len(house.servers[8001]) == 2
    assert request(house.received()).head.target == b"/again"
    house.answer(OK)
    assert browser.status(stream) == 200


def test_an_answer_that_is_cut_resets_its_stream_alone(house: House, browser: Browser) -> None:
    stream = browser.ask("/cut")
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    house.server().close()
    assert browser.status(stream) == 200
    assert browser.reset(stream) == INTERNAL_ERROR
    assert house.log.lines[-1]["reason"] == "answer_cut"
    after = browser.ask("/after")
    house.received()
    house.answer(OK)
    assert browser.status(after) == 200


@pytest.mark.parametrize("bad", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
def test_a_bad_answer_is_a_502(house: House, browser: Browser, bad: bytes) -> None:
    stream = browser.ask("/")
    house.received()
    house.answer(bad)
    assert browser.status(stream) == 502
    assert b'"code":"bad_answer"' in browser.body(stream)
    assert house.log.lines[-1]["reason"] == "bad_answer"


def test_a_late_answer_is_a_504(house: House, browser: Browser) -> None:
    express = browser.ask("/")
    house.received()
    house.lane.advance(10)
    other = browser.ask("/")
    house.lane.advance(7)
    assert browser.status(express) == 504
    assert house.log.lines[-1]["reason"] == "answer_timeout"
    house.lane.advance(10)
    assert browser.status(other) == 504


def test_no_server_is_a_502_for_each_stream(house: House) -> None:
    house.lane.servers.clear()
    browser = Browser(house)
    streams = [browser.ask("/"), browser.ask("/")]
    assert [browser.status(stream) for stream in streams] == [502, 502]


def test_a_reset_ends_the_work_at_the_server(house: House, browser: Browser) -> None:
    express = browser.ask("/")
    other = browser.ask("/")
    house.lane.run()
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.IN_FLIGHT) == 2
    for stream in (express, other):
        browser.h2.reset_stream(stream, CANCEL)
    browser.go()
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.IN_FLIGHT) == 0
    assert [line["reason"] for line in house.log.lines[-2:]] == ["client_gone", "client_gone"]
    house.received(0), house.received(1)
    assert all(end.at_end for end in house.servers[8001])
    stream = browser.ask("/")
    house.received()
    house.answer(OK)
    assert browser.status(stream) == 200


def test_an_early_answer_ends_a_request_that_is_not_complete(house: House, browser: Browser) -> None:
    stream = browser.ask("/up", b"first", end=False)
    house.received()
    house.answer(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")
    assert browser.status(stream) == 413
    assert browser.body(stream) == b"no"
    assert browser.reset(stream) in (None, NO_ERROR)
    after = browser.ask("/after")
    house.received()
    house.answer(OK)
    assert browser.status(after) == 200


def test_a_body_that_comes_too_slowly_is_a_408(house: House, browser: Browser) -> None:
    stream = browser.ask("/up", b"first", end=False)
    house.lane.advance(12)
    assert browser.status(stream) == 408
    assert house.log.lines[-1]["reason"] == "body_timeout"


def test_a_stream_that_its_client_does_not_read_is_cut(house: House, browser: Browser) -> None:
    express = browser.ask("/express")
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000)
    other = browser.ask("/other")
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n" + b"x" * 50_000)
    house.answer(b"x" * 50_000)
    assert len(browser.body(express)) + len(browser.body(other)) == 65_535 - 2
    house.lane.advance(CLIENT_SECONDS + 3)
    browser.go()
    assert browser.reset(other) == CANCEL
    assert not browser.wire.closed


# -- refusals that are HTTP/1.1's as well


LIMITED = HTTP2.replace("[gateway.routes.web]", """[gateway.limits.few]
key = "client_ip"
rate = "2/m"
[gateway.routes.small]
pool = "web"
path = "/small"
hosts = ["a"]
max_body = "10B"
[gateway.routes.few]
pool = "web"
path = "/few"
hosts = ["a"]
limits = ["few"]
[gateway.routes.web]
hosts = ["a"]""")  # fmt: skip


def test_refusals_are_those_of_http_1(build: Build) -> None:
    house = build(LIMITED)
    browser = Browser(house)
    assert browser.status(browser.ask("/small", b"x" * 11)) == 413
    assert browser.status(browser.ask("/small", b"", end=False, content_length="11")) == 413
    stream = browser.ask("/small", b"x", end=False)
    browser.h2.send_data(stream, b"x" * 10)
    assert browser.status(stream) == 413
    codes = []
    for number in range(3):
        stream = browser.ask("/few")
        if number < 2:
            house.received()
            house.answer(OK)
        codes.append(browser.status(stream))
    assert codes == [200, 200, 429]
    assert browser.fields(stream)["retry-after"]
    other = [(":method", "GET"), (":scheme", "http"), (":authority", "b"), (":path", "/")]
    browser.h2.send_headers(51, other, True)
    assert browser.status(51) == 404
    other[2] = (":authority", "a b")
    browser.h2.send_headers(53, other, True)
    assert browser.status(53) == 400
    browser.next_id = 55
    assert browser.status(browser.ask("/%zz")) == 400
    assert browser.status(browser.ask("/" + "x" * 9000)) == 414
    assert browser.status(browser.ask("/", x="y" * 33_000)) == 431
    assert browser.status(browser.ask("/", **{f"x{number}": "1" for number in range(100)})) == 431
    assert [line["reason"] for line in house.log.lines[-4:]] == [
        "bad_path", "target_too_long", "head_too_large", "too_many_fields",
    ]  # fmt: skip


def test_connect_is_refused(house: House, browser: Browser) -> None:
    browser.h2.send_headers(77, [(":method", "CONNECT"), (":authority", "a:443")])
    browser.go()
    assert browser.status(77) == 405


def test_a_head_request_gets_no_body_with_its_refusal(house: House, browser: Browser) -> None:
    house.lane.servers.clear()
    house.server().close()
    browser.h2.send_headers(77, [(":method", "HEAD"), (":scheme", "http"), (":authority", "a"), (":path", "/")], True)
    assert browser.status(77) == 502
    assert browser.body(77) == b""


# -- the connection


def raw(house: House, data: bytes, piece: int = 1 << 16) -> Client:
    client = house.connect()
    client.send(HELLO + data, piece)
    return client


def of(client: Client, kind: int) -> list[tuple[int, bytes]]:
    return [(stream, payload) for one, _, stream, payload in read_frames(client.take()) if one == kind]


def test_both_versions_are_served_on_a_plain_listener(house: House) -> None:
    client = house.connect()
    client.send(b"PRI")
    client.send(b"NT / HTTP/1.1\r\nHost: a\r\n\r\n")
    house.received()
    house.answer(OK)
    assert answer(client.take()).status == 200


def test_without_the_key_a_plain_listener_speaks_http_1_alone(build: Build) -> None:
    house = build(PLAIN)
    client = house.connect()
    client.send(PREFACE)
    assert answer(client.take()).code == "bad_version"


@pytest.mark.parametrize("piece", [1, 10])
def test_a_request_may_come_byte_by_byte(house: House, piece: int) -> None:
    client = raw(house, head(1, POST, end=False) + frames.frame(DATA, 1, 1, b"body"), piece)
    assert request(house.received()).body == b"body"
    house.answer(OK)
    assert of(client, DATA) == [(1, b"ok")]


def test_a_broken_connection_is_told_why_and_closed(house: House) -> None:
    client = raw(house, head(1) + head(2))
    told = [payload for _, payload in of(client, GOAWAY)]
    assert [payload[4:8] for payload in told] == [PROTOCOL_ERROR.to_bytes(4, "big")]
    assert client.closed
    assert house.rows(Kind.LISTENER, "gateway/web", Listener.PROTOCOL_ERRORS) == 1
    assert house.log.lines[-1]["reason"] == "http2_error"


def test_rapid_reset_is_cut_off(house: House) -> None:
    client = raw(house, b"")
    for number in range(260):
        if not client.end.peer._shut:
            client.send(head(2 * number + 1) + frames.rst_stream(2 * number + 1, CANCEL))
    told = of(client, GOAWAY)
    assert client.closed
    assert told[-1][1][4:8] == ENHANCE_YOUR_CALM.to_bytes(4, "big")
    assert house.log.lines[-1]["reason"] == "http2_flood"
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.IN_FLIGHT) == 0


def test_malformed_requests_stand_in_the_log(house: House) -> None:
    client = raw(house, head(1, GET[:2]))
    assert [stream for stream, _ in of(client, RST_STREAM)] == [1]
    assert house.log.lines[-1]["reason"] == "http2_error"


def test_a_client_that_goes_away_ends_its_work(house: House, browser: Browser) -> None:
    browser.ask("/express")
    browser.ask("/other")
    house.lane.run()
    browser.wire.end.close()
    house.lane.run()
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.IN_FLIGHT) == 0
    assert [line["status"] for line in house.log.lines[-2:]] == [499, 499]


def test_a_client_that_says_nothing_is_let_go(house: House) -> None:
    silent = house.connect()
    silent.send(PREFACE[:5])
    greeted = raw(house, b"")
    house.lane.advance(HEAD_SECONDS + 1)
    assert silent.closed
    assert [payload[4:8] for _, payload in of(greeted, GOAWAY)] == [NO_ERROR.to_bytes(4, "big")]
    assert greeted.closed


def test_an_idle_connection_is_let_go_and_one_at_work_is_not(house: House, browser: Browser) -> None:
    house.lane.advance(NEXT_SECONDS - 5)
    browser.ask("/")
    house.lane.advance(10)
    assert not browser.wire.closed
    house.answer(OK)
    house.lane.advance(NEXT_SECONDS - 2)
    assert not browser.wire.closed
    house.lane.advance(3)
    browser.go()
    assert browser.wire.closed


def test_a_connection_that_takes_nothing_is_cut(house: House) -> None:
    browser = Browser(house, capacity=1000)
    stream = browser.ask("/")
    house.received()
    browser.wire.end.capacity = 100
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000)
    house.lane.advance(CLIENT_SECONDS + 3)
    assert stream
    assert house.rows(Kind.LISTENER, "gateway/web", Listener.TIMEOUTS) == 1


def test_a_drain_is_told_at_once_and_waits_for_streams(house: House) -> None:
    client = raw(house, head(1))
    house.received()
    client.take()
    house.gateway.drain()
    assert [payload[:8] for _, payload in of(client, GOAWAY)] == [b"\x7f\xff\xff\xff\0\0\0\0"]
    client.send(frames.frame(frames.PING, frames.ACK, 0, b"draining"))
    assert [payload[:8] for _, payload in of(client, GOAWAY)] == [b"\0\0\0\1\0\0\0\0"]
    assert not client.closed
    house.answer(OK)
    assert of(client, DATA) == [(1, b"ok")]
    assert client.closed


def test_an_idle_connection_ends_with_the_drain(house: House) -> None:
    client = raw(house, b"")
    house.gateway.drain()
    client.take()
    client.send(frames.frame(frames.PING, frames.ACK, 0, b"draining"))
    assert of(client, GOAWAY)
    assert client.closed


def test_a_reload_is_felt_by_the_next_request(house: House, browser: Browser) -> None:
    house.reload(HTTP2.replace("[gateway.routes.web]", '[gateway.routes.web]\nhosts = ["elsewhere"]'))
    assert browser.status(browser.ask("/")) == 404


def test_a_removed_listener_drains(house: House) -> None:
    client = raw(house, b"")
    client.take()
    house.reload(HTTP2.replace("listeners.web", "listeners.other"))
    assert of(client, GOAWAY)

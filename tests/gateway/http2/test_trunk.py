"""Servers that speak HTTP/2, behind clients of either version: translation both ways, many requests on one connection,
bodies bounded by the windows of both sides, and every way in which a stream or a connection to a server may end."""

from __future__ import annotations

import h2.errors
import h2.events
import h2.settings
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.http2 import frames
from gateway.http2.trunk import IDLE_SECONDS
from gateway.retries import MAX_REFUSED
from supervisor.plane.layout import Kind, Route, Server
from tests.gateway.house import PLAIN, Build, House, answer
from tests.gateway.http2.far import FarServer
from tests.gateway.http2.test_session import Browser

H2C = PLAIN.replace("[pools.web]", '[pools.web]\nprotocol = "h2c"').replace('80"', '80"\nhttp2 = true')


@pytest.fixture
def house(build: Build) -> House:
    return build(H2C)


# -- translation


def test_a_request_of_http_1_becomes_one_of_http_2(house: House) -> None:
    client = house.connect()
    client.get(
        "/a?b=c", "X-One: 1", "Cookie: a=1", "Connection: X-Gone", "X-Gone: 1", "TE: trailers, gzip", host="h:80"
    )
    far = FarServer(house)
    [got] = far.requests()
    assert (got[":method"], got[":path"], got[":authority"], got[":scheme"]) == ("GET", "/a?b=c", "h:80", "http")
    assert (got["x-one"], got["cookie"], got["te"]) == ("1", "a=1", "trailers")
    assert got["x-forwarded-for"] == "192.0.2.1"
    assert not {"host", "connection", "x-gone", "transfer-encoding"} & set(got)
    assert far.ended(1)
    far.answer(1, b"ok", fields=[("content-length", "2"), ("x-two", "2"), ("set-cookie", "a"), ("set-cookie", "b")])
    reply = answer(client.take())
    assert (reply.status, reply.body, reply.field("x-two"), reply.all("set-cookie")) == (200, b"ok", "2", ["a", "b"])
    assert reply.field("x-request-id") == got["x-request-id"]
    assert reply.field("date")


def test_who_takes_no_trailers_asks_for_none(house: House) -> None:
    client = house.connect()
    client.get()
    assert "te" not in FarServer(house).requests()[0]


def test_trailers_pass_both_ways(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
    far = FarServer(house)
    assert far.body(1) == b"hello"
    assert far.trailers(1) == {"x-sum": "1"}
    far.answer(1, b"abc", trailers=[("x-end", "2"), ("content-length", "9")])
    reply = answer(client.take())
    assert (reply.body, reply.trailers) == (b"abc", {b"x-end": b"2"})
    assert reply.field("transfer-encoding") == "chunked"


def test_an_answer_that_ends_with_its_head_has_length_0(house: House) -> None:
    client = house.connect()
    client.get()
    FarServer(house).answer(1, None)
    reply = answer(client.take())
    assert (reply.field("content-length"), reply.body) == ("0", b"")


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("GET", 204)])
def test_answers_without_content_are_whole(house: House, method: str, status: int) -> None:
    client = house.connect()
    client.get(method=method)
    FarServer(house).answer(1, None, status, fields=[] if status == 204 else [("content-length", "100")])
    reply = answer(client.take(), method)
    assert reply.status == status
    assert reply.field("content-length") == (None if status == 204 else "100")
    assert not client.closed


def test_interim_answers_pass(house: House) -> None:
    client = house.connect()
    client.get()
    far = FarServer(house)
    far.h2.send_headers(1, [(":status", "103"), ("link", "</a>")])
    far.answer(1)
    reply = answer(client.take())
    assert (reply.interim, reply.status) == ([103], 200)


def test_continue_is_asked_of_the_server(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    far = FarServer(house)
    assert far.requests()[0]["expect"] == "100-continue"
    far.h2.send_headers(1, [(":status", "100")])
    far.go()
    assert client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    assert far.body(1) == b"hello"
    assert far.ended(1)


def test_http_2_at_both_ends(house: House) -> None:
    browser = Browser(house)
    stream = browser.ask("/x", b"hello", end=False, cookie="a=1")
    far = FarServer(house)
    assert far.body(1) == b"hello"
    browser.h2.send_headers(stream, [("x-sum", "1")], end_stream=True)
    browser.go()
    assert far.trailers(1) == {"x-sum": "1"}
    far.answer(1, b"abc", trailers=[("x-end", "2")])
    assert (browser.status(stream), browser.body(stream)) == (200, b"abc")
    [trailers] = browser.of(h2.events.TrailersReceived, stream)
    assert dict(trailers.headers) == {"x-end": "2"}


def test_a_head_that_is_all_stays_one(house: House) -> None:
    browser = Browser(house)
    stream = browser.ask()
    FarServer(house).answer(1, None, fields=[("grpc-status", "5")])
    assert browser.fields(stream)["grpc-status"] == "5"
    assert browser.ended(stream)
    assert not browser.of(h2.events.DataReceived, stream)


# -- connections


def test_requests_share_one_connection(house: House) -> None:
    clients = [house.connect() for _ in range(50)]
    for number, client in enumerate(clients):
        client.get(f"/{number}")
    far = FarServer(house)
    assert len(far.requests()) == 50
    for number in reversed(range(50)):
        far.answer(1 + 2 * number, b"%d" % number)
    assert [answer(client.take()).body for client in clients] == [b"%d" % number for number in range(50)]
    assert len(house.servers[8001]) == 1


def test_those_that_come_while_it_opens_wait_for_it(house: House) -> None:
    house.silence()
    clients = [house.connect() for _ in range(3)]
    for client in clients:
        client.get()
    house.lane.advance(1)
    assert house.servers[8001] == []
    house.lane.advance(6)
    assert {answer(client.take()).code for client in clients} == {"connect_timeout"}


def test_what_a_server_does_not_take_at_once_goes_on_another_connection(house: House) -> None:
    first = house.connect()
    first.get()
    far = FarServer(house, max_concurrent_streams=1)
    second = house.connect()
    second.get()
    other = FarServer(house)
    assert len(house.servers[8001]) == 2
    far.answer(1, b"1")
    other.answer(1, b"2")
    assert (answer(first.take()).body, answer(second.take()).body) == (b"1", b"2")


def test_an_idle_connection_ends_with_a_goaway(house: House) -> None:
    client = house.connect()
    client.get()
    far = FarServer(house)
    far.answer(1)
    client.take()
    house.lane.advance(IDLE_SECONDS + 2)
    assert far.of(h2.events.ConnectionTerminated)[0].error_code == 0
    assert far.end.at_end


def test_a_goaway_lets_what_is_under_way_end(house: House) -> None:
    first = house.connect()
    first.get()
    far = FarServer(house)
    far.h2.close_connection(last_stream_id=1)
    far.go()
    second = house.connect()
    second.get()
    other = FarServer(house)
    assert len(house.servers[8001]) == 2
    other.answer(1, b"2")
    far.end.send_nowait(bytes.fromhex("000001 01 04 00000001".replace(" ", "")) + b"\x88")  # h2 says no more after it
    far.end.send_nowait(bytes.fromhex("000001 00 01 00000001".replace(" ", "")) + b"1")
    assert answer(second.take()).body == b"2"
    assert answer(first.take()).body == b"1"
    far.end.take()
    assert far.end.at_end


# -- what is not processed is asked again


def test_a_refused_stream_is_asked_again(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    far = FarServer(house)
    far.h2.reset_stream(1, h2.errors.ErrorCodes.REFUSED_STREAM)
    far.go()
    assert far.body(3) == b"hi"
    far.answer(3)
    assert answer(client.take()).status == 200
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.FAILURES) == 0


def test_a_goaway_that_leaves_a_request_out_sends_it_elsewhere(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    far = FarServer(house)
    far.h2.close_connection(last_stream_id=0)
    far.go()
    other = FarServer(house)
    assert other.body(1) == b"hi"
    other.answer(1)
    assert answer(client.take()).status == 200


def test_refusals_without_end_are_a_502(house: House) -> None:
    client = house.connect()
    client.get()
    far = FarServer(house)
    while not (data := client.take()):
        far.h2.reset_stream(2 * len(far.requests()) - 1, h2.errors.ErrorCodes.REFUSED_STREAM)
        far.go()
        house.lane.advance(0.2)
    reply = answer(data)
    assert (reply.status, reply.code) == (502, "answer_cut")
    assert len(far.requests()) == 1 + MAX_REFUSED + 1


def test_a_stream_reset_amid_its_answer_is_cut(house: House) -> None:
    client = house.connect()
    client.get()
    far = FarServer(house)
    far.answer(1, b"abc", end=False)
    far.h2.reset_stream(1, h2.errors.ErrorCodes.INTERNAL_ERROR)
    far.go()
    assert not answer(client.take(), whole=False).whole
    assert client.closed
    assert house.log.lines[-1]["reason"] == "answer_cut"


def test_a_reset_after_the_whole_answer_loses_nothing(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhi")
    far = FarServer(house)
    far.h2.send_headers(1, [(":status", "200")])
    far.h2.send_data(1, b"enough", end_stream=True)
    far.h2.reset_stream(1, h2.errors.ErrorCodes.NO_ERROR)
    far.go()
    assert answer(client.take()).body == b"enough"


def test_a_connection_that_breaks_takes_its_answers_along(house: House) -> None:
    clients = [house.connect() for _ in range(2)]
    clients[0].get()
    far = FarServer(house)
    far.answer(1, b"abc", end=False)
    clients[1].send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    far.go()
    far.end.abort()
    assert not answer(clients[0].take(), whole=False).whole
    assert answer(clients[1].take()).code == "answer_cut"


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ([("content-length", "5")], b"ok"),
        ([("content-length", "1")], b"ok"),
        ([("connection", "close")], b"ok"),
        ([("X-Capital", "1")], b"ok"),
        ([("content-length", "2"), ("content-length", "2")], b"ok"),
        ([("transfer-encoding", "chunked")], b"ok"),
        ([(":path", "/")], b"ok"),
        ([("x-value", "a\nb")], b"ok"),
    ],
)
def test_an_answer_against_the_rules_is_refused(house: House, fields: list[tuple[str, str]], body: bytes) -> None:
    client = house.connect()
    client.get()
    far = FarServer(house)
    far.h2.config.normalize_outbound_headers = False
    far.answer(1, body, fields=fields)
    data = client.take()
    if data.startswith(b"HTTP/1.1 502"):
        assert answer(data).code == "bad_answer"
    else:  # the head was in order
        assert not answer(data, whole=False).whole
        assert house.log.lines[-1]["reason"] in ("bad_answer", "answer_cut")


def test_a_server_that_breaks_the_protocol_hears_why(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    far = FarServer(house)
    house.lane.feed(far.end, b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00")  # a WINDOW_UPDATE by nothing
    assert far.of(h2.events.ConnectionTerminated)[0].error_code == 1
    assert answer(client.take()).code == "answer_cut"


# -- bodies


def test_a_server_sends_no_faster_than_the_client_takes(house: House) -> None:
    client = house.connect(capacity=20_000)
    client.get()
    far = FarServer(house)
    far.answer(1, b"", end=False)
    sent = 0
    while window := min(far.h2.local_flow_control_window(1), 16_384):
        far.send(1, b"x" * window, end=False)
        sent += window
    assert sent < 300_000
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        got += client.end.take()
        far.go()
        window = min(far.h2.local_flow_control_window(1), 16_384)
        if sent < 1_000_000 and window:
            far.send(1, b"x" * window, end=sent + window >= 1_000_000)
            sent += window
    assert answer(got).body == b"x" * sent


def test_a_client_sends_no_faster_than_the_server_takes(house: House) -> None:
    client = house.connect()
    total = 1_000_000
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
    far = FarServer(house)
    sent = 0
    while True:
        client.end.writable = True
        taken = client.end.send_nowait(b"x" * 20_000)
        house.lane.run()
        sent += taken
        if not taken:
            break
    assert sent < 400_000
    while not far.ended(1):
        far.body(1)
        client.end.writable = True
        if sent < total:
            sent += client.end.send_nowait(b"x" * min(20_000, total - sent))
    assert far.body(1) == b"x" * total


def test_the_window_of_answers_nobody_reads_comes_back(house: House) -> None:
    """A client that leaves must not leave the connection's window smaller."""
    client = house.connect()
    client.get()
    far = FarServer(house)
    for stream in range(1, 81, 2):
        far.answer(stream, b"x" * 60_000, end=False)  # all that its window takes
        client.end.abort()
        client = house.connect()
        client.get()
    far.answer(81)
    assert answer(client.take()).body == b"ok"


def test_a_client_that_leaves_resets_its_stream_alone(house: House) -> None:
    first, second = house.connect(), house.connect()
    first.get()
    far = FarServer(house)
    second.get()
    far.answer(1, b"abc", end=False)
    first.take()
    first.end.abort()
    far.send(1, b"def", end=False)
    assert far.reset(1) == 8
    far.answer(3)
    assert answer(second.take()).status == 200


def test_a_connection_on_which_nothing_comes_is_not_used_again(house: House) -> None:
    first = house.connect()
    first.get()
    far = FarServer(house)
    far.answer(1)
    first.take()
    first.get(method="POST")
    house.lane.advance(16)
    assert answer(first.take()).code == "answer_timeout"
    second = house.connect()
    second.get()
    FarServer(house, 1).answer(1)
    assert answer(second.take()).status == 200
    assert far.end.at_end or far.reset(3) == 8


def test_a_reload_to_another_protocol_uses_fresh_connections(house: House) -> None:
    client = house.connect()
    client.get()
    far = FarServer(house)
    far.answer(1)
    client.take()
    house.reload(H2C.replace('protocol = "h2c"\n', ""))
    client.get()
    assert house.received().startswith(b"GET / HTTP/1.1")
    assert far.of(h2.events.ConnectionTerminated)
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert answer(client.take()).status == 200


FRAMES = st.builds(
    frames.frame,
    st.integers(0, 10),
    st.sampled_from([0, 1, 4, 5, 8, 0x20, 255]),
    st.sampled_from([0, 1, 2, 3, 5]),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"\x88", b"\x8d\x40\x01a\x01b", b"\0\0\0\0", b"\0" * 8, b"\0\0\0\7", b"\x7f\xff\xff\xff"]),
    ),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(FRAMES, max_size=10), st.binary(max_size=20), st.integers(1, 64))
def test_property_whatever_a_server_says_breaks_nothing(said: list[bytes], noise: bytes, piece: int) -> None:
    house = House(H2C)
    house.listen()
    clients = [house.connect() for _ in range(3)]
    for client in clients:
        client.get(method="PUT", body=b"x")
    house.lane.run()
    far = house.server(0)
    for at in range(0, len(data := frames.settings({}) + b"".join(said) + noise), piece):
        try:
            house.lane.feed(far, data[at : at + piece])
        except OSError:
            break
    house.lane.advance(1)
    for client in clients:
        client.end.abort()
    house.lane.advance(20)
    house.gateway.close()
    house.lane.finish()
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.IN_FLIGHT) == 0
    assert house.rows(Kind.ROUTE, "web", Route.IN_FLIGHT) == 0
    house.plane.close()

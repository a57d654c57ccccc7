"""Our side of an HTTP/2 connection to a server, with h2 as the server, and with anything at all as the server."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import PeerError
from gateway.http2 import frames
from gateway.http2.asking import answer_head, request_block
from gateway.http2.blocks import BlockDecoder, BlockEncoder
from gateway.http2.client import AskedStream, Http2Client
from gateway.http2.errors import PROTOCOL_ERROR, REFUSED_STREAM, ConnectionFault, StreamFault
from gateway.http2.fields import entry
from gateway.http2.frames import DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, MAX_FRAME, RST_STREAM
from gateway.http2.settings import MAX_STREAMS, STREAM_WINDOW
from gateway.messages import MAX_INTERIM

HEAD = b"POST /a?b HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nCookie: a=1\r\nTransfer-Encoding: chunked\r\nX-Request-Id: 7"
SETTINGS = frames.settings({})
OK = frames.headers(1, b"\x88", False)  # :status 200


def ask(client: Http2Client, end: bool = True) -> AskedStream:
    return client.open(request_block(HEAD, b"http", trailers=True), end)


def ready(end: bool = True) -> tuple[Http2Client, AskedStream]:
    client = Http2Client()
    client.receive_data(SETTINGS, 0.0)
    return client, ask(client, end)


class Peer:
    """h2 as the server of a client."""

    def __init__(self, client: Http2Client) -> None:
        self.client = client
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="ascii"))
        self.h2.initiate_connection()
        self.events: list[Any] = []

    def go(self) -> None:
        for _ in range(20):
            self.events += self.h2.receive_data(self.client.data_to_send(0.0))
            self.client.receive_data(self.h2.data_to_send(), 0.0)


def test_a_request_is_what_was_asked() -> None:
    client = Http2Client()
    peer = Peer(client)
    stream = ask(client, False)
    client.send_body(stream, b"x" * 100_000)
    client.send_end(stream, BlockEncoder().encode([b"X-Sum: 9"]))
    peer.go()
    [request] = [one for one in peer.events if isinstance(one, h2.events.RequestReceived)]
    assert request.headers[:4] == [(":method", "POST"), (":path", "/a?b"), (":scheme", "http"), (":authority", "h")]
    assert sorted(request.headers[4:]) == [("cookie", "a=1"), ("te", "trailers"), ("x-a", "1"), ("x-request-id", "7")]
    size = sum(len(one.data) for one in peer.events if isinstance(one, h2.events.DataReceived))
    assert size == 65_535  # the window; the rest waits for more of it
    peer.h2.increment_flow_control_window(100_000)
    peer.h2.increment_flow_control_window(100_000, 1)
    peer.go()
    [trailers] = [one for one in peer.events if isinstance(one, h2.events.TrailersReceived)]
    assert trailers.headers == [("x-sum", "9")]


def test_an_answer_is_what_was_said() -> None:
    client = Http2Client()
    peer = Peer(client)
    stream = ask(client)
    peer.go()
    peer.h2.send_headers(1, [(":status", "103"), ("link", "</a>")])
    peer.h2.send_headers(1, [(":status", "200"), ("content-length", "5"), ("set-cookie", "a"), ("set-cookie", "b")])
    peer.h2.send_data(1, b"hello")
    peer.h2.send_headers(1, [("x-sum", "9")], end_stream=True)
    peer.go()
    assert [(head.status, head.length) for head in stream.heads] == [(103, -1), (200, 5)]
    assert stream.heads[1].head == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nset-cookie: a\r\nset-cookie: b"
    assert client.read_body(stream) == b"hello"
    assert (stream.complete, stream.trailers) == (True, [b"x-sum: 9"])
    assert not client.streams


@pytest.mark.parametrize(
    "fields",
    [
        [(b"x", b"1")],
        [(b":status", b"200"), (b":status", b"200")],
        [(b"x", b"1"), (b":status", b"200")],
        [(b":status", b"99")],
        [(b":status", b"101")],
        [(b":status", b"2x0")],
        [(b":status", b"200"), (b":path", b"/")],
        [(b":status", b"200"), (b"connection", b"close")],
        [(b":status", b"200"), (b"X-A", b"1")],
        [(b":status", b"200"), (b"x", b"a\r\nb")],
        [(b":status", b"200"), (b"content-length", b"1, 1")],
        [(b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"1")],
    ],
)
def test_a_malformed_head_is_none(fields: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(StreamFault):
        answer_head([entry(name, value) for name, value in fields])


@pytest.mark.parametrize(
    "data",
    [
        frames.frame(DATA, END_STREAM, 1, b"x"),  # before any head
        frames.headers(1, b"\x88", True) + frames.frame(DATA, 0, 1, b"x"),
        OK + frames.headers(1, b"\x00\x01x\x01y", False),  # trailers that don't end
        frames.headers(1, b"\x88\x0f\x0d\x011", True),  # content-length 1, and nothing
        frames.headers(1, b"\x08\x03103", False) * (MAX_INTERIM + 1),
        frames.headers(1, b"\x08\x03103", True),
    ],
)
def test_what_breaks_a_stream_ends_it_alone(data: bytes) -> None:
    client, stream = ready(False)
    other = ask(client)
    try:
        client.receive_data(data, 0.0)
    except ConnectionFault:
        pytest.fail("the connection goes on")
    if not stream.complete:
        assert stream.reset >= 0 or not stream.answered
    assert other.id in client.streams


@pytest.mark.parametrize(
    "data",
    [
        frames.frame(HEADERS, END_HEADERS, 2, b"\x88"),
        frames.frame(HEADERS, END_HEADERS, 9, b"\x88"),
        frames.frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"),
        frames.frame(frames.PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2\x88"),
        frames.frame(DATA, 0, 9, b"x"),
        frames.frame(GOAWAY, 0, 0, b"short"),
        frames.frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\0\0"),
        frames.frame(DATA, 0, 1, b"x" * (MAX_FRAME + 1)),
    ],
)
def test_what_breaks_the_connection_ends_it_with_a_goaway(data: bytes) -> None:
    client, _ = ready()
    client.data_to_send(0.0)
    with pytest.raises(ConnectionFault):
        client.receive_data(data, 0.0)
    assert client.over
    assert frames.goaway(0, 0)[3:9] in client.data_to_send(0.0)


def test_a_goaway_gives_back_what_was_not_looked_at() -> None:
    client, first = ready()
    second = ask(client)
    news = client.receive_data(frames.goaway(1, 0), 0.0)
    assert news == [second]
    assert (first.reset, second.reset) == (-1, REFUSED_STREAM)
    assert client.leaving
    assert client.room == 0
    assert not client.over
    client.receive_data(frames.headers(1, b"\x88", True), 0.0)
    assert first.complete
    assert client.over


def test_a_reset_after_the_answer_keeps_it() -> None:
    client, stream = ready(False)
    client.receive_data(OK + frames.frame(DATA, END_STREAM, 1, b"hello") + frames.rst_stream(1, 0), 0.0)
    assert stream.complete
    assert client.read_body(stream) == b"hello"


def test_what_is_left_unread_comes_back_to_the_windows() -> None:
    client, stream = ready()
    before = client.recv_window
    client.receive_data(OK + frames.frame(DATA, 0, 1, b"x" * MAX_FRAME), 0.0)
    client.abandon(stream)
    assert client.recv_window + client.unacknowledged == before
    client.receive_data(frames.frame(DATA, 0, 1, b"x" * MAX_FRAME), 0.0)  # was on its way
    assert client.recv_window + client.unacknowledged == before
    assert frames.rst_stream(1, 8)[:9] in client.data_to_send(0.0)
    assert client.recv_window > STREAM_WINDOW


def test_a_server_says_how_many_at_once_but_we_have_a_limit() -> None:
    client, _ = ready()
    assert client.room == MAX_STREAMS - 1
    client.receive_data(frames.settings({3: 1}), 0.0)
    assert client.room == 0
    client.receive_data(frames.settings({3: 1_000_000}), 0.0)
    assert client.room == MAX_STREAMS - 1


FRAMES = st.builds(
    frames.frame,
    st.integers(0, 11),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5]),
    st.one_of(st.binary(max_size=60), st.sampled_from([b"\x88", b"\x88\x40\x01a\x01b", b"\0\0\0\0", b"\0" * 8])),
)


@given(st.lists(FRAMES, max_size=12), st.integers(1, 50))
def test_property_only_peer_errors_escape(data: list[bytes], piece: int) -> None:
    client, _ = ready(False)
    ask(client)
    whole = b"".join(data)
    try:
        for at in range(0, len(whole), piece):
            for stream in client.receive_data(whole[at : at + piece], 0.0):
                client.read_body(stream)
        client.receive_eof()
    except PeerError:
        pass
    client.data_to_send(0.0)
    for stream in list(client.streams.values()):
        client.abandon(stream)


@given(st.binary(max_size=200))
def test_property_any_bytes_are_frames_or_a_fault(data: bytes) -> None:
    client = Http2Client()
    try:
        client.receive_data(SETTINGS + data, 0.0)
    except ConnectionFault:
        assert client.failed


@given(st.binary(max_size=100))
def test_property_a_block_is_a_head_or_a_fault(block: bytes) -> None:
    try:
        head = answer_head(BlockDecoder().decode(block))
    except PeerError:
        return
    assert b"\n" not in head.head.replace(b"\r\n", b"")
    assert 100 <= head.status <= 599


def test_a_stream_reset_by_the_server_says_why() -> None:
    client, stream = ready()
    assert client.receive_data(frames.rst_stream(1, PROTOCOL_ERROR), 0.0) == [stream]
    assert stream.reset == PROTOCOL_ERROR
    assert frames.frame(RST_STREAM, 0, 1)[:3] not in client.data_to_send(0.0)[-13:]

"""What both ends of a connection do alike: bodies taken whole or not at all, windows given back, streams ended once."""

from __future__ import annotations

import pytest

from gateway.http2 import frames
from gateway.http2.client import Http2Client
from gateway.http2.connection import Http2Connection
from gateway.http2.endpoint import MAX_RESET_IDS, Endpoint
from gateway.http2.errors import CANCEL, FLOW_CONTROL_ERROR, NO_ERROR, PROTOCOL_ERROR, STREAM_CLOSED, ConnectionFault
from gateway.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_FRAME,
    MAX_ID,
    RST_STREAM,
    WINDOW_UPDATE,
)
from gateway.http2.settings import CONNECTION_WINDOW, DEFAULT_WINDOW, STREAM_WINDOW
from gateway.http2.streams import CLOSED, Stream
from tests.gateway.http2.wire import POST, head, read_frames, ready, sent

OK = b"\x88"  # :status: 200, from the static table
TRAILER = b"\x00\x01a\x01b"  # a: b, a literal


def opened(core: Http2Connection, number: int = 1, end: bool = False) -> Stream:
    [stream] = core.receive_data(head(number, POST, end), core.now)
    return stream


def left(core: Endpoint) -> list[tuple[int, int, int]]:
    """(type, flags, stream) of what is to be sent."""
    return [one[:3] for one in read_frames(core.data_to_send(core.now))]


def number_of(payload: bytes) -> int:
    return int.from_bytes(payload, "big")


# -- what leaves


def test_a_piece_of_a_body_is_taken_whole_or_not_at_all() -> None:
    core = ready()
    stream = opened(core, end=True)
    core.send_head(stream, OK)
    assert core.send_body(stream, b"x" * (DEFAULT_WINDOW + 1)) == DEFAULT_WINDOW + 1
    assert core.send_body(stream, b"y") == 0
    assert sum(len(payload) for *_, payload in sent(core, DATA)) == DEFAULT_WINDOW
    assert core.send_body(stream, b"y") == 0  # one byte of the first waits for the client's windows
    assert core.output.drained == []
    core.receive_data(frames.window_update(0, 1) + frames.window_update(1, 1), 2.0)
    assert sent(core, DATA) == [(0, 1, b"x")]
    assert core.output.drained == [stream]
    assert core.send_body(stream, b"y") == 1


@pytest.mark.parametrize("way", ["reset by us", "reset by the client", "complete"])
def test_what_is_sent_on_a_closed_stream_goes_nowhere(way: str) -> None:
    core = ready()
    stream = opened(core, end=True)
    if way == "reset by us":
        core.reset(stream, CANCEL)
    elif way == "reset by the client":
        core.receive_data(frames.rst_stream(1, CANCEL), 1.0)
    else:
        core.send_head(stream, OK, end=True)
    core.data_to_send(1.0)
    core.send_head(stream, OK)
    assert core.send_body(stream, b"hello") == 5  # or its sender would wait for room for ever
    core.send_end(stream, TRAILER)
    core.reset(stream, CANCEL)
    assert left(core) == []


@pytest.mark.parametrize("trailers", [b"", TRAILER])
@pytest.mark.parametrize("size", [0, 5, DEFAULT_WINDOW + 1])
def test_the_end_comes_after_all_that_was_queued(size: int, trailers: bytes) -> None:
    core = ready()
    stream = opened(core, end=True)
    core.send_head(stream, OK)
    if size:
        core.send_body(stream, b"x" * size)
    core.send_end(stream, trailers)
    kinds = left(core)
    if size > DEFAULT_WINDOW:
        assert not any(flags & END_STREAM for _, flags, _ in kinds)
        core.receive_data(frames.window_update(0, 1) + frames.window_update(1, 1), 2.0)
        kinds += left(core)
    assert kinds[-1] == ((HEADERS, END_HEADERS | END_STREAM, 1) if trailers else (DATA, END_STREAM, 1))
    assert [flags & END_STREAM for _, flags, _ in kinds].count(END_STREAM) == 1
    assert stream.state == CLOSED
    assert not core.streams


def test_a_stream_that_moves_is_not_stalled() -> None:
    core = ready()
    slow, done = opened(core, 1, end=True), opened(core, 3, end=True)
    for stream in (slow, done):
        core.send_head(stream, OK)
    core.send_body(done, b"x")
    core.send_body(slow, b"x" * (DEFAULT_WINDOW + 100))
    core.data_to_send(10.0)
    assert core.stalled(10.0) == []
    assert core.stalled(10.1) == [slow]
    core.receive_data(frames.window_update(0, 10) + frames.window_update(1, 10), 20.0)
    core.data_to_send(20.0)
    assert core.stalled(20.0) == []


# -- windows


def body(core: Http2Connection, size: int, number: int = 1, flags: int = 0) -> None:
    while size:
        piece = min(size, MAX_FRAME)
        core.receive_data(frames.frame(DATA, flags, number, bytes(piece)), 1.0)
        size -= piece


def test_a_window_is_given_back_by_halves_as_the_body_is_read() -> None:
    core = ready()
    stream = opened(core)
    body(core, STREAM_WINDOW // 2 - 1)
    assert len(core.read_body(stream)) == STREAM_WINDOW // 2 - 1
    assert core.read_body(stream) == b""
    assert left(core) == []
    body(core, 1)
    core.read_body(stream)
    assert [(number, number_of(payload)) for _, number, payload in sent(core, WINDOW_UPDATE)] == [
        (1, STREAM_WINDOW // 2)
    ]
    body(core, STREAM_WINDOW)
    assert core.read_body(stream) == bytes(STREAM_WINDOW)


def test_nobody_may_send_more_than_was_given_back() -> None:
    core = ready()
    stream = opened(core)
    body(core, STREAM_WINDOW)
    assert left(core) == []
    body(core, 1)
    assert [(number, number_of(payload)) for _, number, payload in sent(core, RST_STREAM)] == [(1, FLOW_CONTROL_ERROR)]
    assert stream.state == CLOSED


def test_what_a_closed_stream_held_is_given_back_to_the_connection() -> None:
    core = ready()
    for number in range(1, 2 * 9, 2):
        stream = opened(core, number)
        body(core, STREAM_WINDOW, number)
        core.reset(stream, CANCEL)
        assert core.read_body(stream) == b""
    [(_, _, payload)] = [one for one in sent(core, WINDOW_UPDATE) if one[1] == 0]
    assert number_of(payload) >= CONNECTION_WINDOW // 2
    assert core.recv_window + core.unacknowledged == CONNECTION_WINDOW


def test_no_window_is_given_back_for_a_body_that_has_ended() -> None:
    core = ready()
    stream = opened(core)
    body(core, STREAM_WINDOW - 1)
    core.receive_data(frames.frame(DATA, END_STREAM, 1, b"x"), 1.0)
    assert len(core.read_body(stream)) == STREAM_WINDOW
    assert left(core) == []


# -- endings


def test_a_stream_is_reset_once() -> None:
    core = ready()
    stream = opened(core)
    core.reset(stream, CANCEL)
    core.reset(stream, PROTOCOL_ERROR)
    core.fault(stream, PROTOCOL_ERROR)
    assert [(number, number_of(payload)) for _, number, payload in sent(core, RST_STREAM)] == [(1, CANCEL)]
    assert stream.reset == CANCEL


def test_so_many_streams_reset_by_us_are_remembered_and_no_more() -> None:
    """What comes for them is late; for any other it breaks the protocol."""
    core = Http2Connection()
    core.receive_data(frames.PREFACE + frames.settings({}), 0.0)
    for number in range(MAX_RESET_IDS + 1):
        core.receive_data(head(2 * number + 1, POST, end=False), float(number))
        core.reset(core.streams[2 * number + 1], CANCEL)
    assert len(core.reset_ids) == MAX_RESET_IDS
    core.receive_data(frames.frame(DATA, 0, 3, b"late"), core.now)
    with pytest.raises(ConnectionFault) as caught:
        core.receive_data(frames.frame(DATA, 0, 1, b"too late"), core.now)
    assert caught.value.number == STREAM_CLOSED


def goaways(core: Endpoint) -> list[tuple[int, int, bytes]]:
    """(last stream, error, detail)"""
    found = [payload for kind, _, _, payload in read_frames(core.data_to_send(core.now)) if kind == GOAWAY]
    return [(number_of(one[:4]), number_of(one[4:8]), one[8:]) for one in found]


def test_who_leaves_serves_what_is_open_and_nothing_later() -> None:
    core = ready()
    opened(core, 3)
    core.leave()
    assert goaways(core) == [(3, NO_ERROR, b"")]
    assert core.receive_data(head(5), 1.0) == []
    core.receive_data(frames.frame(DATA, END_STREAM, 3, b"x"), 1.0)
    core.leave(PROTOCOL_ERROR, "why")
    assert goaways(core) == [(3, PROTOCOL_ERROR, b"why")]  # RFC 9113 §6.8: the last stream never grows


def test_after_an_error_nothing_more_is_said_of_leaving() -> None:
    core = ready()
    with pytest.raises(ConnectionFault):
        core.receive_data(frames.frame(DATA, 0, 1, b"x"), 1.0)
    assert len(goaways(core)) == 1
    core.leave()
    core.leave(PROTOCOL_ERROR, "again")
    assert goaways(core) == []
    assert core.over


# -- which end makes what of the peer's frames


def test_an_end_that_forgets_what_a_frame_means_can_not_be_made() -> None:
    class Forgetful(Http2Client):
        peer_leaves = Endpoint.peer_leaves

    with pytest.raises(TypeError, match="peer_leaves"):
        Forgetful()


def test_a_ping_back_and_late_frames_mean_nothing_to_a_client() -> None:
    core = Http2Client()
    core.receive_data(frames.settings({}), 1.0)
    stream = core.open(b"\x82\x84\x86", end=False)
    core.abandon(stream)
    core.data_to_send(1.0)
    late = (
        frames.frame(frames.PING, frames.ACK, 0, b"draining"),
        frames.frame(DATA, 0, 1, b"late"),
        frames.rst_stream(1, CANCEL),
    )
    assert core.receive_data(b"".join(late), 1.0) == []
    assert left(core) == []
    assert not core.over
    assert core.accepts == MAX_ID

"""The core against h2: whatever an h2 client does, both sides understand the same; and what no h2 client would do."""

from __future__ import annotations

from typing import Any

import h2.events
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http2 import frames
from gateway.http2.connection import Http2Connection
from gateway.http2.errors import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFault,
)
from gateway.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_FRAME,
    PADDED,
    PREFACE,
    PRIORITISED,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from gateway.http2.receiving import MAX_CONTINUATIONS
from gateway.http2.settings import CONNECTION_WINDOW, MAX_STREAMS, STREAM_WINDOW
from gateway.http2.streams import CLOSED, HALF_CLOSED_REMOTE
from tests.gateway.http2.wire import ENCODER, GET, HELLO, POST, Pair, block, head, read_frames, ready, sent

PIECES = st.sampled_from([1, 7, 1 << 20])
BODY = st.integers(0, 3).flatmap(lambda power: st.integers(0, 10**power * 20)).map(lambda size: b"b" * size)
REQUEST = st.fixed_dictionaries({
    "path": st.sampled_from([b"/", b"/a", b"/b?c=d", b"/" + b"e" * 300]),
    "fields": st.lists(st.tuples(st.sampled_from([b"x-a", b"x-b", b"cookie"]), st.sampled_from([b"1", b"v" * 90])),
                       max_size=5),
    "body": st.none() | BODY,
    "with_length": st.booleans(),
    "trailers": st.booleans(),
    "padding": st.none() | st.integers(0, 255),
    "fate": st.sampled_from(["answer", "answer", "answer", "reset", "refuse"]),
    "answer": BODY,
})  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(REQUEST, min_size=1, max_size=12), PIECES, st.sampled_from([None, 10, 100_000]), st.integers(1, 4))
def test_random_requests_are_understood_by_both_sides(
    requests: list[dict[str, Any]], piece: int, window: int | None, at_once: int
) -> None:
    pair = Pair(piece, None if window is None else {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
    for start in range(0, len(requests), at_once):
        together = list(enumerate(requests[start : start + at_once], start))
        for number, one in together:
            _ask(pair, 2 * number + 1, one)
        pair.exchange()
        for number, one in together:
            _check_and_answer(pair, 2 * number + 1, one)
        pair.exchange()
        for number, one in together:
            _check_answer(pair, 2 * number + 1, one)
    assert not pair.core.streams
    assert not pair.core.failed
    assert pair.core.recv_window + pair.core.unacknowledged == CONNECTION_WINDOW


def _ask(pair: Pair, stream: int, one: dict[str, Any]) -> None:
    body = one["body"]
    fields = [*(GET if body is None else POST)[:3], (b":path", one["path"]), *one["fields"]]
    if body is not None and one["with_length"]:
        fields.append((b"content-length", b"%d" % len(body)))
    pair.client.send_headers(stream, fields, end_stream=body is None)
    if body is None:
        return
    while body:
        size = min(pair.client.local_flow_control_window(stream) - 256, len(body), 16_000)
        if size <= 0:
            pair.exchange()
            if stream in pair.streams:
                pair.streams[stream].owner = (pair.streams[stream].owner or b"") + pair.core.read_body(
                    pair.streams[stream]
                )
            pair.exchange()
            continue
        pair.client.send_data(stream, body[:size], pad_length=one["padding"])
        body = body[size:]
    if one["trailers"]:
        pair.client.send_headers(stream, [(b"x-sum", b"1")], end_stream=True)
    else:
        pair.client.end_stream(stream)


def _check_and_answer(pair: Pair, stream_id: int, one: dict[str, Any]) -> None:
    stream = pair.streams[stream_id]
    assert stream.line == (b"GET " if one["body"] is None else b"POST ") + one["path"] + b" HTTP/1.1"
    plain = [name + b": " + value for name, value in one["fields"] if name != b"cookie"]
    cookies = [value for name, value in one["fields"] if name == b"cookie"]
    expected = [b"Host: a", *plain]
    if one["body"] is not None and one["with_length"]:
        expected.append(b"content-length: %d" % len(one["body"]))
    if cookies:
        expected.append(b"cookie: " + b"; ".join(cookies))
    assert stream.head.lines == expected
    assert stream.state == HALF_CLOSED_REMOTE
    assert (stream.owner or b"") + pair.core.read_body(stream) == (one["body"] or b"")
    assert stream.trailers == ([b"x-sum: 1"] if one["trailers"] and one["body"] is not None else [])
    core = pair.core
    if one["fate"] == "answer":
        core.answer(stream, ENCODER.encode([b"HTTP/1.1 200 OK", b"X-A: b"]), one["answer"])
    elif one["fate"] == "refuse":
        core.reset(stream, CANCEL)
    else:
        pair.client.reset_stream(stream_id)


def _check_answer(pair: Pair, stream: int, one: dict[str, Any]) -> None:
    while not pair.of(h2.events.StreamEnded, stream) and one["fate"] == "answer":
        received = sum(event.flow_controlled_length for event in pair.of(h2.events.DataReceived, stream))
        assert received
        pair.client.increment_flow_control_window(1_000_000)
        pair.client.increment_flow_control_window(1_000_000, stream)
        pair.exchange()
    if one["fate"] == "answer":
        [response] = pair.of(h2.events.ResponseReceived, stream)
        assert response.headers == [(b":status", b"200"), (b"x-a", b"b")]
        assert pair.body(stream) == one["answer"]
    assert bool(pair.of(h2.events.StreamReset, stream)) == (one["fate"] == "refuse")
    assert (pair.streams[stream].reset >= 0) == (one["fate"] != "answer")


@given(st.binary(max_size=300), PIECES)
def test_nothing_but_a_connection_fault_comes_of_any_bytes(data: bytes, piece: int) -> None:
    core = ready()
    _feed(core, data, piece)


FRAME = st.builds(
    lambda kind, flags, stream, payload, extra: frames.frame(kind, flags, stream, payload)[: None if extra else -1],
    st.integers(0, 11),
    st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D]),
    st.sampled_from([0, 1, 2, 3, 5, 7]),
    st.one_of(st.binary(max_size=20), st.sampled_from([block(GET), block(POST), b"\0" * 4, b"\0\0\0\1", b"\0" * 8])),
    st.sampled_from([True] * 9 + [False]),
)


@settings(deadline=None)
@given(st.lists(FRAME, max_size=30), PIECES)
def test_nothing_but_a_connection_fault_comes_of_any_frames(some: list[bytes], piece: int) -> None:
    core = ready()
    _feed(core, b"".join(some), piece)


def _feed(core: Http2Connection, data: bytes, piece: int) -> None:
    met: ConnectionFault | None = None
    try:
        for start in range(0, len(data), piece):
            for stream in core.receive_data(data[start : start + piece], 1.0):
                core.read_body(stream)
                if stream.id % 3:
                    core.answer(stream, b"\x88", b"body")
    except ConnectionFault as fault:
        met = fault
    out = list(read_frames(core.data_to_send(1.0)))
    assert core.failed == (met is not None)
    if met is not None:
        kind, _, _, payload = out[-1]
        assert kind == GOAWAY
        assert int.from_bytes(payload[4:8], "big") == met.number
        assert payload[8:].decode() == met.detail
    else:
        assert core.recv_window + core.unacknowledged <= CONNECTION_WINDOW


@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_a_request_in_pieces_is_one_request(piece: int) -> None:
    core = Http2Connection()
    data = HELLO + head(1) + head(3, POST, end=False) + frames.frame(DATA, END_STREAM, 3, b"body") + head(5)[:10]
    streams = []
    for start in range(0, len(data), piece):
        streams += core.receive_data(data[start : start + piece], 1.0)
    assert list(dict.fromkeys(stream.id for stream in streams)) == [1, 3]
    assert core.read_body(streams[-1]) == b"body"
    with pytest.raises(ConnectionFault):
        core.receive_eof()
    assert [stream.id for stream in core.receive_data(head(5)[10:], 1.0)] == [5]
    core.receive_eof()


def test_what_is_no_preface_ends_the_connection() -> None:
    for data in (b"GET / HTTP/1.1\r\n", PREFACE[:-1] + b"x"):
        with pytest.raises(ConnectionFault) as caught:
            Http2Connection().receive_data(data, 1.0)
        assert caught.value.number == PROTOCOL_ERROR


@pytest.mark.parametrize("first", [head(1), frames.frame(SETTINGS, 1, 0), frames.window_update(0, 1)])
def test_settings_come_first(first: bytes) -> None:
    with pytest.raises(ConnectionFault) as caught:
        Http2Connection().receive_data(PREFACE + first, 1.0)
    assert caught.value.number == PROTOCOL_ERROR


# -- header blocks


def test_a_block_that_repeats_is_the_same_request() -> None:
    core = ready()
    first, second = core.receive_data(head(1) + head(3), 1.0)
    assert first.head is second.head


def test_a_block_is_read_anew_once_the_table_has_changed() -> None:
    core = ready()
    named = frames.frame(HEADERS, END_HEADERS | END_STREAM, 1, block(GET) + b"\x40\x01a\x01b")  # a: b, into the table
    again = [frames.frame(HEADERS, END_HEADERS | END_STREAM, 3 + 2 * n, block(GET) + b"\xbe") for n in range(2)]
    other = frames.frame(HEADERS, END_HEADERS | END_STREAM, 7, block(GET) + b"\x40\x01c\x01d")
    last = frames.frame(HEADERS, END_HEADERS | END_STREAM, 9, block(GET) + b"\xbe")
    streams = core.receive_data(b"".join((named, *again, other, last)), 1.0)
    assert [stream.head.lines[-1] for stream in streams] == [b"a: b", b"a: b", b"a: b", b"c: d", b"c: d"]


def test_blocks_may_come_in_continuations() -> None:
    core = ready()
    data = block([*GET, (b"a", b"b" * 20_000)])
    pieces = [data[at : at + 9_000] for at in range(0, len(data), 9_000)]
    wire = frames.frame(HEADERS, END_STREAM, 1, pieces[0])
    wire += b"".join(frames.frame(CONTINUATION, 0, 1, piece) for piece in pieces[1:-1])
    [stream] = core.receive_data(wire + frames.frame(CONTINUATION, END_HEADERS, 1, pieces[-1]), 1.0)
    assert stream.head.lines[-1] == b"a: " + b"b" * 20_000
    assert stream.state == HALF_CLOSED_REMOTE


def test_padding_and_priority_are_taken_off() -> None:
    core = ready()
    payload = b"\x03" + b"\0\0\0\0\x10" + block(POST) + b"\0\0\0"
    core.receive_data(frames.frame(HEADERS, END_HEADERS | PADDED | PRIORITISED, 1, payload), 1.0)
    [stream] = core.receive_data(frames.frame(DATA, END_STREAM | PADDED, 1, b"\x02body\0\0"), 1.0)
    assert stream.line == b"POST / HTTP/1.1"
    assert core.read_body(stream) == b"body"


HALF = frames.frame(HEADERS, 0, 1, block(GET))

FAULTS = {
    "DATA amid a block": (HALF + frames.frame(DATA, 0, 1, b""), PROTOCOL_ERROR),
    "PING amid a block": (HALF + frames.frame(frames.PING, 0, 0, b"\0" * 8), PROTOCOL_ERROR),
    "another stream's CONTINUATION": (HALF + frames.frame(CONTINUATION, END_HEADERS, 3), PROTOCOL_ERROR),
    "CONTINUATION of nothing": (frames.frame(CONTINUATION, END_HEADERS, 1, b""), PROTOCOL_ERROR),
    "HEADERS of no stream": (head(0), PROTOCOL_ERROR),
    "HEADERS of an even stream": (head(2), PROTOCOL_ERROR),
    "a lower stream": (head(5) + head(3), STREAM_CLOSED),
    "more padding than payload": (frames.frame(HEADERS, END_HEADERS | PADDED, 1, b"\x05abc"), PROTOCOL_ERROR),
    "no room for the padding's length": (frames.frame(HEADERS, END_HEADERS | PADDED, 1, b""), FRAME_SIZE_ERROR),
    "no room for the priority": (frames.frame(HEADERS, END_HEADERS | PRIORITISED, 1, b"abc"), FRAME_SIZE_ERROR),
    "DATA of no stream": (frames.frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "DATA of an idle stream": (frames.frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
    "DATA of a stream that was passed over": (head(5) + frames.frame(DATA, 0, 3, b"x"), STREAM_CLOSED),
    "a frame too large": (b"\0\x40\x01\x00\0\0\0\0\x01", FRAME_SIZE_ERROR),
    "an index out of the table": (frames.frame(HEADERS, END_HEADERS, 1, b"\xff\x01"), 9),
}


@pytest.mark.parametrize(("data", "number"), FAULTS.values(), ids=FAULTS.keys())
def test_what_ends_the_connection(data: bytes, number: int) -> None:
    core = ready()
    with pytest.raises(ConnectionFault) as caught:
        core.receive_data(data, 1.0)
    assert caught.value.number == number
    assert core.over


OPENED = head(1, POST, end=False)
STREAM_FAULTS = {
    "DATA after the end": (head(1) + frames.frame(DATA, 0, 1, b"x"), STREAM_CLOSED),
    "trailers after the end": (head(1) + head(1, [(b"a", b"b")]), STREAM_CLOSED),
    "trailers that end nothing": (OPENED + head(1, [(b"a", b"b")], end=False), PROTOCOL_ERROR),
    "trailers with a pseudo-header": (OPENED + head(1, GET[:1]), PROTOCOL_ERROR),
    "a malformed request": (head(1, GET[:2]), PROTOCOL_ERROR),
    "a length without a body": (head(1, [*POST, (b"content-length", b"5")]), PROTOCOL_ERROR),
    "a body below its length": (
        head(1, [*POST, (b"content-length", b"5")], end=False) + frames.frame(DATA, END_STREAM, 1, b"four"),
        PROTOCOL_ERROR,
    ),
    "a body beyond its length": (
        head(1, [*POST, (b"content-length", b"3")], end=False) + frames.frame(DATA, 0, 1, b"four"),
        PROTOCOL_ERROR,
    ),
    "a body below its length, with trailers": (
        head(1, [*POST, (b"content-length", b"5")], end=False) + head(1, [(b"a", b"b")]),
        PROTOCOL_ERROR,
    ),
    "more than the stream's window": (OPENED + frames.frame(DATA, 0, 1, b"x" * MAX_FRAME) * 5, FLOW_CONTROL_ERROR),
}


@pytest.mark.parametrize(("data", "number"), STREAM_FAULTS.values(), ids=STREAM_FAULTS.keys())
def test_what_ends_a_stream_alone(data: bytes, number: int) -> None:
    core = ready()
    streams = core.receive_data(data, 1.0)
    assert all(stream.state == CLOSED for stream in streams)
    assert sent(core, RST_STREAM) == [(0, 1, number.to_bytes(4, "big"))]
    assert not core.streams
    assert core.recv_window + core.unacknowledged == CONNECTION_WINDOW
    assert [stream.id for stream in core.receive_data(head(3), 1.0)] == [3]


def test_what_was_on_its_way_to_a_stream_that_we_reset_is_ignored() -> None:
    core = ready()
    [stream] = core.receive_data(head(1, POST, end=False), 1.0)
    core.reset(stream, CANCEL)
    core.reset(stream, CANCEL)
    late = frames.frame(DATA, 0, 1, b"x" * 100) + head(1, [(b"a", b"b")]) + frames.window_update(1, 5)
    assert core.receive_data(late + frames.rst_stream(1, CANCEL) + head(3), 1.0)[0].id == 3
    assert len(sent(core, RST_STREAM)) == 1
    assert core.recv_window + core.unacknowledged == CONNECTION_WINDOW


def test_streams_above_the_number_are_refused_and_may_be_tried_again() -> None:
    core = ready()
    wire = b"".join(head(2 * number + 1) for number in range(MAX_STREAMS + 2))
    streams = core.receive_data(wire, 1.0)
    assert len(streams) == len(core.streams) == MAX_STREAMS
    assert [(stream, int.from_bytes(code, "big")) for _, stream, code in sent(core, RST_STREAM)] == [
        (201, REFUSED_STREAM), (203, REFUSED_STREAM),
    ]  # fmt: skip
    core.answer(streams[0], b"\x88", b"")
    assert len(core.receive_data(head(205), 1.0)) == 1


def test_blocks_without_end_are_a_flood() -> None:
    core = ready()
    core.receive_data(HALF, 1.0)
    with pytest.raises(ConnectionFault) as caught:
        core.receive_data(frames.frame(CONTINUATION, 0, 1, b"") * (MAX_CONTINUATIONS + 1), 1.0)
    assert caught.value.number == ENHANCE_YOUR_CALM
    core = ready()
    core.receive_data(HALF, 1.0)
    with pytest.raises(ConnectionFault) as caught:
        core.receive_data(frames.frame(CONTINUATION, 0, 1, b"\x82" * MAX_FRAME) * 5, 1.0)
    assert caught.value.number == ENHANCE_YOUR_CALM


# -- bodies


def test_the_client_gets_its_windows_back_as_the_body_is_read() -> None:
    core = ready()
    [stream] = core.receive_data(head(1, POST, end=False), 1.0)
    for _ in range(4):
        core.receive_data(frames.frame(DATA, 0, 1, b"x" * MAX_FRAME), 1.0)
    assert sent(core, WINDOW_UPDATE) == []
    assert stream.recv_window == 0
    assert len(core.read_body(stream)) == STREAM_WINDOW
    assert sent(core, WINDOW_UPDATE) == [(0, 1, STREAM_WINDOW.to_bytes(4, "big"))]
    assert core.read_body(stream) == b""
    for _ in range(7):
        for _ in range(4):
            core.receive_data(frames.frame(DATA, 0, 1, b"x" * MAX_FRAME), 1.0)
        core.read_body(stream)
    updates = {stream: int.from_bytes(size, "big") for _, stream, size in sent(core, WINDOW_UPDATE)}
    assert updates[0] == CONNECTION_WINDOW // 2


def test_streams_together_can_hold_no_more_than_the_connections_window() -> None:
    core = ready()
    for number in range(17):
        core.receive_data(head(2 * number + 1, POST, end=False), 1.0)
    full = [frames.frame(DATA, 0, 2 * number + 1, b"x" * MAX_FRAME) * 4 for number in range(17)]
    with pytest.raises(ConnectionFault) as caught:
        core.receive_data(b"".join(full), 1.0)
    assert caught.value.number == FLOW_CONTROL_ERROR

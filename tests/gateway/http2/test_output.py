"""The client's windows: never exceeded, fairly shared, and used as soon as they open."""

from __future__ import annotations

import pytest

from gateway.http2 import frames
from gateway.http2.answering import Answering
from gateway.http2.connection import Http2Connection
from gateway.http2.errors import FLOW_CONTROL_ERROR, ConnectionFault
from gateway.http2.frames import DATA, END_STREAM, HEADERS, MAX_FRAME, RST_STREAM
from gateway.http2.output import ROOM
from gateway.http2.settings import DEFAULT_WINDOW, INITIAL_WINDOW_SIZE, MAX_WINDOW
from gateway.http2.streams import Stream
from tests.gateway.http2.wire import head, read_frames, ready, sent

OK = b"\x88"


def opened(core: Http2Connection, number: int = 1) -> list[Stream]:
    return core.receive_data(b"".join(head(2 * one + 1) for one in range(number)), 1.0)


def bodies(core: Answering) -> dict[int, int]:
    """How many bytes each stream sends now."""
    found: dict[int, int] = {}
    for _, stream, payload in sent(core, DATA):  # type: ignore[arg-type]  # all that is used
        assert len(payload) <= MAX_FRAME
        found[stream] = found.get(stream, 0) + len(payload)
    return found


def test_a_small_answer_is_two_frames_in_one_write() -> None:
    core = ready()
    [stream] = opened(core)
    core.answer(stream, OK, b"body")
    assert [one[:3] for one in read_frames(core.data_to_send(1.0))] == [(HEADERS, 4, 1), (DATA, END_STREAM, 1)]
    assert not core.streams


def test_a_body_stops_at_the_streams_window_and_goes_on_with_it() -> None:
    core = ready()
    core.receive_data(frames.window_update(0, 1_000_000), 1.0)
    [stream] = opened(core)
    core.send_head(stream, OK)
    assert core.send_body(stream, b"x" * 100_000) == 100_000
    assert core.send_body(stream, b"y") == 0
    assert bodies(core) == {1: DEFAULT_WINDOW}
    assert bodies(core) == {}
    core.receive_data(frames.window_update(1, 10), 1.0)
    assert bodies(core) == {1: 10}
    core.receive_data(frames.window_update(1, 100_000), 1.0)
    assert bodies(core) == {1: 100_000 - DEFAULT_WINDOW - 10}
    assert core.output.drained == [stream]
    core.send_end(stream)
    assert sent(core, DATA) == [(END_STREAM, 1, b"")]


def test_streams_share_the_connections_window_a_frame_each() -> None:
    core = ready()
    for stream in opened(core, 4):
        core.answer(stream, OK, b"x" * 100_000)
    assert bodies(core) == {1: MAX_FRAME, 3: MAX_FRAME, 5: MAX_FRAME, 7: MAX_FRAME - 1}
    core.receive_data(frames.window_update(0, 2 * MAX_FRAME), 1.0)
    assert sum(bodies(core).values()) == 2 * MAX_FRAME


def test_one_write_is_bounded() -> None:
    core = ready()
    core.receive_data(frames.window_update(0, 100_000_000), 1.0)
    for stream in opened(core, 20):
        core.answer(stream, OK, b"x" * 60_000)
    first = core.data_to_send(1.0)
    assert len(first) < ROOM + 2 * MAX_FRAME
    total = len(first)
    while data := core.data_to_send(1.0):
        total += len(data)
    assert total > 20 * 60_000
    assert not core.streams


def test_settings_change_the_windows_of_open_streams() -> None:
    core = ready()
    [stream] = opened(core)
    core.send_head(stream, OK)
    core.send_body(stream, b"x" * 60_000)
    core.receive_data(frames.settings({INITIAL_WINDOW_SIZE: 0}), 1.0)
    assert bodies(core) == {}
    for _ in range(20):  # however often it changes, the stream waits once
        core.receive_data(frames.settings({INITIAL_WINDOW_SIZE: 100}) + frames.settings({INITIAL_WINDOW_SIZE: 0}), 1.0)
    core.receive_data(frames.settings({INITIAL_WINDOW_SIZE: 100}), 1.0)
    assert len(core.output.waiting) == 1
    assert bodies(core) == {1: 100}
    core.receive_data(frames.settings({INITIAL_WINDOW_SIZE: 50}), 1.0)
    assert stream.send_window == -50
    core.receive_data(frames.window_update(1, 49), 1.0)
    assert bodies(core) == {}
    core.receive_data(frames.window_update(1, 2), 1.0)
    assert bodies(core) == {1: 1}


def test_windows_beyond_their_limit_are_faults() -> None:
    core = ready()
    opened(core)
    core.receive_data(frames.window_update(1, MAX_WINDOW), 1.0)
    assert sent(core, RST_STREAM) == [(0, 1, FLOW_CONTROL_ERROR.to_bytes(4, "big"))]
    with pytest.raises(ConnectionFault) as caught:
        core.receive_data(frames.window_update(0, MAX_WINDOW), 1.0)
    assert caught.value.number == FLOW_CONTROL_ERROR
    core = ready()
    opened(core)
    core.receive_data(frames.window_update(1, MAX_WINDOW - DEFAULT_WINDOW), 1.0)
    with pytest.raises(ConnectionFault) as caught:
        core.receive_data(frames.settings({INITIAL_WINDOW_SIZE: DEFAULT_WINDOW + 1}), 1.0)
    assert caught.value.number == FLOW_CONTROL_ERROR


def test_what_a_reset_stream_had_queued_is_gone() -> None:
    core = ready()
    one, other = opened(core, 2)
    for stream in (one, other):
        core.answer(stream, OK, b"x" * 30_000)
    core.receive_data(frames.rst_stream(1, 8), 1.0)
    assert bodies(core) == {3: 30_000}
    assert core.send_body(one, b"more") == 4  # taken, for nobody


def test_trailers_follow_the_body() -> None:
    core = ready()
    one, other = opened(core, 2)
    core.send_head(one, OK)
    core.send_body(one, b"x" * 20_000)
    core.send_end(one, b"\x00\x01t\x011")
    core.send_head(other, OK)
    core.send_end(other, b"\x00\x01t\x012")
    kinds = [(kind, stream, flags & END_STREAM) for kind, flags, stream, _ in read_frames(core.data_to_send(1.0))]
    assert [one for one in kinds if one[1] == 1] == [(HEADERS, 1, 0), (DATA, 1, 0), (DATA, 1, 0), (HEADERS, 1, 1)]
    assert [one for one in kinds if one[1] == 3] == [(HEADERS, 3, 0), (HEADERS, 3, 1)]
    assert not core.streams


def test_a_large_head_is_sent_in_continuations() -> None:
    core = ready()
    [stream] = opened(core)
    core.answer(stream, b"\x00\x01a\x7f\x81\xf9\x02" + b"b" * 48_000 + OK * 10, b"body")
    kinds = [(kind, flags, len(payload)) for kind, flags, _, payload in read_frames(core.data_to_send(1.0))]
    assert [kind for kind, _, _ in kinds] == [HEADERS, 9, 9, DATA]
    assert [flags for _, flags, _ in kinds] == [0, 0, 4, END_STREAM]


def test_streams_that_their_client_does_not_read_are_found() -> None:
    core = ready()
    core.receive_data(frames.settings({INITIAL_WINDOW_SIZE: 10}), 1.0)
    one, other = core.receive_data(head(1) + head(3), 5.0)
    core.answer(one, OK, b"x" * 100)
    core.answer(other, OK, b"short")
    core.data_to_send(7.0)
    assert core.stalled(7.0) == []
    assert core.stalled(7.1) == [one]
    core.receive_data(frames.window_update(1, 5), 60.0)
    core.data_to_send(60.0)
    assert core.stalled(59.0) == []

"""The frames that carry no request: what they do, and what is wrong with them."""

from __future__ import annotations

import pytest

from gateway.http2 import frames
from gateway.http2.errors import CANCEL, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, NO_ERROR, PROTOCOL_ERROR, ConnectionFault
from gateway.http2.frames import (
    ACK,
    GOAWAY,
    MAX_ID,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from gateway.http2.settings import ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE
from tests.gateway.http2.wire import head, read_frames, ready, sent

FAULTS = {
    "PRIORITY of no stream": (frames.frame(PRIORITY, 0, 0, b"\0" * 5), PROTOCOL_ERROR),
    "PRIORITY of another size": (frames.frame(PRIORITY, 0, 1, b"\0" * 4), FRAME_SIZE_ERROR),
    "RST_STREAM of an idle stream": (frames.rst_stream(1, CANCEL), PROTOCOL_ERROR),
    "RST_STREAM of no stream": (frames.rst_stream(0, CANCEL), PROTOCOL_ERROR),
    "RST_STREAM of another size": (frames.frame(RST_STREAM, 0, 1, b"\0" * 5), FRAME_SIZE_ERROR),
    "SETTINGS of a stream": (frames.frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    "SETTINGS that are not pairs": (frames.frame(SETTINGS, 0, 0, b"\0" * 5), FRAME_SIZE_ERROR),
    "SETTINGS acknowledged with more": (frames.frame(SETTINGS, ACK, 0, b"\0" * 6), FRAME_SIZE_ERROR),
    "pushes by half": (frames.settings({ENABLE_PUSH: 2}), PROTOCOL_ERROR),
    "a window too large": (frames.settings({INITIAL_WINDOW_SIZE: 1 << 31}), FLOW_CONTROL_ERROR),
    "frames too small": (frames.settings({MAX_FRAME_SIZE: 16_383}), PROTOCOL_ERROR),
    "frames too large": (frames.settings({MAX_FRAME_SIZE: 1 << 24}), PROTOCOL_ERROR),
    "PUSH_PROMISE": (frames.frame(PUSH_PROMISE, 0, 1, b"\0" * 4), PROTOCOL_ERROR),
    "PING of a stream": (frames.frame(PING, 0, 1, b"\0" * 8), PROTOCOL_ERROR),
    "PING of another size": (frames.frame(PING, 0, 0, b"\0" * 7), FRAME_SIZE_ERROR),
    "GOAWAY of a stream": (frames.frame(GOAWAY, 0, 1, b"\0" * 8), PROTOCOL_ERROR),
    "GOAWAY too short": (frames.frame(GOAWAY, 0, 0, b"\0" * 7), FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of another size": (frames.frame(WINDOW_UPDATE, 0, 0, b"\0" * 3), FRAME_SIZE_ERROR),
    "WINDOW_UPDATE by nothing": (frames.window_update(0, 0), PROTOCOL_ERROR),
    "WINDOW_UPDATE of an idle stream": (frames.window_update(1, 1), PROTOCOL_ERROR),
    "WINDOW_UPDATE of an even stream": (frames.window_update(2, 1), PROTOCOL_ERROR),
}


@pytest.mark.parametrize(("data", "number"), FAULTS.values(), ids=FAULTS.keys())
def test_what_ends_the_connection(data: bytes, number: int) -> None:
    with pytest.raises(ConnectionFault) as caught:
        ready().receive_data(data, 1.0)
    assert caught.value.number == number
    assert caught.value.code == "http2_error"


@pytest.mark.parametrize(("data", "number"), [
    (frames.window_update(1, 0), PROTOCOL_ERROR),
    (frames.frame(PRIORITY, 0, 1, b"\0" * 6), FRAME_SIZE_ERROR),
])  # fmt: skip
def test_what_ends_a_stream(data: bytes, number: int) -> None:
    core = ready()
    [stream] = core.receive_data(head(1), 1.0)
    assert core.receive_data(data, 1.0) == [stream]
    assert stream.reset == number
    assert sent(core, RST_STREAM) == [(0, 1, number.to_bytes(4, "big"))]


def test_settings_and_pings_are_answered() -> None:
    core = ready()
    core.receive_data(frames.settings({0xEEEE: 5}) + frames.frame(PING, 0, 0, b"12345678"), 1.0)
    assert list(read_frames(core.data_to_send(1.0))) == [(SETTINGS, ACK, 0, b""), (PING, ACK, 0, b"12345678")]
    core.receive_data(frames.frame(SETTINGS, ACK, 0) + frames.frame(PING, ACK, 0, b"12345678"), 1.0)
    assert core.data_to_send(1.0) == b""


def test_what_says_nothing_any_more_is_ignored() -> None:
    core = ready()
    [stream] = core.receive_data(head(1), 1.0)
    core.answer(stream, b"\x88", b"")
    late = frames.window_update(1, 1) + frames.rst_stream(1, CANCEL) + frames.frame(PRIORITY, 0, 1, b"\0" * 5)
    assert core.receive_data(late + frames.frame(0xFA, 0xFF, 77, b"?"), 1.0) == []


def test_a_reset_by_the_client_is_news() -> None:
    core = ready()
    [stream] = core.receive_data(head(1), 1.0)
    assert core.receive_data(frames.rst_stream(1, CANCEL), 1.0) == [stream]
    assert stream.reset == CANCEL
    core.answer(stream, b"\x88", b"body")
    assert core.data_to_send(1.0) == b""


def test_a_client_that_leaves_still_gets_its_answers() -> None:
    core = ready()
    [stream] = core.receive_data(head(1) + frames.goaway(0, NO_ERROR), 1.0)
    assert not core.over
    core.answer(stream, b"\x88", b"")
    assert core.over


def test_a_drain_lets_in_what_was_on_its_way_and_then_nothing_more() -> None:
    core = ready()
    [first] = core.receive_data(head(1), 1.0)
    core.drain()
    core.drain()
    told = list(read_frames(core.data_to_send(1.0)))
    assert [(kind, payload[:8]) for kind, _, _, payload in told] == [
        (GOAWAY, MAX_ID.to_bytes(4, "big") + b"\0\0\0\0"), (PING, b"draining"),
    ]  # fmt: skip
    [second] = core.receive_data(head(3), 1.0)
    assert core.receive_data(frames.frame(PING, ACK, 0, b"draining") + head(5), 1.0) == []
    assert sent(core, GOAWAY) == [(0, 0, b"\0\0\0\3\0\0\0\0")]
    for stream in (first, second):
        assert not core.over
        core.answer(stream, b"\x88", b"")
    assert core.over

"""The frames that carry no request: what each does to the connection (RFC 9113 §6).

Every one of them costs us something and its sender nearly nothing, so every one is counted (see floods.py).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from gateway.http2 import frames
from gateway.http2.endpoint import Endpoint
from gateway.http2.errors import FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, ConnectionFault
from gateway.http2.floods import UPDATES_A_FRAME, flood
from gateway.http2.frames import ACK, MAX_ID, PRIORITY_SIZE
from gateway.http2.settings import INITIAL_WINDOW_SIZE, parse_settings

_GOAWAY = struct.Struct(">II").unpack_from


def priority(connection: Endpoint, stream_id: int, flags: int, payload: bytes) -> None:
    """RFC 9113 §5.3.2: of no meaning any more."""
    if not stream_id:
        raise ConnectionFault(PROTOCOL_ERROR, "PRIORITY of no stream")
    connection.trifle()
    if len(payload) != PRIORITY_SIZE:
        stream = connection.streams.get(stream_id)
        if stream is None:
            raise ConnectionFault(FRAME_SIZE_ERROR, "PRIORITY has five bytes")
        connection.fault(stream, FRAME_SIZE_ERROR)


def rst_stream(connection: Endpoint, stream_id: int, flags: int, payload: bytes) -> None:
    if len(payload) != 4:
        raise ConnectionFault(FRAME_SIZE_ERROR, "RST_STREAM has four bytes")
    stream = connection.streams.get(stream_id)
    if stream is None:
        _for_nobody(connection, stream_id)
        connection.came_late(stream_id, 0, end=True)
    else:
        connection.close(stream, int.from_bytes(payload, "big"))
        connection.news.append(stream)
        connection.was_reset(stream)


def settings(connection: Endpoint, stream_id: int, flags: int, payload: bytes) -> None:
    if stream_id:
        raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS of a stream")
    if flags & ACK:
        if payload:
            raise ConnectionFault(FRAME_SIZE_ERROR, "an acknowledgement with SETTINGS")
        connection.trifle()
        return
    connection.floods.settings -= 1 + len(payload) // 128  # a frame full of them costs like many
    if connection.floods.settings < 0:
        raise flood("SETTINGS")
    values = parse_settings(payload)
    window = values.get(INITIAL_WINDOW_SIZE)
    output = connection.output
    if window is not None and window != output.initial_window:
        change = window - output.initial_window
        output.initial_window = window
        for stream in connection.streams.values():
            if not output.widen_stream(stream, change):
                raise ConnectionFault(FLOW_CONTROL_ERROR, "SETTINGS make a stream's window exceed 2^31 - 1")
    output.frames.append(frames.frame(frames.SETTINGS, ACK, 0))
    connection.settled(values)


def push_promise(connection: Endpoint, stream_id: int, flags: int, payload: bytes) -> None:
    raise ConnectionFault(PROTOCOL_ERROR, "nobody may push to us")


def ping(connection: Endpoint, stream_id: int, flags: int, payload: bytes) -> None:
    if stream_id:
        raise ConnectionFault(PROTOCOL_ERROR, "PING of a stream")
    if len(payload) != 8:
        raise ConnectionFault(FRAME_SIZE_ERROR, "PING has eight bytes")
    connection.floods.pings -= 1
    if connection.floods.pings < 0:
        raise flood("PING")
    if not flags & ACK:
        connection.output.frames.append(frames.frame(frames.PING, ACK, 0, payload))
    else:
        connection.answered_ping(payload)


def goaway(connection: Endpoint, stream_id: int, flags: int, payload: bytes) -> None:
    if stream_id:
        raise ConnectionFault(PROTOCOL_ERROR, "GOAWAY of a stream")
    if len(payload) < 8:
        raise ConnectionFault(FRAME_SIZE_ERROR, "GOAWAY has eight bytes at least")
    connection.trifle()
    last, number = _GOAWAY(payload)
    connection.peer_leaves(last & MAX_ID, number)


def window_update(connection: Endpoint, stream_id: int, flags: int, payload: bytes) -> None:
    if len(payload) != 4:
        raise ConnectionFault(FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes")
    floods, output = connection.floods, connection.output
    floods.updates += UPDATES_A_FRAME * output.sent - 1
    output.sent = 0
    if floods.updates < 0:
        raise flood("WINDOW_UPDATE")
    increment = int.from_bytes(payload, "big") & MAX_ID
    if not stream_id:
        if not increment:
            raise ConnectionFault(PROTOCOL_ERROR, "a WINDOW_UPDATE by nothing")
        output.widen(increment)
        return
    stream = connection.streams.get(stream_id)
    if stream is None:
        _for_nobody(connection, stream_id)
    elif not increment:
        connection.fault(stream, PROTOCOL_ERROR)
    elif not output.widen_stream(stream, increment):
        connection.fault(stream, FLOW_CONTROL_ERROR)


def unknown(connection: Endpoint, stream_id: int, flags: int, payload: bytes) -> None:
    """RFC 9113 §5.5: ignored."""
    connection.trifle()


def _for_nobody(connection: Endpoint, stream_id: int) -> None:
    """A frame that says nothing any more, for a stream that is closed."""
    if not stream_id & 1 or stream_id > connection.last_id:
        raise ConnectionFault(PROTOCOL_ERROR, "a frame for a stream that was never opened")
    connection.trifle()


HANDLERS: Final[Mapping[int, Callable[[Endpoint, int, int, bytes], None]]] = {
    frames.PRIORITY: priority,
    frames.RST_STREAM: rst_stream,
    frames.SETTINGS: settings,
    frames.PUSH_PROMISE: push_promise,
    frames.PING: ping,
    frames.GOAWAY: goaway,
    frames.WINDOW_UPDATE: window_update,
}

"""SETTINGS (RFC 9113 §6.5): what we say, and what a client may say."""

from __future__ import annotations

import struct
from typing import Final

from gateway.guard import MAX_HEAD
from gateway.http2.errors import FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, ConnectionFault

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
ENABLE_CONNECT_PROTOCOL: Final = 8  # RFC 8441 §3

KIB: Final = 1024
MAX_STREAMS: Final = 100  # at once; RFC 9113 §6.5.2 recommends no fewer, Envoy and Caddy allow more
STREAM_WINDOW: Final = 64 * KIB  # bytes of a body that are held for a server that does not read
CONNECTION_WINDOW: Final = 1024 * KIB  # and for all servers of a connection together
DEFAULT_WINDOW: Final = 65_535  # bytes, §6.9.2: before anybody said something else
MAX_WINDOW: Final = (1 << 31) - 1

OURS: Final = {
    MAX_CONCURRENT_STREAMS: MAX_STREAMS,
    INITIAL_WINDOW_SIZE: STREAM_WINDOW,
    MAX_HEADER_LIST_SIZE: MAX_HEAD,
    ENABLE_CONNECT_PROTOCOL: 1,
}

_pairs = struct.Struct(">HI").iter_unpack


def parse_settings(payload: bytes) -> dict[int, int]:
    """What a client says, the last word of each. Raises ConnectionFault."""
    if len(payload) % 6:
        raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS that are not pairs")
    values: dict[int, int] = {}
    for name, value in _pairs(payload):
        if name == ENABLE_PUSH and value > 1:
            raise ConnectionFault(PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        if name == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "an initial window above 2^31 - 1")
        if name == MAX_FRAME_SIZE and not 1 << 14 <= value < 1 << 24:
            raise ConnectionFault(PROTOCOL_ERROR, "MAX_FRAME_SIZE out of range")
        values[name] = value
    return values

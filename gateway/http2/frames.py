"""Frames of HTTP/2 (RFC 9113 §4.1, §6): numbers, flags, and the bytes of those that are sent.

A frame that is received is never an object: the connection reads its nine bytes with `HEADER` and slices the payload.
"""

from __future__ import annotations

import struct
from typing import Final

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

# Flags
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4
FRAME_HEAD: Final = 9  # bytes
MAX_FRAME: Final = 16 * 1024  # bytes of payload, both ways: what SETTINGS_MAX_FRAME_SIZE says where nobody changes it
MAX_ID: Final = (1 << 31) - 1

HEADER: Final = struct.Struct(">IBI")  # length << 8 | type, flags, stream
PRIORITY_SIZE: Final = 5  # bytes, §6.3: also at the start of a HEADERS frame that has its flag

_U32 = struct.Struct(">I").pack
_GOAWAY = struct.Struct(">II").pack
_SETTING = struct.Struct(">HI").pack
_pack = HEADER.pack


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Any frame."""
    return _pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING(name, value) for name, value in values.items()))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _U32(increment))


def rst_stream(stream: int, number: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _U32(number))


def goaway(last: int, number: int, detail: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, _GOAWAY(last, number) + detail)


def headers(stream: int, block: bytes, end_stream: bool) -> bytes:
    """HEADERS, and as many CONTINUATION as the block needs."""
    end = END_STREAM if end_stream else 0
    if len(block) <= MAX_FRAME:
        return _pack(len(block) << 8 | HEADERS, END_HEADERS | end, stream) + block
    pieces = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)]
    out = [frame(HEADERS, end, stream, pieces[0])]
    out += [frame(CONTINUATION, 0, stream, piece) for piece in pieces[1:-1]]
    out.append(frame(CONTINUATION, END_HEADERS, stream, pieces[-1]))
    return b"".join(out)

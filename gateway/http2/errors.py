"""What a client can do to an HTTP/2 connection or to one stream of it, and the codes that tell it (RFC 9113 §7).

`ConnectionFault` ends the connection with a GOAWAY, `StreamFault` one stream with a RST_STREAM. Both are the client's
doing, so both are PeerErrors, with a reason code of the log beside the number on the wire.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import PeerError

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
ENHANCE_YOUR_CALM: Final = 0xB


class ConnectionFault(PeerError):
    """The connection can't go on; `number` is for its GOAWAY."""

    __slots__ = ("number",)

    def __init__(self, number: int, detail: str) -> None:
        super().__init__("http2_flood" if number == ENHANCE_YOUR_CALM else "http2_error", detail)
        self.number = number


class StreamFault(PeerError):
    """One stream can't go on; `number` is for its RST_STREAM."""

    __slots__ = ("number",)

    def __init__(self, number: int, detail: str) -> None:
        super().__init__("http2_error", detail, close=False)
        self.number = number

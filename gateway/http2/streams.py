"""A stream and its states (RFC 9113 §5.1), as a server that never pushes sees them; a client sees the same.

    idle --HEADERS--> open --END_STREAM received--> half-closed (remote) --END_STREAM sent--> closed
                       \\--END_STREAM sent--> half-closed (local) --END_STREAM received--> closed

A RST_STREAM either way closes at once. The two reserved states belong to pushes, so they can't occur. What is not in
the table is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.http2.heads import Head

# States
IDLE: Final = 0
OPEN: Final = 1
HALF_CLOSED_REMOTE: Final = 2  # the request is whole
HALF_CLOSED_LOCAL: Final = 3  # the answer is whole
CLOSED: Final = 4

# What moves a stream
RECV_HEADERS: Final = 0  # the first ones
RECV_END: Final = 1  # END_STREAM on HEADERS or DATA
SEND_END: Final = 2
RESET: Final = 3  # in either direction

NEXT: Final[Mapping[int, Mapping[int, int]]] = {
    IDLE: {RECV_HEADERS: OPEN},
    OPEN: {RECV_END: HALF_CLOSED_REMOTE, SEND_END: HALF_CLOSED_LOCAL, RESET: CLOSED},
    HALF_CLOSED_REMOTE: {SEND_END: CLOSED, RESET: CLOSED},
    HALF_CLOSED_LOCAL: {RECV_END: CLOSED, RESET: CLOSED},
    CLOSED: {},
}
RECEIVING: Final = (OPEN, HALF_CLOSED_LOCAL)  # where DATA and trailers may come
SENDING: Final = (OPEN, HALF_CLOSED_REMOTE)


class Stream:
    """One request and its answer. What stands here is the connection's to write, but for `owner`."""

    __slots__ = (
        "body", "born", "ending", "expected", "head", "id", "line", "moved", "owner", "queued", "recv_window", "reset",
        "send_window", "state", "trailer_block", "trailers", "tunnel", "unacknowledged", "waits",
    )  # fmt: skip

    def __init__(self, id: int, line: bytes, head: Head, send_window: int, recv_window: int, now: float) -> None:
        self.id = id
        self.line = line  # the request's, as HTTP/1.1 has it
        self.head = head
        self.state = OPEN
        self.reset = -1  # the code of the RST_STREAM that ended it, sent or received
        # the request's body
        self.body: bytearray | None = None  # received and not yet read
        self.trailers: list[bytes] = []
        self.expected = head.length  # bytes of the body that are still to come; below 0: nobody said
        self.recv_window = recv_window  # bytes that may still come
        self.unacknowledged = 0  # bytes that were read and are not yet given back to the client's window
        # the answer's body
        self.send_window = send_window
        self.queued: bytes | memoryview = b""  # not yet framed
        self.waits = False  # in the queue of those that are to be framed
        self.ending = False  # the stream ends with what is queued
        self.trailer_block = b""
        self.tunnel = False  # each side ends for itself, as a connection does
        # times, in monotonic seconds
        self.born = now
        self.moved = now  # when it last got on with its answer
        self.owner: Any = None  # who serves it

    @property
    def whole(self) -> bool:
        """Whether the request has come to its end."""
        return self.state == HALF_CLOSED_REMOTE or self.state == CLOSED

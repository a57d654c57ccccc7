"""What leaves on an HTTP/2 connection: frames that are ready, and bodies that wait for the client's windows.

Frames gather here and leave in one write a round. Bodies that don't fit at once are queued by stream and framed in
turns, a frame each, as far as the stream's window, the connection's, and the room of one write allow (RFC 9113 §5.2).
A stream whose own window is shut stands in no queue: the update that opens it puts it back.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from gateway.http2.errors import FLOW_CONTROL_ERROR, ConnectionFault
from gateway.http2.frames import DATA, END_STREAM, HEADER, MAX_FRAME
from gateway.http2.settings import DEFAULT_WINDOW, KIB, MAX_WINDOW
from gateway.http2.streams import SENDING, Stream

ROOM: Final = 128 * KIB  # bytes of one write: more than a socket takes at once, so nothing is won by more

CRUMB: Final = 256  # bytes; DATA that a shut window cuts smaller earns its client no updates (CVE-2019-9511)

_pack = HEADER.pack


class Output:
    """The sending side of one connection. `frames` are ready to leave; `pending` is about their size."""

    __slots__ = ("drained", "ended", "frames", "initial_window", "pending", "sent", "waiting", "window")

    def __init__(self) -> None:
        self.frames: list[bytes | memoryview] = []
        self.pending = 0
        self.window = DEFAULT_WINDOW  # the client's, for the connection
        self.initial_window = DEFAULT_WINDOW  # and for a new stream
        self.drained: list[Stream] = []  # streams that may queue more; whoever serves the connection empties it
        self.ended: list[Stream] = []  # streams whose last DATA has been framed
        self.sent = 0  # DATA frames that earn the client window updates
        self.waiting: deque[Stream] = deque()  # those with something queued and an open window

    def queue(self, stream: Stream, data: bytes | memoryview) -> None:
        """Send `data` when there is room. Nothing else of this stream may be queued."""
        stream.queued = data
        if stream.send_window > 0:
            self._wait(stream)

    def _wait(self, stream: Stream) -> None:
        if not stream.waits:
            stream.waits = True
            self.waiting.append(stream)

    def fill(self, now: float) -> None:
        """Frame what can leave now."""
        waiting, frames = self.waiting, self.frames
        while waiting and self.window > 0 and self.pending < ROOM:
            stream = waiting.popleft()
            stream.waits = False
            data = stream.queued
            if not data or stream.send_window <= 0 or stream.state not in SENDING:
                continue  # it was reset, or SETTINGS have shut its window meanwhile
            size = min(len(data), MAX_FRAME, stream.send_window, self.window)
            flags = 0
            if size == len(data):
                stream.queued = b""
                if stream.ending and not stream.trailer_block:
                    flags = END_STREAM
                (self.ended if stream.ending else self.drained).append(stream)
            else:
                data = memoryview(data)
                stream.queued = data[size:]
                data = data[:size]
            frames.append(_pack(size << 8 | DATA, flags, stream.id))
            frames.append(data)
            self.pending += size
            if size >= CRUMB or not stream.queued:
                self.sent += 1
            self.window -= size
            stream.send_window -= size
            stream.moved = now
            if stream.queued and stream.send_window > 0:
                stream.waits = True
                waiting.append(stream)

    # -- the client's windows (RFC 9113 §6.9)

    def widen(self, increment: int) -> None:
        """The connection's window grew."""
        self.window += increment
        if self.window > MAX_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "the connection's window exceeds 2^31 - 1")

    def widen_stream(self, stream: Stream, increment: int) -> bool:
        """A stream's window grew, or by SETTINGS shrank; False if it is too large now."""
        before = stream.send_window
        stream.send_window = after = before + increment
        if before <= 0 < after and stream.queued:
            self._wait(stream)
        return after <= MAX_WINDOW

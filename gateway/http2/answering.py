"""What the gateway says on a client's HTTP/2 connection: its greeting, answers, GOAWAY when it drains.

The frames that come in are connection.py's; what both ends of a connection have in common is endpoint.py's.
"""

from __future__ import annotations

from typing import Final

from gateway.http2 import frames
from gateway.http2.errors import NO_ERROR
from gateway.http2.frames import DATA, END_HEADERS, END_STREAM, HEADER, HEADERS, MAX_FRAME, MAX_ID
from gateway.http2.output import ROOM
from gateway.http2.receiving import PREFACE_DUE, Receiving
from gateway.http2.settings import CONNECTION_WINDOW, DEFAULT_WINDOW, OURS
from gateway.http2.streams import CLOSED, HALF_CLOSED_REMOTE, NEXT, OPEN, SEND_END, Stream

DRAIN_PING: Final = b"draining"

_GREETING: Final = frames.settings(OURS) + frames.window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW)
_pack = HEADER.pack

# Streams answered early whose client is not told to stop. They count among those that it may open (MAX_STREAMS)
# until it has ended them, and one that waits for a word of ours may never do so.
MAX_UNTOLD: Final = 8


class Answering(Receiving):
    """The streams that a client has opened, and what they are answered."""

    __slots__ = ("client_leaves", "draining", "malformed", "untold")

    def __init__(self) -> None:
        super().__init__(PREFACE_DUE)
        self.output.frames.append(_GREETING)
        self.malformed = 0  # requests that were reset before they were any; for the account
        self.untold: dict[int, int] = {}  # streams answered early: bytes that the client may still send unasked
        self.draining = False
        self.client_leaves = False  # it has sent a GOAWAY

    @property
    def over(self) -> bool:
        """Nothing more will come of it."""
        return self.failed or (not self.streams and (self.client_leaves or self.accepts < MAX_ID))

    # -- answers. One whose stream is closed by now goes nowhere.

    def answer(self, stream: Stream, block: bytes, body: bytes) -> None:
        """A whole answer."""
        size, output = len(body), self.output
        if (
            0 < size <= MAX_FRAME
            and size <= stream.send_window
            and size <= output.window
            and len(block) <= MAX_FRAME
            and output.pending < ROOM
            and (stream.state == HALF_CLOSED_REMOTE or stream.state == OPEN)
        ):
            stream_id = stream.id
            output.frames += (
                _pack(len(block) << 8 | HEADERS, END_HEADERS, stream_id),
                block,
                _pack(size << 8 | DATA, END_STREAM, stream_id),
                body,
            )
            output.sent += 1
            output.pending += size
            output.window -= size
            if stream.state == HALF_CLOSED_REMOTE:  # the same as below, inlined
                stream.state = CLOSED
                del self.streams[stream_id]
            else:
                self._sent_end(stream)
            return
        self.send_head(stream, block, end=not size)
        if size:
            self.send_body(stream, body)
            self.send_end(stream)

    def _sent_end(self, stream: Stream) -> None:
        stream.state = state = NEXT[stream.state][SEND_END]
        if state == CLOSED:
            del self.streams[stream.id]
        elif not stream.tunnel:
            # RFC 9113 §8.1: the answer did not need the rest of the request. What its window lets the client send
            # without a word of ours is on its way, and clients that are told to stop meanwhile (curl 7.88) throw the
            # answer away; so they are told where they would stop of themselves, and wait.
            self.close(stream, NO_ERROR)
            self.was_refused(stream.id)
            self.untold[stream.id] = stream.recv_window
            if len(self.untold) > MAX_UNTOLD:
                self._tell(next(iter(self.untold)))

    def _tell(self, stream_id: int) -> None:
        del self.untold[stream_id]
        self.refuse(stream_id, NO_ERROR)

    def came_late(self, stream_id: int, size: int, end: bool) -> None:
        left = self.untold.get(stream_id)
        if left is None:
            return
        if end:
            del self.untold[stream_id]
        elif size < left:
            self.untold[stream_id] = left - size
        else:
            self._tell(stream_id)

    def fault(self, stream: Stream, number: int) -> None:
        """The client broke the protocol on this stream alone. Raises ConnectionFault if it does so too often."""
        super().fault(stream, number)
        self.was_reset(stream)

    def was_reset(self, stream: Stream) -> None:
        self.floods.was_reset(self.now - stream.born)

    def drain(self) -> None:
        """Ask for no more streams. RFC 9113 §6.8: at first with the highest id, since the client may be opening some
        now; once it has answered a PING, it has read that, and the last one is known."""
        if not self.draining and self.accepts == MAX_ID:
            self.draining = True
            self.output.frames.append(frames.goaway(MAX_ID, NO_ERROR))
            self.output.frames.append(frames.frame(frames.PING, 0, 0, DRAIN_PING))

    def settled(self, values: dict[int, int]) -> None:
        """Nothing beyond the windows: we open no streams, and our blocks need no table of the client's."""

    def answered_ping(self, payload: bytes) -> None:
        if payload == DRAIN_PING and self.draining:
            self.leave(NO_ERROR)  # whatever the client opened before it read of the drain has come

    def peer_leaves(self, last: int, number: int) -> None:
        self.client_leaves = True  # what it has opened is answered

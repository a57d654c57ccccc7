"""One end of an HTTP/2 connection, whichever: its streams, bodies that leave and come, windows given back, endings.

What a gateway says to clients is answering.py's, what it asks of servers client.py's; the frames that come in are read
in receiving.py and control.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from gateway.http2 import frames
from gateway.http2.errors import NO_ERROR
from gateway.http2.floods import FloodGuard, flood
from gateway.http2.frames import DATA, END_STREAM, MAX_ID
from gateway.http2.output import Output
from gateway.http2.settings import CONNECTION_WINDOW, STREAM_WINDOW
from gateway.http2.streams import CLOSED, NEXT, RECEIVING, RESET, SENDING, Stream

MAX_RESET_IDS: Final = 1_000  # streams reset by us whose last frames may still be on their way


class Endpoint(ABC):
    """The streams of one connection and what is sent on them. What each end makes of the peer's frames is abstract."""

    __slots__ = (
        "accepts", "failed", "floods", "last_id", "news", "now", "output", "recv_window", "reset_ids", "streams",
        "unacknowledged",
    )  # fmt: skip

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}  # all that are not closed
        self.output = Output()
        self.floods = FloodGuard()
        self.now = 0.0  # of the last `receive_data`
        self.news: list[Stream] = []
        self.last_id = 0  # the highest stream that was opened
        self.accepts = MAX_ID  # streams above this one are not served any more
        self.recv_window = CONNECTION_WINDOW  # bytes that may still come
        self.unacknowledged = 0  # bytes that are no longer held, and not yet given back to the peer's window
        self.reset_ids: dict[int, None] = {}
        self.failed = False

    # -- what leaves. A stream that is closed by now takes nothing.

    def send_head(self, stream: Stream, block: bytes, *, end: bool = False) -> None:
        """The head of an answer, or an interim one; `end` if nothing follows."""
        if stream.state in SENDING:
            self.output.frames.append(frames.headers(stream.id, block, end))
            self.output.pending += len(block)
            if end:
                self._sent_end(stream)

    def send_body(self, stream: Stream, data: bytes | memoryview) -> int:
        """A piece of a body: how many bytes were taken, all or none. If none, `data_to_send` will report the stream
        as drained once it can take more."""
        if stream.state not in SENDING:
            return len(data)
        if stream.queued:
            return 0
        stream.moved = self.now
        self.output.queue(stream, data)
        return len(data)

    def send_end(self, stream: Stream, trailer_block: bytes = b"") -> None:
        """The answer ends when what is queued has been sent, with these trailers if any."""
        if stream.state not in SENDING:
            return
        stream.ending = True
        stream.trailer_block = trailer_block
        if not stream.queued:
            if not trailer_block:
                self.output.frames.append(frames.frame(DATA, END_STREAM, stream.id))
            self._end(stream)

    def _end(self, stream: Stream) -> None:
        """All of its DATA has been framed."""
        if stream.trailer_block:
            self.output.frames.append(frames.headers(stream.id, stream.trailer_block, True))
        self._sent_end(stream)

    @abstractmethod
    def _sent_end(self, stream: Stream) -> None:
        """END_STREAM of ours is in what is to be sent: the stream's next state, and who forgets it."""

    def data_to_send(self, now: float) -> bytes:
        """What is to be written now. Bodies that wait for room take their turns here, so call it when the last of it
        has been written."""
        output = self.output
        if output.waiting:
            output.fill(now)
            if output.ended:
                for stream in output.ended:
                    self._end(stream)
                output.ended.clear()
        data = b"".join(output.frames)
        output.frames.clear()
        output.pending = 0
        return data

    def stalled(self, before: float) -> list[Stream]:
        """Streams with something to send of which nothing was sent since that time."""
        return [stream for stream in self.streams.values() if stream.queued and stream.moved < before]

    # -- the peer's windows

    def read_body(self, stream: Stream) -> bytes:
        """What there is of a body. The peer may send as much again."""
        body = stream.body
        if not body:
            return b""
        stream.body = None
        size = len(body)
        self.credit(size)
        if stream.state in RECEIVING:
            stream.unacknowledged += size
            if stream.unacknowledged >= STREAM_WINDOW // 2:
                self.output.frames.append(frames.window_update(stream.id, stream.unacknowledged))
                stream.recv_window += stream.unacknowledged
                stream.unacknowledged = 0
        return bytes(body)

    def credit(self, size: int) -> None:
        """These bytes are no longer held for the connection."""
        self.unacknowledged += size
        if self.unacknowledged >= CONNECTION_WINDOW // 2:
            self.output.frames.append(frames.window_update(0, self.unacknowledged))
            self.recv_window += self.unacknowledged
            self.unacknowledged = 0

    # -- endings

    def reset(self, stream: Stream, number: int) -> None:
        """End a stream from our side, for whatever reason; one that is closed stays as it is."""
        if stream.state != CLOSED:
            self.close(stream, number)
            self.refuse(stream.id, number)

    def refuse(self, stream_id: int, number: int) -> None:
        """RST_STREAM. What the peer still sends on the stream, not knowing of it, will be ignored."""
        self.output.frames.append(frames.rst_stream(stream_id, number))
        self.was_refused(stream_id)

    def was_refused(self, stream_id: int) -> None:
        """What comes on the stream from now on is not looked at."""
        if len(self.reset_ids) >= MAX_RESET_IDS:
            del self.reset_ids[next(iter(self.reset_ids))]
        self.reset_ids[stream_id] = None

    def close(self, stream: Stream, number: int) -> None:
        """The stream was reset, by whichever side: nothing on it is of use any more."""
        stream.state = NEXT[stream.state][RESET]
        stream.reset = number
        stream.queued = b""
        del self.streams[stream.id]
        if stream.body:
            self.credit(len(stream.body))
            stream.body = None

    def fault(self, stream: Stream, number: int) -> None:
        """The peer broke the protocol on this stream alone."""
        self.reset(stream, number)
        self.news.append(stream)

    def trifle(self) -> None:
        """A frame came that changes nothing."""
        self.floods.trifles -= 1
        if self.floods.trifles < 0:
            raise flood("frames that change nothing")

    def leave(self, number: int = NO_ERROR, detail: str = "") -> None:
        """GOAWAY: no stream is served beyond those that are open; with an error, nothing at all."""
        if not self.failed:
            self.accepts = min(self.accepts, self.last_id)
            self.output.frames.append(frames.goaway(self.accepts, number, detail.encode()))
            self.failed = number != NO_ERROR

    # -- what frames without a stream of their own mean to this end

    @abstractmethod
    def came_late(self, stream_id: int, size: int, end: bool) -> None:
        """So many bytes of a body came, or its end, on a stream that we have ended."""

    @abstractmethod
    def was_reset(self, stream: Stream) -> None:
        """The peer has reset it."""

    @abstractmethod
    def settled(self, values: dict[int, int]) -> None:
        """The peer's SETTINGS came."""

    @abstractmethod
    def answered_ping(self, payload: bytes) -> None:
        """A PING of ours came back."""

    @abstractmethod
    def peer_leaves(self, last: int, number: int) -> None:
        """GOAWAY: nothing above `last` will be looked at."""

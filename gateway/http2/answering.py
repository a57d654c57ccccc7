"""What the gateway says on an HTTP/2 connection: answers, resets, the client's windows given back, GOAWAY.

Keeps the streams that are not closed, and closes them; the frames that come in are connection.py's.
"""

from __future__ import annotations

from typing import Final

from gateway.http2 import frames
from gateway.http2.errors import NO_ERROR
from gateway.http2.floods import FloodGuard, flood
from gateway.http2.frames import DATA, END_HEADERS, END_STREAM, HEADER, HEADERS, MAX_FRAME, MAX_ID
from gateway.http2.output import ROOM, Output
from gateway.http2.settings import CONNECTION_WINDOW, DEFAULT_WINDOW, OURS, STREAM_WINDOW
from gateway.http2.streams import CLOSED, NEXT, RECEIVING, RESET, SEND_END, SENDING, Stream

MAX_RESET_IDS: Final = 1_000  # streams reset by us whose last frames may still be on their way
DRAIN_PING: Final = b"draining"

_GREETING: Final = frames.settings(OURS) + frames.window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW)
_pack = HEADER.pack


class Answering:
    """The streams of one connection and what is sent on them."""

    __slots__ = (
        "accepts", "client_leaves", "draining", "failed", "floods", "last_id", "malformed", "news", "now", "output",
        "recv_window", "reset_ids", "streams", "unacknowledged",
    )  # fmt: skip

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}  # all that are not closed
        self.output = Output()
        self.output.frames.append(_GREETING)
        self.floods = FloodGuard()
        self.now = 0.0  # of the last `receive_data`
        self.news: list[Stream] = []
        self.malformed = 0  # requests that were reset before they were any; for the account
        self.last_id = 0  # the highest stream that the client opened
        self.accepts = MAX_ID  # streams above this one are not served any more
        self.recv_window = CONNECTION_WINDOW  # bytes that may still come
        self.unacknowledged = 0  # bytes that are no longer held, and not yet given back to the client's window
        self.reset_ids: dict[int, None] = {}
        self.draining = False
        self.client_leaves = False  # it has sent a GOAWAY
        self.failed = False

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
            and stream.state in SENDING
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
            stream.send_window -= size
            self._sent_end(stream)
            return
        self.send_head(stream, block, end=not size)
        if size:
            self.send_body(stream, body)
            self.send_end(stream)

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

    def _sent_end(self, stream: Stream) -> None:
        stream.state = state = NEXT[stream.state][SEND_END]
        if state == CLOSED:
            del self.streams[stream.id]
        else:
            # RFC 9113 §8.1: the answer did not need the rest of the request, so the client need not send it.
            self.reset(stream, NO_ERROR)

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

    # -- the client's windows

    def read_body(self, stream: Stream) -> bytes:
        """What there is of a request's body. The client may send as much again."""
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
        """RST_STREAM. What the client still sends on the stream, not knowing of it, will be ignored."""
        self.output.frames.append(frames.rst_stream(stream_id, number))
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
        """The client broke the protocol on this stream alone. Raises ConnectionFault if it does so too often."""
        self.reset(stream, number)
        self.news.append(stream)
        self.floods.was_reset(self.now - stream.born)

    def trifle(self) -> None:
        """A frame came that changes nothing."""
        self.floods.trifles -= 1
        if self.floods.trifles < 0:
            raise flood("frames that change nothing")

    def drain(self) -> None:
        """Ask for no more streams. RFC 9113 §6.8: at first with the highest id, since the client may be opening some
        now; once it has answered a PING, it has read that, and the last one is known."""
        if not self.draining and self.accepts == MAX_ID:
            self.draining = True
            self.output.frames.append(frames.goaway(MAX_ID, NO_ERROR))
            self.output.frames.append(frames.frame(frames.PING, 0, 0, DRAIN_PING))

    def leave(self, number: int = NO_ERROR, detail: str = "") -> None:
        """GOAWAY: no stream is served beyond those that are open; with an error, nothing at all."""
        if not self.failed:
            self.accepts = min(self.accepts, self.last_id)
            self.output.frames.append(frames.goaway(self.accepts, number, detail.encode()))
            self.failed = number != NO_ERROR

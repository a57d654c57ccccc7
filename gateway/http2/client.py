"""Our side of an HTTP/2 connection to a server (RFC 9113): requests out, answers in. No socket, no clock.

The mirror of connection.py. A server's answers are bounded as clients' requests are: by the windows we give, by the
size of a header block, by the floods' guard. Streams are given up one by one; what a server says it did not process
(GOAWAY, REFUSED_STREAM) may be asked again elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.http2 import frames
from gateway.http2.asking import AskedHead, answer_head
from gateway.http2.errors import (
    CANCEL,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFault,
    StreamFault,
)
from gateway.http2.frames import END_STREAM, MAX_ID, PREFACE
from gateway.http2.heads import Head
from gateway.http2.receiving import SETTINGS_DUE, Receiving
from gateway.http2.settings import (
    CONNECTION_WINDOW,
    DEFAULT_WINDOW,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    MAX_STREAMS,
    STREAM_WINDOW,
)
from gateway.http2.streams import CLOSED, NEXT, SEND_END, Stream
from gateway.messages import MAX_INTERIM

MAX_ANSWER_LIST: Final = 64 * 1024  # bytes of an answer's fields, as of HTTP/1.1's
_GREETING: Final = (
    PREFACE
    + frames.settings({ENABLE_PUSH: 0, INITIAL_WINDOW_SIZE: STREAM_WINDOW, MAX_HEADER_LIST_SIZE: MAX_ANSWER_LIST})
    + frames.window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW)
)
_NOT_ASKED: Final = Head([])


class AskedStream(Stream):
    """A request of ours and its answer. `heads` are those received and not yet looked at, interim ones first."""

    __slots__ = ("answered", "bodiless", "complete", "ends_at_once", "heads", "interim")

    def __init__(self, id: int, send_window: int, now: float, bodiless: bool) -> None:
        super().__init__(id, b"", _NOT_ASKED, send_window, STREAM_WINDOW, now)
        self.bodiless = bodiless  # HEAD: no content comes, whatever the length says
        self.heads: list[AskedHead] = []
        self.answered = False  # the final head has come
        self.ends_at_once = False  # and the answer ended with it
        self.complete = False  # the answer has ended
        self.interim = 0


class Http2Client(Receiving):
    """One connection. `room` says how many more requests it takes; `over`: nothing more will come of it."""

    __slots__ = ("_greeted", "max_streams", "takes_sockets")

    def __init__(self, greeted: Callable[[], None] = lambda: None) -> None:
        """`greeted` is called when the server has said what it takes."""
        super().__init__(SETTINGS_DUE)
        self._greeted = greeted
        self.output.frames.append(_GREETING)
        self.max_streams = MAX_STREAMS  # until the server says otherwise; never more
        self.takes_sockets = False  # by extended CONNECT

    @property
    def leaving(self) -> bool:
        """No new request may go out on it."""
        return self.failed or self.accepts < MAX_ID or self.last_id + 2 > MAX_ID

    @property
    def room(self) -> int:
        return 0 if self.leaving else self.max_streams - len(self.streams)

    @property
    def over(self) -> bool:
        return self.failed or (self.leaving and not self.streams)

    # -- asking

    def open(self, block: bytes, end: bool, *, head_request: bool = False) -> AskedStream:
        """A request with this header block; `end` if it has no body. There must be room."""
        self.last_id = stream_id = self.last_id + 2 if self.last_id else 1
        stream = AskedStream(stream_id, self.output.initial_window, self.now, head_request)
        self.streams[stream_id] = stream
        self.send_head(stream, block, end=end)
        return stream

    def abandon(self, stream: Stream) -> None:
        """Nobody waits for the answer: what is held of it is given back to the connection's window."""
        self.reset(stream, NO_ERROR if stream.whole else CANCEL)
        if stream.body:
            self.credit(len(stream.body))
            stream.body = None

    def _sent_end(self, stream: Stream) -> None:
        stream.state = NEXT[stream.state][SEND_END]
        if stream.state == CLOSED:
            del self.streams[stream.id]

    # -- answers

    def _headers(self, stream_id: int, flags: int, block: bytes) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            return self._late_headers(stream_id, block)
        assert isinstance(stream, AskedStream)
        if stream.answered:
            return self._trailers(stream, flags, block)
        entries = self._decode(block)
        try:
            head = answer_head(entries)
        except StreamFault as fault:
            return self.fault(stream, fault.number)
        stream.heads.append(head)
        self.news.append(stream)
        if head.status < 200:
            stream.interim += 1
            if stream.interim > MAX_INTERIM or flags & END_STREAM:
                return self.fault(stream, PROTOCOL_ERROR)
            return None
        stream.answered = True
        stream.ends_at_once = bool(flags & END_STREAM)
        if not stream.bodiless and head.status not in (204, 304):
            stream.expected = head.length
        if flags & END_STREAM:
            self._end_of_body(stream)
        return None

    def _late_headers(self, stream_id: int, block: bytes) -> None:
        if not stream_id & 1 or stream_id > self.last_id:
            raise ConnectionFault(PROTOCOL_ERROR, "HEADERS of a stream that was never opened")
        self._decode(block)  # the table must stay the server's
        if stream_id not in self.reset_ids:
            raise ConnectionFault(STREAM_CLOSED, "HEADERS for a stream that is closed")
        self.trifle()

    def _end_of_body(self, stream: Stream) -> None:
        super()._end_of_body(stream)
        if stream.reset < 0:
            assert isinstance(stream, AskedStream)
            stream.complete = True

    def close(self, stream: Stream, number: int) -> None:
        assert isinstance(stream, AskedStream)
        body, stream.body = stream.body, None
        super().close(stream, number)
        if stream.complete:
            stream.body = body  # RFC 9113 §8.1: a server that needed no more of the request resets it after its answer
        elif body:
            self.credit(len(body))

    # -- what concerns all streams

    def came_late(self, stream_id: int, size: int, end: bool) -> None:
        """Nothing: the server was told of every stream that we gave up."""

    def was_reset(self, stream: Stream) -> None:
        """Nothing: resets cost the server the requests that it was to answer, so they are no flood."""

    def answered_ping(self, payload: bytes) -> None:
        """Nothing: we send none."""

    def settled(self, values: dict[int, int]) -> None:
        self.max_streams = min(values.get(MAX_CONCURRENT_STREAMS, self.max_streams), MAX_STREAMS)
        # RFC 8441 §3: once said, it is not taken back.
        self.takes_sockets |= values.get(ENABLE_CONNECT_PROTOCOL) == 1
        self._greeted()

    def peer_leaves(self, last: int, number: int) -> None:
        """Requests above `last` were not looked at (§6.8)."""
        self.accepts = min(self.accepts, last)
        for stream in [one for one in self.streams.values() if one.id > last]:
            self.close(stream, REFUSED_STREAM)
            self.news.append(stream)

"""The server's side of one HTTP/2 connection (RFC 9113): bytes in, requests out; answers in, bytes out.

No socket, no clock: `receive_data` gets the time, `data_to_send` is what is to be written once a round. A request is a
Stream with a head; its body is read with `read_body`, which is what gives the client its window back, so nobody sends
faster than the body goes on.

A header block that was met before, while the table that it refers to has not changed since, is known by its bytes
(familiar.py).
"""

from __future__ import annotations

from gateway.http2.answering import Answering
from gateway.http2.errors import (
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFault,
    StreamFault,
)
from gateway.http2.familiar import Familiar
from gateway.http2.fields import Entry
from gateway.http2.floods import STREAMS_WATCHED
from gateway.http2.frames import END_STREAM, PREFACE
from gateway.http2.heads import Head, HeadReader
from gateway.http2.receiving import SETTINGS_DUE
from gateway.http2.settings import MAX_STREAMS, STREAM_WINDOW
from gateway.http2.streams import HALF_CLOSED_REMOTE, Stream


class Http2Connection(Answering):
    """One connection. `over`: write what is to be written, then close."""

    __slots__ = ("_familiar", "_heads")

    def __init__(self) -> None:
        super().__init__()
        self._familiar = Familiar()
        self._heads = HeadReader()

    def _begin(self, data: bytes) -> int:
        """Where the first frame stands, -1 if the preface is not complete."""
        if self._phase == SETTINGS_DUE:
            return 0
        if not data.startswith(PREFACE):
            if PREFACE.startswith(data):
                return -1
            raise ConnectionFault(PROTOCOL_ERROR, "the preface is not HTTP/2's")
        self._phase = SETTINGS_DUE
        return len(PREFACE)

    # -- header blocks

    def _decode(self, block: bytes) -> list[Entry]:
        decoder = self._decoder
        before = decoder.changed
        entries = decoder.decode(block)
        if decoder.changed != before:
            self._familiar.forget()
        return entries

    def _headers(self, stream_id: int, flags: int, block: bytes) -> None:
        if stream_id <= self.last_id or not stream_id & 1:
            before = self.streams.get(stream_id)
            return self._late_headers(stream_id, block) if before is None else self._trailers(before, flags, block)
        self.last_id = stream_id
        floods = self.floods
        floods.streams += 1
        if floods.streams > STREAMS_WATCHED:
            floods.watch_anew()
        request = self._familiar.find(block) or self._read(stream_id, block)
        if request is None or stream_id > self.accepts:
            return None  # §6.8: opened before the GOAWAY was read
        streams = self.streams
        if len(streams) >= MAX_STREAMS:
            self.trifle()
            return self.refuse(stream_id, REFUSED_STREAM)
        line, head = request
        streams[stream_id] = stream = Stream(stream_id, line, head, self.output.initial_window, STREAM_WINDOW, self.now)
        if flags & END_STREAM:
            if head.length <= 0:
                stream.state = HALF_CLOSED_REMOTE  # the same as below, inlined
            else:
                self._end_of_body(stream)
        self.news.append(stream)
        return None

    def _read(self, stream_id: int, block: bytes) -> tuple[bytes, Head] | None:
        """The request of a block that is not familiar; None for a malformed one, whose stream was reset."""
        changed = self._decoder.changed
        entries = self._decode(block)
        try:
            line, head = self._heads.read(entries)
        except StreamFault as fault:
            if stream_id <= self.accepts:
                self.malformed += 1
                self.refuse(stream_id, fault.number)
                self.floods.was_reset(0.0)
            return None
        if changed == self._decoder.changed:
            self._familiar.keep(block, line, head)
        return line, head

    def _late_headers(self, stream_id: int, block: bytes) -> None:
        """For a stream that is closed, or that a client may not open."""
        if not stream_id & 1:
            raise ConnectionFault(PROTOCOL_ERROR, "a stream with an even number")
        self._decode(block)  # the table must stay the client's
        if stream_id not in self.reset_ids:
            raise ConnectionFault(STREAM_CLOSED, "HEADERS for a stream that is closed")
        self.trifle()
        self.came_late(stream_id, 0, end=True)

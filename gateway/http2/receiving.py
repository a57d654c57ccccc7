"""The frames that come in on an HTTP/2 connection (RFC 9113 §4 to §6), for either end of it.

Frames are judged in one loop without an object for each. Whatever breaks the protocol ends its stream or, as a
ConnectionFault, the connection, after a GOAWAY that says why. What a header block means is for the end that reads it;
a body is held until somebody reads it, which is what gives the peer its window back.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

from gateway.http2 import frames
from gateway.http2.blocks import BlockDecoder
from gateway.http2.control import HANDLERS, unknown
from gateway.http2.endpoint import Endpoint
from gateway.http2.errors import (
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    ConnectionFault,
    StreamFault,
)
from gateway.http2.fields import Entry
from gateway.http2.floods import flood
from gateway.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    HEADER,
    HEADERS,
    MAX_FRAME,
    MAX_ID,
    PADDED,
    PRIORITISED,
    PRIORITY_SIZE,
)
from gateway.http2.heads import trailer_lines
from gateway.http2.settings import KIB
from gateway.http2.streams import CLOSED, NEXT, RECEIVING, RECV_END, Stream

MAX_BLOCK: Final = 64 * KIB  # bytes of one header block: twice the largest head, so that most get a 431
MAX_CONTINUATIONS: Final = 16  # frames of one block; 64 KiB need four (CVE-2024-27316 and its kin)

_NOT_BARE: Final = PADDED | PRIORITISED

# Where a connection stands at its beginning (§3.4).
PREFACE_DUE: Final = 0
SETTINGS_DUE: Final = 1
RUNNING: Final = 2


class Receiving(Endpoint):
    """The reading side of one connection."""

    __slots__ = ("_buffer", "_decoder", "_fragments", "_phase")

    def __init__(self, phase: int) -> None:
        super().__init__()
        self._phase = phase
        self._buffer = b""
        self._decoder = BlockDecoder()
        self._fragments: tuple[int, int, bytearray, int] | None = None  # stream, flags, block so far, frames so far

    def receive_data(self, data: bytes, now: float) -> list[Stream]:
        """The streams of which there is news: a request (nobody owns it yet), more of its body, its end, a reset. May
        name one twice. Raises ConnectionFault; the GOAWAY is then in what is to be sent."""
        if self._buffer:
            data = self._buffer + data
        self.now = now
        self.floods.refill(now)
        news: list[Stream] = []
        self.news = news
        try:
            at = 0 if self._phase == RUNNING else self._begin(data)
            if at >= 0:
                at = self._receive_frames(data, at)
            self._buffer = data[max(0, at) :]
        except ConnectionFault as error:
            self.leave(error.number, error.detail)
            raise
        return news

    def receive_eof(self) -> None:
        """The peer sends no more: what it has not finished never will be. Raises ConnectionFault within a frame."""
        if self._buffer or self._fragments is not None:
            raise ConnectionFault(PROTOCOL_ERROR, "the connection ended within a frame")

    def _begin(self, data: bytes) -> int:
        """Where the first frame stands, -1 if what comes before it is not complete."""
        return 0

    def _receive_frames(self, data: bytes, at: int) -> int:
        """Every whole frame from `at` on; where the first that is not whole begins."""
        size, unpack = len(data), HEADER.unpack_from
        while size - at >= FRAME_HEAD:
            word, flags, stream_id = unpack(data, at)
            length, kind = word >> 8, word & 0xFF
            if length > MAX_FRAME:
                raise ConnectionFault(FRAME_SIZE_ERROR, f"a frame above {MAX_FRAME} bytes")
            start = at + FRAME_HEAD
            end = start + length
            if self._phase != RUNNING:
                if kind != frames.SETTINGS or flags & ACK:
                    raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS come first")  # §3.4
            elif self._fragments is not None and kind != CONTINUATION:
                raise ConnectionFault(PROTOCOL_ERROR, "a header block is not interrupted")
            if end > size:
                break
            payload = data[start:end]
            stream_id &= MAX_ID  # §4.1: the reserved bit is ignored
            if kind == HEADERS:
                if flags & _NOT_BARE:
                    payload = _bare(payload, flags)
                if flags & END_HEADERS:
                    self._headers(stream_id, flags, payload)
                else:
                    self._fragments = (stream_id, flags, bytearray(payload), 0)
            elif kind == DATA:
                self._data(stream_id, flags, payload)
            elif kind == CONTINUATION:
                self._continuation(stream_id, flags, payload)
            else:
                HANDLERS.get(kind, unknown)(self, stream_id, flags, payload)
                self._phase = RUNNING
            at = end
        return at

    # -- header blocks

    def _decode(self, block: bytes) -> list[Entry]:
        return self._decoder.decode(block)

    @abstractmethod
    def _headers(self, stream_id: int, flags: int, block: bytes) -> None:
        """A whole header block came."""

    def _trailers(self, stream: Stream, flags: int, block: bytes) -> None:
        entries = self._decode(block)
        if stream.state not in RECEIVING:
            return self.fault(stream, STREAM_CLOSED)
        try:
            stream.trailers = trailer_lines(entries)
        except StreamFault as fault:
            return self.fault(stream, fault.number)
        if not flags & END_STREAM:  # §8.1
            return self.fault(stream, PROTOCOL_ERROR)
        self.news.append(stream)
        return self._end_of_body(stream)

    def _continuation(self, stream_id: int, flags: int, payload: bytes) -> None:
        if self._fragments is None or self._fragments[0] != stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION of nothing")
        _, first_flags, block, number = self._fragments
        block += payload
        if number >= MAX_CONTINUATIONS or len(block) > MAX_BLOCK:
            raise flood("CONTINUATION")
        if flags & END_HEADERS:
            self._fragments = None
            self._headers(stream_id, first_flags, bytes(block))
        else:
            self._fragments = (stream_id, first_flags, block, number + 1)

    # -- bodies

    def _data(self, stream_id: int, flags: int, payload: bytes) -> None:
        length = len(payload)
        self.recv_window -= length
        if self.recv_window < 0:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id > self.last_id or not stream_id & 1:
                raise ConnectionFault(PROTOCOL_ERROR, "DATA for a stream that was never opened")
            if stream_id not in self.reset_ids and stream_id <= self.accepts:
                raise ConnectionFault(STREAM_CLOSED, "DATA for a stream that is closed")
            self.trifle()
            self.came_late(stream_id, length, bool(flags & END_STREAM))
            return self.credit(length)
        if stream.state not in RECEIVING:
            self.credit(length)
            return self.fault(stream, STREAM_CLOSED)
        stream.recv_window -= length
        if stream.recv_window < 0:
            self.credit(length)
            return self.fault(stream, FLOW_CONTROL_ERROR)
        if flags & PADDED:
            payload = _bare(payload, flags & PADDED)
            self.credit(length - len(payload))
            stream.unacknowledged += length - len(payload)
        if payload:
            if stream.expected >= 0:
                stream.expected -= len(payload)
                if stream.expected < 0:  # §8.1.1
                    self.credit(len(payload))
                    return self.fault(stream, PROTOCOL_ERROR)
            if stream.body is None:
                stream.body = bytearray(payload)
            else:
                stream.body += payload
        elif not flags & END_STREAM:
            self.floods.empty -= 1
            if self.floods.empty < 0:
                raise flood("empty DATA")
        self.news.append(stream)
        if flags & END_STREAM:
            self._end_of_body(stream)
        return None

    def _end_of_body(self, stream: Stream) -> None:
        if stream.expected > 0:  # §8.1.1: a content-length that the frames don't keep
            return self.fault(stream, PROTOCOL_ERROR)
        stream.state = NEXT[stream.state][RECV_END]
        if stream.state == CLOSED:
            del self.streams[stream.id]
        return None


def _bare(payload: bytes, flags: int) -> bytes:
    """A payload without its padding and the priority before it (§6.1, §6.2)."""
    start, end = 0, len(payload)
    if flags & PADDED:
        start = 1
        end -= payload[0] if payload else 1
    if flags & PRIORITISED:
        start += PRIORITY_SIZE
    if start > end:
        if len(payload) < start:
            raise ConnectionFault(FRAME_SIZE_ERROR, "a frame too short for its flags")
        raise ConnectionFault(PROTOCOL_ERROR, "more padding than payload")
    return payload[start:end]

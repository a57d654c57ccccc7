"""Chunked bodies (RFC 9112 §7.1): servers' are decoded here, clients' by h11 under the eyes of the same decoder.

A client's chunks are the sharpest tool of request smuggling and the rarer case, so the well-known parser takes them,
and because it lets some pass that others read differently (a bare LF in the trailers), a strict one must agree at each
step. Servers' chunks are every other answer, so the strict decoder, which costs little, is alone there. Both ways, what
leaves is encoded anew: extensions are dropped, sizes are ours.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

import h11

from gateway.errors import PeerError
from gateway.fields import ORDINARY, FieldParser, split_line
from gateway.guard import MAX_HEAD

MAX_SIZE_LINE: Final = 1024  # bytes; the rest of a size line are extensions, which nobody uses
MAX_TRAILERS: Final = 16 * 1024  # bytes

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*+)?[ \t]*+").fullmatch


def encode(data: bytes) -> bytes:
    """One chunk; nothing for no data, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def encode_end(trailers: list[bytes]) -> bytes:
    """The last chunk, with trailer lines."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n" + b"\r\n".join(trailers) + b"\r\n\r\n"


class State(Enum):
    """Where in the body the next byte stands."""

    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    DONE = auto()


class ChunkDecoder:
    """A chunked body. `receive_data` gives what it contains; after `done`, `rest` is what followed it.

    `code` is the reason of the PeerError where it is malformed: whose body it is.
    """

    __slots__ = ("_buffer", "_code", "_left", "_parser", "_state", "_trailer_bytes", "trailers")

    def __init__(self, code: str = "bad_answer", parser: FieldParser | None = None) -> None:
        self._code = code
        self._parser = parser or _ANSWER_TRAILERS
        self._buffer = b""
        self._left = 0
        self._state = State.SIZE
        self._trailer_bytes = 0
        self.trailers: list[bytes] = []

    @property
    def done(self) -> bool:
        return self._state is State.DONE

    @property
    def rest(self) -> bytes:
        return self._buffer

    def receive_data(self, data: bytes) -> bytes:
        """The content in `data`, without sizes and trailers; PeerError where it is not chunked."""
        if self._buffer:
            data = self._buffer + data
        content: list[bytes] = []
        at = 0
        while True:
            if self._state is State.DATA:
                piece = data[at : at + self._left]
                if piece:
                    content.append(piece)
                    self._left -= len(piece)
                    at += len(piece)
                if self._left:
                    break
                self._state = State.DATA_END
            elif self._state is State.DATA_END:
                mark = data[at : at + 2]
                if mark != b"\r\n"[: len(mark)]:
                    raise PeerError(self._code, "a chunk is longer than its size")
                if len(mark) < 2:
                    break
                at += 2
                self._state = State.SIZE
            elif self._state is State.DONE:
                break
            else:
                line_end = data.find(b"\r\n", at)
                limit = MAX_SIZE_LINE if self._state is State.SIZE else MAX_TRAILERS
                if (line_end if line_end >= 0 else len(data)) - at > limit:
                    raise PeerError(self._code, "a chunk's size line or trailer is too long")
                if line_end < 0:
                    break
                line = data[at:line_end]
                at = line_end + 2
                if self._state is State.SIZE:
                    self._size(line)
                else:
                    self._trailer(line)
        self._buffer = data[at:]
        return content[0] if len(content) == 1 else b"".join(content)

    def _size(self, line: bytes) -> None:
        match = _SIZE(line)
        if match is None:
            raise PeerError(self._code, "malformed chunk size")
        self._left = int(match[1], 16)
        self._state = State.DATA if self._left else State.TRAILERS

    def _trailer(self, line: bytes) -> None:
        if not line:
            self._state = State.DONE
            return
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MAX_TRAILERS:
            raise PeerError(self._code, "the trailers are too long")
        self.trailers += kept_trailers(self._parser, [line], self._code)


class RequestChunks:
    """A client's chunked body, by h11. `head` is the whole head that the guard accepted, empty line included."""

    __slots__ = ("_h11", "_strict", "done")

    def __init__(self, head: bytes, parser: FieldParser) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._strict = ChunkDecoder("bad_body", parser)
        self.done = False
        self._h11.receive_data(head)
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise PeerError("bad_request_line", str(error)) from None
        if not isinstance(event, h11.Request):
            raise PeerError("bad_request_line", "the head is not one request")

    def receive_data(self, data: bytes) -> bytes:
        """The content in `data`; PeerError("bad_body") where it is not chunked."""
        strictly = self._strict.receive_data(data)
        if self.done or not data:  # no data means the end of the stream to h11
            return b""
        self._h11.receive_data(data)
        content: list[bytes] = []
        try:
            while True:
                event = self._h11.next_event()
                if isinstance(event, h11.Data):
                    content.append(bytes(event.data))
                else:
                    self.done = isinstance(event, h11.EndOfMessage)
                    break
        except h11.RemoteProtocolError as error:
            raise PeerError("bad_body", f"malformed chunked body: {error}") from None
        joined = b"".join(content)
        if joined != strictly or self.done != self._strict.done:
            raise PeerError("bad_body", "a chunked body that can be read in two ways")
        return joined

    @property
    def trailers(self) -> list[bytes]:
        return self._strict.trailers

    @property
    def rest(self) -> bytes:
        """What followed the body: the start of the next request."""
        return self._strict.rest


def kept_trailers(parser: FieldParser, lines: list[bytes], code: str) -> list[bytes]:
    """The trailers that may go on: plain ones. RFC 9110 §6.5.1: none that frames, routes or identifies."""
    kept = []
    for line in lines:
        try:
            split_line(line)
            kind, forward, _ = parser(line)
        except PeerError as error:
            raise PeerError(code, f"in the trailers: {error.detail}") from None
        if kind == ORDINARY:
            kept.append(forward)
    return kept


_ANSWER_TRAILERS: Final = FieldParser()

"""Bodies in pieces, both ways: where they end, and in which form they go on.

A request body goes to the server as it came, by length or in chunks of our own; an answer's by length, in chunks, or to
the end of the stream, as far as the client's version allows. `take` turns what was received into what is to be sent;
`done` says that the body has ended, and then `rest` is what came after it. Nothing is ever gathered here.
"""

from __future__ import annotations

from typing import Protocol

from gateway.chunks import ChunkDecoder, RequestChunks, encode, encode_end
from gateway.errors import PeerError
from gateway.fields import FieldParser


class Body(Protocol):
    """One body on its way through."""

    done: bool
    rest: bytes
    received: int  # bytes of content so far

    def take(self, data: bytes) -> bytes:
        """What goes on of `data`. Not called once `done`, nor with nothing."""


class AnswerBody(Body, Protocol):
    """A body that may end with its stream."""

    def end(self) -> bytes:
        """The server's stream ended: what is still to be sent. Raises PeerError if the body is not whole."""


class LengthBody:
    """A body by Content-Length; of a request or an answer without one, by 0."""

    __slots__ = ("_left", "done", "received", "rest")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.rest = b""
        self.received = 0

    def take(self, data: bytes) -> bytes:
        left = self._left
        if len(data) > left:
            data, self.rest = data[:left], data[left:]
        self.received += len(data)
        self._left = left = left - len(data)
        self.done = left == 0
        return data

    def end(self) -> bytes:
        raise PeerError("answer_cut", f"{self._left} bytes of the body are missing")


class ChunkedRequest:
    """A client's chunked body, encoded anew."""

    __slots__ = ("_chunks", "_limit", "done", "received", "rest")

    def __init__(self, head: bytes, parser: FieldParser, limit: int | None) -> None:
        self._chunks = RequestChunks(head, parser)
        self._limit = limit
        self.done = False
        self.rest = b""
        self.received = 0

    def take(self, data: bytes) -> bytes:
        content = self._chunks.receive_data(data)
        self.received += len(content)
        if self._limit is not None and self.received > self._limit:
            raise PeerError("body_too_large", f"the body exceeds {self._limit} bytes")
        if not self._chunks.done:
            return encode(content)
        self.done = True
        self.rest = self._chunks.rest
        return encode(content) + encode_end(self._chunks.trailers)


class StreamedRequest:
    """An HTTP/2 client's body of no known length, in chunks; its stream says where it ends."""

    __slots__ = ("_limit", "done", "received", "rest")

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.done = False
        self.rest = b""
        self.received = 0

    def take(self, data: bytes) -> bytes:
        self.received += len(data)
        if self._limit is not None and self.received > self._limit:
            raise PeerError("body_too_large", f"the body exceeds {self._limit} bytes")
        return encode(data)

    def finish(self, trailers: list[bytes]) -> bytes:
        """The end of the body, with its trailers."""
        self.done = True
        return encode_end(trailers)


class ChunkedAnswer:
    """A server's chunked body: encoded anew, or for clients of other versions plain, with the trailers apart."""

    __slots__ = ("_decoder", "_plain", "done", "received", "rest")

    def __init__(self, plain: bool) -> None:
        self._decoder = ChunkDecoder()
        self._plain = plain
        self.done = False
        self.rest = b""
        self.received = 0

    def take(self, data: bytes) -> bytes:
        decoder = self._decoder
        content = decoder.receive_data(data)
        self.received += len(content)
        self.done = decoder.done
        if self.done:
            self.rest = decoder.rest
        if self._plain:
            return content
        return encode(content) + encode_end(decoder.trailers) if self.done else encode(content)

    @property
    def trailers(self) -> list[bytes]:
        return self._decoder.trailers

    def end(self) -> bytes:
        raise PeerError("answer_cut", "the answer ended within a chunk")


class UnboundedAnswer:
    """A server's body that ends with its connection (RFC 9112 §6.3, rule 8)."""

    __slots__ = ("_plain", "done", "received", "rest")

    def __init__(self, plain: bool) -> None:
        self._plain = plain
        self.done = False
        self.rest = b""
        self.received = 0

    def take(self, data: bytes) -> bytes:
        self.received += len(data)
        return data if self._plain else encode(data)

    def end(self) -> bytes:
        self.done = True
        return b"" if self._plain else encode_end([])


def answer_body(length: int, chunked: bool, plain: bool) -> AnswerBody:
    """The body of an answer with this length, -1 for none given. `plain`: it goes on without chunks."""
    if chunked:
        return ChunkedAnswer(plain)
    return LengthBody(length) if length >= 0 else UnboundedAnswer(plain)

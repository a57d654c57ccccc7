"""Bodies in pieces: where they end, and what they contain.

`take` turns what was received into content; `done` says that the body has ended, and then `rest` is what came after it
and `trailers` are its trailer lines. In which frames the content goes on is the other side's affair. Nothing is ever
gathered here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.chunks import ChunkDecoder, RequestChunks
from gateway.errors import PeerError
from gateway.fields import FieldParser


class Body(Protocol):
    """One body on its way through."""

    length: int  # in bytes; -1 where only its end tells
    done: bool
    rest: bytes
    received: int  # bytes of content so far

    @property
    def trailers(self) -> Sequence[bytes]:
        """Header lines that came after the content."""

    def take(self, data: bytes) -> bytes:
        """The content in `data`. Not called once `done`, nor with nothing."""


class AnswerBody(Body, Protocol):
    """A body that may end with its stream."""

    def end(self) -> None:
        """The server's stream ended. Raises PeerError if the body is not whole."""


class LengthBody:
    """A body by Content-Length; of a request or an answer without one, by 0."""

    __slots__ = ("_left", "done", "length", "received", "rest")

    trailers: Sequence[bytes] = ()

    def __init__(self, length: int) -> None:
        self.length = length
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

    def end(self) -> None:
        raise PeerError("answer_cut", f"{self._left} bytes of the body are missing")


class _Limited:
    """A request's body of no known length: counted against the route's limit."""

    __slots__ = ("_limit", "done", "received", "rest")

    length = -1

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.done = False
        self.rest = b""
        self.received = 0

    def count(self, size: int) -> None:
        """So much more came. Raises PeerError("body_too_large")."""
        self.received += size
        if self._limit is not None and self.received > self._limit:
            raise PeerError("body_too_large", f"the body exceeds {self._limit} bytes")


class ChunkedRequest(_Limited):
    """A client's chunked body."""

    __slots__ = ("_chunks",)

    def __init__(self, head: bytes, parser: FieldParser, limit: int | None) -> None:
        super().__init__(limit)
        self._chunks = RequestChunks(head, parser)

    def take(self, data: bytes) -> bytes:
        content = self._chunks.receive_data(data)
        self.count(len(content))
        if self._chunks.done:
            self.done = True
            self.rest = self._chunks.rest
        return content

    @property
    def trailers(self) -> Sequence[bytes]:
        return self._chunks.trailers


class StreamedRequest(_Limited):
    """An HTTP/2 client's body of no known length; its stream says where it ends."""

    __slots__ = ("trailers",)

    def __init__(self, limit: int | None) -> None:
        super().__init__(limit)
        self.trailers: Sequence[bytes] = ()

    def take(self, data: bytes) -> bytes:
        self.count(len(data))
        return data

    def finish(self, trailers: Sequence[bytes]) -> None:
        """The end of the body, with its trailers."""
        self.done = True
        self.trailers = trailers


class ChunkedAnswer:
    """A server's chunked body."""

    __slots__ = ("_decoder", "done", "received", "rest")

    length = -1

    def __init__(self) -> None:
        self._decoder = ChunkDecoder()
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
        return content

    @property
    def trailers(self) -> Sequence[bytes]:
        return self._decoder.trailers

    def end(self) -> None:
        raise PeerError("answer_cut", "the answer ended within a chunk")


class UnboundedAnswer:
    """A server's body that ends with its connection (RFC 9112 §6.3, rule 8)."""

    __slots__ = ("done", "received", "rest")

    length = -1
    trailers: Sequence[bytes] = ()

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.received = 0

    def take(self, data: bytes) -> bytes:
        self.received += len(data)
        return data

    def end(self) -> None:
        self.done = True


def answer_body(length: int, chunked: bool) -> AnswerBody:
    """The body of an answer with this length, -1 for none given."""
    if chunked:
        return ChunkedAnswer()
    return LengthBody(length) if length >= 0 else UnboundedAnswer()

"""An exchange whose client speaks HTTP/1.1 or HTTP/1.0: where its body comes from, and what it reads."""

from __future__ import annotations

from typing import Final

from gateway.chunks import encode, encode_end
from gateway.connection import Connection
from gateway.decisions import Decision
from gateway.errors import PeerError
from gateway.exchange import Exchange
from gateway.fields import CLOSE, KEEP_ALIVE, OLD
from gateway.framing import Body
from gateway.messages import Head
from gateway.plan import Route
from gateway.shared import Shared

_END: Final = b"\r\n\r\n"


class Http1Exchange(Exchange):
    """`tail` is the end of its answer's head."""

    def __init__(
        self, shared: Shared, connection: Connection, route: Route, decision: Decision[Route], payload: bytes,
        body: Body, flags: int, ip: str, tail: bytes,
    ) -> None:  # fmt: skip
        super().__init__(shared, connection, route, decision, payload, body, flags, ip)
        self.tail = tail
        self._chunking = False  # the answer's body leaves in chunks

    def _gone(self) -> bool:
        # A connection that is closed looks like one that is shut down for writing, until something is written. Whoever
        # shuts down and still reads is rare, and all who wait for an answer that nobody reads cost the server work.
        return self.stream.last and not self._upload and not self._to_client and self.route.abort_on_close

    def _read_body(self) -> bool:
        data = self.stream.recv_nowait()
        if data is None:
            return False
        if not data:
            self.reason = "client_gone"
            raise ConnectionResetError("the request body ended early")
        self._take_body(data)
        return True

    def _interim_head(self, lines: list[bytes]) -> bytes:
        return b"" if self.flags & OLD else b"\r\n".join(lines) + _END

    def _head(self, head: Head) -> bytes:
        lines, old = head.lines, bool(self.flags & OLD)
        unbounded = not head.bodiless and head.length < 0 and not head.ends
        if head.ends and head.length < 0 and not head.bodiless:
            lines.append(b"Content-Length: 0")
        # What the client has not sent of its body can't be told from its next request, once we stop reading it.
        closing = (
            not self.body.done
            or self.connection.listener.draining
            or bool(self.flags & CLOSE)
            or (old and (unbounded or not self.flags & KEEP_ALIVE))
        )
        self.reusable = not closing
        self._chunking = unbounded and not old
        if self._chunking:
            lines.append(b"Transfer-Encoding: chunked")
        if closing:
            lines.append(b"Connection: close")
        elif old:
            lines.append(b"Connection: keep-alive")
        return b"\r\n".join(lines) + self.tail

    def _content(self, data: bytes) -> bytes:
        return encode(data) if self._chunking else data

    def _end(self, trailers: list[bytes]) -> bytes:
        return encode_end(trailers) if self._chunking else b""

    def _cut(self, error: PeerError) -> None:
        if self.flags & OLD:  # a body without a frame of its own would look whole after an orderly end
            self.stream.abort()

    def _switch(self, lines: list[bytes]) -> bytes:
        self.status = 101
        lines += (b"Connection: Upgrade", b"Upgrade: websocket")
        return b"\r\n".join(lines) + self.tail

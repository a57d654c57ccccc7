"""One request on one HTTP/1.1 connection to a server: what goes out, in its frames, and what comes back, out of them.

Bytes in, messages out; the exchange decides what they mean, and whether to try elsewhere. A connection on which all
that was asked was answered, and nothing else was said, goes back to where it can be used again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway.answers import find_answer_end, has_no_body
from gateway.chunks import encode, encode_end
from gateway.errors import PeerError
from gateway.fields import CHUNKED, CLOSE, OLD
from gateway.framing import AnswerBody, Body, answer_body
from gateway.messages import MAX_INTERIM, Content, End, Head, Interim, Lost, Message, Switch
from supervisor.ground.lane import Session
from supervisor.ground.pools import Server
from supervisor.plane.layout import Server as ServerCells

if TYPE_CHECKING:
    from gateway.shared import Shared

_END: Final = b"\r\n\r\n"
_BYTES_IN, _BYTES_OUT = ServerCells.BYTES_IN, ServerCells.BYTES_OUT


class Call(Protocol):
    """One try of a request, on a connection or a stream to `server`. Raises Lost where that ends too early, and
    PeerError("bad_answer") where what it says is no answer."""

    server: Server
    kept: bool  # the connection had carried requests before
    heard: bool  # the server has said something
    sent: int  # bytes that went out
    refused: bool  # the server takes no more of the request

    def attach(self, session: Session) -> None:
        """Wake this session when there is news."""

    @property
    def sending(self) -> bool:
        """Whether something waits to go out; only one piece may."""

    def send(self, content: bytes, trailers: Sequence[bytes] | None) -> None:
        """The next piece of the request's body; with `trailers` (maybe none) it is the last."""

    def write(self) -> bool:
        """Let out what can go; False if nothing could."""

    def receive(self) -> list[Message] | None:
        """What the server said since; None if nothing was there. At most one read of the body at a time."""

    def release(self) -> None:
        """The answer is complete: give the connection back, or close it."""

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""


class Http1Call:
    """A request by HTTP/1.1. `payload` is its head with as much of its body as is there; of a body without a length the
    content, to be put in chunks."""

    __slots__ = (
        "_answer", "_body", "_chunked", "_head", "_head_request", "_interim", "_out", "_reusable", "_shared", "_whole",
        "conn", "heard", "kept", "refused", "sent", "server",
    )  # fmt: skip

    def __init__(
        self, shared: Shared, server: Server, conn: Any, kept: bool, payload: bytes, body: Body, head_request: bool
    ) -> None:
        self._shared = shared
        self.server = server
        self.conn = conn
        self.kept = kept
        self._head_request = head_request
        self._chunked = body.length < 0
        if self._chunked:
            at = payload.index(_END) + 4
            payload = payload[:at] + encode(payload[at:]) + (encode_end(list(body.trailers)) if body.done else b"")
        self._out: bytes | memoryview = payload
        self._whole = body.done  # nothing of the request is still to come
        self.heard = False
        self.sent = 0
        self.refused = False
        self._answer = b""  # received on the express lane, and not yet looked at
        self._head = b""  # of a head that is not complete
        self._interim = 0
        self._body: AnswerBody | None = None
        self._reusable = False

    def take_over(self, sent: int, answer: bytes) -> None:
        """Go on from the express lane: `sent` bytes of the payload went out, `answer` came back."""
        if not answer:
            self.conn.readable = True  # an error or an end of the stream may have been met already: look again
        self._out = memoryview(self._out)[sent:]
        self.sent = sent
        self._answer = answer
        self.heard = bool(answer)
        cells, base = self._shared.cells, self.server.base
        cells[base + _BYTES_OUT] += sent
        cells[base + _BYTES_IN] += len(answer)

    def attach(self, session: Session) -> None:
        self.conn.waiter = session

    # -- the request

    @property
    def sending(self) -> bool:
        return bool(self._out)

    def send(self, content: bytes, trailers: Sequence[bytes] | None) -> None:
        if trailers is not None:
            self._whole = True
        if self._chunked:
            content = encode(content)
            if trailers is not None:
                content += encode_end(list(trailers))
        self._out = content

    def write(self) -> bool:
        try:
            sent: int = self.conn.send_nowait(self._out)
        except OSError:
            # It reads no more. It may have said why before: whatever it sent is still to be read.
            self.conn.readable = True
            self.refused = True
            self._out = b""
            return True
        if not sent:
            return False
        self.sent += sent
        self._shared.cells[self.server.base + _BYTES_OUT] += sent
        self._out = b"" if sent == len(self._out) else memoryview(self._out)[sent:]
        return True

    # -- the answer

    def receive(self) -> list[Message] | None:
        data: bytes | None
        if self._answer:
            data, self._answer = self._answer, b""
            return self._read(data)
        try:
            data = self.conn.recv_nowait()
        except OSError:
            raise Lost("the server reset its connection") from None
        if data is None:
            return None
        if not data:
            return self._ended()
        self.heard = True
        self._shared.cells[self.server.base + _BYTES_IN] += len(data)
        return self._read(data)

    def _ended(self) -> list[Message]:
        self._reusable = False
        if self._body is None:
            raise Lost("the server closed without an answer")
        self._body.end()
        return [End([])]

    def _read(self, data: bytes) -> list[Message]:
        messages: list[Message] = []
        if self._body is None:
            data = self._read_heads(self._head + data, messages)
        body = self._body
        if body is None:
            return messages
        if data and not body.done:
            content = body.take(data)
            data = body.rest
            if content:
                messages.append(Content(content))
        if data:
            self._reusable = False  # it speaks without being asked: nothing on it can be believed
        if body.done:
            messages.append(End(list(body.trailers)))
        return messages

    def _read_heads(self, data: bytes, messages: list[Message]) -> bytes:
        """Every head in `data`, up to the final one; what comes after that."""
        while data:
            end = find_answer_end(data)
            if end < 0:
                break
            head, data = data[:end], data[end + 4 :]
            status, lines, flags, length, dated = self._shared.answers.judge(head, end)
            if status >= 200:
                self._head = b""
                bodiless = has_no_body(status, self._head_request)
                chunked = bool(flags & CHUNKED) and not bodiless
                self._body = answer_body(0 if bodiless else length, chunked)
                self._reusable = not flags & (CLOSE | OLD) and (bodiless or length >= 0 or chunked)
                messages.append(Head(status, lines, length, dated, bodiless, self._body.done))
                return data
            if status == 101:
                messages.append(Switch(lines, data, self.conn, self._moved))
                return b""
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise PeerError("bad_answer", "interim answers without end")
            messages.append(Interim(lines))
        self._head = data
        return b""

    def _moved(self, up: int, down: int) -> None:
        cells, base = self._shared.cells, self.server.base
        cells[base + _BYTES_OUT] += up
        cells[base + _BYTES_IN] += down

    # -- endings

    def release(self) -> None:
        if self._reusable and self._whole and not self._out and not self.refused:
            self._shared.upstreams.keep(self.server, self.conn)
        else:
            self._shared.upstreams.close(self.conn)

    def abandon(self) -> None:
        self._shared.upstreams.close(self.conn)

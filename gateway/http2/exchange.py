"""An Exchange whose client speaks HTTP/2: the same carrying, in frames of a stream instead of bytes of a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import grpc
from gateway.chunks import kept_trailers
from gateway.errors import PeerError
from gateway.exchange import Exchange
from gateway.framing import Body, StreamedRequest
from gateway.http2.errors import INTERNAL_ERROR
from gateway.http2.frames import MAX_FRAME
from gateway.http2.pipe import Pipe
from gateway.http2.streams import CLOSED
from gateway.messages import Head
from gateway.tunnel import Farewell
from gateway.websocket import as_answer

if TYPE_CHECKING:
    from gateway.http2.errand import Errand


class StreamExchange(Exchange):
    """Carries one errand. `payload` is the request's head, with its body if that came whole."""

    def __init__(self, errand: Errand, payload: bytes, body: Body, flags: int) -> None:
        link, route, decision = errand.link, errand.route, errand.decision
        assert route is not None
        assert decision is not None
        super().__init__(link.shared, link.connection, route, decision, payload, body, flags, errand.ip)
        self.stream = errand
        self._errand = errand
        self._core = link.core
        self._trailers: list[bytes] = []
        self._is_call = grpc.is_call(errand.stream.head.lines)
        if self._is_call:
            now, seconds = self.lane.now, grpc.deadline(payload)
            self._patience.converse(now, seconds)
            self._calling.by = 0.0 if seconds is None else now + seconds

    def _blocked(self) -> bool:
        # The connection's window is full of what other streams' servers have not taken yet.
        return self._core.recv_window < MAX_FRAME

    def _read_body(self) -> bool:
        stream = self._errand.stream
        data = self._core.read_body(stream)
        if data:
            self._take_body(data)
            self._errand.link.wake()  # the client's window may be due
            return True
        if stream.state == CLOSED:
            raise ConnectionResetError("the stream was reset")
        if not stream.whole or not isinstance(self.body, StreamedRequest):
            return False
        parser = self._errand.plan.guard.parser
        self.body.finish(kept_trailers(parser, stream.trailers, "bad_body"))
        self._send_body(b"", self.body.trailers)
        return True

    def _interim_head(self, lines: list[bytes]) -> bytes:
        self._core.send_head(self._errand.stream, self.shared.blocks.encode(lines))
        self._errand.link.wake()
        return b""

    def _head(self, head: Head) -> bytes:
        block = self.shared.blocks.encode(head.lines) + self._errand.tail()
        self.bytes_out += len(block)
        self._core.send_head(self._errand.stream, block, end=head.ends)
        self._errand.link.wake()
        return b""

    def _content(self, data: bytes) -> bytes:
        return data

    def _end(self, trailers: list[bytes]) -> bytes:
        self._trailers = trailers
        return b""

    def _switch(self, lines: list[bytes]) -> bytes:
        self.status = 200
        self._errand.stream.tunnel = True
        block = self.shared.blocks.encode(as_answer(lines)) + self._errand.tail()
        self.bytes_out += len(block)
        self._core.send_head(self._errand.stream, block)
        self._errand.link.wake()
        return b""

    def _end_of_client(self) -> Pipe:
        return Pipe(self._core, self._errand.stream, self._errand.link.wake)

    def _farewell(self) -> Farewell:
        farewell = self._errand.farewell = Farewell()
        farewell.asked = self.connection.listener.draining
        return farewell

    def _cut(self, error: PeerError) -> None:
        # Without a frame of its own it must not look whole.
        stream, core = self._errand.stream, self._core
        if self._is_call:
            core.send_end(stream, self.shared.blocks.encode(grpc.status_lines(error.code, error.status, error.detail)))
        else:
            core.reset(stream, INTERNAL_ERROR)

    def finish(self) -> None:
        """The answer is complete."""
        self._core.send_end(self._errand.stream, self.shared.blocks.encode(self._trailers))
        self._errand.link.wake()

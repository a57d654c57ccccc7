"""A stream of HTTP/2 as a tunnel sees an end of its own: bytes both ways, with ends of their own (RFC 8441 §5)."""

from __future__ import annotations

from collections.abc import Callable

from gateway.http2.endpoint import Endpoint
from gateway.http2.streams import CLOSED, Stream
from supervisor.ground.lane import Session


class Pipe:
    """The DATA of one stream. `wake` is called when the connection has something to write. Raises OSError once the
    stream is reset."""

    __slots__ = ("_core", "_stream", "_wake", "waiter")

    def __init__(self, core: Endpoint, stream: Stream, wake: Callable[[], None]) -> None:
        self._core = core
        self._stream = stream
        self._wake = wake
        self.waiter: Session | None = None  # whoever owns the stream knows whom to wake

    def recv_nowait(self) -> bytes | None:
        stream = self._stream
        if stream.body:
            data = self._core.read_body(stream)
            self._wake()  # the peer's window may be due
            return data
        if stream.state == CLOSED and stream.reset >= 0:
            raise ConnectionResetError("the stream was reset")
        return b"" if stream.whole else None

    def send_nowait(self, data: bytes | memoryview) -> int:
        taken = self._core.send_body(self._stream, data)
        if taken:
            self._wake()
        return taken

    def shutdown_write(self) -> None:
        self._core.send_end(self._stream)
        self._wake()

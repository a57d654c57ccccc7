"""A stream of HTTP/2 as a tunnel sees its client's end: bytes both ways, with ends of their own (RFC 8441 §5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.http2.streams import CLOSED
from supervisor.ground.lane import Session

if TYPE_CHECKING:
    from gateway.http2.errand import Errand


class Pipe:
    """The DATA of one stream. Raises OSError once it is reset."""

    __slots__ = ("_errand", "waiter")

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self.waiter: Session | None = None  # the errand's child is woken

    def recv_nowait(self) -> bytes | None:
        errand = self._errand
        stream = errand.stream
        if stream.body:
            data = errand.link.core.read_body(stream)
            errand.link.wake()  # the client's window may be due
            return data
        if stream.state == CLOSED and stream.reset >= 0:
            raise ConnectionResetError("the stream was reset")
        return b"" if stream.whole else None

    def send_nowait(self, data: bytes | memoryview) -> int:
        return self._errand.send_nowait(data)

    def shutdown_write(self) -> None:
        self._errand.link.core.send_end(self._errand.stream)
        self._errand.link.wake()

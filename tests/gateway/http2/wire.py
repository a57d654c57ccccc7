"""Both ends of an HTTP/2 connection in memory: the core, and h2 as its client; and frames by hand for what h2 refuses
to send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events
from hpack import Encoder

from gateway.http2 import frames
from gateway.http2.blocks import BlockEncoder
from gateway.http2.connection import Http2Connection
from gateway.http2.frames import END_HEADERS, END_STREAM, HEADERS, PREFACE
from gateway.http2.streams import Stream

GET = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")]
POST = [(b":method", b"POST"), *GET[1:]]
HELLO = PREFACE + frames.settings({})
ENCODER = BlockEncoder()


def block(fields: list[tuple[bytes, bytes]]) -> bytes:
    """A header block that changes no table."""
    return bytes(Encoder().encode([(name, value, True) for name, value in fields]))


def head(stream: int, fields: list[tuple[bytes, bytes]] = GET, end: bool = True) -> bytes:
    return frames.frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(fields))


def read_frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, stream, payload) of whole frames."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 3], "big")
        yield data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big"), data[at + 9 : at + 9 + length]
        at += 9 + length
    assert at == len(data)


def ready() -> Http2Connection:
    """A connection after its greetings."""
    core = Http2Connection()
    assert core.receive_data(HELLO, 1.0) == []
    core.data_to_send(1.0)
    return core


def sent(core: Http2Connection, kind: int) -> list[tuple[int, int, bytes]]:
    """(flags, stream, payload) of the frames of this type among what is to be sent."""
    return [one[1:] for one in read_frames(core.data_to_send(core.now)) if one[0] == kind]


class Pair:
    """The core and a client of h2's, with no wire but these bytes. `piece`: how many of them the core gets at once."""

    def __init__(self, piece: int = 1 << 20, settings: dict[Any, int] | None = None) -> None:
        self.core = Http2Connection()
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.client.initiate_connection()
        if settings:
            self.client.update_settings(settings)
        self.piece = piece
        self.now = 1.0
        self.streams: dict[int, Stream] = {}
        self.events: list[Any] = []
        self.exchange()

    def exchange(self) -> None:
        """Let everything through, both ways, until nobody has anything to say."""
        while True:
            up = self.client.data_to_send()
            for start in range(0, len(up), self.piece):
                for stream in self.core.receive_data(up[start : start + self.piece], self.now):
                    self.streams[stream.id] = stream
            down = self.core.data_to_send(self.now)
            if not up and not down:
                return
            self.events += self.client.receive_data(down)

    def of(self, kind: type, stream: int) -> list[Any]:
        return [one for one in self.events if isinstance(one, kind) and one.stream_id == stream]

    def body(self, stream: int) -> bytes:
        return b"".join(one.data for one in self.of(h2.events.DataReceived, stream))

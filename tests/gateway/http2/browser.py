"""A client of HTTP/2 in memory, by h2."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events

from tests.gateway.house import PLAIN, Client, House

HTTP2 = PLAIN.replace('80"', '80"\nhttp2 = true')


class Browser:
    """A client of one connection, by h2."""

    def __init__(self, house: House, capacity: int = 1 << 16, ip: str = "192.0.2.1") -> None:
        self.house = house
        self.wire: Client = house.connect(ip, capacity=capacity)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="ascii"))
        self.h2.initiate_connection()
        self.events: list[Any] = []
        self.next_id = 1
        self.go()

    def go(self) -> None:
        """Send what there is to send, and take what there is to take."""
        while True:
            up = self.h2.data_to_send()
            if up:
                self.wire.send(up)
            down = self.wire.take()
            self.events += self.h2.receive_data(down)
            if not up and not down:
                return

    def ask(self, path: str = "/", body: bytes | None = None, end: bool = True, **fields: str) -> int:
        stream, self.next_id = self.next_id, self.next_id + 2
        method = "GET" if body is None else "POST"
        given = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)]
        self.h2.send_headers(stream, [*given, *((name.replace("_", "-"), value) for name, value in fields.items())],
                             end_stream=body is None and end)  # fmt: skip
        if body is not None and (body or end):
            self.h2.send_data(stream, body, end_stream=end)
        self.go()
        return stream

    def of(self, kind: type, stream: int) -> list[Any]:
        self.go()
        return [one for one in self.events if isinstance(one, kind) and one.stream_id == stream]

    def status(self, stream: int) -> int:
        [response] = self.of(h2.events.ResponseReceived, stream)
        return int(dict(response.headers)[":status"])

    def fields(self, stream: int) -> dict[str, str]:
        [response] = self.of(h2.events.ResponseReceived, stream)
        return dict(response.headers)

    def body(self, stream: int) -> bytes:
        return b"".join(one.data for one in self.of(h2.events.DataReceived, stream))

    def ended(self, stream: int) -> bool:
        return bool(self.of(h2.events.StreamEnded, stream))

    def reset(self, stream: int) -> int | None:
        found = self.of(h2.events.StreamReset, stream)
        return found[0].error_code if found else None

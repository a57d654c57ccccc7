"""A server of HTTP/2 that the test plays, by h2, behind a connection of the gateway in memory."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events

from gateway.http2.frames import PREFACE
from supervisor.ground.net.memory import MemoryConn
from tests.gateway.house import House

Fields = list[tuple[str, str]]


class FarServer:
    """The other end of the gateway's connection to 127.0.0.1:port; `number` counts such connections."""

    def __init__(self, house: House, number: int = -1, port: int = 8001, **settings: int) -> None:
        self.house = house
        house.lane.run()
        self.end: MemoryConn = house.server(number, port)
        config = h2.config.H2Configuration(client_side=False, header_encoding="ascii", validate_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        if settings:
            codes = {getattr(h2.settings.SettingCodes, name.upper()): value for name, value in settings.items()}
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values=codes)
        self.h2.initiate_connection()
        self.events: list[Any] = []
        self.go()

    def go(self) -> None:
        """Send what there is to send, and take what there is to take."""
        while True:
            up = self.h2.data_to_send()
            if up:
                self.house.lane.feed(self.end, up)
            self.house.lane.run()
            down = self.end.take()
            if down:
                assert self.events or down.startswith(PREFACE)
                self.events += self.h2.receive_data(down)
            if not up and not down:
                return

    def of(self, kind: type, stream: int | None = None) -> list[Any]:
        self.go()
        return [
            one for one in self.events if isinstance(one, kind) and stream in (None, getattr(one, "stream_id", None))
        ]

    def requests(self) -> list[dict[str, str]]:
        """The heads of all requests so far."""
        return [dict(one.headers) for one in self.of(h2.events.RequestReceived)]

    def body(self, stream: int, give_back: bool = True) -> bytes:
        """The content of a request so far; its window is given back."""
        found = self.of(h2.events.DataReceived, stream)
        for one in found if give_back else ():
            if not hasattr(one, "given"):
                one.given = True
                if one.flow_controlled_length:
                    self.h2.acknowledge_received_data(one.flow_controlled_length, stream)
        self.go()
        return b"".join(one.data for one in found)

    def ended(self, stream: int) -> bool:
        return bool(self.of(h2.events.StreamEnded, stream))

    def trailers(self, stream: int) -> dict[str, str]:
        [found] = self.of(h2.events.TrailersReceived, stream)
        return dict(found.headers)

    def reset(self, stream: int) -> int | None:
        found = self.of(h2.events.StreamReset, stream)
        return int(found[0].error_code) if found else None

    def answer(
        self, stream: int, body: bytes | None = b"ok", status: int = 200, fields: Fields | None = None,
        trailers: Fields | None = None, end: bool = True,
    ) -> None:  # fmt: skip
        """Answer; without a body (None) the head is all."""
        self.go()
        self.h2.send_headers(stream, [(":status", str(status)), *(fields or [])], end_stream=body is None and end)
        if body is not None:
            self.send(stream, body, trailers, end)
        self.go()

    def send(self, stream: int, body: bytes, trailers: Fields | None = None, end: bool = True) -> None:
        """A piece of an answer's body, as far as the windows are open."""
        size = self.h2.max_outbound_frame_size
        for at in range(0, len(body), size):
            last = at + size >= len(body)
            self.h2.send_data(stream, body[at : at + size], end_stream=end and last and trailers is None)
        if not body and end and trailers is None:
            self.h2.end_stream(stream)
        if trailers is not None:
            self.h2.send_headers(stream, trailers, end_stream=True)
        self.go()

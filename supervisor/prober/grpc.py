"""The grpc check: Health/Check of grpc.health.v1 over HTTP/2 without TLS; SERVING passes.

The protocol: https://github.com/grpc/grpc/blob/master/doc/health-checking.md. Both messages have one field, so their
Protocol Buffers are written and read here. `h2` speaks HTTP/2.
"""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import trio

from supervisor.ground.config import HealthTable
from supervisor.prober.failure import CheckFailed

PATH = "/grpc.health.v1.Health/Check"
CHUNK = 16 * 1024
MAX_MESSAGE = 1024  # bytes; an answer has two
STREAM = 1  # a client's first

_STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_SERVING = 1
_SERVICE_TAG, _STATUS_TAG = 0x0A, 0x08  # field 1 as a string; field 1 as a number


async def check_grpc(stream: trio.abc.Stream, check: HealthTable, default_host: str) -> None:
    """Ask and judge. Raises CheckFailed, trio.BrokenResourceError."""
    core = GrpcCheck(check, default_host)
    while core.answer is None:
        if data := core.data_to_send():
            await stream.send_all(data)
        core.receive_data(bytes(await stream.receive_some(CHUNK)))
    core.judge()


class GrpcCheck:
    """One call, without I/O. `answer` is None until the call is over."""

    def __init__(self, check: HealthTable, default_host: str) -> None:
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self._http = h2.connection.H2Connection(config)
        self._http.initiate_connection()
        self._http.send_headers(
            STREAM,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", PATH),
                (":authority", check.host or default_host),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("user-agent", "portway-health-check"),
            ],
        )
        self._http.send_data(STREAM, request(check.service or ""), end_stream=True)
        self._body = b""
        self._fields: dict[str, str] = {}
        self.answer: bytes | None = None

    def data_to_send(self) -> bytes:
        return bytes(self._http.data_to_send())

    def receive_data(self, data: bytes) -> None:
        """Raises CheckFailed for what is no HTTP/2 and for a call that was cut off."""
        if not data:
            raise CheckFailed("the connection ended before the answer")
        if data.startswith(b"HTTP/1"):  # as a frame it would only be very long
            raise CheckFailed("not HTTP/2: an answer of HTTP/1")
        try:
            events = self._http.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            raise CheckFailed(f"not HTTP/2: {error or type(error).__name__}") from None
        for event in events:
            match event:
                case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                    self._fields.update((str(name), str(value)) for name, value in event.headers)
                case h2.events.DataReceived():
                    self._body += event.data
                    if len(self._body) > MAX_MESSAGE:
                        raise CheckFailed(f"an answer of more than {MAX_MESSAGE} bytes")
                case h2.events.StreamEnded():
                    self.answer = self._body
                case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                    raise CheckFailed(f"the call was refused with HTTP/2 error {int(event.error_code or 0)}")

    def judge(self) -> None:
        """Raises CheckFailed unless the answer is SERVING."""
        status = self._fields.get(":status")
        if status != "200":
            raise CheckFailed(f"status {status}")
        code = self._fields.get("grpc-status", "missing")
        if code != "0":
            raise CheckFailed(f"grpc-status {code} {self._fields.get('grpc-message', '')}".rstrip())
        serving = parse(self.answer or b"")
        if serving != _SERVING:
            raise CheckFailed(_STATUS.get(serving, f"health {serving}"))


def request(service: str) -> bytes:
    """HealthCheckRequest behind the five bytes of a message: not compressed, its length."""
    name = service.encode()
    message = bytes((_SERVICE_TAG,)) + _varint(len(name)) + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def parse(body: bytes) -> int:
    """The status of a HealthCheckResponse; a field that is left out is 0. Raises CheckFailed."""
    length = int.from_bytes(body[1:5], "big")
    message = body[5 : 5 + length]
    if len(body) < 5 or body[0] != 0 or len(message) != length:
        raise CheckFailed("not a gRPC message")
    if not message:
        return 0
    if message[0] != _STATUS_TAG or len(message) != 2 or message[1] > 0x7F:
        raise CheckFailed("not a HealthCheckResponse")
    return message[1]


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*encoded, number))

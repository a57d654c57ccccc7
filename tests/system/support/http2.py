"""A plain HTTP/2 client, one request at a time, that goes on as RFC 9113 §6.8 has it when a GOAWAY comes.

(h2 takes a GOAWAY for the end of everything, and can't read the answers that still follow it.)
"""

import socket
import ssl
import struct

import hpack

from tests.system.support.clients import connect

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8  # RFC 9113 §6
END_STREAM, ACK, END_HEADERS = 1, 1, 4


class Http2Client:
    """A connection. `going` once the server has said GOAWAY: no other request may follow."""

    def __init__(self, address: str, tls: ssl.SSLContext) -> None:
        self.address = address
        self.going = False
        self._last = 0
        self._stream = -1
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        sock = connect(address)
        try:
            self._sock: socket.socket = tls.wrap_socket(sock, server_hostname="localhost")
            self._sock.sendall(PREFACE + frame(SETTINGS, 0, 0))
        except BaseException:
            sock.close()
            raise
        self._reader = self._sock.makefile("rb")

    def get(self, path: str, headers: dict[str, str]) -> tuple[int, bytes] | None:
        """Status and body; None where the server has not taken the request, so that it may be sent again elsewhere.
        Raises OSError when the connection ends before that."""
        self._stream += 2
        head = [(":method", "GET"), (":scheme", "https"), (":authority", self.address), (":path", path)]
        head += [(name.lower(), value) for name, value in headers.items()]
        block = self._encoder.encode(head)
        self._sock.sendall(frame(HEADERS, END_STREAM | END_HEADERS, self._stream, block))
        status, body = 0, b""
        while True:
            kind, flags, stream, payload = self._read()
            if kind == DATA:
                if payload:
                    more = struct.pack(">I", len(payload))
                    self._sock.sendall(frame(WINDOW_UPDATE, 0, 0, more))
                body += payload
            elif kind == HEADERS:
                fields = dict(self._decoder.decode(payload))
                status = int(fields[":status"])
            elif kind == RST_STREAM:
                raise ConnectionResetError(f"stream reset by {payload!r}")
            elif kind in (SETTINGS, PING) and not flags & ACK:
                self._sock.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind == GOAWAY:
                self.going = True
                self._last = struct.unpack_from(">I", payload)[0]
            if self.going and self._last < self._stream:
                return None
            if kind in (DATA, HEADERS) and stream == self._stream and flags & END_STREAM:
                return status, body

    def close(self) -> None:
        self._reader.close()
        self._sock.close()

    def _read(self) -> tuple[int, int, int, bytes]:
        """The next frame: type, flags, stream, payload."""
        head = self._reader.read(9)
        if len(head) < 9:
            raise ConnectionResetError("the connection ended")
        size, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
        payload = self._reader.read(size)
        if len(payload) < size:
            raise ConnectionResetError("the connection ended")
        return kind, flags, stream, payload


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113 §4.1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

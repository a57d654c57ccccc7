"""Clients: one HTTP request at a time, and bytes as they are; every socket is closed again.

Both are blocking and bounded. They tell what was there, and judge nothing.
"""

import http.client
import json
import socket
import ssl
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

TIMEOUT = 20.0  # s for any single wait


@attrs.frozen
class Response:
    """An answer; the names of its headers are lower-cased, repeated ones joined by a comma."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    def seen(self, name: str) -> list[str]:
        """For the echoing backend: the values that reached it in header `name`, in order."""
        return [value for key, value in self.json()["headers"] if key.lower() == name.lower()]


def split(address: str) -> tuple[str, int]:
    """host:port as socket wants it."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def trusting(authority: Path | None) -> ssl.SSLContext:
    """A TLS context that trusts this authority; every certificate when there is none."""
    context = ssl.create_default_context(cafile=str(authority) if authority else None)
    if authority is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Client:
    """A keep-alive HTTP/1.1 client of one address, plain or TLS; a context manager."""

    def __init__(
        self,
        address: str,
        tls: ssl.SSLContext | None = None,
        server_name: str = "localhost",
        timeout: float = TIMEOUT,
        source: str = "",
    ) -> None:
        self.connection = http.client.HTTPConnection(*split(address), timeout=timeout)
        sock = connect(address, timeout, source)
        try:
            self.connection.sock = tls.wrap_socket(sock, server_hostname=server_name) if tls else sock
        except BaseException:
            sock.close()
            raise
        self.connection.auto_open = 0  # a lost connection is an error here, not something to mend

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
    ) -> Response:
        """One request and its whole answer. An iterable body goes out chunked."""
        chunked = body is not None and not isinstance(body, bytes)
        self.connection.request(method, target, body, dict(headers or {}), encode_chunked=chunked)
        answer = self.connection.getresponse()
        content = answer.read()
        folded: dict[str, str] = {}
        for key, value in answer.getheaders():
            low = key.lower()
            folded[low] = f"{folded[low]}, {value}" if low in folded else value
        return Response(answer.status, folded, content)

    def get(self, target: str, headers: Mapping[str, str] | None = None) -> Response:
        """A GET."""
        return self.request("GET", target, headers)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def fetch(
    address: str,
    target: str = "/",
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | Iterable[bytes] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Response:
    """One request on a connection of its own."""
    with Client(address, tls) as client:
        return client.request(method, target, headers, body)


def connect(address: str, timeout: float = TIMEOUT, source: str = "") -> socket.socket:
    """A TCP connection, from the address `source` if one is given; the caller closes it."""
    sock = socket.create_connection(split(address), timeout, (source, 0) if source else None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_all(sock: socket.socket) -> bytes:
    """All until the end of file."""
    found = []
    while data := sock.recv(1 << 16):
        found.append(data)
    return b"".join(found)


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """Bytes until `end` was read, or until the end of file."""
    found = b""
    while end not in found:
        data = sock.recv(1 << 16)
        if not data:
            break
        found += data
    return found


def raw(address: str, data: bytes, half_close: bool = False, timeout: float = TIMEOUT) -> bytes:
    """Send these bytes, then read until the other side closes."""
    with connect(address, timeout) as sock:
        sock.sendall(data)
        if half_close:
            sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class UdpClient:
    """A UDP socket from one source port; a context manager."""

    def __init__(self, address: str, timeout: float = TIMEOUT, source: str = "") -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.settimeout(timeout)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect(split(address))

    def ask(self, data: bytes) -> Any:
        """Send a datagram and read the backend's JSON answer."""
        self.sock.send(data)
        return self.answer()

    def answer(self) -> Any:
        """Read an answer."""
        return json.loads(self.sock.recv(65535))

    def __enter__(self) -> "UdpClient":
        return self

    def __exit__(self, *_error: object) -> None:
        self.sock.close()

"""The PROXY header that a connection must begin with, read. Its format is `proxy`'s, whom to believe the listener's."""

from __future__ import annotations

import socket
from typing import Any

from supervisor.ground.lane import PARK
from supervisor.ground.net import proxy
from supervisor.ground.net.proxy import ProxyHeader

_DISCARD = 4096  # bytes a read, of a header that is known already


async def introduced(conn: Any) -> tuple[ProxyHeader, bytes]:
    """The header, and what was read beyond it. Raises ProxyError, OSError."""
    data = b""
    while True:
        more = await conn.recv()
        if not more:
            raise ConnectionResetError("closed within the PROXY header")
        data += more
        found = proxy.decode(data)
        if found is not None:
            header, size = found
            return header, data[size:]


async def peeked(conn: Any) -> ProxyHeader:
    """The same where TLS reads the socket itself: exactly the header is taken off it."""
    while True:
        try:
            data = conn.sock.recv(proxy.MAX_V2, socket.MSG_PEEK)
        except BlockingIOError:
            data = None
        if data == b"":
            raise ConnectionResetError("closed within the PROXY header")
        found = None if data is None else proxy.decode(data)
        if found is not None:
            header, left = found
            while left:
                left -= len(conn.sock.recv(min(left, _DISCARD)))
            conn.readable = True
            return header
        if data is not None and conn.last:
            raise ConnectionResetError("closed within the PROXY header")
        # Every segment that arrives makes an edge, whether or not the ones before it were read.
        conn.readable = False
        while not conn.readable:
            await PARK

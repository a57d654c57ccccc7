"""Requests that belong together go to one server: by a cookie of ours that names it, or by the hash of what they say.

A cookie holds for exactly one server, and while that takes no work another gets the client, and a new cookie. A hash
moves only the clients of a server that is away (see `balance`), and needs no memory on either side. What stands in the
cookie is a digest: nobody learns the addresses of servers from it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from gateway.route_tables import StickyTable
from supervisor.ground.pools import Pool, Server

_COOKIES = re.compile(rb"\r\ncookie:([^\r\n]*)", re.IGNORECASE).finditer
_DIGEST: Final = 8  # bytes: two of a pool's servers never share it by chance


class Sticky:
    """What one route asks for. `payload` is always a request with its head for a server of HTTP/1.1."""

    __slots__ = ("_cookie", "_field", "_max_age", "_tokens")

    def __init__(self, table: StickyTable) -> None:
        kind, _, name = (table.hash or "").partition(":")
        self._cookie = (table.cookie or (name if kind == "cookie" else "")).encode()
        self._field = re.compile(rb"\r\n%b:([^\r\n]*)" % re.escape(name.encode()), re.IGNORECASE).search
        self._max_age = b"" if table.max_age is None else b"; Max-Age=%d" % int(table.max_age)
        self._tokens: dict[str, bytes] | None = {} if table.cookie is not None else None

    def key(self, payload: bytes, ip: str) -> str | bytes:
        """What balancing goes by: what is hashed, or the address where the request does not have it."""
        if self._tokens is not None:
            return ip
        head = payload[: payload.index(b"\r\n\r\n")]
        if self._cookie:
            return self._given(head) or ip
        match = self._field(head)
        return (match[1].strip(b" \t") if match else b"") or ip

    def server(self, pool: Pool, payload: bytes) -> Server | None:
        """The server that the request's cookie names, if it may go on there: draining ones keep their clients."""
        if self._tokens is None:
            return None
        given = self._given(payload[: payload.index(b"\r\n\r\n")])
        if not given:
            return None
        found = next((one for one in pool.servers if self._token(one) == given), None)
        return found if found is not None and found.usable() else None

    def mark(self, server: Server, payload: bytes, secure: bool) -> bytes:
        """The line that tells the client to come back to this server; b"" if it knows."""
        if self._tokens is None:
            return b""
        token = self._token(server)
        if self._given(payload[: payload.index(b"\r\n\r\n")]) == token:
            return b""
        attributes = b"; Secure" if secure else b""
        return b"Set-Cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax%b%b" % (
            self._cookie, token, attributes, self._max_age)  # fmt: skip

    def _token(self, server: Server) -> bytes:
        assert self._tokens is not None
        token = self._tokens.get(server.name)
        if token is None:
            digest = hashlib.blake2b(server.name.encode(), digest_size=_DIGEST, person=b"portway sticky")
            token = self._tokens[server.name] = digest.hexdigest().encode()
        return token

    def _given(self, head: bytes) -> bytes:
        """The value of the cookie in this head; b"" without one."""
        for line in _COOKIES(head):
            for pair in line[1].split(b";"):
                name, _, value = pair.strip(b" \t").partition(b"=")
                if name == self._cookie:
                    return value
        return b""


def nobody(key: object) -> None:
    """The express lane's pick for a route whose server depends on more than the address, or must be waited for."""
